"""What an application has of coordination, in one process: its settings, store, keeper and gate.

Made when it is first needed, and made anew in a child after a fork: a thread does not survive one, and a
connection must not be shared over one.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from celery_coord import events, signals
from celery_coord.clock import Clock, SystemClock
from celery_coord.election import Candidate
from celery_coord.gate import Gate
from celery_coord.renewal import Keeper
from celery_coord.settings import Settings
from celery_coord.stores import Store
from celery_coord.stores.opening import open_store

_ATTRIBUTE = "_celery_coord"
_making = threading.Lock()


def _after_fork() -> None:
    global _making  # noqa: PLW0603  another thread of the parent may have held it at the fork
    _making = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class Coordination:
    """Everything that coordinates in this process, for one application.

    Args:
        app: the Celery application.
        clock: for tests: `celery_coord.testing.FakeClock`.

    Raises:
        ConfigurationError: a setting is wrong, or there is no store.
    """

    def __init__(self, app: Any, clock: Clock | None = None) -> None:
        self._app = app
        self.pid = os.getpid()
        self.settings = Settings.of(app)
        where = f"{socket.gethostname()}:{self.pid}"
        self.label = f"{where} {self.settings.label}" if self.settings.label else where
        self.clock = clock or SystemClock()
        self._log = events.Log(self.clock)
        self.store: Store = open_store(
            self.settings.url,
            namespace=self.settings.namespace,
            timeout=self.settings.store_timeout,
            clock=self.clock,
            transport_options=self.settings.transport_options,
            min_replicas=self.settings.min_replicas,
            max_connections=self.settings.max_connections,
            on_recovered=lambda seconds, failures: self.notify(events.StoreRecovered(seconds, failures)),
        )
        self.keeper = Keeper(self.store, self.clock, self.notify)
        self.gate = Gate(self.store, self.keeper, self.clock, self.notify)
        #: Whether tasks run in children of this process, which it may outlive; a worker says so as it starts.
        self.has_children = False

    def notify(self, event: events.Event) -> None:
        """Something happened: a log line and a signal."""
        self._log(event)
        signals.send(self._app, event)

    def candidate(
        self,
        name: str,
        *,
        ttl: float | None = None,
        label: str | None = None,
        term_limit: float | None = None,
        healthy: Callable[[], bool] = lambda: True,
    ) -> Candidate:
        """A candidate of this process for the leadership of a name, as the settings have it where nothing is said."""
        return Candidate(
            name,
            store=self.store,
            clock=self.clock,
            ttl=ttl or self.settings.leader_ttl,
            label=f"{self.label} {label}" if label else self.label,
            notify=self.notify,
            healthy=healthy,
            term_limit=term_limit or self.settings.leader_term_limit,
        )


def coordination(app: Any) -> Coordination:
    """The coordination of an application in this process.

    Raises:
        ConfigurationError: a setting is wrong, or there is no store.
    """
    found: Coordination | None = app.__dict__.get(_ATTRIBUTE)
    if found is None or found.pid != os.getpid():
        with _making:
            found = app.__dict__.get(_ATTRIBUTE)
            if found is None or found.pid != os.getpid():
                found = Coordination(app)
                install(app, found)
    return found


def install(app: Any, made: Coordination | None) -> None:
    """Let an application use this coordination; None: it makes a new one, from its settings as they then are."""
    app.__dict__[_ATTRIBUTE] = made
