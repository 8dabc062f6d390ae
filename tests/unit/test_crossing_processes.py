"""What crosses from process to process, by pickle or through a result backend, is there what it was here."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import pickle
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery, states, uuid
from celery.result import AsyncResult

import celery_coord
from celery_coord import (
    ConfigurationError,
    Cooldown,
    Cooling,
    CoordError,
    Dropped,
    Exclusive,
    Held,
    LeaseLost,
    Look,
    NoLease,
    NotLeader,
    ParentLease,
    StoreError,
    TaskDropped,
    UnstableKey,
    events,
)
from celery_coord.claims import NotClaimed
from celery_coord.drop import Revoked
from celery_coord.errors import NewerLayout
from celery_coord.lease import Lease, Owner
from celery_coord.run import Replaced
from celery_coord.stores.redis.locks import NoAnswerError
from celery_coord.stores.redis.servers import TooFewReplicas
from celery_coord.testing import ServerMissing

ERRORS = [
    CoordError("any"),
    ConfigurationError("write this"),
    UnstableKey("no form"),
    NoLease("none"),
    LeaseLost("k", "run/0/x"),
    StoreError("away"),
    NewerLayout("k", 2, 1),
    TooFewReplicas(0, 1),
    NoAnswerError(),
    NotLeader("poller"),
    NotClaimed("nightly"),
    ServerMissing("install one"),
    Replaced("Replaced by new task"),
    TaskDropped("held", "k", "run/0/x", 1.5),
    TaskDropped("cooling", "k", "run/0/x", None),
]

VALUES = [
    Owner("run", 1, "x"),
    Lease("k", "run/0/x", 7, 30.0),
    Held("k", "run/0/x", 1.5, 7, "somebody"),
    Held("k", "a stranger", None),
    Cooling("k", "run/0/x", None),
    Look("k", Held("k", "run/0/x", 1.5), Cooling("k", "run/0/x", 1.5)),
    Dropped("held", "k", "run/0/x", 1.5),
    Exclusive(ttl=10, max_hold=60),
    Cooldown(60, on_failure=10, jitter=0.1),
    ParentLease("k", 7),
]

_SAMPLES: dict[Any, Any] = {str: "text", int: 7, float: 1.5, bool: True, float | None: None}

every_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
every_serializer = pytest.mark.parametrize("serializer", ["json", "pickle"])


def every_event() -> Iterator[events.Event]:
    """One of each kind of event."""
    for kind in get_args(events.Event):
        hints = get_type_hints(kind)
        yield kind(**{field.name: _SAMPLES[hints[field.name]] for field in dataclasses.fields(kind)})


def errors_of_ours() -> set[type]:
    """Every exception that a module of the package defines."""
    for module in pkgutil.walk_packages(celery_coord.__path__, "celery_coord."):
        importlib.import_module(module.name)
    found = (vars(module).values() for name, module in list(sys.modules.items()) if name.startswith("celery_coord"))
    return {
        value
        for value in itertools.chain.from_iterable(map(list, found))
        if isinstance(value, type) and issubclass(value, BaseException) and value.__module__.startswith("celery_coord")
    }


def assert_same(again: BaseException, error: BaseException) -> None:
    assert type(again) is type(error)
    assert again.args == error.args
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_no_error_of_ours_is_left_out_here() -> None:
    """Every error of the library is among those that these tests send from process to process."""
    assert {type(error) for error in ERRORS} | {Revoked} == errors_of_ours()


@every_error
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_pickles_by_every_protocol(error: Exception, protocol: int) -> None:
    """Errors cross processes: they pickle, and rebuild from their `args`."""
    assert_same(pickle.loads(pickle.dumps(error, protocol)), error)
    assert_same(type(error)(*error.args), error)


@every_error
def test_an_error_reaches_the_parent_of_a_pool(error: Exception) -> None:
    """A child hands the parent its error with a traceback: one that does not rebuild would end the whole worker."""
    try:
        raise error
    except Exception:
        raised = ExceptionInfo(sys.exc_info())

    again = pickle.loads(pickle.dumps(raised))

    assert type(error).__name__ in again.traceback
    assert_same(getattr(again.exception, "exc", again.exception), error)


def test_the_end_of_a_dropped_run_reaches_the_parent_of_a_pool() -> None:
    """What tells the tracer of a drop is handed to the parent as any exception: it must rebuild there, too."""
    told = Revoked(TaskDropped("held", "k", "run/0/x", 1.5))

    again = pickle.loads(pickle.dumps(told))

    assert type(again) is Revoked
    assert_same(again.error, told.error)


@pytest.fixture
def app(serializer: str) -> Iterator[Celery]:
    with Celery("results", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        app.conf.update(result_serializer=serializer, accept_content=["json", "pickle"])
        yield app


@every_error
@every_serializer
def test_an_error_goes_through_the_encoding_of_a_result_backend(app: Celery, error: Exception) -> None:
    """Errors cross processes, by JSON in a result backend as by pickle, and are there what they were."""
    backend = app.backend
    stored = backend.encode(backend.prepare_exception(error))

    assert_same(backend.exception_to_python(backend.decode(stored)), error)


@every_error
@every_serializer
def test_who_waits_for_a_result_gets_the_error_that_was_raised(app: Celery, error: Exception) -> None:
    """Who calls `get()` gets an error of the same type, with the same fields, as the worker raised."""
    run, state = uuid(), states.REVOKED if isinstance(error, TaskDropped) else states.FAILURE
    app.backend.store_result(run, error, state)

    with pytest.raises(type(error)) as caught:
        AsyncResult(run, app=app).get(timeout=1)

    assert_same(caught.value, error)


@pytest.mark.parametrize("event", list(every_event()), ids=lambda event: type(event).__name__)
def test_an_event_pickles(event: events.Event) -> None:
    """What can happen is a frozen value, and the same one in every process."""
    again = pickle.loads(pickle.dumps(event))

    assert again == event
    assert type(again) is type(event)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_pickles(value: object) -> None:
    """Leases, refusals and policies are frozen values, and the same ones in every process."""
    again = pickle.loads(pickle.dumps(value))

    assert again == value
    assert type(again) is type(value)
