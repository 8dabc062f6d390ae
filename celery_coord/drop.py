"""What a dropped run is to those who wait for it.

A run that is dropped must come to an end for everybody: for who called ``get()`` on it, for its group and chord, and
for what stands after it in its chain, which will never be sent. `raise Ignore` alone leaves all of them waiting.

There are two ways. *Revoke*: the run, and everything after it, ends as REVOKED with `TaskDropped`. *Return*: the run
counts as done with the value of a `Dropped`, and what stands after it goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from celery import states
from celery.app.task import Context
from celery.exceptions import Ignore, TaskRevokedError
from celery.utils import uuid

from celery_coord.lease import Refusal

_MARK = "coord_dropped"


class TaskDropped(TaskRevokedError):  # type: ignore[misc]  # Celery has no types
    """The run was not admitted; what waiters get under ``on_drop="revoke"``.

    Args:
        reason: ``"held"`` or ``"cooling"``.
        key: the name of what is guarded.
        holder: the owner that held it, or whose run left the cooldown.
        left: the seconds for which that was to last; None: no end was known.
    """

    def __init__(self, reason: str, key: str = "", holder: str = "", left: float | None = None) -> None:
        super().__init__(reason, key, holder, left)
        self.reason = reason
        self.key = key
        self.holder = holder
        self.left = left

    def __str__(self) -> str:
        what = "held by" if self.reason == "held" else "cooling since the run of"
        left = "without an end" if self.left is None else f"{self.left:.1f} s left"
        return f"dropped: {self.key} was {what} {self.holder}, {left}"


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a dropped run returns under ``on_drop="return"``, once it is read with `Dropped.of`.

    The result itself is a plain mapping, so that any serializer takes it, and any process reads it.

    Attributes:
        reason: ``"held"`` or ``"cooling"``.
        key: the name of what is guarded.
        holder: the owner that held it, or whose run left the cooldown.
        left: the seconds for which that was to last; None: no end was known.
    """

    reason: str
    key: str
    holder: str
    left: float | None

    @classmethod
    def of(cls, result: object) -> Dropped | None:
        """The drop that a task's result tells of; None if the task ran.

        >>> if dropped := Dropped.of(refresh.delay(7).get()): print(dropped.reason)  # doctest: +SKIP
        """
        if not (isinstance(result, Mapping) and result.get(_MARK) is True):
            return None
        return cls(result["reason"], result["key"], result["holder"], result["left"])

    def as_result(self) -> dict[str, object]:
        """The plain mapping that is the task's result."""
        return {_MARK: True, **asdict(self)}


class Revoked(Ignore):  # type: ignore[misc]  # Celery has no types
    """Tells Celery's tracer that the run's end is already written."""

    def __init__(self, error: TaskDropped) -> None:
        super().__init__(error)
        self.error = error


def dropped(refusal: Refusal) -> Dropped:
    """A refusal, as the end of a run."""
    return Dropped(refusal.reason, refusal.key, refusal.holder, refusal.left)


def revoke(task: Any, request: Any, refusal: Refusal) -> Revoked:
    """End a run, and everything that waits for it, as REVOKED.

    Args:
        task: the task.
        request: the run's request.
        refusal: why it was not admitted.

    Returns:
        What to raise: it tells the tracer to write nothing more.
    """
    end = dropped(refusal)
    error = TaskDropped(end.reason, end.key, end.holder, end.left)
    ignored = ignores_result(task, request) and not task.store_errors_even_if_ignored
    if not request.is_eager:
        # The run itself comes last: when its own end is there, all others have been told.
        for successor in _all_after([*(request.chain or ()), *(request.callbacks or ())]):
            _end(task.backend, successor, error, store=True)
        _end(task.backend, request, error, store=not ignored)
    elif task.store_eager_result and not ignored:
        task.backend.store_result(request.id, error, states.REVOKED, request=request)
    return Revoked(error)


def ignores_result(task: Any, request: Any) -> bool:
    """The run's own word goes before the task's."""
    said = vars(request).get("ignore_result")
    return bool(task.ignore_result if said is None else said)


def _end(backend: Any, request: Any, error: TaskDropped, *, store: bool) -> None:
    if store and request.id is not None:
        backend.store_result(request.id, error, states.REVOKED, request=request)
    if request.chord:
        # Before Celery 5.7 a chord whose body is a chain has no id of its own, and Celery fails to fail it.
        options = request.chord.setdefault("options", {})
        options["task_id"] = options.get("task_id") or uuid()
        backend.on_chord_part_return(request, states.REVOKED, error)
        # Celery fails the chord's body; nobody ends what stands behind that.
        body, *behind = _all_after([request.chord])
        _end(backend, body, error, store=False)
        for successor in behind:
            _end(backend, successor, error, store=successor.id != body.id)


def _all_after(signatures: Any, *, part: bool = True) -> Iterator[Any]:
    """A request for each task that stands in these signatures, however deep, and will never be sent.

    A canvas is a signature of a task of its own, with other signatures in its arguments; waiters wait for those.

    Args:
        signatures: as they stand in a message.
        part: whether a chord that was sent may wait for them. One that was not counts no parts; its body is ended too.
    """
    for signature in signatures:
        options, kwargs = signature.get("options") or {}, signature.get("kwargs") or {}
        request = Context(signature)
        request.update(options, id=options.get("task_id"), group=options.get("group_id"))
        request.chord = options.get("chord") if part else None
        yield request
        yield from _all_after(_members(kwargs.get("tasks")), part=part)
        yield from _all_after(_members(kwargs.get("header")), part=False)
        yield from _all_after(_members(kwargs.get("body")), part=part)
        yield from _all_after(_members(options.get("chain") or ()), part=part)
        yield from _all_after(_members(options.get("link") or ()), part=part)


def _members(canvas: Any) -> Any:
    """The signatures that an argument of a canvas is; none where a plain task has an argument of that name."""
    found = canvas if isinstance(canvas, list | tuple) else [canvas]
    return [signature for signature in found if isinstance(signature, Mapping) and "task" in signature]
