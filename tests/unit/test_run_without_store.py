"""9. While the store does not answer: neither dropped nor let through unguarded, but as it was asked for."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from celery import Celery, Signature, states
from celery.exceptions import SoftTimeLimitExceeded
from deliveries import fresh_id, lambda_free, run, sent, state_of
from local_processes import wait_until

from celery_coord import ConfigurationError, Cooldown, CooldownTask, CoordinatedTask, ExclusiveTask, StoreError
from celery_coord.app import Coordination, coordination
from celery_coord.errors import NewerLayout
from celery_coord.events import Event, LeaseAcquired, StoreFailed, TaskDeferred
from celery_coord.lease import Lease, Owner
from celery_coord.run import AWAY, DEFERRALS, MET_ITSELF
from celery_coord.testing import FakeClock, use_memory


@pytest.fixture
def app() -> Celery:
    app = Celery("runs", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = fresh_id()
    return app


def away(app: Celery, clock: FakeClock, error: Exception | None = None, **conf: Any) -> list[Event]:
    """Let the store of an application fail from now on; what happens is noted."""
    app.conf.update(conf)
    use_memory(app, clock)
    seen: list[Event] = []
    made: Coordination = coordination(app)

    def fail(*_: object, **__: object) -> None:
        raise error or StoreError("away")

    made.store.acquire = fail  # type: ignore[method-assign, assignment]
    made.notify = seen.append  # type: ignore[method-assign]
    return seen


def failed_with(outcome: Any) -> object:
    return outcome[1].retval if outcome[1] else None


@pytest.mark.parametrize(
    ("of_app", "of_task", "becomes"),
    [
        ("retry", None, "deferred"),
        ("run", None, "ran"),
        ("fail", None, "failed"),
        ("run", "retry", "deferred"),
        ("fail", "run", "ran"),
        ("retry", "fail", "failed"),
    ],
)
def test_the_task_says_what_becomes_of_its_runs_and_else_the_app(
    app: Celery, clock: FakeClock, of_app: str, of_task: str | None, becomes: str
) -> None:
    away(app, clock, coord_on_store_error=of_app)
    ran: list[int] = []

    @app.task(base=ExclusiveTask, name="asking", on_store_error=of_task)
    def task(n: int) -> None:
        ran.append(n)

    task_id = fresh_id()

    outcome = run(task, task_id, 1)

    assert (ran == [1]) is (becomes == "ran")
    assert bool(sent(app)) is (becomes == "deferred")
    assert isinstance(failed_with(outcome), StoreError) is (becomes == "failed")
    expected = {"ran": states.SUCCESS, "failed": states.FAILURE, "deferred": states.PENDING}
    assert state_of(task, task_id) == expected[becomes]


@pytest.mark.parametrize("error", [StoreError("away"), NewerLayout("k", 2, 1)], ids=["away", "later layout"])
def test_pauses_grow_up_to_the_longest_and_differ(app: Celery, clock: FakeClock, error: StoreError) -> None:
    """No herd: those who met the same trouble do not come back together, nor ever at longer intervals than was said."""
    seen = away(app, clock, error, coord_store_retry_pause=20)
    task = app.task(base=ExclusiveTask, name="asking")(lambda_free)

    for tries, (least, most) in enumerate([(1, 2), (2, 4), (4, 8), (8, 16), (10, 20), (10, 20)]):
        seen.clear()
        for _ in range(20):
            run(task, fresh_id(), headers={DEFERRALS: 7, AWAY: (clock.time(), tries)})
        pauses = [event.countdown for event in seen if isinstance(event, TaskDeferred)]
        again = sent(app)

        assert len(pauses) == len(again) == 20
        assert {headers[AWAY][1] for headers in again} == {tries + 1}
        assert all(least <= pause <= most for pause in pauses)
        assert max(pauses) - min(pauses) > (most - least) / 4


def test_a_run_that_met_no_store_for_as_long_as_was_said_fails(app: Celery, clock: FakeClock) -> None:
    away(app, clock, coord_store_retry_for=300)
    task = app.task(base=ExclusiveTask, name="asking")(lambda_free)
    task_id = fresh_id()

    run(task, task_id)
    [headers] = sent(app)
    clock.advance(200)
    run(task, task_id, headers={DEFERRALS: 1, AWAY: headers[AWAY]})
    [headers] = sent(app)
    clock.advance(101)
    outcome = run(task, task_id, headers={DEFERRALS: 2, AWAY: headers[AWAY]})

    assert isinstance(failed_with(outcome), StoreError)
    assert sent(app) == []


def test_what_it_waited_for_the_store_is_forgotten_once_that_answered(app: Celery, clock: FakeClock) -> None:
    """A retry of a run that is admitted begins to count anew."""
    use_memory(app, clock)
    retried: list[dict[str, Any]] = []

    @app.task(base=ExclusiveTask, name="retrying", bind=True)
    def retrying(self: Any) -> None:
        retried.append(dict(self.request.headers))

    run(retrying, fresh_id(), headers={DEFERRALS: 3, AWAY: (5.0, 1), "theirs": 1})

    assert retried == [{"theirs": 1}]


@pytest.mark.parametrize(("choice", "fails"), [("retry", False), ("run", False), ("fail", True)])
def test_a_later_layout_is_never_run_beside(app: Celery, clock: FakeClock, choice: str, *, fails: bool) -> None:
    """Two versions side by side never both run a body, also where a store that is away would let one through."""
    seen = away(app, clock, NewerLayout("k", 2, 1), coord_on_store_error=choice)
    ran: list[int] = []

    @app.task(base=ExclusiveTask, name="asking")
    def task(n: int) -> None:
        ran.append(n)

    outcome = run(task, fresh_id(), 1)

    assert ran == []
    assert isinstance(failed_with(outcome), NewerLayout) is fails
    assert [getattr(event, "why", "") for event in seen][1:] == ([] if fails else ["layout"])


def test_a_misspelt_choice_is_refused_where_the_task_is_defined(app: Celery) -> None:
    with pytest.raises(ConfigurationError, match="on_store_error is one of 'retry', 'run', 'fail', not 'ignore'"):
        app.task(base=ExclusiveTask, name="asking", lazy=False, on_store_error="ignore")(lambda_free)


@pytest.mark.parametrize("choice", ["retry", "fail"])
def test_what_was_delivered_before_stays_so_over_an_outage(app: Celery, clock: FakeClock, choice: str) -> None:
    """7. Its earlier delivery may be at work under the same id: it is not called failed, nor revoked as expired."""
    away(app, clock, coord_on_store_error=choice, coord_store_retry_for=1)
    task = app.task(base=ExclusiveTask, name="asking")(lambda_free)
    task_id = fresh_id()

    run(task, task_id, delivery_info={"redelivered": True}, expires="2099-01-01T00:00:00+00:00")

    [headers] = sent(app)
    assert headers[MET_ITSELF]
    assert headers["expires"] is None
    assert state_of(task, task_id) == states.PENDING


def test_what_a_broker_added_is_not_sent_along(app: Celery, clock: FakeClock) -> None:
    """7. RabbitMQ before 4.0.1 drops a message that seems to go in a circle, and says so to nobody."""
    away(app, clock)
    task = app.task(base=ExclusiveTask, name="asking")(lambda_free)

    run(task, fresh_id(), headers={"x-death": [{"queue": "celery_delayed_0"}], "theirs": 1})

    [headers] = sent(app)
    assert "x-death" not in headers
    assert headers["theirs"] == 1


@pytest.mark.parametrize(("choice", "becomes"), [("retry", "deferred"), ("run", "deferred"), ("fail", "failed")])
def test_a_soft_time_limit_that_strikes_while_the_store_is_asked_is_no_failure_of_the_body(
    app: Celery, clock: FakeClock, choice: str, becomes: str
) -> None:
    """The limit is the body's, which has not begun; nor does one begin that has no limit any more."""
    seen = away(app, clock, SoftTimeLimitExceeded(1), coord_on_store_error=choice)
    ran: list[int] = []

    @app.task(base=ExclusiveTask, name="asking")
    def task(n: int) -> None:
        ran.append(n)

    outcome = run(task, fresh_id(), 1)

    assert ran == []
    assert bool(sent(app)) is (becomes == "deferred")
    assert isinstance(failed_with(outcome), StoreError) is (becomes == "failed")
    assert "soft time limit passed" in next(event.error for event in seen if isinstance(event, StoreFailed))


@pytest.mark.parametrize(
    ("why", "choice"),
    [
        *itertools.product(["redelivered", "untold"], ["retry", "run", "fail"]),
        *itertools.product(["layout"], ["retry", "run"]),  # else it fails before anything is sent
    ],
)
def test_a_soft_time_limit_that_strikes_when_the_store_has_answered_changes_nothing(
    app: Celery, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, choice: str, why: str
) -> None:
    """1, 7. That store is not away: what is to become of runs that meet none is not asked."""
    error = NewerLayout("k", 2, 1) if why == "layout" else None
    seen = away(app, clock, error, coord_on_store_error=choice)
    ran: list[int] = []

    @app.task(base=ExclusiveTask, name="asking")
    def task() -> None:
        ran.append(1)

    task_id = fresh_id()
    if why != "layout":
        use_memory(app, clock)
        made: Coordination = coordination(app)
        made.notify = seen.append  # type: ignore[method-assign]
        lease = made.store.acquire(task.key_of(), Owner.new(task_id), 30, heed_cooldown=True, remember=600)
        assert isinstance(lease, Lease)
        if why == "untold":
            made.store.settle(lease, remember=600, told=False)
    with monkeypatch.context() as patch:
        cut_short_once(patch)
        run(task, task_id)

    assert ran == []
    assert len(sent(app)) == 1
    assert [event.why for event in seen if isinstance(event, TaskDeferred)] == [why]
    assert state_of(task, task_id) == states.PENDING


def cut_short_once(patch: pytest.MonkeyPatch) -> list[int]:
    """Let the next attempt to publish be cut short; the attempts are counted."""
    publish, tries = Signature.apply_async, []

    def cut_short(*args: Any, **kwargs: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise SoftTimeLimitExceeded(1)
        return publish(*args, **kwargs)

    patch.setattr(Signature, "apply_async", cut_short)
    return tries


def test_what_was_sent_again_is_not_sent_twice(app: Celery, clock: FakeClock) -> None:
    away(app, clock)
    made: Coordination = coordination(app)

    def strike(event: Event) -> None:
        if isinstance(event, TaskDeferred):
            raise SoftTimeLimitExceeded(1)

    made.notify = strike  # type: ignore[method-assign]
    task = app.task(base=ExclusiveTask, name="asking")(lambda_free)

    run(task, fresh_id())

    assert len(sent(app)) == 1


def test_the_soft_time_limit_of_a_body_is_told_to_it_also_out_of_an_eager_run(app: Celery, clock: FakeClock) -> None:
    away(app, clock, SoftTimeLimitExceeded(1))
    inner = app.task(base=ExclusiveTask, name="inner")(lambda_free)

    assert isinstance(inner.apply().result, SoftTimeLimitExceeded)


@pytest.mark.parametrize("base", [ExclusiveTask, CooldownTask])
def test_what_was_cut_short_before_its_body_began_leaves_nothing_behind(
    app: Celery, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, base: type[CoordinatedTask]
) -> None:
    """Neither a lease, nor the quiet period of a failure."""
    use_memory(app, clock)
    made: Coordination = coordination(app)
    ran: list[int] = []

    @app.task(base=base, name="asking", cooldown=Cooldown(60, on_failure=60))
    def task() -> None:
        ran.append(1)

    act = "acquire" if base is ExclusiveTask else "refuses"
    ask = getattr(made.store, act)

    def granted_and_cut_short(*args: Any, **kwargs: Any) -> None:
        ask(*args, **kwargs)
        raise SoftTimeLimitExceeded(1)

    with monkeypatch.context() as patch:
        patch.setattr(made.store, act, granted_and_cut_short)
        run(task, fresh_id())

    assert len(sent(app)) == 1
    wait_until(lambda: task.look().held is None, "a key that is free")
    assert task.look().cooling is None
    run(task, fresh_id())
    assert ran == [1]


def test_a_soft_time_limit_that_strikes_as_the_body_is_about_to_begin_leaves_no_quiet_period(
    app: Celery, clock: FakeClock
) -> None:
    use_memory(app, clock)
    made: Coordination = coordination(app)

    def strike(event: Event) -> None:
        if isinstance(event, LeaseAcquired):
            raise SoftTimeLimitExceeded(1)

    made.gate._notify = strike
    task = app.task(base=ExclusiveTask, name="asking", cooldown=Cooldown(60, on_failure=60))(lambda_free)

    run(task, fresh_id())

    assert len(sent(app)) == 1
    found = task.look()
    assert (found.held, found.cooling) == (None, None)


def test_a_soft_time_limit_that_strikes_while_a_run_is_put_off_loses_nothing(
    app: Celery, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Store and broker are often one server, and both away."""
    away(app, clock)
    task = app.task(base=ExclusiveTask, name="asking")(lambda_free)
    tries = cut_short_once(monkeypatch)

    run(task, fresh_id())

    assert len(tries) == 2
    [headers] = sent(app)
    assert headers[MET_ITSELF]  # the first may have been sent, too: one waits for the other


def test_a_soft_time_limit_that_strikes_in_the_body_is_a_failure_of_it(app: Celery, clock: FakeClock) -> None:
    use_memory(app, clock)

    @app.task(base=ExclusiveTask, name="asking", cooldown=Cooldown(60, on_failure=60))
    def task() -> None:
        raise SoftTimeLimitExceeded(1)

    outcome = run(task, fresh_id())

    assert isinstance(failed_with(outcome), SoftTimeLimitExceeded)
    assert sent(app) == []
    assert task.look().cooling is not None
