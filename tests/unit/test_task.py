"""Tasks in an eager application, in memory: what the options mean, and what is refused at definition."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, Task, chain, shared_task, states
from celery.exceptions import Ignore, Reject

from celery_coord import (
    ConfigurationError,
    Cooldown,
    CooldownTask,
    CoordinatedTask,
    Dropped,
    Exclusive,
    ExclusiveTask,
    NoLease,
    StoreError,
    TaskDropped,
    UnstableKey,
    current_lease,
    signals,
)
from celery_coord.app import coordination
from celery_coord.lease import Owner
from celery_coord.testing import FakeClock, use_memory


@pytest.fixture
def app(clock: FakeClock) -> Celery:
    app = Celery("eager", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_always_eager = True
    use_memory(app, clock)
    return app


def hold(app: Celery, key: str, run: str = "holder") -> None:
    coordination(app).store.acquire(key, Owner.new(run), 30, heed_cooldown=False, label="elsewhere")


def test_the_ten_line_example(app: Celery, clock: FakeClock) -> None:
    ran = []

    @app.task(base=ExclusiveTask, key=["cluster_id"], cooldown=60)
    def refresh_cluster_state(cluster_id: int, *, deep: bool = False) -> None:
        current_lease().ensure()
        ran.append(cluster_id)

    assert refresh_cluster_state.delay(7).state == states.SUCCESS
    assert refresh_cluster_state.delay(7, deep=True).state == states.REVOKED
    assert refresh_cluster_state.delay(8).state == states.SUCCESS
    clock.advance(61)
    assert refresh_cluster_state.delay(cluster_id=7).state == states.SUCCESS
    assert ran == [7, 8, 7]


def test_a_policy_is_inherited_from_a_base_that_is_subclassed_once(app: Celery) -> None:
    class ClusterTask(CoordinatedTask):
        abstract = True
        key = "cluster:{cluster_id}"
        exclusive = Exclusive(ttl=30, on_conflict="drop")
        cooldown = Cooldown(60, on_failure=10, jitter=0.1)

    @app.task(base=ClusterTask)
    def refresh(cluster_id: int) -> None: ...

    @app.task(base=ClusterTask, cooldown=None, bind=True)
    def forget(self: Any, cluster_id: int, node: str = "") -> None:
        assert self.request.id

    assert refresh.key_of(7) == forget.key_of(7, node="x") == "cluster:7"
    assert refresh.delay(7).state == states.SUCCESS
    assert refresh.delay(7).state == states.REVOKED
    assert forget.delay(7).state == states.SUCCESS, "a task without a cooldown heeds none"
    hold(app, "cluster:7")
    assert forget.delay(7).state == states.REVOKED


def test_a_class_with_a_run_method_is_a_task_like_any_other(app: Celery) -> None:
    class Refresh(ExclusiveTask):
        name = "refresh"
        key = ["cluster"]

        def run(self, cluster: int, deep: bool = False) -> int:
            return current_lease().token

    refresh = app.register_task(Refresh())

    assert refresh.key_of(1, deep=True) == "refresh(cluster=1)"
    assert refresh.apply((1,)).get() > 0


def test_a_dropped_run_ends_as_revoked_with_why_who_and_for_how_long(app: Celery) -> None:
    @app.task(base=ExclusiveTask)
    def work(n: int) -> None:
        pytest.fail("the body of a refused run started")

    hold(app, work.key_of(1))
    result = work.delay(1)

    assert result.state == states.REVOKED
    with pytest.raises(TaskDropped) as dropped:
        result.get()
    assert dropped.value.reason == "held"
    assert dropped.value.key == work.key_of(1)
    assert dropped.value.holder.startswith("holder/0/")
    assert dropped.value.left == 30


def test_a_drop_is_never_silent(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(base=ExclusiveTask)
    def work(n: int) -> None: ...

    told: list[dict[str, Any]] = []

    def receive(**fields: Any) -> None:
        told.append(fields)

    hold(app, work.key_of(1))
    signals.task_dropped.connect(receive)
    with caplog.at_level("INFO", logger="celery_coord"):
        result = work.delay(1)

    assert [(t["task"], t["task_id"], t["reason"], t["label"], t["left"]) for t in told] == [
        (work.name, result.id, "held", "elsewhere", 30)
    ]
    assert told[0]["sender"] is app
    assert any("dropped" in line and "elsewhere" in line for line in caplog.messages)


@pytest.mark.parametrize("how", ["option", "setting"])
def test_a_drop_may_count_as_done_and_what_stands_after_it_goes_on(app: Celery, how: str) -> None:
    options = {"on_drop": "return"} if how == "option" else {}
    if how == "setting":
        app.conf.coord_on_drop = "return"
        use_memory(app)

    @app.task(base=ExclusiveTask, **options)
    def work(n: int) -> None: ...

    @app.task
    def after(result: Any) -> Any:
        return result

    hold(app, work.key_of(1))
    result = work.delay(1)

    assert result.state == states.SUCCESS
    assert Dropped.of(result.get()).reason == "held"  # type: ignore[union-attr]
    assert Dropped.of(chain(work.s(1), after.s()).apply().get())


def test_plain_calls_are_plain_function_calls(app: Celery) -> None:
    @app.task(base=ExclusiveTask, cooldown=60)
    def work(n: int) -> int:
        assert current_lease(None) is None
        return n

    hold(app, work.key_of(1))

    assert work(1) == 1
    assert work.look(1).cooling is None
    with pytest.raises(NoLease):
        current_lease()


def test_a_task_that_calls_itself_makes_a_plain_call(app: Celery) -> None:
    @app.task(base=ExclusiveTask, bind=True)
    def countdown(self: Any, n: int) -> list[int]:
        return [n, *(self(n - 1) if n else [])]

    assert countdown.delay(2).get() == [2, 1, 0]


def test_a_base_with_a_call_of_its_own_does_not_open_the_gate(app: Celery) -> None:
    entered = []

    class WithContext(ExclusiveTask):
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            entered.append("mine")
            return self.run(*args, **kwargs)

    class Mixin(Task):  # type: ignore[misc]
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            entered.append("mixin")
            return super().__call__(*args, **kwargs)

    class Mixed(ExclusiveTask, Mixin):
        abstract = True

    class Around(Mixin, ExclusiveTask):
        abstract = True

    for base in (WithContext, Mixed, Around):

        @app.task(base=base, name=base.__name__)
        def work(n: int) -> int:
            return current_lease().token

        assert work.delay(1).get() > 0
        hold(app, work.key_of(1))
        assert work.delay(1).state == states.REVOKED
    assert entered == ["mine", "mixin", "mixin"]


def test_an_annotation_around_the_call_does_not_open_the_gate(app: Celery) -> None:
    def around(call: Any) -> Any:
        return lambda self, *args, **kwargs: call(self, *args, **kwargs)

    app.conf.task_annotations = {"*": {"@__call__": around}}

    @app.task(base=ExclusiveTask)
    def work(n: int) -> None: ...

    assert work.delay(1).state == states.SUCCESS
    hold(app, work.key_of(1))
    assert work.delay(1).state == states.REVOKED


def test_a_misspelt_annotation_is_refused_when_the_app_is_finalized(app: Celery) -> None:
    app.conf.task_annotations = {"annotated": {"exclusive": True, "cooldwn": 60}}

    @app.task(base=CoordinatedTask, name="annotated")
    def work(n: int) -> None: ...

    with pytest.raises(ConfigurationError, match="did you mean 'cooldown'"):
        app.finalize()


def test_an_eager_run_that_meets_itself_is_dropped_and_not_sent_again(app: Celery) -> None:
    @app.task(base=ExclusiveTask)
    def work(n: int) -> None: ...

    hold(app, work.key_of(1), run="same-id")

    assert work.apply_async((1,), task_id="same-id").state == states.REVOKED


def test_as_task_cls_of_an_app_it_leaves_tasks_without_options_alone() -> None:
    app = Celery("alone", broker="memory://", task_cls="celery_coord:CoordinatedTask", set_as_current=False)
    app.conf.task_always_eager = True

    @app.task(bind=True)
    def plain(self: Any, n: int) -> tuple[str, int]:
        return self.request.id, n

    result = plain.delay(1)

    assert result.get() == (result.id, 1)
    assert plain(2)[1] == 2
    assert "celery.chord_unlock" in app.tasks
    with pytest.raises(ConfigurationError, match="plain is not coordinated: write exclusive=True or cooldown=60"):
        plain.look(1)


def test_options_may_come_from_task_annotations(app: Celery) -> None:
    app.conf.task_annotations = {"annotated": {"exclusive": True, "cooldown": 60, "key": ["n"]}}

    @app.task(base=CoordinatedTask, name="annotated")
    def work(n: int, m: int = 0) -> None: ...

    assert work.delay(1).state == states.SUCCESS
    assert work.delay(1, 5).state == states.REVOKED


def test_a_wrong_annotation_is_refused_when_the_app_is_finalized(app: Celery) -> None:
    app.conf.task_annotations = {"annotated": {"cooldown": -1}}

    @app.task(base=CoordinatedTask, name="annotated")
    def work(n: int) -> None: ...

    with pytest.raises(ConfigurationError, match="write cooldown=60"):
        app.finalize()


def test_a_shared_task_is_coordinated_in_the_app_that_runs_it(app: Celery) -> None:
    @shared_task(base=ExclusiveTask, key=["n"], name="shared-work")
    def work(n: int) -> None: ...

    app.finalize()
    task = app.tasks["shared-work"]
    hold(app, task.key_of(1))

    assert task.apply((1,)).state == states.REVOKED


def test_retries_ignores_and_rejects_are_neither_a_good_end_nor_a_failure(app: Celery) -> None:
    @app.task(base=ExclusiveTask, cooldown=Cooldown(60, on_failure=60))
    def work(error: str) -> None:
        raise {"ignore": Ignore, "reject": Reject}[error]

    for how in ("ignore", "reject"):
        work.apply((how,))
        assert not work.look(how)


def test_a_retry_takes_over_from_the_run_that_published_it(app: Celery) -> None:
    attempts: list[int] = []

    @app.task(base=ExclusiveTask, bind=True, cooldown=60, max_retries=3)
    def work(self: Any) -> str:
        attempts.append(current_lease().token)
        if len(attempts) < 3:
            raise self.retry(countdown=0)
        return "done"

    assert work.delay().get() == "done"
    assert attempts == sorted(set(attempts))
    assert work.look().cooling
    assert work.look().held is None


def test_one_call_can_pass_the_quiet_period_by(app: Celery) -> None:
    @app.task(base=CooldownTask, cooldown=60)
    def work() -> int:
        return 1

    assert work.delay().get() == 1
    assert work.delay().state == states.REVOKED
    assert work.apply_async(pass_cooldown=True).get() == 1
    assert work.apply(pass_cooldown=True).get() == 1
    assert work.si().set(pass_cooldown=True).apply_async().get() == 1
    assert work.delay().state == states.REVOKED


def test_a_quiet_period_can_be_looked_at_and_cleared(app: Celery) -> None:
    @app.task(base=CooldownTask, cooldown=60)
    def work(n: int) -> None: ...

    assert not work.look(1)
    work.delay(1)
    assert work.look(n=1).cooling.left == 60
    assert work.clear_cooldown(n=1) is True
    assert work.clear_cooldown(1) is False
    assert work.delay(1).state == states.SUCCESS


def test_a_store_in_memory_has_no_lock_for_code_outside(app: Celery) -> None:
    @app.task(base=ExclusiveTask)
    def work() -> None: ...

    with pytest.raises(ConfigurationError, match="set coord_url = 'redis://...'"):
        work.lock()


def test_arguments_that_do_not_fit_fail_the_run_as_they_do_in_celery(app: Celery) -> None:
    @app.task(base=ExclusiveTask, typing=False)
    def work(n: int) -> None: ...

    assert isinstance(work.delay().result, TypeError)


def test_an_argument_without_a_stable_form_fails_the_run_with_what_to_do(app: Celery) -> None:
    @app.task(base=ExclusiveTask)
    def work(thing: object) -> None: ...

    result = work.apply((object(),))

    assert result.state == states.FAILURE
    assert isinstance(result.result, UnstableKey)


def test_an_eager_run_says_that_the_store_is_away(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.task(base=ExclusiveTask)
    def work() -> None:
        pytest.fail("unguarded")

    def away(*args: object, **kwargs: object) -> None:
        raise StoreError("away")

    monkeypatch.setattr(coordination(app).store, "acquire", away)

    assert isinstance(work.delay().result, StoreError)


def test_the_bound_of_a_hold_is_the_tasks_time_limit(app: Celery) -> None:
    bounds: dict[str, float] = {}

    def note(name: str) -> None:
        keeper = coordination(app).keeper
        [holding] = keeper._holdings.values()
        bounds[name] = holding.renew_until - coordination(app).clock.monotonic()

    @app.task(base=ExclusiveTask)
    def plain() -> None:
        note("plain")

    @app.task(base=ExclusiveTask, time_limit=100)
    def limited() -> None:
        note("limited")

    @app.task(base=ExclusiveTask, exclusive=Exclusive(max_hold=50), time_limit=100)
    def said() -> None:
        note("said")

    for task in (plain, limited, said):
        task.apply(throw=True)

    assert bounds == {"plain": 86400, "limited": 100, "said": 50}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"cooldwn": 60}, "no option 'cooldwn': did you mean 'cooldown'"),
    ({"exlusive": True}, "did you mean 'exclusive'"),
    ({"keys": ["n"]}, "did you mean 'key'"),
    ({"ttl": 30}, r"write exclusive=Exclusive\(ttl=30\)"),
    ({"max_hold": 30}, r"write exclusive=Exclusive\(max_hold=3600\)"),
    ({"jitter": 0.1}, r"write cooldown=Cooldown\(60, jitter=0.1\)"),
    ({"on_failure": 10}, r"write cooldown=Cooldown\(60, on_failure=10\)"),
    ({"key": ["m"]}, "key names the argument 'm', which the task lacks"),
    ({"key": "x:{m}"}, "which the task lacks"),
    ({"key": lambda m: m}, "which the task lacks"),
    ({"cooldown": 0}, "write cooldown=60"),
    ({"cooldown": "60"}, "write cooldown=60"),
    ({"exclusive": "yes"}, "write exclusive=True"),
    ({"lock": True}, "'lock' is a method of the task"),
    ({"on_drop": "ignore"}, "on_drop is one of 'revoke', 'return'"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_a_wrong_option_is_refused_when_the_task_is_defined(app: Celery, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):

        @app.task(base=ExclusiveTask, lazy=False, **options)
        def work(n: int) -> None: ...


def test_a_wrong_option_on_a_base_is_refused_when_the_base_is_defined() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'cooldown'"):

        class Base(CoordinatedTask):
            abstract = True
            cooldwn = 60


def test_attributes_of_ones_own_are_ones_own(app: Celery) -> None:
    @app.task(base=ExclusiveTask, api_key="x", autoretry_for=(OSError,), retry_backoff=True, max_retries=5, team="db")
    def work(n: int) -> None: ...

    assert work.api_key == "x"
    assert work.delay(1).state == states.SUCCESS


def test_a_cooldown_task_says_for_how_long(app: Celery) -> None:
    with pytest.raises(ConfigurationError, match="write cooldown=60"):

        @app.task(base=CooldownTask, lazy=False)
        def work(n: int) -> None: ...


def test_a_key_that_would_guard_nothing_is_refused(app: Celery) -> None:
    with pytest.raises(ConfigurationError, match="key guards nothing: write exclusive=True or cooldown=60"):

        @app.task(base=CoordinatedTask, lazy=False, key=["n"])
        def work(n: int) -> None: ...


def test_a_switch_can_be_turned_off_again(app: Celery) -> None:
    @app.task(base=ExclusiveTask, exclusive=False)
    def work(n: int) -> str:
        assert current_lease(None) is None
        return "ran"

    assert work.delay(1).get() == "ran"
