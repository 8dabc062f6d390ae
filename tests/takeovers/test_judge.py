"""The judge objects: a check that cannot fail says nothing. The histories are made up, each wrong in one way."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from tests.takeovers.history import CRASH, PAUSE, SHORT_STALL, Claim, Elected, History, Message, Payment, Struck
from tests.takeovers.judge import EXCUSE, Verdict, judge

START = 1000.0
END = 1010.0
#: The first term ends here by a crash, and the second one leads until the end.
CRASHED = 1005.1
PIDS = {1: 11, 2: 22}


def test_a_history_in_which_all_is_well_has_no_objections() -> None:
    verdict = judge(history())

    assert verdict == Verdict()


def test_an_instant_that_is_sent_twice_is_an_objection() -> None:
    """15. Each due instant of a schedule entry is sent at most once."""
    verdict = judge(history([*events(), *sends("grid", 1003.5, at=1004.0)]))

    [told] = verdict.twice
    assert told.startswith("grid of 1003.50 was sent 2 times: at 1003.5")


def test_an_instant_that_is_sent_twice_from_one_claim_is_an_objection() -> None:
    verdict = judge(history([*events(), sends("grid", 1003.5, at=1004.0)[1]]))

    [told] = verdict.twice
    assert told.startswith("grid of 1003.50 was sent 2 times: at 1003.5")


def test_an_instant_that_is_missing_is_an_objection() -> None:
    """15. While one beat lives, each due instant is sent at least once (late, not never)."""
    verdict = judge(history(without("grid", 1003.5)))

    assert [told.split(";")[0] for told in verdict.missing] == ["grid of 1003.500000 was never sent"]


def test_an_instant_that_was_claimed_and_not_sent_is_an_objection() -> None:
    verdict = judge(history(without("grid", 1003.5, Message)))

    [told] = verdict.missing
    assert told.startswith("grid of 1003.500000 was never sent; claimed in term 1 at 1003.5")
    assert verdict.excused == []


@pytest.mark.parametrize("entry", ["grid", "interval"])
@pytest.mark.parametrize("at", [0.9, -0.9])
@pytest.mark.parametrize("excuse", [EXCUSE, 4 * EXCUSE])
def test_an_instant_whose_claimer_was_killed_in_that_instant_is_excused(entry: str, at: float, excuse: float) -> None:
    """At most once wins over at least once in one place: a beat that is killed between its claim and the send."""
    log = without(entry, 1005.0, Message)
    claim = next(event for event in log if is_of(event, entry, 1005.0))
    log.remove(claim)
    last = max(place for place, event in enumerate(log) if event.term == 1)

    struck = [crash(term=1, at=claim.at + at * excuse)]
    verdict = judge(history([*log[: last + 1], claim, *log[last + 1 :]], struck=struck), excuse)

    assert len(verdict.excused) == 1
    assert verdict.objections == []


@pytest.mark.parametrize("entry", ["grid", "interval"])
@pytest.mark.parametrize(
    "struck",
    [
        Struck(CRASH, 1005.005 + EXCUSE * 2, PIDS[1], 1),
        Struck(CRASH, 1005.005 - EXCUSE * 2, PIDS[1], 1),
        Struck(CRASH, 1005.005, PIDS[2], 2),
        Struck(PAUSE, 1005.005, PIDS[1], 1),
    ],
    ids=["killed later", "killed earlier", "another was killed", "paused"],
)
def test_nothing_else_is_an_excuse(entry: str, struck: Struck) -> None:
    verdict = judge(history(without(entry, 1005.0, Message), struck=[struck]))

    assert verdict.excused == []
    assert len(verdict.missing) == 1


def test_of_two_instants_that_were_claimed_and_not_sent_a_kill_excuses_the_last() -> None:
    """A beat sends one after the other: what it claimed before was not cut off by the kill."""
    log = [
        event
        for event in without("grid", 1005.0, Message)
        if not is_of(event, "interval", 1005.0) or event.at < 1005.006
    ]

    verdict = judge(history(log, struck=[crash(term=1, at=1005.01)]))

    assert len(verdict.excused) == 1
    assert len(verdict.missing) == 1


def test_an_instant_that_nobody_claimed_is_not_excused_by_a_kill() -> None:
    verdict = judge(history(without("grid", 1005.0), struck=[crash(term=1, at=1005.005)]))

    assert verdict.excused == []
    assert len(verdict.missing) == 1


def test_an_entry_that_is_sent_no_more_before_the_end_is_an_objection() -> None:
    verdict = judge(history([event for event in events() if event.entry != "grid" or event.at < 1006.3]))

    assert "grid of 1006.500000 was never sent; never claimed" in verdict.missing
    assert len(verdict.missing) == 6


def test_an_entry_that_is_never_sent_is_an_objection() -> None:
    verdict = judge(history([event for event in events() if event.entry != "grid"]))

    assert len(verdict.missing) >= 15


def test_an_instant_that_is_none_of_the_grid_is_an_objection() -> None:
    verdict = judge(history([*events(), *sends("grid", 1009.6)]))

    assert any("when it was not due" in told for told in verdict.wrong)


def test_a_message_for_no_instant_is_an_objection() -> None:
    verdict = judge(history([*events(), Message(1009.6, "grid", None, 2, PIDS[2])]))

    assert verdict.wrong == ["grid was sent in term 2 for no instant of the schedule"]


def test_a_message_of_an_unknown_entry_is_an_objection() -> None:
    verdict = judge(history([*events(), *sends("stranger", 1009.6)]))

    assert verdict.wrong == ["stranger was sent in term 2 for no instant of the schedule"]


def test_an_interval_that_is_sent_twice_is_an_objection() -> None:
    verdict = judge(history(sorted([*events(), sends("interval", 1003.0)[1]], key=lambda event: event.at)))

    [told] = verdict.twice
    assert told.startswith("interval of 1003.000000 was sent twice: at 1003.0")


def test_an_interval_that_goes_back_is_an_objection() -> None:
    claim, message = sends("interval", 1008.0)
    late = dataclasses.replace(message, at=1009.5)

    verdict = judge(history(sorted([*without("interval", 1008.0), claim, late], key=lambda event: event.at)))

    assert verdict.wrong == ["interval of 1008.000000 was sent after that of 1009.000000"]


def test_an_interval_that_an_older_term_had_claimed_may_come_late() -> None:
    claim, message = sends("interval", 1005.0)
    late = dataclasses.replace(message, at=1007.5)

    verdict = judge(history(sorted([*without("interval", 1005.0), claim, late], key=lambda event: event.at)))

    assert verdict == Verdict()


def test_an_interval_that_is_not_due_its_seconds_after_the_last_run_is_an_objection() -> None:
    log = [
        dataclasses.replace(event, due=1003.3)
        if isinstance(event, Message) and is_of(event, "interval", 1003.0)
        else event
        for event in events()
    ]

    verdict = judge(history(log))

    assert "interval of 1003.300000 was sent in term 1, which had not claimed it" in verdict.wrong
    assert [told.split(";")[0] for told in verdict.missing] == ["interval of 1003.000000 was never sent"]


def test_an_interval_that_is_sent_no_more_before_the_end_is_an_objection() -> None:
    verdict = judge(history([event for event in events() if event.entry != "interval" or event.at < 1006.0]))

    assert verdict.wrong == ["interval was not sent any more at the end"]


def test_a_claim_that_was_undone_and_made_again_is_no_objection() -> None:
    """A publish that fails un-claims the instant; it is tried again."""
    claim, message = sends("grid", 1003.5)
    undo = Claim(claim.at + 0.001, "grid", 1003.0, 1)
    again = dataclasses.replace(claim, at=claim.at + 0.002)
    late = dataclasses.replace(message, at=claim.at + 0.003)

    verdict = judge(history(sorted([*without("grid", 1003.5), claim, undo, again, late], key=lambda event: event.at)))

    assert verdict == Verdict()


def test_a_claim_that_an_old_term_undoes_is_no_objection() -> None:
    """What is written back is the last run before: a value of an older term, written after one of a newer."""
    began = [Claim(1000.0, "grid", 1000.0, 1), Claim(1000.0, "interval", 1000.0, 1)]
    claims = [Claim(1000.5, "grid", 1000.5, 1), Claim(1001.0, "interval", 1001.0, 2)]
    undone = [Claim(1001.1, "grid", 1000.0, 1), Claim(1001.2, "grid", 1000.5, 2)]

    verdict = judge(history([*began, *claims, *undone]))

    assert not any("after a claim" in told for told in verdict.wrong)


def test_a_claim_that_was_undone_and_never_made_again_is_an_objection() -> None:
    claim, _ = sends("grid", 1005.0)
    undo = Claim(claim.at + 0.001, "grid", 1004.5, 1)
    log = sorted([*without("grid", 1005.0), claim, undo], key=lambda event: event.at)

    verdict = judge(history(log, struck=[crash(term=1, at=claim.at)]))

    assert len(verdict.missing) == 1
    assert verdict.excused == []


def test_a_message_without_a_claim_is_an_objection() -> None:
    verdict = judge(history(without("grid", 1003.5, Claim)))

    assert verdict.wrong[0] == "grid of 1003.500000 was sent in term 1, which had not claimed it"


def test_a_message_before_its_claim_is_an_objection() -> None:
    claim, message = sends("grid", 1003.5)
    log = sorted(
        [*without("grid", 1003.5), message, dataclasses.replace(claim, at=message.at)], key=lambda event: event.at
    )

    verdict = judge(history(log))

    assert verdict.wrong == ["grid of 1003.500000 was sent in term 1, which had not claimed it"]


def test_a_message_by_claim_of_another_term_is_an_objection() -> None:
    log = [
        dataclasses.replace(event, term=1, sender=PIDS[1])
        if isinstance(event, Message) and is_of(event, "grid", 1006.0)
        else event
        for event in events()
    ]

    verdict = judge(history(log))

    assert verdict.wrong == ["grid of 1006.000000 was sent in term 1, which had not claimed it"]


def test_an_old_term_may_still_send_what_it_had_claimed() -> None:
    """A beat that is paused between its claim and the send sends when it wakes: the instant is its own."""
    claim, message = sends("grid", 1005.0)
    late = dataclasses.replace(message, at=1006.2)

    verdict = judge(history(sorted([*without("grid", 1005.0), claim, late], key=lambda event: event.at)))

    assert verdict == Verdict()


def test_a_claim_of_an_old_term_after_one_of_a_newer_is_an_objection() -> None:
    log = [
        dataclasses.replace(event, term=1, sender=PIDS[1]) if isinstance(event, Message) else event
        for event in sends("grid", 1007.5)
    ]
    log[0] = dataclasses.replace(log[0], term=1)

    verdict = judge(history(sorted([*without("grid", 1007.5), *log], key=lambda event: event.at)))

    assert verdict.wrong == ["grid of 1007.500000 was claimed in term 1 after a claim of term 2"]


def test_two_processes_that_send_in_one_term_are_an_objection() -> None:
    """14. Two processes never both act inside their trust windows."""
    log = [
        dataclasses.replace(event, sender=33) if isinstance(event, Message) and is_of(event, "grid", 1007.5) else event
        for event in events()
    ]

    verdict = judge(history(log))

    assert verdict.wrong == ["2 processes sent in term 2"]


def test_a_sender_that_was_not_elected_is_an_objection() -> None:
    verdict = judge(history(elected=[Elected(START, 1, PIDS[1]), Elected(1005.5, 2, 33)]))

    assert verdict.wrong == ["another process sent in term 2 than the one that was elected"]


@pytest.mark.parametrize("second", [1, 2])
def test_terms_that_do_not_grow_are_an_objection(second: int) -> None:
    """1. Each holder's token is larger than every earlier one."""
    elected = [Elected(START, 1, PIDS[1]), Elected(1005.5, 2, PIDS[2]), Elected(1009.9, second, PIDS[second])]

    verdict = judge(history(elected=elected))

    assert verdict.wrong == [f"term {second} began after term 2"]


def test_a_message_before_its_instant_is_an_objection() -> None:
    log = sorted([*without("grid", 1003.5), *sends("grid", 1003.5, at=1003.4)], key=lambda event: event.at)

    verdict = judge(history(log))

    assert verdict.wrong == ["grid of 1003.500000 was sent 0.098 s too early"]


def history(
    log: Sequence[Claim | Message] | None = None,
    *,
    elected: Sequence[Elected] = (Elected(START, 1, PIDS[1]), Elected(1005.5, 2, PIDS[2])),
    struck: Sequence[Struck] = (Struck(CRASH, CRASHED, PIDS[1], 1),),
) -> History:
    return History({"grid": 0.5}, {"interval": 1.0}, events() if log is None else log, elected, struck, END)


def events() -> list[Claim | Message]:
    """All is well: a grid of every half second, and a second after each last run, over two terms."""
    grid = [event for n in range(int((END - START) * 2)) for event in sends("grid", START + 0.5 * n)]
    interval = [event for n in range(int(END - START)) for event in sends("interval", START + n)]
    return sorted([*grid, *interval], key=lambda event: event.at)


def claimed_at(due: float) -> float:
    """When that instant is claimed: at once, or, while nobody leads, by the next leader."""
    return (1005.6 if CRASHED < due < 1005.6 else due) + 0.005


def sends(entry: str, due: float, *, at: float | None = None) -> tuple[Claim, Message]:
    """An instant that is claimed and sent as it should be."""
    at = claimed_at(due) if at is None else at
    term = 1 if at <= CRASHED else 2
    return Claim(at, entry, due, term), Message(at + 0.002, entry, due, term, PIDS[term])


def without(entry: str, due: float, *kinds: type[Claim | Message]) -> list[Claim | Message]:
    """All is well but for one instant: its claim, its message or both are not there."""
    return [
        event for event in events() if not (is_of(event, entry, due) and isinstance(event, kinds or (Claim, Message)))
    ]


def is_of(event: Claim | Message, entry: str, due: float) -> bool:
    return event.entry == entry and (event.run if isinstance(event, Claim) else event.due) == due


def crash(*, term: int, at: float) -> Struck:
    return Struck(CRASH, at, PIDS[term], term)


@pytest.mark.parametrize(("entry", "due"), [("grid", 1005.0), ("interval", 1005.0)])
def test_an_instant_that_was_owed_may_be_sent_late_by_a_later_term_that_took_it_over(entry: str, due: float) -> None:
    claim, _ = sends(entry, due)
    late = Message(1007.55, entry, due, 2, PIDS[2])
    owed = [claim, Payment(1007.54, entry, due, 2), late]

    verdict = judge(history(sorted([*without(entry, due), *owed], key=lambda event: event.at)))

    assert verdict == Verdict()


def test_an_instant_of_an_older_term_that_nobody_took_over_is_an_objection_when_it_is_sent() -> None:
    claim, _ = sends("grid", 1005.0)
    late = Message(1007.55, "grid", 1005.0, 2, PIDS[2])
    after = Payment(1007.56, "grid", 1005.0, 2)

    verdict = judge(history(sorted([*without("grid", 1005.0), claim, late, after], key=lambda event: event.at)))

    assert verdict.wrong == ["grid of 1005.000000 was sent in term 2, which had not claimed it"]


@pytest.mark.parametrize("excuse", [EXCUSE, 4 * EXCUSE])
@pytest.mark.parametrize(("after_the_stall", "excused"), [(0.9, 1), (2, 0)])
def test_an_instant_whose_claimer_was_killed_as_the_stalled_store_went_on_is_excused(
    after_the_stall: float, excused: int, excuse: float
) -> None:
    """The claim is answered when the store goes on; until then nothing can be sent."""
    log = without("grid", 1005.0, Message)
    claim = next(event for event in log if is_of(event, "grid", 1005.0))
    log.remove(claim)
    last = max(place for place, event in enumerate(log) if event.term == 1)
    stall = Struck(SHORT_STALL, claim.at + 0.5, PIDS[1], 1)
    killed = crash(term=1, at=stall.at + after_the_stall * excuse)

    verdict = judge(history([*log[: last + 1], claim, *log[last + 1 :]], struck=[stall, killed]), excuse)

    assert len(verdict.excused) == excused
