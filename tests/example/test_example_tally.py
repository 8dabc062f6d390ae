"""What the demo counts."""

from __future__ import annotations

from journal_entries import COMPONENT, REFRESH, asked, dropped, elected, ended, entered, killed, left

from example_project.demo.tally import Tally


def test_a_run_counts_as_asked_for_once_however_often_its_message_is_sent() -> None:
    tally = Tally()

    tally.add([asked(1, "a"), asked(2, "a"), asked(3, "b", cluster="billing")])

    assert tally.of(REFRESH).asked == 2
    assert tally.of(REFRESH, "orders").asked == 1
    assert tally.asked == {"a", "b"}


def test_ends_are_counted_by_what_they_were() -> None:
    tally = Tally()

    tally.add([entered(1, "a", 1), left(2, "a", 1, commands=15), left(3, "b", 2, detail="failed")])
    tally.add([dropped(4, "c", "held"), dropped(5, "d", "cooling"), dropped(6, "e", "cooling")])

    count = tally.of(REFRESH)
    assert (count.ran, count.failed, count.dropped["held"], count.dropped["cooling"]) == (1, 1, 1, 2)
    assert tally.commands == 15


def test_a_body_runs_until_it_leaves_or_is_killed() -> None:
    tally = Tally()

    tally.add([entered(1, "a", 1, pid=21), entered(1, "b", 1, cluster="billing", pid=22)])
    tally.add([entered(1, "c", 1, cluster="sessions", pid=23), left(2, "a", 1, pid=21), *killed(3, 22)])

    assert [body.task_id for body in tally.running(REFRESH)] == ["c"]


def test_the_leader_is_who_was_elected_last_for_each_thing_that_is_led() -> None:
    tally = Tally()

    tally.add([elected(1, 7), elected(2, 8), elected(3, 9, name=COMPONENT)])

    assert tally.leaders == {"beat": 8, COMPONENT: 9}


def test_rounds_are_counted_by_process_and_term() -> None:
    tally = Tally()

    tally.add([ended(1, 7, 10), ended(2, 7, 10), ended(3, 8, 20)])

    assert tally.rounds == {(COMPONENT, 7, 10): 2, (COMPONENT, 8, 20): 1}
