"""The demo's verdict says yes to good journals, and no to bad ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from journal_entries import (
    COMPONENT,
    DISCOVER,
    REFRESH,
    asked,
    began,
    dropped,
    elected,
    ended,
    entered,
    killed,
    left,
)

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
        replace(left(1.9, "d", 0, cluster=""), task=DISCOVER, found=1),
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
        elected(12.0, pid=3, term=10, name=COMPONENT),
        *(began(12.1, 3, 10), ended(12.2, 3, 10, found=1)),
        *(began(13.1, 3, 10), ended(13.2, 3, 10)),
        *killed(13.5, 3),
        elected(16.5, pid=4, term=20, name=COMPONENT),
        *(began(17.5, 4, 20), ended(17.6, 4, 20)),
    ]


def judge(journal: list[Entry], *, unanswered: int | None = 0) -> list[verdict.Promise]:
    return verdict.promises(
        journal,
        refresh=REFRESH,
        discover=DISCOVER,
        component=COMPONENT,
        every=1.0,
        quiet=3.0,
        leader_ttl=3.0,
        unanswered=unanswered,
    )


def test_a_good_journal_keeps_every_promise() -> None:
    assert [promise for promise in judge(good_journal()) if not promise.kept] == []


def test_an_empty_journal_proves_nothing() -> None:
    broken = {promise.seen.partition(":")[0] for promise in judge([]) if not promise.kept}

    assert broken == {
        "quiet periods kept",
        "nobody took over",
        "dropped as held",
        "found by the task",
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
        ("overlapping rounds: 1", [began(20.0, 4, 20), began(20.1, 5, 30), ended(20.2, 5, 30)]),
        ("terms that did not grow: 1", [began(20.0, 3, 10), ended(20.1, 3, 10)]),
        ("failed rounds: 1", [began(20.0, 4, 20), ended(20.1, 4, 20, detail="failed")]),
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

    assert verdict.take_over(journal, "elected", "beat") == 2.5


def test_a_take_over_of_a_component_is_counted_to_its_first_round() -> None:
    journal = [began(0, 1, 10), ended(0.1, 1, 10), *killed(5, 1), elected(7, 2, name=COMPONENT), began(7.5, 2, 20)]

    assert verdict.take_over(journal, "began", COMPONENT) == 2.5


@pytest.mark.parametrize(
    "journal",
    [
        [elected(0, 1), *killed(5, 1)],
        [elected(0, 1), *killed(5, 2), elected(6, 3)],
        [elected(0, 1), *killed(5, 1), elected(6, 1)],
        [elected(0, 1), *killed(5, 1), elected(6, 2, name=COMPONENT)],
    ],
    ids=["nobody was elected after", "a follower was killed", "the dead one was elected", "for something else"],
)
def test_what_is_no_take_over_is_not_counted_as_one(journal: list[Entry]) -> None:
    assert verdict.take_over(journal, "elected", "beat") is None


def test_a_late_take_over_breaks_its_promise() -> None:
    late = [
        replace(entry, at=10.1) if entry.what == "elected" and entry.pid == 2 else entry for entry in good_journal()
    ]

    assert [promise.seen for promise in judge(late) if not promise.kept] == ["take-over: 4.10 s"]


def test_a_late_round_after_a_crash_breaks_its_promise() -> None:
    late = [replace(entry, at=entry.at + 1.1) if entry.pid == 4 else entry for entry in good_journal()]

    assert [promise.seen for promise in judge(late) if not promise.kept] == ["take-over: 5.10 s"]


@pytest.mark.parametrize("kind", [DISCOVER, COMPONENT])
def test_a_discovery_that_never_found_anything_breaks_a_promise(kind: str) -> None:
    blind = [replace(entry, found=0) if entry.task == kind else entry for entry in good_journal()]

    assert [promise.seen.partition(":")[0] for promise in judge(blind) if not promise.kept] == ["found by the task"]


def test_the_election_of_a_component_says_nothing_of_who_may_send() -> None:
    journal = [elected(0, 1), elected(1, 3, name=COMPONENT), asked(2, "d", task=DISCOVER, pid=1)]

    assert verdict.sent_by_followers(journal, DISCOVER) == []


def test_a_round_that_was_killed_ends_at_the_kill() -> None:
    journal = [began(1, 3, 10), *killed(2, 3), began(6, 4, 20), ended(7, 4, 20)]

    assert verdict.overlapping_rounds(journal) == []


@pytest.mark.parametrize(
    "journal",
    [
        [began(1, 3, 10), *killed(2, 4), began(6, 5, 20)],
        [*killed(1, 3), began(2, 3, 10), began(3, 4, 20)],
        [began(1, 3, 10), *killed(2, 3), ended(3, 3, 10)],
        [began(1, 3, 10), began(1.5, 3, 10)],
    ],
    ids=["another was killed", "it began after the kill", "it was not dead", "twice in one process"],
)
def test_a_round_beside_another_is_an_overlap(journal: list[Entry]) -> None:
    assert len(verdict.overlapping_rounds(journal)) == 1


def test_one_process_has_many_rounds_in_a_term() -> None:
    assert verdict.terms_that_did_not_grow([began(1, 3, 10), began(2, 3, 10), began(3, 4, 20)]) == []


@pytest.mark.parametrize(
    "journal",
    [
        [began(1, 3, 10), began(2, 4, 10)],
        [began(1, 3, 10), began(2, 4, 20), began(3, 3, 10)],
        [began(1, 3, 20), began(2, 3, 10)],
    ],
    ids=["one term in two processes", "a process whose term was over", "a term that fell"],
)
def test_terms_that_do_not_grow_are_seen(journal: list[Entry]) -> None:
    assert len(verdict.terms_that_did_not_grow(journal)) == 1


def test_a_body_that_had_left_was_not_interrupted_by_a_kill() -> None:
    assert verdict.interrupted([entered(1, "a", 1), left(2, "a", 1), *killed(3, 11)]) == []


def test_the_end_of_a_killed_run_is_found_wherever_it_ends() -> None:
    [(body, end)] = verdict.interrupted([entered(1, "a", 1), *killed(2, 11), entered(8, "a", 2), left(9, "a", 2)])

    assert (body.token, end and end.token) == (1, 2)
