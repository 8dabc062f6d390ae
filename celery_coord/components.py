"""Components: a function that runs again and again on one Celery worker of many.

    @component(app, every=30)
    def discover(term): ...

Every worker of the application campaigns for the component's name, in a thread of its main process, whatever its pool;
the one that is elected calls the function. It begins with the worker and ends with it, and does not end when the
broker's connection does. In a worker that was killed the leadership ends with the lease.

Not promised: a round while a pool of greenlets computes without a pause, or beside a solo pool's body that holds the
interpreter.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from celery import bootsteps

from celery_coord.app import coordination
from celery_coord.errors import ConfigurationError
from celery_coord.events import ComponentFailed
from celery_coord.leading import Election, checked_name
from celery_coord.policy import Seconds, seconds
from celery_coord.worker import CheckStep, warn_of_memory

Function = TypeVar("Function", bound=Callable[[int], object])

_ATTRIBUTE = "_celery_coord_components"
#: How long a worker that ends waits for rounds that are under way, in seconds; the leases of longer ones run out.
_PATIENCE = 5.0
#: How long a component that ended by itself pauses, in seconds.
_BEFORE_ANOTHER_TRY = 1.0


@dataclass(frozen=True, slots=True)
class _Component:
    """What `component` was told."""

    election: Election
    each_round: Callable[[int], object]
    every: Seconds
    longest_round: Seconds | None


def component(
    app: Any = None,
    *,
    every: Seconds | None = None,
    name: str | None = None,
    ttl: Seconds | None = None,
    label: str | None = None,
    term_limit: Seconds | None = None,
    longest_round: Seconds | None = None,
    elected: Callable[[int], object] = lambda _: None,
    deposed: Callable[[int], object] = lambda _: None,
) -> Callable[[Function], Function]:
    """Let a function run again and again on one worker of many; it gets the number of the term, and stays as it is.

    Its attribute ``election`` is the `celery_coord.Election`: a round can `ensure` that it still leads.

    Args:
        app: the Celery application whose workers campaign.
        every: from the beginning of a round to that of the next, in seconds.
        name: what the workers campaign for. None: the function's name.
        ttl: as in `celery_coord.Election`.
        label: as in `celery_coord.Election`.
        term_limit: as in `celery_coord.Election`.
        longest_round: after how many seconds in one round its worker is taken for stuck, and another one is elected.
            None: a round may last for as long as it likes.
        elected: as in `celery_coord.Election`.
        deposed: as in `celery_coord.Election`.

    Raises:
        ConfigurationError: an argument is out of range or of the wrong kind, or another component has the name.
    """
    if every is None or not hasattr(app, "steps"):
        msg = "a component needs an application and a pace: write @component(app, every=30)"
        raise ConfigurationError(msg)
    pace = seconds("component(every=...)", every, example="@component(app, every=30)")
    if longest_round is not None:
        longest_round = seconds("component(longest_round=...)", longest_round, example="longest_round=60")

    def register(function: Function) -> Function:
        known: dict[str, _Component] = app.__dict__.setdefault(_ATTRIBUTE, {})
        called = checked_name(name or function.__name__)
        _refuse_what_cannot_be_called(called, function)
        if called in known and known[called].each_round is not function:
            msg = f"there is a component {called!r} already: write @component(app, every=30, name='another')"
            raise ConfigurationError(msg)
        election = Election(
            called, app=app, ttl=ttl, label=label, term_limit=term_limit, elected=elected, deposed=deposed
        )
        known[called] = _Component(election, function, pace, longest_round)
        vars(function)["election"] = election
        app.steps["worker"].update([CheckStep, ComponentsStep])
        return function

    return register


def _refuse_what_cannot_be_called(name: str, function: Callable[[int], object]) -> None:
    if inspect.iscoroutinefunction(function):
        msg = f"the component {name} is a coroutine, and runs in a thread: write def {name}(term), without async"
        raise ConfigurationError(msg)
    try:
        inspect.signature(function).bind(0)
    except TypeError:
        msg = f"the component {name} gets the number of the term: write def {name}(term)"
        raise ConfigurationError(msg) from None


class ComponentsStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Begins and ends the components with their worker."""

    #: Begun after the children were forked, and ended before the pool's tasks have.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._components: dict[str, _Component] = parent.app.__dict__[_ATTRIBUTE]
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, parent: Any) -> None:
        """Celery's hook."""
        warn_of_memory(parent.app, "each worker runs its components")
        for name, known in self._components.items():
            thread = threading.Thread(target=self._run, args=(parent.app, known), name=f"component-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _run(self, app: Any, known: _Component) -> None:
        """A component, until the worker ends: a round that wants to end the process ends nothing but itself."""
        while not self._end.is_set():
            try:
                known.election.run(
                    known.each_round, every=known.every, until=self._end, longest_round=known.longest_round
                )
            except (Exception, SystemExit) as error:  # noqa: BLE001
                failed = ComponentFailed(known.election.name, "round", f"{type(error).__name__}: {error}")
                coordination(app).notify(failed)
            self._end.wait(_BEFORE_ANOTHER_TRY)

    def stop(self, parent: Any) -> None:  # noqa: ARG002  Celery's signature
        """Celery's hook: the components resign."""
        self._end.set()
        deadline = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    terminate = stop
