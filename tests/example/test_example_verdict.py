"""The demo's verdict says yes to good journals, and no to bad ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from journal_entries import DISCOVER, REFRESH, asked, dropped, elected, entered, killed, left

from example_project.demo import verdict
from example_project.journal import Entry


def good_journal() -> list[Entry]:
    """One of each thing that happens in the demo, and all promises kept."""
    return [
        elected(0.0, pid=1),
        asked(0.9, "d", task=DISCOVER, cluster=""),
        asked(1.0, "a"),
        asked(1.0, "b"),
        entered(1.1, "a", 100),
        dropped(1.2, "b", "held"),
        replace(left(1.9, "d", 0, cluster=""), task=DISCOVER),
        left(2.0, "a", 100),
        asked(2.1, "c"),
        dropped(2.2, "c", "cooling"),
        asked(5.0, "e"),
        entered(5.1, "e", 200),
        *killed(5.5, 11),
        *killed(6.0, 1),
        elected(8.5, pid=2, term=2),
        asked(9.0, "f", pid=2),
        entered(10.2, "f", 300, pid=13),
        dropped(10.5, "e", "held"),
        left(11.2, "f", 300, pid=13),
    ]


def judge(journal: list[Entry], *, unanswered: int | None = 0) -> list[verdict.Promise]:
    return verdict.promises(
        journal, refresh=REFRESH, discover=DISCOVER, quiet=3.0, leader_ttl=3.0, unanswered=unanswered
    )


def test_a_good_journal_keeps_every_promise() -> None:
    assert [promise for promise in judge(good_journal()) if not promise.kept] == []


def test_an_empty_journal_proves_nothing() -> None:
    broken = {promise.seen.partition(":")[0] for promise in judge([]) if not promise.kept}

    assert broken == {
        "quiet periods kept",
        "nobody took over",
        "dropped as held",
        "killed in mid-refresh",
    }


@pytest.mark.parametrize(
    ("seen", "bad"),
    [
        (
            "overlapping bodies: 1",
            [entered(20.0, "x", 400), entered(20.5, "y", 500, pid=14), left(21, "y", 500, pid=14)],
        ),
        ("tokens that did not grow: 1", [entered(20.0, "x", 300)]),
        ("quiet periods kept: 1 of 2", [entered(12.0, "x", 400), left(13.0, "x", 400)]),
        ("sent by others: 1", [asked(20.0, "d2", task=DISCOVER, pid=1), dropped(20.1, "d2")]),
        ("lost runs: 1", [asked(20.0, "x")]),
        ("failed bodies: 1", [entered(20.0, "x", 400), left(21.0, "x", 400, detail="failed")]),
        ("killed in mid-refresh", [entered(20.0, "x", 400, pid=15), *killed(20.5, 15)]),
    ],
)
def test_one_bad_thing_breaks_the_promise_that_speaks_of_it(seen: str, bad: list[Entry]) -> None:
    broken = [promise.seen for promise in judge(good_journal() + bad) if not promise.kept]

    assert len(broken) == 1
    assert broken[0].startswith(seen)


@pytest.mark.parametrize(("unanswered", "seen"), [(2, "2"), (None, "not counted")])
def test_a_run_without_an_answer_breaks_a_promise(unanswered: int | None, seen: str) -> None:
    broken = [promise.seen for promise in judge(good_journal(), unanswered=unanswered) if not promise.kept]

    assert broken == [f"runs without an answer: {seen}"]


def test_bodies_on_two_clusters_do_not_overlap() -> None:
    journal = [entered(1, "a", 1), entered(1, "b", 1, cluster="billing"), left(2, "a", 1)]

    assert verdict.overlaps(journal) == []


def test_a_body_that_was_killed_ends_at_the_kill() -> None:
    journal = [entered(1, "a", 1), *killed(2, 11), entered(6, "b", 2, pid=12), left(7, "b", 2, pid=12)]

    assert verdict.overlaps(journal) == []


def test_a_body_that_is_entered_before_the_kill_of_another_overlaps_it() -> None:
    journal = [entered(1, "a", 1), entered(2, "b", 2, pid=12), *killed(3, 11)]

    assert len(verdict.overlaps(journal)) == 1


def test_a_smaller_token_after_a_kill_is_an_overlap() -> None:
    journal = [entered(1, "a", 2), *killed(2, 11), entered(6, "b", 1, pid=12)]

    assert len(verdict.overlaps(journal)) == 1


def test_the_kill_of_another_process_excuses_nothing() -> None:
    journal = [entered(1, "a", 1), *killed(2, 99), entered(6, "b", 2, pid=12)]

    assert len(verdict.overlaps(journal)) == 1


def test_a_kill_excuses_no_body_that_was_entered_after_it() -> None:
    journal = [*killed(1, 11), entered(2, "a", 1, pid=11), entered(3, "b", 2, pid=12)]

    assert len(verdict.overlaps(journal)) == 1


def test_a_body_that_leaves_after_its_kill_was_not_dead() -> None:
    journal = [entered(1, "a", 1), *killed(2, 11), left(3, "a", 1)]

    assert len(verdict.overlaps(journal)) == 1


def test_a_body_that_leaves_after_another_was_entered_is_an_overlap() -> None:
    journal = [entered(1, "a", 1), *killed(2, 11), entered(6, "b", 2, pid=12), left(6.5, "a", 1)]

    assert len(verdict.overlaps(journal)) == 1


def test_a_failed_body_leaves_no_quiet_period_to_be_kept() -> None:
    journal = [entered(1, "a", 1), left(2, "a", 1, detail="failed"), entered(2.1, "b", 2)]

    assert list(verdict.pauses(journal, REFRESH)) == []


def test_the_quiet_periods_of_clusters_are_counted_apart() -> None:
    journal = [
        left(1, "a", 1),
        left(2, "b", 1, cluster="billing"),
        entered(4, "c", 2),
        entered(6, "d", 2, cluster="billing"),
    ]

    assert list(verdict.pauses(journal, REFRESH)) == [("orders", 3), ("billing", 4)]


def test_a_run_that_was_sent_again_is_lost_only_if_it_never_ends() -> None:
    again = [asked(1, "a"), entered(1, "a", 1), *killed(2, 11), asked(2, "a", pid=12)]

    assert verdict.lost(again) == ["a"]
    assert verdict.lost([*again, entered(8, "a", 2, pid=12), left(9, "a", 2, pid=12)]) == []


def test_a_take_over_is_counted_from_the_kill_of_the_leader() -> None:
    journal = [elected(0, 1), *killed(3, 11), *killed(5, 1), elected(7.5, 2)]

    assert verdict.take_over(journal) == 2.5


@pytest.mark.parametrize(
    "journal",
    [
        [elected(0, 1), *killed(5, 1)],
        [elected(0, 1), *killed(5, 2), elected(6, 3)],
        [elected(0, 1), *killed(5, 1), elected(6, 1)],
    ],
    ids=["nobody was elected after", "a follower was killed", "the dead one was elected"],
)
def test_what_is_no_take_over_is_not_counted_as_one(journal: list[Entry]) -> None:
    assert verdict.take_over(journal) is None


def test_a_late_take_over_breaks_its_promise() -> None:
    late = [
        replace(entry, at=10.1) if entry.what == "elected" and entry.pid == 2 else entry for entry in good_journal()
    ]

    assert [promise.seen for promise in judge(late) if not promise.kept] == ["take-over: 4.10 s"]


def test_a_body_that_had_left_was_not_interrupted_by_a_kill() -> None:
    assert verdict.interrupted([entered(1, "a", 1), left(2, "a", 1), *killed(3, 11)]) == []


def test_the_end_of_a_killed_run_is_found_wherever_it_ends() -> None:
    [(body, end)] = verdict.interrupted([entered(1, "a", 1), *killed(2, 11), entered(8, "a", 2), left(9, "a", 2)])

    assert (body.token, end and end.token) == (1, 2)
