from __future__ import annotations

import pytest

from celery_coord.lease import Cooling, Held, Look, Owner, is_of_same_run, kept_for_next, trusted_until


def test_a_lease_is_believed_for_less_than_its_ttl_counted_from_before_the_request() -> None:
    assert 128 < trusted_until(100.0, 30.0) < 130


@pytest.mark.parametrize("run", ["4f0d", "with/slash", "a/1/b", "späti"])
def test_an_owner_survives_being_written(run: str) -> None:
    owner = Owner.new(run, 3)

    assert Owner.parse(str(owner)) == owner


@pytest.mark.parametrize("text", ["", "no-slash", "base64==", "a/b/c", "/1/x", "a/1/", "a/-1/x", "a/²/x"])
def test_what_another_library_wrote_is_no_owner(text: str) -> None:
    assert Owner.parse(text) is None


def test_an_owner_is_never_used_twice() -> None:
    assert len({str(Owner.new("run")) for _ in range(1000)}) == 1000


def test_an_earlier_delivery_and_a_later_generation_are_the_same_run_but_an_earlier_generation_gives_way() -> None:
    first, retry = Owner.new("run", 0), Owner.new("run", 1)

    assert is_of_same_run(Held("k", str(Owner.new("run", 0)), 1.0), first)
    assert is_of_same_run(Held("k", str(retry), 1.0), first)
    assert not is_of_same_run(Held("k", str(first), 1.0), retry)
    assert not is_of_same_run(Cooling("k", str(Owner.new("other")), 1.0), first)
    assert not is_of_same_run(Held("k", "another library's", 1.0), first)


def test_a_look_reads_as_a_sentence_and_is_false_when_the_key_is_free() -> None:
    held, cooling = Held("k", "run/0/x", 12.34, 7, "a worker"), Cooling("k", "run/0/x", None)

    assert str(Look("k", held, None)) == "k is held by run/0/x (a worker), 12.3 s left"
    assert str(Look("k", None, cooling)) == "k is cooling since the run of run/0/x, without an end"
    assert str(Look("k", None, None)) == "k is free"
    assert Look("k", held, cooling)
    assert not Look("k", None, None)


@pytest.mark.parametrize(
    ("holder", "left", "overdue"),
    [
        ("run/0/x", 30.0, False),
        ("run/0/x", 30.005, False),  # a store may count in milliseconds
        ("run/0/x", 3600.0, True),
        (kept_for_next("run/0/x"), 3600.0, False),
        (kept_for_next("run/0/x"), 1.0, False),
    ],
)
def test_who_has_more_left_than_a_lease_lasts_has_not_renewed_since_the_clock_was_set_back(
    holder: str, left: float, overdue: bool
) -> None:
    """8. No run is dropped in favour of a holder that has stopped renewing; a key that is kept is nobody's to renew."""
    assert Held("k", holder, left, 1, "", 30.0).overdue is overdue
