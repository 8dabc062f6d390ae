"""The judge of a load is judged: what is wrong it says, and nothing else."""

from __future__ import annotations

import pytest

from tests.servers.load_judge import RAN, REFUSED, Body, History, Run, judge


def body(owner: str, token: int, asked: float, till: float, key: str = "k") -> Body:
    return Body(key, owner, token, asked, asked + 0.1, till)


def history(*bodies: Body) -> History:
    return History(list(bodies), [Run(body.key, body.owner, 9.0, RAN) for body in bodies])


def test_one_after_the_other_is_as_it_should_be() -> None:
    verdict = judge(history(body("a", 1, 0.0, 1.0), body("b", 2, 0.5, 0.6, key="other"), body("c", 3, 1.0, 2.0)))

    assert verdict.objections == []


def test_two_that_trust_at_once_are_an_overlap_also_where_a_short_one_stands_between() -> None:
    verdict = judge(history(body("a", 1, 0.0, 5.0), body("b", 2, 1.0, 1.5), body("c", 3, 3.0, 4.0)))

    assert len(verdict.overlaps) == 2
    assert not verdict.wrong


def test_one_that_found_its_lease_lost_as_it_began_overlaps_nobody() -> None:
    asleep = Body("k", "a", 1, asked=0.0, began=3.5, trusted_till=3.5, lost=True)

    assert judge(history(asleep, body("b", 2, 3.3, 4.0))).objections == []


@pytest.mark.parametrize("token", [7, 6])
def test_a_token_that_does_not_grow_is_wrong(token: int) -> None:
    assert judge(history(body("a", 7, 0.0, 0.5), body("b", token, 1.0, 1.5))).wrong


def test_tokens_of_two_that_were_asked_for_at_once_may_be_in_any_order() -> None:
    assert not judge(history(body("a", 7, 0.0, 0.2), body("b", 6, 0.05, 0.12))).wrong


def test_a_body_whose_run_was_refused_is_wrong() -> None:
    told = history(body("a", 1, 0.0, 0.5))
    told.runs[0] = Run("k", "a", 9.0, REFUSED)

    assert judge(told).wrong


def test_an_admitted_run_without_a_body_and_a_body_without_an_end_are_wrong() -> None:
    told = history(body("a", 1, 0.0, 0.5))
    told.runs[0] = Run("k", "b", 9.0, RAN)

    assert len(judge(told).wrong) == 2


def test_a_run_that_does_not_end_is_wrong() -> None:
    assert judge(History(stuck=["a run has not ended"])).wrong
