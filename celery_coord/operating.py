"""What operators ask and say: who leads, and who should not any more."""

from __future__ import annotations

import time
from typing import Any

from celery_coord.app import coordination
from celery_coord.errors import CoordError
from celery_coord.keys import LEADER_PREFIX
from celery_coord.leader import Leader, leader_of
from celery_coord.stores import Store

_GLANCE = 0.05
#: How much longer than a third of its ttl a leader gets to hear of a request and follow it, in ttls.
_PATIENCE = 2.0
#: How long who takes over is waited for, in seconds: long enough for one who was not woken, and asks once a second.
_SUCCESSION = 2.0


def leaders(app: Any) -> list[Leader]:
    """Who leads what, in the application's namespace.

    Raises:
        ConfigurationError: the application's settings are wrong, or there is no store.
        StoreError: the store does not answer.
    """
    store = coordination(app).store
    names = [key.removeprefix(LEADER_PREFIX) for key in store.keys(LEADER_PREFIX)]
    found = [leader_of(store, name) for name in names]
    return [leader for leader in found if leader]


def step_down(app: Any, name: str, timeout: float | None = None) -> Leader | None:
    """Ask the leader of now to step down, and wait until it has.

    It hears of that at its next renewal, brings its work to an end, resigns, and lets others be faster for a ttl.

    Args:
        app: the Celery application.
        name: what is led.
        timeout: for how long to wait, in seconds. None: two ttls of the leader.

    Returns:
        Who leads after that; None where nobody does within two seconds.

    Raises:
        CoordError: nobody leads, or the leader did not step down in time.
        StoreError: the store does not answer.
    """
    store = coordination(app).store
    leader = leader_of(store, name)
    if leader is None:
        raise CoordError(f"nobody leads {name}: there is nobody to step down")
    key = f"{LEADER_PREFIX}{name}"
    held = store.look(key).held
    ttl = held.ttl if held and held.ttl else coordination(app).settings.leader_ttl
    patience = ttl * _PATIENCE if timeout is None else timeout
    store.ask(key, str(leader.term), patience + ttl)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        now = _successor(store, name, leader)
        if now is not leader:
            return now
        time.sleep(_GLANCE)
    raise CoordError(
        f"{leader.label or leader.holder} still leads {name} after {patience:.1f} s, in term {leader.term}"
    )


def _successor(store: Store, name: str, leader: Leader) -> Leader | None:
    """Who leads after this leader; the leader itself while it still does."""
    deadline = time.monotonic() + _SUCCESSION
    while True:
        now = leader_of(store, name)
        if now is not None:
            return leader if now.term == leader.term else now
        if time.monotonic() >= deadline:
            return None
        time.sleep(_GLANCE)
