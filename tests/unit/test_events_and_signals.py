from __future__ import annotations

import dataclasses
import logging
from typing import Any, get_args

import pytest

from celery_coord import events, signals
from celery_coord.testing import FakeClock

EXAMPLES: dict[str, Any] = {"float": 1.5, "int": 7, "float | None": 1.5, "str": "text"}


def example(kind: type[events.Event]) -> events.Event:
    return kind(**{field.name: EXAMPLES[str(field.type)] for field in dataclasses.fields(kind)})


@pytest.mark.parametrize("kind", get_args(events.Event))
def test_whatever_can_happen_has_a_log_line_and_a_signal_with_its_fields(
    kind: type[events.Event], caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[dict[str, Any]] = []

    def receive(**fields: Any) -> None:
        seen.append(fields)

    signal = signals.SIGNALS[kind]
    signal.connect(receive, weak=False)
    try:
        with caplog.at_level(logging.DEBUG, logger="celery_coord"):
            events.Log(FakeClock())(example(kind))
            signals.send("an app", example(kind))
    finally:
        signal.disconnect(receive)

    assert len(caplog.records) == 1
    assert "{" not in caplog.records[0].getMessage()
    [fields] = seen
    assert fields["sender"] == "an app"
    assert dataclasses.asdict(example(kind)).items() <= fields.items()
    assert getattr(signals, signal.name) is signal


def test_a_drop_says_why_who_and_for_how_long(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="celery_coord"):
        events.Log(FakeClock())(events.TaskDropped("refresh", "id-1", "held", "k", "run/0/x", "worker 1", 4.26))

    assert caplog.messages == ["refresh[id-1] dropped: k is held by run/0/x (worker 1), 4.3 s left"]
