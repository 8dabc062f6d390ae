"""A short run of ``python -m tests.takeovers``: each disaster once, and some more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.takeovers.disasters import take_over
from tests.takeovers.history import CRASH, LONG_STALL, PAUSE, RESIGN, SHORT_STALL, STEP_DOWN
from tests.takeovers.judge import judge
from tests.takeovers.project import TTL

pytestmark = pytest.mark.server

COUNT = 8


def test_no_instant_is_sent_twice_and_none_is_missing_over_take_overs_of_every_kind(tmp_path: Path) -> None:
    """15. Each due instant of a schedule entry is sent at most once even while two beats believe that they lead, and,
    while one beat lives, at least once (late, not never), but for what a kill cut off from its message."""
    history = take_over(COUNT, random.Random(1), tmp_path)

    verdict = judge(history, excuse=TTL / 5)  # a busy machine may let a claimer wait before it sends

    assert verdict.objections == []
    assert {struck.kind for struck in history.struck} == {CRASH, RESIGN, PAUSE, STEP_DOWN, LONG_STALL, SHORT_STALL}
    assert len(history.elected) > COUNT
