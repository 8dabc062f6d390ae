"""Signals: one for each thing that can happen, in Celery's way.

Receivers get the fields of the event of the same name in `celery_coord.events` as keyword arguments; the sender is the
application. They run where the event happens, in the worker, and an exception of theirs is logged and passed over.

    @celery_coord.signals.task_dropped.connect
    def count(sender, task, reason, holder, left, **fields): ...
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from celery.utils.dispatch import Signal

from celery_coord import events


def _signal(event: type[events.Event]) -> Signal:
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", event.__name__).lower()
    fields = {field.name for field in dataclasses.fields(event)}
    return Signal(name=name, providing_args=fields)


lease_acquired = _signal(events.LeaseAcquired)
lease_released = _signal(events.LeaseReleased)
lease_abandoned = _signal(events.LeaseAbandoned)
lease_kept = _signal(events.LeaseKept)
lease_lost = _signal(events.LeaseLost)
lease_outlived = _signal(events.LeaseOutlived)
cooldown_started = _signal(events.CooldownStarted)
cooldown_cleared = _signal(events.CooldownCleared)
task_dropped = _signal(events.TaskDropped)
task_deferred = _signal(events.TaskDeferred)
task_duplicate = _signal(events.TaskDuplicate)
task_unguarded = _signal(events.TaskUnguarded)
store_failed = _signal(events.StoreFailed)
store_recovered = _signal(events.StoreRecovered)
leader_elected = _signal(events.LeaderElected)
leader_observed = _signal(events.LeaderObserved)
leader_resigned = _signal(events.LeaderResigned)
leader_deposed = _signal(events.LeaderDeposed)
leader_held_back = _signal(events.LeaderHeldBack)
component_failed = _signal(events.ComponentFailed)
entry_skipped = _signal(events.EntrySkipped)
entry_failed = _signal(events.EntryFailed)

SIGNALS: dict[type[events.Event], Signal] = {
    events.LeaseAcquired: lease_acquired,
    events.LeaseReleased: lease_released,
    events.LeaseAbandoned: lease_abandoned,
    events.LeaseKept: lease_kept,
    events.LeaseLost: lease_lost,
    events.LeaseOutlived: lease_outlived,
    events.CooldownStarted: cooldown_started,
    events.CooldownCleared: cooldown_cleared,
    events.TaskDropped: task_dropped,
    events.TaskDeferred: task_deferred,
    events.TaskDuplicate: task_duplicate,
    events.TaskUnguarded: task_unguarded,
    events.StoreFailed: store_failed,
    events.StoreRecovered: store_recovered,
    events.LeaderElected: leader_elected,
    events.LeaderObserved: leader_observed,
    events.LeaderResigned: leader_resigned,
    events.LeaderDeposed: leader_deposed,
    events.LeaderHeldBack: leader_held_back,
    events.ComponentFailed: component_failed,
    events.EntrySkipped: entry_skipped,
    events.EntryFailed: entry_failed,
}


def send(sender: Any, event: events.Event) -> None:
    """Send the signal of an event, if anybody listens."""
    signal = SIGNALS[type(event)]
    if signal.receivers:
        fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
        signal.send(sender=sender, **fields)
