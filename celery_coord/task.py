"""The task bases: coordination as options of a task.

The gate stands in ``__call__``, around the body alone. There its end comes before the result is stored and before
anything is published, and nothing else covers every ending in which Python still runs.

A run is what Celery's tracer calls. Any other call of a task, ``task(1)`` among them, is a plain function call: it
takes no lease and heeds no quiet period. So are the calls that ``task.map``, ``starmap`` and ``chunks`` make.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, cast

from celery import Task, states
from celery.exceptions import Ignore
from celery.result import EagerResult
from kombu.utils.imports import symbol_by_name

from celery_coord import worker
from celery_coord.app import Coordination, coordination
from celery_coord.drop import Revoked
from celery_coord.errors import ConfigurationError
from celery_coord.events import CooldownCleared
from celery_coord.keys import KeySpec
from celery_coord.lease import Look
from celery_coord.options import Policy, compile_policy, is_concrete, option, refuse_misspelt, shown_name
from celery_coord.parent import REPLACED
from celery_coord.policy import Cooldown, Exclusive, OnDrop, OnStoreError, Seconds
from celery_coord.run import EAGER_NESTING, PASS_COOLDOWN, Replaced, Run

#: What a worker makes of a message; named, so that no other process needs to import it.
_REQUEST = "celery_coord.delivery:Request"


def _gated(call: Callable[..., Any]) -> Callable[..., Any]:
    """A ``__call__`` whose body is admitted first, where it is a run of the task."""

    @wraps(call)
    def gated(self: CoordinatedTask, *args: Any, **kwargs: Any) -> Any:
        request = self.request_stack.top
        if request is None or request.called_directly or hasattr(request, "coord_stage") or self._coord_policy is None:
            return call(self, *args, **kwargs)
        request.coord_stage = "admitted"
        return Run(self, self._coord_policy, request, args, kwargs).admitted(partial(call, self, *args, **kwargs))

    del gated.__wrapped__  # Celery's annotation "@__call__" unwraps what has one, and so would take the gate off
    gated.is_gate = True  # type: ignore[attr-defined]
    return gated


def _plain(self: CoordinatedTask, *args: Any, **kwargs: Any) -> Any:
    """The body of a run; or, for any other call, a plain function call, as `celery.Task` has it."""
    request = self.request_stack.top
    if request is not None and not request.called_directly and getattr(request, "coord_stage", "") != "body":
        request.coord_stage = "body"
        if self._calls_run:
            return self.run(*args, **kwargs)  # as the tracer does: the request is in place
    return super(CoordinatedTask, self).__call__(*args, **kwargs)


def _calls_run_alone(cls: type[Task]) -> bool:
    """Whether no other base stands between ours and Celery's ``__call__``."""
    after = cls.__mro__[cls.__mro__.index(CoordinatedTask) + 1 :]
    return next(base for base in after if "__call__" in vars(base)) is Task


class CoordinatedTask(Task):  # type: ignore[misc]  # Celery has no types
    """A task with the options of this library; without them it is like any other.

    Attributes:
        key: what is guarded: argument names, a template such as ``"cluster:{cluster_id}"``, or a callable that gets
            the arguments that it names. None: all arguments.
        exclusive: True or `Exclusive`: a run that finds its key held is dropped.
        cooldown: seconds, a timedelta or `Cooldown`: a run that ended well keeps the next ones away for so long.
        on_drop: ``"revoke"`` or ``"return"``: what a dropped run is to those who wait for it. None: the setting
            ``coord_on_drop``.
        on_store_error: ``"retry"``, ``"run"`` or ``"fail"``: what becomes of a run when the store does not answer.
            None: the setting ``coord_on_store_error``.
        private_arguments: the arguments must not be readable in the key. Tasks that share a template must agree.

    Raises:
        ConfigurationError: on definition, where an option is wrong, misspelt, or names an argument that the task lacks.
    """

    abstract = True

    key: KeySpec = None
    exclusive: bool | Exclusive | None = None
    cooldown: Seconds | Cooldown | None = None
    on_drop: OnDrop | None = None
    on_store_error: OnStoreError | None = None
    private_arguments: bool = False

    Request = _REQUEST
    name: Any  # Celery's own, which has no types
    request_stack: Any
    _needs_cooldown = False
    _calls_run = True

    __call__ = _gated(_plain)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not getattr(cls.__call__, "is_gate", False):  # its own, or that of a base that stands before ours
            setattr(cls, "__call__", _gated(cls.__call__))  # noqa: B010  mypy has a method for a constant
        cls._calls_run = _calls_run_alone(cls)
        refuse_misspelt(cls)
        cls._compiled(shown_name(cls))

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Celery's hook: options may have come from the setting ``task_annotations``."""
        super().on_bound(app)
        refuse_misspelt(cls)
        if cls.Request != _REQUEST:
            cls.Request = _with_ours(cls.Request)
        if cls._compiled(shown_name(cls)) is not None:
            app.steps["worker"].add(worker.CheckStep)
        elif is_concrete(cls) and option(cls, "key") is not None:
            msg = f"{shown_name(cls)}: key guards nothing: write exclusive=True or cooldown=60 beside it"
            raise ConfigurationError(msg)

    @classmethod
    def _compiled(cls, name: str) -> Policy | None:
        return compile_policy(cls, name, needs_cooldown=cls._needs_cooldown)

    @property
    def _coord_policy(self) -> Policy | None:
        """What the task asks for; None where it is like any other."""
        try:
            return self.__dict__["_coord_compiled"]  # type: ignore[no-any-return]
        except KeyError:
            self._get_app()  # binds it, with its annotations
            self.__dict__["_coord_compiled"] = self._compiled(self.name)
            return self.__dict__["_coord_compiled"]  # type: ignore[no-any-return]

    @property
    def coord_takes_lease(self) -> bool:
        """Whether its runs take a lease."""
        return self._coord_policy is not None and self._coord_policy.exclusive is not None

    @property
    def coord_ttl(self) -> float:
        """How long a lease of its runs outlives its last renewal, in seconds."""
        exclusive = self._own_policy().exclusive
        return float((exclusive and exclusive.ttl) or self._coordination().settings.lease_ttl)  # type: ignore[arg-type]

    def key_of(self, *args: Any, **kwargs: Any) -> str:
        """The key of a call with these arguments.

        Raises:
            ConfigurationError: the task has neither ``exclusive`` nor ``cooldown``.
            TypeError: the arguments do not fit the task's signature.
            UnstableKey: an argument has no stable form.
        """
        return self._own_policy().make_key(args, kwargs)

    def look(self, *args: Any, **kwargs: Any) -> Look:
        """Who holds or cools the key of a call with these arguments, and for how long.

        Returns:
            A `Look`: its ``held`` and ``cooling`` are None where there is no such thing; false when both are.

        Raises:
            StoreError: the store did not answer. And as `key_of`.
        """
        key = self.key_of(*args, **kwargs)
        return self._coordination().store.look(key)

    def clear_cooldown(self, *args: Any, **kwargs: Any) -> bool:
        """End the quiet period of a call with these arguments.

        Returns:
            Whether there was one.

        Raises:
            StoreError: the store did not answer. And as `key_of`.
        """
        key = self.key_of(*args, **kwargs)
        was_cooling = self._coordination().store.clear(key)
        if was_cooling:
            self._coordination().notify(CooldownCleared(key))
        return was_cooling

    def lock(self, *args: Any, **kwargs: Any) -> Any:
        """The lock that a run with these arguments takes, for code outside Celery: a web view, a shell.

        Returns:
            A `redis_lock.Lock`, not yet acquired, that renews itself. It has no fencing token, heeds no quiet period
            and leaves none. While the store does not answer, each of its acts raises redis-py's `ConnectionError` or
            `TimeoutError`, within a few times ``coord_store_timeout``.

        Raises:
            ConfigurationError: the store has no such lock (``memory://``). And as `key_of`.
        """
        coordinated = self._coordination()
        return coordinated.store.lock(self.key_of(*args, **kwargs), self.coord_ttl, f"lock@{coordinated.label}")

    def replace(self, sig: Any) -> Any:
        """Celery's `replace`."""
        setattr(self.request, REPLACED, True)
        try:
            return super().replace(sig)
        except Ignore as replaced:
            raise Replaced(*replaced.args) from None

    def apply_async(self, *args: Any, pass_cooldown: bool = False, **options: Any) -> Any:
        """Celery's `apply_async`, with ``pass_cooldown=True`` to run though the key is cooling."""
        return super().apply_async(*args, **_with_headers(options, {PASS_COOLDOWN: pass_cooldown}))

    def apply(self, *args: Any, pass_cooldown: bool = False, **options: Any) -> Any:
        """Celery's `apply`; a dropped run ends as REVOKED here as well."""
        # Celery lets an eager run forget which replacement it is.
        said = {PASS_COOLDOWN: pass_cooldown, EAGER_NESTING: options.get("replaced_task_nesting")}
        result = super().apply(*args, **_with_headers(options, said))
        if isinstance(result.result, Revoked):
            return EagerResult(result.id, result.result.error, states.REVOKED, name=self.name)
        return result

    def _own_policy(self) -> Policy:
        if self._coord_policy is None:
            msg = f"{self.name} is not coordinated: write exclusive=True or cooldown=60 on it"
            raise ConfigurationError(msg)
        return self._coord_policy

    def _coordination(self) -> Coordination:
        return coordination(self._get_app())


class ExclusiveTask(CoordinatedTask):
    """A task of which at most one run at a time is on a key."""

    abstract = True
    exclusive: bool | Exclusive | None = True


class CooldownTask(CoordinatedTask):
    """A task whose runs leave a quiet period; the option ``cooldown`` says for how long."""

    abstract = True
    _needs_cooldown = True


def _with_ours(request: Any) -> Any:
    """A user's own request class, which does what ours does as well."""
    find = cast("Callable[[Any], type]", symbol_by_name)
    ours, theirs = find(_REQUEST), find(request)
    return theirs if issubclass(theirs, ours) else type(theirs.__name__, (ours, theirs), {})


def _with_headers(options: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """The options of a call, with those headers that say something."""
    said = {name: value for name, value in said.items() if value}
    return {**options, "headers": {**(options.get("headers") or {}), **said}} if said else options
