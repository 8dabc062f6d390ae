"""`component`: what is refused where it is written."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from celery_coord import ConfigurationError, CoordError, Election, component, operating
from celery_coord.components import ComponentsStep
from celery_coord.lease import Lease, Owner
from celery_coord.operating import leaders, step_down
from celery_coord.testing import FakeClock, use_memory
from celery_coord.worker import CheckStep


@pytest.fixture
def app() -> Celery:
    app = Celery("components", broker="memory://", set_as_current=False)
    use_memory(app)
    return app


def test_a_component_stays_the_function_that_it_is(app: Celery) -> None:
    @component(app, every=30)
    def discover(term: int) -> int:
        return term

    assert discover(7) == 7
    assert {CheckStep, ComponentsStep} <= app.steps["worker"]


def test_an_application_without_components_has_no_step_for_them(app: Celery) -> None:
    assert ComponentsStep not in app.steps["worker"]


def test_two_components_of_one_name_are_refused(app: Celery) -> None:
    component(app, every=30, name="poller")(lambda term: None)

    with pytest.raises(ConfigurationError, match=r"component 'poller' already: write .*name='another'"):
        component(app, every=30, name="poller")(lambda term: None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"every": 0}, r"component\(every=...\) is more than 0 seconds"),
        ({"every": "often"}, r"component\(every=...\) is a number of seconds"),
        ({"every": 1, "ttl": 0.01}, r"Election\(ttl=...\) is at least 0.1 seconds"),
        ({"every": 1, "longest_round": -1}, r"component\(longest_round=...\) is more than 0"),
        ({"every": 1, "name": "{}"}, "without braces"),
        ({"every": 1, "name": "beat"}, "the beats of an application campaign for 'beat'"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_written(app: Celery, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        component(app, **options)(lambda term: None)


@pytest.mark.parametrize("wrong", [lambda app: component(lambda term: None), lambda app: component(app)])
def test_a_component_without_its_pace_is_told_what_to_write(app: Celery, wrong: Callable[[Celery], object]) -> None:
    with pytest.raises(ConfigurationError, match=r"write @component\(app, every=30\)"):
        wrong(app)


async def a_coroutine(term: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "sentence"),
    [(a_coroutine, r"write def a_coroutine\(term\), without async"), (lambda: None, "gets the number of the term")],
)
def test_what_cannot_be_called_is_refused_where_it_is_written(
    app: Celery, function: Callable[[int], object], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        component(app, every=30)(function)


def test_a_component_has_its_election_at_hand(app: Celery) -> None:
    @component(app, every=30)
    def discover(term: int) -> None: ...

    assert isinstance(discover.election, Election)  # type: ignore[attr-defined]
    assert discover.election.name == "discover"  # type: ignore[attr-defined]


def test_where_nobody_leads_there_is_nobody_to_step_down(app: Celery) -> None:
    with pytest.raises(CoordError, match="nobody leads poller"):
        step_down(app, "poller")
    assert leaders(app) == []


def test_one_that_does_not_step_down_in_time_is_named(app: Celery) -> None:
    store = use_memory(app).store
    lease = store.acquire("leader:poller", Owner.new("x"), 60, heed_cooldown=False, label="host:1")
    assert isinstance(lease, Lease)

    with pytest.raises(CoordError, match=rf"host:1 still leads poller after 0.1 s, in term {lease.token}"):
        step_down(app, "poller", timeout=0.1)
    assert store.request("leader:poller") == str(lease.token)


def test_one_who_takes_over_without_being_woken_is_waited_for(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """16. Who asks once a second leads a moment later; until then it is not said that nobody does."""
    clock = FakeClock()
    store = use_memory(app, clock).store

    def campaign(label: str) -> Lease:
        lease = store.acquire("leader:poller", Owner.new("x"), 60, heed_cooldown=False, label=label)
        assert isinstance(lease, Lease)
        return lease

    first = campaign("host:1")

    def sleep(seconds: float) -> None:
        """The first one follows the request, and the other one asks after a second."""
        clock.advance(seconds)
        if store.request("leader:poller") == str(first.token):
            store.settle(first)
        if clock.monotonic() > 1.0 and not leaders(app):
            campaign("host:2")

    monkeypatch.setattr(operating, "time", SimpleNamespace(monotonic=clock.monotonic, sleep=sleep))

    now = step_down(app, "poller")

    assert now is not None
    assert now.label == "host:2"
