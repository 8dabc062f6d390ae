"""Runs as a worker makes them, in this process: the tracer is Celery's, the store and the broker are in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery, Task, group, states
from celery.app.task import Context
from celery.exceptions import Ignore, SoftTimeLimitExceeded
from deliveries import fresh_id, lambda_free, run, seconds_until, sent, state_of
from doubles import Seen
from kombu import Exchange, Queue

from celery_coord import Cooldown, CooldownTask, Exclusive, ExclusiveTask, StoreError, parent_lease
from celery_coord.app import Coordination, coordination
from celery_coord.events import StoreFailed
from celery_coord.lease import Done, Held, Lease, Owner
from celery_coord.run import DEFERRALS, NONCE
from celery_coord.stores import Store
from celery_coord.testing import FakeClock, use_memory


@pytest.fixture
def app(clock: FakeClock) -> Celery:
    app = Celery("runs", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = fresh_id()
    use_memory(app, clock)
    return app


@pytest.fixture
def store(app: Celery) -> Store:
    return coordination(app).store


def counting(app: Celery, ran: list[int]) -> Task:
    @app.task(base=ExclusiveTask, name="counting")
    def count(n: int) -> None:
        ran.append(n)

    return count


def events(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen = Seen()
    monkeypatch.setattr(Coordination, "notify", lambda self, event: seen(event))
    return seen


def test_a_message_of_a_run_that_ended_well_ends_as_a_duplicate(app: Celery) -> None:
    """7. If that one succeeded it ends as a duplicate."""
    ran: list[int] = []
    task = counting(app, ran)
    task_id = fresh_id()

    run(task, task_id, 1)
    run(task, task_id, 1)

    assert ran == [1]
    assert state_of(task, task_id) == states.SUCCESS
    assert sent(app) == []


def test_a_message_is_remembered_for_as_long_as_its_broker_may_deliver_it_again(app: Celery, clock: FakeClock) -> None:
    """7. ... and no longer: what is kept of a run ends by itself."""
    ran: list[int] = []
    task = counting(app, ran)
    task_id = fresh_id()
    run(task, task_id, 1)

    clock.advance(4199)
    run(task, task_id, 1)
    assert ran == [1]
    clock.advance(1)
    run(task, task_id, 1)

    assert ran == [1, 1]


@pytest.mark.parametrize(
    ("what", "at_the_end", "at_last"),
    [
        ({}, False, False),  # the result says it
        ({"eta": "2026-01-01T00:00:00+00:00"}, False, True),  # another delivery may be waiting for it
        ({"delivery_info": {"redelivered": True}}, False, True),
        ({"chord": "sig"}, False, True),  # the result is there before the chord is told
        ({"ignore_result": True}, True, True),  # there is nobody to tell
        ({"ignore_result": True, "callbacks": ["sig"]}, False, True),
        ({"ignore_result": True, "chain": ["sig"]}, False, True),
        ({"ignore_result": True, "chord": "sig"}, False, True),
    ],
)
def test_an_end_counts_as_told_when_all_who_wait_for_it_are_told(
    app: Celery,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    *,
    what: dict[str, Any],
    at_the_end: bool,
    at_last: bool,
) -> None:
    """7. Nobody is left waiting for a run that ended well and died before it could say so."""
    found: list[bool] = []

    @app.task(base=ExclusiveTask, name="telling")
    def telling() -> None: ...

    sig = app.task(name="next")(lambda_free).si()
    request = {name: {"sig": sig}.get(str(value), [sig] if value == ["sig"] else value) for name, value in what.items()}
    monkeypatch.setattr(app.backend, "on_chord_part_return", lambda *args, **kwargs: None)
    settle = store.settle

    def settled(lease: Lease, **kwargs: Any) -> bool:
        assert kwargs["remember"] > 0
        found.append(kwargs["told"])
        return settle(lease, **kwargs)

    monkeypatch.setattr(store, "settle", settled)
    task_id = fresh_id()

    run(telling, task_id, **request)

    done = store.acquire(telling.key_of(), Owner.new(task_id), 30, heed_cooldown=True)
    assert isinstance(done, Done)
    assert found == [at_the_end]
    assert done.told is at_last


def test_a_run_that_lasted_says_that_all_were_told(app: Celery, clock: FakeClock) -> None:
    """7. Another delivery may be waiting for it; and whoever has its result may forget that at once."""
    ran: list[int] = []

    @app.task(base=ExclusiveTask, name="lasting")
    def lasting() -> None:
        ran.append(1)
        clock.advance(10)

    task_id = fresh_id()
    run(lasting, task_id)
    lasting.AsyncResult(task_id).forget()

    clock.advance(60)
    run(lasting, task_id)

    assert ran == [1]


def test_an_end_that_could_not_be_told_is_not_called_told(app: Celery, store: Store, clock: FakeClock) -> None:
    """7. ... what follows could not be sent: a redelivery waits for a ttl, runs, and sends it."""
    ran: list[int] = []

    @app.task(base=ExclusiveTask, name="telling", ignore_result=True)
    def telling() -> None:
        ran.append(1)

    task_id = fresh_id()
    with pytest.warns(RuntimeWarning, match="Exception raised outside body"):
        run(telling, task_id, chain=[{"task": "next", "args": None}])  # no signature: it cannot be sent

    run(telling, task_id)
    assert len(sent(app)) == 1
    clock.advance(30)
    run(telling, task_id)

    assert ran == [1, 1]


def test_an_end_that_was_not_told_runs_again_when_its_lease_would_have_ended(app: Celery, clock: FakeClock) -> None:
    """7. A delivery that finds no result waits for as long as its process may be about to store it; then it runs."""
    ran: list[int] = []
    task = counting(app, ran)
    task_id = fresh_id()
    run(task, task_id, 1)
    task.AsyncResult(task_id).forget()

    run(task, task_id, 1)
    assert ran == [1]
    assert [headers["id"] for headers in sent(app)] == [task_id]
    assert state_of(task, task_id) == states.PENDING
    clock.advance(30)
    run(task, task_id, 1)

    assert ran == [1, 1]
    assert state_of(task, task_id) == states.SUCCESS


def test_a_result_backend_that_does_not_answer_leaves_a_duplicate_waiting(
    app: Celery, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7. Unknown is neither yes nor no."""
    ran: list[int] = []
    task = counting(app, ran)
    task_id = fresh_id()
    run(task, task_id, 1)
    clock.advance(60)

    def away(task_id: str) -> str:
        raise ConnectionError

    monkeypatch.setattr(app.backend, "get_state", away)
    run(task, task_id, 1)

    assert ran == [1]
    assert len(sent(app)) == 1


def test_a_time_limit_while_the_result_backend_is_asked_puts_the_run_off(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7. Nothing is written under its id; and no body begins that has no time limit any more."""
    seen = events(app, monkeypatch)
    task = app.task(base=ExclusiveTask, name="once")(lambda_free)
    task_id = fresh_id()
    run(task, task_id)

    def limit(task_id: str) -> str:
        raise SoftTimeLimitExceeded

    with monkeypatch.context() as patch:
        patch.setattr(app.backend, "get_state", limit)
        run(task, task_id)

    assert len(sent(app)) == 1
    assert seen.events[-1].why == "untold"  # type: ignore[union-attr]
    assert not seen.of(StoreFailed)
    assert state_of(task, task_id) == states.SUCCESS


def test_a_delivery_waits_for_its_own_earlier_one_for_longer_and_longer(
    app: Celery, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7. While that one may still live it waits, writing nothing under the task's id."""
    seen = events(app, monkeypatch)
    task = app.task(base=ExclusiveTask, name="waiting")(lambda_free)
    task_id = fresh_id()
    store.acquire(task.key_of(), Owner.new(task_id), 30, heed_cooldown=True)

    waits = []
    for _ in range(7):
        headers = sent(app)[0] if waits else {}
        run(task, task_id, headers={DEFERRALS: headers[DEFERRALS]} if headers else None)
        waits.append(seen.events[-1].countdown)  # type: ignore[union-attr]

    assert waits[:5] == [1, 2, 4, 8, 16]
    assert all(30 < wait <= 30.5 for wait in waits[5:])
    assert {event.why for event in seen.events} == {"redelivered"}  # type: ignore[union-attr]
    assert state_of(task, task_id) == states.PENDING


def test_an_arrival_waits_for_the_end_of_an_overdue_lease(
    app: Celery, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8. No run is dropped in favour of a holder that has missed a renewal; one that has not is obeyed."""
    seen = events(app, monkeypatch)
    task = app.task(base=ExclusiveTask, name="arriving")(lambda_free)
    store.acquire(task.key_of(), Owner.new("holder"), 30, heed_cooldown=True)
    obedient, patient = fresh_id(), fresh_id()

    clock.advance(12.5)
    run(task, obedient)
    clock.advance(0.1)
    run(task, patient)

    assert seen.kinds == ["TaskDropped", "TaskDeferred"]
    assert (state_of(task, obedient), state_of(task, patient)) == (states.REVOKED, states.PENDING)
    [headers] = sent(app)
    assert headers["id"] == patient
    assert 16 < seconds_until(headers["eta"]) < 18


@pytest.mark.parametrize("retries", [0, 1])
def test_what_has_begun_waits_for_its_turn(
    app: Celery, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    """7. If the earlier delivery died it runs, and a retry is not lost: also where a stranger was faster."""
    task = app.task(base=ExclusiveTask, name="begun")(lambda_free)
    task_id = fresh_id()
    dead = store.acquire(task.key_of(), Owner.new(task_id), 30, heed_cooldown=True, remember=600)
    assert isinstance(dead, Lease)
    clock.advance(31)
    stranger = store.acquire(task.key_of(), Owner.new("stranger"), 30, heed_cooldown=True)
    assert isinstance(stranger, Lease)
    seen = events(app, monkeypatch)

    run(task, task_id if retries == 0 else fresh_id(), retries=retries)

    assert seen.kinds == ["TaskDeferred"]
    assert seen.events[0].why == "begun"  # type: ignore[union-attr]
    assert len(sent(app)) == 1
    run(task, fresh_id())
    assert seen.kinds[1:] == ["TaskDropped"]


def test_a_replacement_waits_for_the_run_that_sent_it(app: Celery, store: Store) -> None:
    """7. A replacement takes over from the run that published it, also as a member of a group, under another id."""
    met: list[str] = []

    @app.task(base=ExclusiveTask, name="member", key="shared")
    def member() -> None: ...

    @app.task(base=ExclusiveTask, name="replacing", bind=True, key="shared")
    def replacing(self: Task) -> None:
        try:
            self.replace(group(member.si(), app.tasks["next"].si()))
        finally:
            # A member is faster than the end of the run that sent it.
            for headers in sent(app):
                if headers["task"] == "member":
                    self.request_stack.push(Context())
                    run(member, headers["id"], headers=headers)
                    self.request_stack.pop()
                    met.append(state_of(member, headers["id"]))

    app.task(name="next")(lambda_free)

    run(replacing, fresh_id())

    assert met == [states.PENDING]
    assert [headers["task"] for headers in sent(app)] == ["member"]


def test_a_replacement_is_a_run_like_any_other(app: Celery, store: Store) -> None:
    """12. Its good end leaves a quiet period; 7. and what it sends stands in for nobody."""

    @app.task(base=ExclusiveTask, name="standing_in", key="shared", cooldown=60)
    def standing_in() -> None:
        app.tasks["next"].delay()

    app.task(name="next")(lambda_free)

    run(standing_in, fresh_id(), headers={"coord_replaces": True}, coord_replaces=True)

    assert store.look("shared").cooling
    [headers] = sent(app)
    assert "coord_replaces" not in headers


def test_a_message_that_waited_for_the_store_is_no_second_delivery(app: Celery, store: Store) -> None:
    """7. Its id may be that of a run that was dropped, and is sent again on purpose: that end is not its own."""
    ran: list[int] = []
    task = counting(app, ran)
    task_id = fresh_id()
    holder = store.acquire(task.key_of(1), Owner.new("holder"), 30, heed_cooldown=True)
    assert isinstance(holder, Lease)
    run(task, task_id, 1)
    assert state_of(task, task_id) == states.REVOKED
    coordination(app).clock.advance(20)  # type: ignore[attr-defined]

    run(task, task_id, 1)
    [copy] = sent(app)
    store.settle(holder)
    run(task, task_id, 1, headers=copy)

    assert ran == [1]


def test_a_drop_that_is_cut_short_is_told_to_all_the_next_time(
    app: Celery, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10. What stands after a dropped run ends too, though its process dies in the middle of telling so."""
    task = app.task(base=ExclusiveTask, name="dropped")(lambda_free)
    after = app.task(name="next")(lambda_free)
    successor = after.si().set(task_id=fresh_id())
    store.acquire(task.key_of(), Owner.new("holder"), 30, heed_cooldown=True)
    task_id, written = fresh_id(), []
    store_result = app.backend.store_result

    def dies(id_: str, *args: Any, **kwargs: Any) -> Any:
        written.append(id_)
        if len(written) == 2:
            raise SystemExit
        return store_result(id_, *args, **kwargs)

    monkeypatch.setattr(app.backend, "store_result", dies)
    with pytest.raises(SystemExit):
        run(task, task_id, chain=[successor])
    run(task, task_id, chain=[successor], delivery_info={"redelivered": True})

    assert state_of(after, successor.id) == states.REVOKED
    assert state_of(task, task_id) == states.REVOKED


def test_that_all_were_told_is_said_when_the_store_is_back(
    app: Celery, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7. If the earlier delivery succeeded its message ends as a duplicate, whatever the store did at that moment."""
    ran: list[int] = []

    @app.task(base=ExclusiveTask, name="telling", ignore_result=True)
    def telling() -> None:
        ran.append(1)

    app.task(name="next")(lambda_free)
    task_id, cool = fresh_id(), store.cool

    def away(*args: Any, **kwargs: Any) -> None:
        raise StoreError("away")

    monkeypatch.setattr(store, "cool", away)
    run(telling, task_id, callbacks=[app.tasks["next"].si()])
    monkeypatch.setattr(store, "cool", cool)
    clock.advance(1)
    coordination(app).keeper.round()
    clock.advance(60)
    run(telling, task_id)

    assert ran == [1]


def test_how_often_a_message_waited_is_nothing_to_its_retry(app: Celery) -> None:
    @app.task(base=ExclusiveTask, name="retrying", bind=True)
    def retrying(self: Task) -> None:
        raise self.retry(countdown=0)

    run(retrying, fresh_id(), headers={DEFERRALS: 5, "mine": "kept"})

    [headers] = sent(app)
    assert DEFERRALS not in headers
    assert headers["mine"] == "kept"
    assert headers["retries"] == 1


def in_an_hour() -> dict[str, object]:
    return {"eta": datetime.now(UTC) + timedelta(hours=1)}


def in_an_hour_without_a_zone() -> dict[str, object]:
    """Celery takes it for UTC."""
    return {"eta": (datetime.now(UTC) + timedelta(hours=1)).replace(tzinfo=None)}


@pytest.mark.parametrize(
    "when", [lambda: {"countdown": 3600}, in_an_hour, in_an_hour_without_a_zone], ids=["s", "utc", "naive"]
)
def test_a_key_is_kept_until_the_retry_is_due_and_a_ttl_more(
    app: Celery, store: Store, when: Callable[[], dict[str, Any]]
) -> None:
    """7. A retry takes over from the run that published it, at whatever time it asked for."""
    app.conf.timezone = "Africa/Harare"  # two hours ahead, all year

    @app.task(base=ExclusiveTask, exclusive=Exclusive(ttl=30, hold_on_retry=True), name="retrying", bind=True)
    def retrying(self: Task) -> None:
        raise self.retry(**when())

    run(retrying, fresh_id())

    held = store.look(retrying.key_of()).held
    assert isinstance(held, Held)
    assert held.left is not None
    assert 3620 < held.left <= 3630


def test_a_run_that_ended_by_a_plain_ignore_runs_again(app: Celery) -> None:
    """7. It may have sent its own message again, as it is; that must not be taken for a duplicate."""
    ran: list[int] = []

    @app.task(base=ExclusiveTask, name="ignoring")
    def ignoring() -> None:
        ran.append(1)
        raise Ignore

    task_id = fresh_id()
    for _ in range(2):
        run(ignoring, task_id)

    assert ran == [1, 1]


def test_a_redelivery_of_a_run_whose_end_all_know_is_a_duplicate_also_where_the_store_knows_nothing(
    app: Celery, store: Store
) -> None:
    """7. The store may have been away when the run ended, or have forgotten; the result says it."""
    ran: list[int] = []
    task = counting(app, ran)
    task_id = fresh_id()
    run(task, task_id, 1)
    store.forget(task.key_of(1), Owner.new(task_id))

    run(task, task_id, 1, delivery_info={"redelivered": True})

    assert ran == [1]


def test_a_redelivery_of_a_run_that_was_dropped_is_a_duplicate(app: Celery, store: Store) -> None:
    """10. Waiters were told that it was dropped: that stands."""
    ran: list[int] = []
    task = counting(app, ran)
    task_id = fresh_id()
    holder = store.acquire(task.key_of(1), Owner.new("holder"), 30, heed_cooldown=True)
    assert isinstance(holder, Lease)
    run(task, task_id, 1)
    store.settle(holder)

    run(task, task_id, 1, delivery_info={"redelivered": True})

    assert ran == []
    assert state_of(task, task_id) == states.REVOKED


def test_a_copy_that_waits_does_not_expire(app: Celery, store: Store) -> None:
    """7. Its earlier delivery began in time: to revoke the copy would be to revoke that one, for all who wait."""
    task = app.task(base=ExclusiveTask, name="waiting")(lambda_free)
    task_id, stranger = fresh_id(), fresh_id()
    store.acquire(task.key_of(), Owner.new(task_id), 30, heed_cooldown=True)
    expires = "2036-01-01T00:00:00+00:00"

    run(task, task_id, expires=expires)
    [copy] = sent(app)
    coordination(app).clock.advance(20)  # type: ignore[attr-defined]
    run(task, stranger, expires=expires)
    [arrival] = sent(app)

    assert copy["expires"] is None
    assert arrival["expires"] == expires


def test_the_nonce_of_a_delivery_is_never_published(app: Celery) -> None:
    """6. An owner is never used twice: another delivery has another one."""

    @app.task(base=ExclusiveTask, name="retrying", bind=True)
    def retrying(self: Task) -> None:
        raise self.retry(countdown=0)

    app.conf.task_queues = [Queue(app.conf.task_default_queue, Exchange("named"), routing_key="key")]
    info = {"exchange": "named", "routing_key": "key"}
    run(retrying, fresh_id(), properties={NONCE: "abc", "priority": 0}, delivery_info=info)

    with app.connection_for_read() as connection, connection.SimpleQueue(app.conf.task_default_queue) as queue:
        message = queue.get_nowait()
    assert NONCE not in str(message.headers) + str(message.properties) + str(message.delivery_info)


def test_a_replaced_run_is_spent(app: Celery) -> None:
    """7. What a run handed over to another is not done again."""
    ran: list[str] = []

    @app.task(base=ExclusiveTask, name="replacing", bind=True)
    def replacing(self: Task) -> None:
        ran.append("replacing")
        raise self.replace(app.tasks["next"].si())

    app.task(name="next")(lambda_free)
    task_id = fresh_id()

    run(replacing, task_id)
    run(replacing, task_id)

    assert ran == ["replacing"]
    assert len(sent(app)) == 1


def test_a_task_with_a_quiet_period_alone_knows_its_own(app: Celery) -> None:
    """7. ... a task without a lease as well: what it left itself does not drop it."""
    ran: list[int] = []

    @app.task(base=CooldownTask, cooldown=Cooldown(60, on_failure=60), name="quiet")
    def quiet(n: int) -> None:
        ran.append(n)
        if n == 0:
            raise ValueError(n)

    failed, well = fresh_id(), fresh_id()
    for _ in range(2):
        run(quiet, failed, 0)
        run(quiet, well, 1)

    assert ran == [0, 1, 0]
    assert (state_of(quiet, failed), state_of(quiet, well)) == (states.FAILURE, states.SUCCESS)


def test_a_task_with_a_quiet_period_alone_knows_its_own_end_also_where_it_passes_one_by(app: Celery) -> None:
    """7. To pass a quiet period by is not to run twice."""
    ran: list[int] = []

    @app.task(base=CooldownTask, cooldown=60, name="quiet")
    def quiet() -> None:
        ran.append(1)

    task_id = fresh_id()
    for _ in range(2):
        run(quiet, task_id, headers={"coord_pass_cooldown": True})

    assert ran == [1]


def test_code_outside_of_a_task_was_sent_under_no_lease() -> None:
    assert parent_lease() is None


def test_an_arrival_waits_no_longer_than_a_ttl_where_the_stores_clock_was_set_back(
    app: Celery, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8. A dead holder's lease then lasts for as much longer; one that lives renews before a ttl is over."""
    seen = events(app, monkeypatch)
    task = app.task(base=ExclusiveTask, name="arriving")(lambda_free)
    held = Held(task.key_of(), "holder/0/x", 3600.0, 1, "", 30.0)
    monkeypatch.setattr(store, "acquire", lambda *_, **__: held)

    run(task, fresh_id())

    assert seen.kinds == ["TaskDeferred"]
    assert 30 < seen.events[0].countdown <= 30.5  # type: ignore[union-attr]
