"""What is done to a run whose body has begun, so that it ends: `CAUSES`, by the words that the table has for it."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable
from functools import partial

from endings_site import EndingsSite, Run
from endings_table import Cell
from local_processes import wait_until

Cause = Callable[[EndingsSite, Cell, Run], None]

#: The last that a worker says of a result that it cannot tell: in prefork the parent tries it after the child.
GIVES_UP = {"prefork": "Pool callback raised exception"}


def nothing(site: EndingsSite, cell: Cell, run: Run) -> None:
    """It ends by itself."""


def let_it_go_on(site: EndingsSite, cell: Cell, run: Run) -> None:
    site.let_go(run)


def terminate(name: str, site: EndingsSite, cell: Cell, run: Run) -> None:
    run.result.revoke(terminate=True, signal=name)
    if cell.goes_on:
        site.let_go(run)


def kill_its_process(site: EndingsSite, cell: Cell, run: Run) -> None:
    os.kill(run.begun["pid"], signal.SIGKILL)


def kill_its_worker(site: EndingsSite, cell: Cell, run: Run) -> None:
    """A message that is acknowledged early is so about when the body begins; a solo worker does it at the end."""
    if not cell.ending.task.endswith("late") and cell.pool != "solo":
        wait_until(lambda: site.is_acknowledged(run), "the message is acknowledged")
    run.caused_at = time.monotonic()
    run.worker.process.signal(signal.SIGKILL)


def signal_its_worker(number: signal.Signals, site: EndingsSite, cell: Cell, run: Run) -> None:
    run.worker.process.signal(number)
    if cell.goes_on:
        wait_until(lambda: "shutdown" in run.worker.process.output.lower(), "it shuts down")
        site.let_go(run)


def signal_its_worker_then_go(number: signal.Signals, site: EndingsSite, cell: Cell, run: Run) -> None:
    run.worker.process.signal(number)
    wait_until(lambda: "shutdown" in run.worker.process.output.lower(), "it shuts down")
    site.let_go(run)


def stop_the_results(site: EndingsSite, cell: Cell, run: Run) -> None:
    assert run.worker.results is not None
    run.worker.results.stop()
    site.let_go(run)


def start_the_results(site: EndingsSite, cell: Cell, run: Run) -> None:
    """The body has ended, its result could not be told, and the worker has given that up."""
    assert run.worker.results is not None
    says = GIVES_UP.get(cell.pool, "Error 111")
    wait_until(lambda: says in run.worker.process.output, "the worker finds its results away")
    run.worker.wait_for_silence()
    run.worker.results.start()


def cut_off(site: EndingsSite, cell: Cell, run: Run) -> None:
    """A message that was not yet acknowledged comes again; a solo worker learns of it when the body has ended."""
    site.cut_off(run.worker, wait=cell.pool != "solo")
    if cell.ending.task == "late" and cell.pool != "solo":
        site.wait_for_signal("task_deferred", task_id=run.id, why="redelivered")
    site.let_go(run)


CAUSES: dict[str, Cause] = {
    "nothing": nothing,
    "revoke it first": nothing,
    "let it go on": let_it_go_on,
    "SIGTERM it": partial(terminate, "SIGTERM"),
    "SIGKILL it": partial(terminate, "SIGKILL"),
    "SIGUSR1 it": partial(terminate, "SIGUSR1"),
    "kill its process": kill_its_process,
    "kill its worker": kill_its_worker,
    "SIGQUIT its worker": partial(signal_its_worker, signal.SIGQUIT),
    "SIGTERM its worker, then let it go on": partial(signal_its_worker_then_go, signal.SIGTERM),
    "SIGQUIT its worker, then let it go on": partial(signal_its_worker_then_go, signal.SIGQUIT),
    "stop the results, then let it go on": stop_the_results,
    "cut off its worker, then let it go on": cut_off,
}


#: What is done after the key is free.
AFTERWARDS: dict[str, Cause] = {"stop the results, then let it go on": start_the_results}


def revoked_id(run_on: EndingsSite, worker: object) -> str:
    """The id of a run that is revoked before it is sent."""
    task_id = str(uuid.uuid4())
    app = run_on.app_for(worker)

    def answered() -> object:
        # A worker says that it is ready before it listens.
        return app.control.revoke(task_id, destination=[worker.name], reply=True, timeout=2, limit=1)

    wait_until(answered, "the worker has heard of it")
    return task_id
