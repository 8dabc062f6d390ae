"""However a run ends: when its key is free, how often its body began, what waiters see. One test for each cell."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import celery
import pytest
from coord_site import fresh_n
from endings_causes import AFTERWARDS, CAUSES, revoked_id
from endings_site import LONG_WAIT, EndingsSite, Run, Worker, observed
from endings_table import GREEN, Cell, Free, Outcome, cells

from celery_coord.testing import LocalServer
from tests.faults.proxy import reserved

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(celery.VERSION < (5, 7), reason="the table tells what Celery 5.7 does"),
]


WORKER_CELLS = [cell for cell in cells() if cell.pool != "eager"]
EAGER_CELLS = [cell for cell in cells() if cell.pool == "eager"]


def _can_have(pool: str) -> None:
    """Skipping for want of a package is a local privilege."""
    if pool in GREEN.split() and not os.environ.get("CI"):
        pytest.importorskip(pool)


def _id(cell: Cell) -> str:
    return cell.id


@pytest.mark.parametrize("cell", WORKER_CELLS, indirect=True, ids=_id)
def test_an_ending(cell: Cell, endings: EndingsSite) -> None:
    """4. However a task ends, its key is free within a second while the worker's parent lives, else within the ttl."""
    _can_have(cell.pool)
    with ExitStack() as stack:
        results = stack.enter_context(_results()) if "results" in cell.ending.cause else None
        worker = stack.enter_context(endings.worker_for(cell, results=results))
        stack.callback(lambda: print(worker.process.output[-4000:]))
        run = _begun(endings, cell, worker)
        stack.callback(endings.go, run.n)

        run.caused_at = time.monotonic()
        CAUSES[cell.ending.cause](endings, cell, run)
        if cell.ending.successor:  # not sooner: it could take the run, or let a copy of it be on its way to the dying
            successor = endings.succeed(worker, cell.successor, wait=False)
            stack.callback(successor.end)
        free = endings.when_free(run)
        if cell.ending.successor:
            successor.process.wait_for(" ready.", timeout=LONG_WAIT)
        AFTERWARDS.get(cell.ending.cause, CAUSES["nothing"])(endings, cell, run)
        seen = observed(endings, cell, run, free)

        assert cell.outcome.agrees(seen), f"{seen}, and not: {cell.outcome}"


@contextmanager
def _results() -> Iterator[LocalServer]:
    """A server of the results, whose port stays its own while it is stopped."""
    with reserved() as port, LocalServer(port=port.getsockname()[1]) as server:
        yield server


def _begun(endings: EndingsSite, cell: Cell, worker: Worker) -> Run:
    ending = cell.ending
    task_id = revoked_id(endings, worker) if ending.cause == "revoke it first" else None
    run = endings.send(worker, ending.task, ending.act, task_id=task_id, **ending.options)
    if cell.outcome.bodies:
        run.begun = endings.wait_for_word(run.n, "begin")
    if ending.act == "compute":
        endings.go(run.n)
    return run


@pytest.mark.parametrize("cell", EAGER_CELLS, indirect=True, ids=_id)
def test_an_eager_ending(cell: Cell, endings: EndingsSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """4. However a task ends, its key is free with the body where it runs in the process that asked for it."""
    n = fresh_n()
    endings.go(n)
    with monkeypatch.context() as patched, endings.recording_here(patched):
        try:
            result = endings.app.tasks[cell.ending.task].apply((n, cell.ending.act))
            state, error = result.state, result.result if result.state == "FAILURE" else None
        except SystemExit as raised:
            state, error = "raised", raised
    free = Free.NEVER if endings.client.exists(endings.lock_name(n)) else Free.WITH_BODY
    told = endings.story(n)

    seen = Outcome(free, state, type(error).__name__ if error else "", [one["word"] for one in told].count("begin"))
    assert cell.outcome.agrees(seen), f"{seen}, and not: {cell.outcome}"
    assert told[0]["token"]
