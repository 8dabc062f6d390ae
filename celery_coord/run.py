"""One run of a task, on its way through the gate: what it asks for, and what becomes of it when it is not admitted."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

from celery import signals, states
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from celery.utils.time import maybe_make_aware

from celery_coord import parent
from celery_coord.app import coordination
from celery_coord.drop import dropped, ignores_result, revoke
from celery_coord.errors import NewerLayout, StoreError
from celery_coord.events import LAYOUT, STORE, StoreFailed, TaskDeferred, TaskDropped, TaskDuplicate, TaskUnguarded
from celery_coord.gate import Admitted, Claim, Ending, Kind, Unanswered, current_lease
from celery_coord.lease import RENEW_AFTER, Done, Held, Owner, Refusal, is_of_same_run
from celery_coord.options import Policy
from celery_coord.policy import Exclusive

#: Set in a message that passes the cooldown by.
PASS_COOLDOWN = "coord_pass_cooldown"  # noqa: S105  a header
#: What a worker's parent calls a delivery, among the properties that it hands to the child; never published.
NONCE = "coord_delivery"
#: Set in a message whose run has met its own earlier delivery.
MET_ITSELF = "coord_met_itself"
#: How many runs an eager run stands in for, one for another.
EAGER_NESTING = "coord_nesting"
#: How often a message was sent again because it was not admitted yet.
DEFERRALS = "coord_deferrals"

#: Set in a message whose run has met no store: since when, in seconds since the epoch, and how often.
AWAY = "coord_away"

_SHORTEST_DEFERRAL = 1.0
#: For the store and the broker are often one server: a run that is sent again holds its slot for some five minutes
#: rather than be lost with a message that was acknowledged early.
_PATIENT = {"max_retries": 60, "interval_start": 0.2, "interval_step": 0.4, "interval_max": 5.0}
_GENERATIONS_PER_NESTING = 1_000_000


def owner_of(request: Any) -> Owner:
    """The owner that a run acquires its lease as; the same in the parent and in the child.

    Args:
        request: what Celery hands to the run, a `celery.app.task.Context`.
    """
    nesting = request.replaced_task_nesting or (request.headers or {}).get(EAGER_NESTING) or 0
    generation = nesting * _GENERATIONS_PER_NESTING + (request.retries or 0)
    nonce = (request.properties or {}).get(NONCE)
    return Owner(request.id or "", generation, nonce) if nonce else Owner.new(request.id or "", generation)


class Replaced(Ignore):  # type: ignore[misc]  # Celery has no types
    """The run has published its replacement. A plain `Ignore` says no such thing."""


class Run:
    """One run of a task, on its way through the gate."""

    def __init__(self, task: Any, policy: Policy, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._task = task
        self._policy = policy
        self._request = request
        self._coordination = coordination(task.app)
        self._settings = self._coordination.settings
        self._key = policy.make_key(args, kwargs)
        self._owner = owner_of(request)
        headers: dict[str, Any] = request.headers or {}
        self._deferrals: int = headers.pop(DEFERRALS, 0)  # a retry of the run begins to count anew
        since, tries = headers.pop(AWAY, None) or (self._coordination.clock.time(), 0)
        self._away_since: float = since
        self._tries_without_store: int = tries
        self._met_itself: bool = headers.pop(MET_ITSELF, False)
        # Without what a broker adds: RabbitMQ takes a message that brings its own `x-death` along for one in a circle.
        self._headers = {name: value for name, value in headers.items() if not name.startswith("x-")}
        self._ttl: float = task.coord_ttl
        self._remembered_for = 0.0 if request.is_eager else self._settings.done_ttl
        self._began_at = self._coordination.clock.monotonic()
        self._is_decided = False  # whether the body has begun, or the drop
        self._is_sent_again = False
        # Where a time limit cuts short what is not the store's answer: as what the run is put off, and for how long.
        self._is_put_off_as: tuple[str, float] | None = None

    def admitted(self, body: Callable[[], Any]) -> Any:
        """The value of the body, or of the drop."""
        try:
            return self._admitted(body)
        except SoftTimeLimitExceeded:
            if self._is_decided or self._request.is_eager:  # an eager run's limit is that of the body around it
                raise
            raise self._cut_short() from None

    def _cut_short(self) -> Ignore:
        """The soft time limit has passed before the body has begun: it is none for the store or the broker.

        Nor is a body let through that has no limit any more, whatever is to become of runs that meet no store.
        """
        if self._is_sent_again:
            return Ignore("sent again")
        if self._is_put_off_as is None:
            return self._without_answer(StoreError("the task's soft time limit passed before it answered"))
        self._met_itself = True  # it may have been sent already: then there are two of it
        return self._again(*self._is_put_off_as)

    def _admitted(self, body: Callable[[], Any]) -> Any:
        if self._was_delivered_before():
            self._is_put_off_as = "redelivered", self._step()
            if self._end_is_told():
                raise self._duplicate()
        self._is_put_off_as = None
        outcome = self._coordination.gate.admit(
            self._claim(),
            self._begun(body),
            lambda error: self._judge(error) if self._is_decided else Ending(Kind.NEITHER),
        )
        match outcome:
            case Admitted(value):
                return value
            case Unanswered(error):
                return self._unanswered(error, body)
            case Done():
                return self._done(outcome, body)
        if self._request.is_eager:  # there is nobody who delivers it twice, or later
            return self._drop(outcome)
        if isinstance(outcome, Held) and is_of_same_run(outcome, self._owner):
            raise self._again("redelivered", min(self._step(), self._left(outcome)))
        if isinstance(outcome, Held) and outcome.overdue:
            raise self._again("unrenewed", self._left(outcome))
        if isinstance(outcome, Held) and self._waits_its_turn(outcome):
            raise self._again("begun", min(self._step(), self._left(outcome)))
        return self._drop(outcome)

    def _waits_its_turn(self, held: Held) -> bool:
        """Whether the run has begun, in this try or an earlier one, or stands in for the run that holds its key.

        What has begun is not dropped because another was faster: that one may have other arguments.
        """
        stands_in = self._headers.get(parent.REPLACES) and self._headers.get(parent.HEADER) == [held.key, held.token]
        return bool(held.begun or self._request.retries or stands_in)

    def _claim(self) -> Claim:
        exclusive, cooldown = self._policy.exclusive, self._policy.cooldown
        return Claim(
            self._key,
            self._owner,
            label=f"{self._task.name} at {self._request.hostname}, pid {self._coordination.pid}",
            ttl=self._ttl if exclusive else 0.0,
            max_hold=self._max_hold(exclusive),
            cooldown=cooldown,
            heed_cooldown=cooldown is not None and not self._headers.get(PASS_COOLDOWN),
            remember=self._remembered_for,
            raise_on_loss=exclusive is not None and exclusive.on_lost == "raise",
        )

    def _max_hold(self, exclusive: Exclusive | None) -> float:
        limit, _ = self._request.timelimit or (None, None)
        said = exclusive.max_hold if exclusive else None
        return float(said or limit or self._task.time_limit or self._settings.max_hold)  # type: ignore[arg-type]

    def _begun(self, body: Callable[[], Any]) -> Callable[[], Any]:
        def begun() -> Any:
            self._is_decided = True
            if self._policy.exclusive is not None:
                holding = current_lease()
                parent.holds(self._request, holding.key, holding.token)
            return body()

        return begun

    def _judge(self, error: BaseException | None) -> Ending:
        """What the end of the body means: a retry, a replacement, a shutdown are neither a good end nor a failure."""
        remember = self._remembered_for
        match error:
            case None if getattr(self._request, parent.REPLACED, False):  # an eager run goes on after that
                return Ending(Kind.PASSED_ON, remember=remember)
            case None:
                return self._ended_well(remember)
            case Retry():
                return Ending(Kind.PASSED_ON, remember=remember, hold=self._hold_until_due(error))
            case Replaced():
                return Ending(Kind.PASSED_ON, remember=remember)
            case Exception() if not isinstance(error, Ignore | Reject):
                return Ending(Kind.FAILED)
        return Ending(Kind.NEITHER)

    def _ended_well(self, remember: float) -> Ending:
        """The process may still die before it has told of the end: then the message, delivered again, runs again.

        Where the result says whether all were told, nobody needs to add anything. Somebody may forget a result, though,
        as soon as he has it: so a run that another delivery may be waiting for says it as well.
        """
        request = self._request
        replies = isinstance(self._task.backend, RPCBackend) and not ignores_result(self._task, request)
        follows = bool(request.callbacks or request.chain or request.chord or replies)
        result_tells = self._result_tells()
        if remember and (self._may_be_waited_for() if result_tells else follows):
            request.coord_when_told = self._all_are_told
        return Ending(Kind.WELL, remember=remember, told=not (result_tells or follows))

    def _may_be_waited_for(self) -> bool:
        """Whether another delivery of the message may have met this one at work."""
        lasted = self._coordination.clock.monotonic() - self._began_at
        return lasted >= self._ttl * RENEW_AFTER or bool(self._request.eta) or self._was_delivered_before()

    def _all_are_told(self) -> None:
        def remember() -> bool:
            self._coordination.store.cool(self._key, self._owner, 0.0, remember=self._settings.done_ttl)
            return True

        try:
            remember()
        except StoreError as error:
            self._coordination.notify(StoreFailed(f"remembering the end of {self._request.id}", str(error)))
            until = self._coordination.clock.monotonic() + self._settings.done_ttl
            self._coordination.keeper.do_later(remember, until=until)

    def _hold_until_due(self, retry: Retry) -> float:
        """For how long the key is kept for a retry; 0 where it is free meanwhile."""
        if not (self._policy.exclusive and self._policy.exclusive.hold_on_retry):
            return 0.0
        due = retry.when
        if isinstance(due, datetime):
            due = (maybe_make_aware(due, self._task.app.timezone) - self._task.app.now()).total_seconds()
        return max(0.0, float(due or 0.0)) + self._ttl

    def _drop(self, refusal: Refusal) -> Any:
        """Another run holds the key, or has left it cooling: this one ends, for everybody who waits for it."""
        self._is_decided = True
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

    def _done(self, done: Done, body: Callable[[], Any]) -> Any:
        """The run has ended already: its message is a duplicate, unless its process died before it could tell."""
        if done.told:
            raise self._duplicate()
        self._is_put_off_as = "untold", self._step()
        if self._result_tells():
            state = self._state()
            if state in states.READY_STATES:
                raise self._duplicate()
            if state is None:
                raise self._again("untold", self._step())
        if done.age < self._ttl:
            raise self._again("untold", min(self._step(), self._ttl - done.age))
        try:
            self._coordination.store.forget(self._key, self._owner)
        except StoreError as error:
            return self._unanswered(error, body)
        return self._admitted(body)

    def _duplicate(self) -> Ignore:
        self._coordination.notify(TaskDuplicate(self._task.name, self._request.id, self._key))
        return Ignore("a duplicate of a run that has ended")

    def _unanswered(self, error: StoreError, body: Callable[[], Any]) -> Any:
        """The store is away: the setting says what becomes of the run."""
        # Whoever uses the key under a later layout is not to be run beside: that store is not away.
        if self._on_store_error == "run" and not isinstance(error, NewerLayout):
            self._coordination.notify(StoreFailed(f"asking for {self._key}", str(error)))
            self._coordination.notify(TaskUnguarded(self._task.name, self._request.id, self._key))
            self._is_decided = True
            return body()
        raise self._without_answer(error)

    @property
    def _on_store_error(self) -> str:
        return self._policy.on_store_error or self._settings.on_store_error

    def _without_answer(self, error: StoreError) -> Ignore:
        """A run that is not let through without an answer is put off, or fails.

        Raises:
            StoreError: it fails.
        """
        self._coordination.notify(StoreFailed(f"asking for {self._key}", str(error)))
        longest = min(self._settings.store_retry_pause, 2.0 ** (1 + min(self._tries_without_store, 10)))
        countdown = random.uniform(longest / 2, longest)  # noqa: S311  not a secret
        # An earlier delivery may be at work under the same id, and is not to be called failed.
        gives_up = self._on_store_error == "fail" or self._has_tried_for_long(countdown)
        if self._request.is_eager or (gives_up and not self._was_delivered_before()):
            raise error
        return self._again(LAYOUT if isinstance(error, NewerLayout) else STORE, countdown)

    def _has_tried_for_long(self, countdown: float) -> bool:
        """Whether the next try would come too late."""
        limit = self._settings.store_retry_for
        return limit is not None and self._coordination.clock.time() + countdown > self._away_since + limit

    def _step(self) -> float:
        """How long to wait before the next try: a second, then twice as long each time."""
        return 2.0 ** min(self._deferrals, 10)

    def _left(self, held: Held) -> float:
        """The seconds until a lease has ended, and a little for each of those who wait for that."""
        left = held.left if held.left is not None else self._ttl
        if held.overdue and held.ttl is not None:
            left = min(left, held.ttl)  # more than that is left where the store's clock was set back
        return left + random.uniform(0.05, 0.5)  # noqa: S311  not a secret

    def _again(self, why: str, countdown: float) -> Ignore:
        """Send the message again as it is, for later; writes nothing under its id, and uses no retry up."""
        self._is_put_off_as = why, countdown
        # One that waits for longer than that is delivered again by the broker, and each copy would send another.
        # And a quorum queue counts in whole seconds.
        countdown = max(_SHORTEST_DEFERRAL, min(countdown, self._settings.visibility_timeout / 2))
        task, request = self._task, self._request
        # What is sent anew does not say any more that it was delivered before.
        met_itself = self._was_delivered_before() or why in ("redelivered", "untold")
        said: dict[str, Any] = {DEFERRALS: self._deferrals + 1, MET_ITSELF: met_itself}
        if why in (STORE, LAYOUT):
            said[AWAY] = (self._away_since, self._tries_without_store + 1)
        again = task.signature_from_request(
            request,
            countdown=countdown,
            retries=request.retries,
            # Its own earlier delivery began in time: a copy that expired would be revoked, under the same id.
            expires=None if met_itself else request.expires,
            headers={**self._headers, **said},
        )
        again.apply_async(retry=True, retry_policy=_PATIENT)
        self._is_sent_again = True
        self._coordination.notify(TaskDeferred(task.name, request.id, self._key, why, countdown))
        return Ignore(f"sent again: {why}")

    def _was_delivered_before(self) -> bool:
        return bool(self._met_itself or (self._request.delivery_info or {}).get("redelivered"))

    def _end_is_told(self) -> bool:
        """Whether all know already that the run ended well, or was dropped; a failure may be delivered again to try."""
        return self._result_tells() and self._state() in (states.SUCCESS, states.REVOKED)

    def _result_tells(self) -> bool:
        """Whether a result that is there means that all were told. A chord is told after that."""
        keeps = not isinstance(self._task.backend, DisabledBackend | RPCBackend)
        return keeps and not ignores_result(self._task, self._request) and not self._request.chord

    def _state(self) -> str | None:
        """What the result backend knows; None where it does not answer."""
        try:
            return str(self._task.backend.get_state(self._request.id))
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:  # noqa: BLE001  the backend's errors are as many as there are backends
            self._coordination.notify(StoreFailed(f"asking for the result of {self._request.id}", str(error)))
            return None


@signals.task_success.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _told(sender: Any = None, **_: Any) -> None:
    """All that a run's good end sets off has been sent: from now on its message is a duplicate."""
    remember = getattr(sender.request_stack.top, "coord_when_told", None)
    if remember is not None:
        remember()
