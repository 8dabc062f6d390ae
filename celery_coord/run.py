"""One run of a task, on its way through the gate: what it asks for, and what becomes of it when it is not admitted."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from celery.exceptions import Ignore, Reject, Retry

from celery_coord.app import coordination
from celery_coord.drop import dropped, revoke
from celery_coord.errors import StoreError
from celery_coord.events import StoreFailed, TaskDeferred, TaskDropped, TaskDuplicate, TaskUnguarded
from celery_coord.gate import Admitted, Claim, Ending, Unanswered
from celery_coord.lease import Held, Owner, Refusal, is_of_same_run
from celery_coord.options import Policy
from celery_coord.policy import Exclusive

#: Set in a message that passes the cooldown by.
PASS_COOLDOWN = "coord_pass_cooldown"  # noqa: S105  a header
#: How often the store's absence has sent a message again.
DEFERRALS = "coord_deferrals"

_LONGEST_DEFERRAL = 60.0
#: For the store and the broker are often one server: a run that is sent again holds its slot for some five minutes
#: rather than be lost with a message that was acknowledged early.
_PATIENT = {"max_retries": 60, "interval_start": 0.2, "interval_step": 0.4, "interval_max": 5.0}
_GENERATIONS_PER_NESTING = 1_000_000


class Run:
    """One run of a task, on its way through the gate."""

    def __init__(self, task: Any, policy: Policy, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._task = task
        self._policy = policy
        self._request = request
        self._coordination = coordination(task.app)
        self._settings = self._coordination.settings
        self._key = policy.make_key(args, kwargs)
        generation = (request.replaced_task_nesting or 0) * _GENERATIONS_PER_NESTING + (request.retries or 0)
        self._owner = Owner.new(request.id or "", generation)

    def admitted(self, body: Callable[[], Any]) -> Any:
        """The value of the body, or of the drop."""
        outcome = self._coordination.gate.admit(self._claim(), body, _ending)
        match outcome:
            case Admitted(value):
                return value
            case Unanswered(error):
                return self._unanswered(error, body)
        if is_of_same_run(outcome, self._owner) and not self._request.is_eager:  # nobody delivers that twice
            raise self._met_itself(outcome)
        return self._drop(outcome)

    def _claim(self) -> Claim:
        exclusive, cooldown = self._policy.exclusive, self._policy.cooldown
        return Claim(
            self._key,
            self._owner,
            label=f"{self._task.name} at {self._request.hostname}, pid {self._coordination.pid}",
            ttl=0.0 if exclusive is None else float(exclusive.ttl or self._settings.lease_ttl),  # type: ignore[arg-type]
            max_hold=self._max_hold(exclusive),
            cooldown=cooldown,
            heed_cooldown=cooldown is not None and not self._header(PASS_COOLDOWN),
        )

    def _header(self, name: str) -> Any:
        return (self._request.headers or {}).get(name)

    def _max_hold(self, exclusive: Exclusive | None) -> float:
        limit, _ = self._request.timelimit or (None, None)
        said = exclusive.max_hold if exclusive else None
        return float(said or limit or self._task.time_limit or self._settings.max_hold)  # type: ignore[arg-type]

    def _drop(self, refusal: Refusal) -> Any:
        """Another run holds the key, or has left it cooling: this one ends, for everybody who waits for it."""
        label = refusal.label if isinstance(refusal, Held) else ""
        self._coordination.notify(
            TaskDropped(
                self._task.name,
                self._request.id,
                refusal.reason,
                refusal.key,
                refusal.holder,
                label,
                refusal.left,
            )
        )
        if (self._policy.on_drop or self._settings.on_drop) == "return":
            return dropped(refusal).as_result()
        raise revoke(self._task, self._request, refusal)

    def _met_itself(self, refusal: Refusal) -> Ignore:
        """The message was delivered again. While its run may still live it waits; after that it is a duplicate."""
        if isinstance(refusal, Held):
            ttl = refusal.left if refusal.left is not None else self._settings.lease_ttl
            return self._again("redelivered", ttl + random.random())  # noqa: S311  not a secret
        self._coordination.notify(TaskDuplicate(self._task.name, self._request.id, self._key))
        return Ignore("a duplicate of a run that has ended")

    def _unanswered(self, error: StoreError, body: Callable[[], Any]) -> Any:
        """The store is away: the setting says what becomes of the run."""
        self._coordination.notify(StoreFailed(f"asking for {self._key}", str(error)))
        if self._settings.on_store_error == "run":
            self._coordination.notify(TaskUnguarded(self._task.name, self._request.id, self._key))
            return body()
        if self._settings.on_store_error == "fail" or self._request.is_eager:
            raise error
        deferrals = self._header(DEFERRALS) or 0
        longest = min(_LONGEST_DEFERRAL, 2.0 ** min(deferrals + 1, 10))
        raise self._again("store", random.uniform(longest / 2, longest), {DEFERRALS: deferrals + 1})  # noqa: S311

    def _again(self, why: str, countdown: float, headers: dict[str, Any] | None = None) -> Ignore:
        """Send the message again as it is, for later; writes nothing under its id, and uses no retry up."""
        task, request = self._task, self._request
        again = task.signature_from_request(
            request,
            countdown=countdown,
            retries=request.retries,
            headers={**(request.headers or {}), **(headers or {})},
        )
        again.apply_async(retry=True, retry_policy=_PATIENT)
        self._coordination.notify(TaskDeferred(task.name, request.id, self._key, why, countdown))
        return Ignore(f"sent again: {why}")


def _ending(error: BaseException) -> Ending:
    """What an exception of the body means: a retry, a replacement, a shutdown are neither a good end nor a failure."""
    if isinstance(error, Exception) and not isinstance(error, Ignore | Reject | Retry):
        return Ending.FAILED
    return Ending.NEITHER
