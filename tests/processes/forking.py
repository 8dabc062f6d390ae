"""A process that has used the store, and then has others: ``python -m tests.processes.forking HOW URL FOLDER``.

Each process says in ``said.jsonl`` what it is, from which ports it is connected, and what it got; then it waits for the
file ``go``. The first process says so before the others begin, while they live, and after they have ended.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import billiard
import psutil
from celery import Celery

from celery_coord import Election
from celery_coord.app import coordination
from celery_coord.gate import Claim, Ending, Kind
from celery_coord.lease import Owner
from tests.processes.project import PATIENCE, make_app

#: How many children a parent has that has several.
SEVERAL = 3
#: How many threads it has that are busy.
BUSY = 4


@cache
def application(url: str) -> tuple[Celery, Election]:
    """What a process inherits, or makes anew where it inherits nothing."""
    # Who is kept waiting does not connect anew: all that are connected at first stay so.
    app = make_app(coord_url=url, broker_url="memory://", result_backend="cache+memory://", coord_store_timeout=10.0)
    return app, Election("poller", app=app)


def use(url: str, n: str) -> dict[str, Any]:
    """Everything that connects: look, lock, a run through the gate, an election.

    Returns:
        What the store said.
    """
    app, election = application(url)
    visit = app.tasks["visit"]
    with visit.lock(n):
        held = visit.look(n)
    run = visit.apply((n,))
    leader = election.observe()
    return {
        "saw its lock": bool(held.held),
        "ran in": run.get()["pid"],
        "leads": election.leads,
        "sees the leader": leader and leader.holder,
    }


def pass_the_gate(url: str, key: str) -> None:
    """A run, without Celery around it."""
    claim = Claim(key, Owner.new("run"), ttl=30.0)
    coordination(application(url)[0]).gate.admit(claim, lambda: None, lambda _: Ending(Kind.WELL))


def say(folder: Path, url: str, who: str) -> None:
    """Use the store, and say how that went."""
    got = use(url, f"n{os.getpid()}")
    port = urlsplit(url).port
    connections = psutil.Process().net_connections("tcp4")
    ports = [known.laddr.port for known in connections if known.raddr and known.raddr.port == port]
    line = {"who": who, "pid": os.getpid(), "ports": ports, "got": got}
    with (folder / "said.jsonl").open("a") as said:
        said.write(f"{json.dumps(line)}\n")


def live(folder: Path, url: str) -> None:
    """What a child does."""
    say(folder, url, "child")
    wait_for_go(folder)


def wait_for_go(folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (folder / "go").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the test never said go")
        time.sleep(0.02)


#: Waits until the children have ended.
Wait = Callable[[], None]


def fork(child: Callable[[], None]) -> Wait:
    """As a web server's workers are made, and as `os.fork` leaves them."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    return lambda: check(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def prefork(child: Callable[[], None]) -> Wait:
    """A master that has used the store, and then its workers."""
    waits = [fork(child) for _ in range(SEVERAL)]
    return lambda: [wait() for wait in waits] and None


def daemonize(child: Callable[[], None]) -> Wait:
    """A daemon of the old kind: the child of a child that has ended, in a session of its own."""
    read, write = os.pipe()

    def detach() -> None:
        os.setsid()
        if os.fork() == 0:
            os.close(read)
            try:
                child()
                os.write(write, b"0")
            finally:
                os._exit(0)

    fork(detach)()
    os.close(write)
    return lambda: check(0 if os.read(read, 1) == b"0" else 1)


def fork_while_threads_are_busy(child: Callable[[], None], url: str) -> Wait:
    """Threads of the parent use the store at the instant of the fork, and hold what locks there are.

    They are connected by then: a socket that is just being opened is known to nobody who could close it in the child.
    They do not run tasks: Celery has locks of its own, which a fork may leave taken.
    """
    stop, are_busy = threading.Event(), threading.Barrier(BUSY + 1)

    def be_busy(number: int) -> None:
        for _ in range(50):
            pass_the_gate(url, f"busy {number}")
        are_busy.wait(PATIENCE)
        while not stop.is_set():
            pass_the_gate(url, f"busy {number}")

    threads = [threading.Thread(target=be_busy, args=(number,)) for number in range(BUSY)]
    for thread in threads:
        thread.start()
    are_busy.wait(PATIENCE)
    waits = [fork(child) for _ in range(4 * SEVERAL)]
    stop.set()
    for thread in threads:
        thread.join()
    return lambda: [wait() for wait in waits] and None


def by(library: Any, method: str, child: Callable[[], None]) -> Wait:
    process = library.get_context(method).Process(target=child)
    process.start()

    def wait() -> None:
        process.join()
        check(process.exitcode)

    return wait


def check(status: int | None) -> None:
    if status != 0:
        raise SystemExit(f"a child ended with status {status}")


WAYS: dict[str, Callable[..., Wait]] = {
    "os.fork": fork,
    "a preforking server": prefork,
    "a daemon": daemonize,
    "os.fork with busy threads": fork_while_threads_are_busy,
    "multiprocessing fork": partial(by, multiprocessing, "fork"),
    "multiprocessing spawn": partial(by, multiprocessing, "spawn"),
    "multiprocessing forkserver": partial(by, multiprocessing, "forkserver"),
    "billiard fork": partial(by, billiard, "fork"),
    "billiard spawn": partial(by, billiard, "spawn"),
}


def main(how: str, url: str, folder: Path) -> None:
    _, election = application(url)
    with election:
        election.campaign(timeout=PATIENCE)
        say(folder, url, "before")
        more = {"url": url} if WAYS[how] is fork_while_threads_are_busy else {}
        wait = WAYS[how](partial(live, folder, url), **more)
        say(folder, url, "parent")
        wait_for_go(folder)
        wait()
        say(folder, url, "after")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
