"""One act is bounded in time, however little the store says, and what comes after a trouble is not harmed by it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from black_holes import black_hole
from local_processes import wait_until
from proxy import Line
from resolver import Name
from scene import LONG, TIMEOUT, Process, Scene

from celery_coord.errors import StoreError
from celery_coord.gate import Admitted, Unanswered
from celery_coord.lease import Lease, Owner
from celery_coord.stores import Store
from celery_coord.testing import free_port

#: `coord_store_timeout` where nobody is to answer.
BRIEF = 0.2
#: By how much a busy machine may be late to say that an act has ended, which is within three times the timeout.
LATE = 5.0

LEASE = Lease("k", str(Owner.new("run")), 1, LONG)
ACTS: dict[str, Callable[[Store], object]] = {
    "acquire": lambda store: store.acquire("k", Owner.new("run"), LONG, heed_cooldown=True),
    "refuses": lambda store: store.refuses("k", Owner.new("run"), heed_cooldown=True),
    "renew": lambda store: store.renew([LEASE]),
    "settle": lambda store: store.settle(LEASE, cooldown=60),
    "hold": lambda store: store.hold(LEASE, 60),
    "cool": lambda store: store.cool("k", Owner.new("run"), 60),
    "forget": lambda store: store.forget("k", Owner.new("run")),
    "clear": lambda store: store.clear("k"),
    "look": lambda store: store.look("k"),
    "record": lambda store: store.record(LEASE, "fact", "value", within=60),
    "records": lambda store: store.records("k"),
    "erase": lambda store: store.erase(LEASE, ["fact"]),
    "ask": lambda store: store.ask("k", "please", 60),
    "request": lambda store: store.request("k"),
    "keys": lambda store: store.keys(""),
    "wait": lambda store: store.wait("k", 0.1),
    "check": lambda store: store.check(),
}


@contextmanager
def in_time(timeout: float = BRIEF) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 3 * timeout + LATE


@pytest.fixture(scope="module")
def silent() -> Iterator[Process]:
    """A process whose store is a host that says nothing, not even to the attempt to connect."""
    with black_hole() as port, Process(f"redis://127.0.0.1:{port}/0", coord_store_timeout=BRIEF) as process:
        yield process


@pytest.fixture(scope="module")
def unknown() -> Iterator[Process]:
    """A process whose store has a name for which no name server answers."""
    name = Name("unknown")
    with (
        name.known() as host,
        name.unanswered(),
        Process(f"redis://{host}:{free_port()}/0", coord_store_timeout=BRIEF) as process,
    ):
        yield process


def test_a_process_that_starts_waits_for_a_silent_host_no_longer_than_for_an_act() -> None:
    """It asks a dozen things of a store that answers; of one that does not, none after the first."""
    timeout = 12 * BRIEF  # so that asking on would take longer than a busy machine is given
    with (
        black_hole() as port,
        Process(f"redis://127.0.0.1:{port}/0", coord_store_timeout=timeout) as process,
        in_time(timeout),
    ):
        fails(process.coordination.store, ACTS["check"])


def fails(store: Store, act: Callable[[Store], object]) -> None:
    """An act that was not answered raises, or says so of each of its leases."""
    try:
        answers = act(store)
    except StoreError:
        return
    assert isinstance(answers, list)
    assert answers
    assert all(isinstance(answer, StoreError) for answer in answers)


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_an_act_on_a_host_that_is_silent_ends_within_three_timeouts(
    silent: Process, act: Callable[[Store], object]
) -> None:
    """9. The store cannot be reached: that is said in time, as the port's one error."""
    with in_time():
        fails(silent.coordination.store, act)


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_an_act_on_a_host_whose_name_nobody_looks_up_ends_within_three_timeouts(
    unknown: Process, act: Callable[[Store], object]
) -> None:
    """9. The resolver has time limits of its own, and longer ones: an act does not wait for them."""
    with in_time():
        fails(unknown.coordination.store, act)


def test_connecting_to_a_name_of_many_silent_addresses_takes_no_longer_than_to_one() -> None:
    """All of them share the time in which to connect."""
    name, timeout = Name("many", ["127.0.0.1"] * 16), 3 * BRIEF
    with (
        black_hole() as port,
        name.known() as host,
        Process(f"redis://{host}:{port}/0", coord_store_timeout=timeout) as process,
        in_time(timeout),
    ):
        fails(process.coordination.store, ACTS["acquire"])


def test_a_resolver_that_has_given_up_is_not_asked_again_to_connect() -> None:
    """Each time it may take long to give up: an act asks, and once more, as after any failure that came soon."""
    name = Name("forgotten", [])
    with name.known() as host, Process(f"redis://{host}:{free_port()}/0", coord_store_timeout=LONG) as process:
        fails(process.coordination.store, ACTS["acquire"])

    assert name.asked == 2


def test_those_who_wait_for_the_same_name_ask_for_it_once(unknown: Process) -> None:
    """However many runs meet a silent resolver, and however long: one thread waits for it."""
    fails(unknown.coordination.store, ACTS["acquire"])  # the first one begins to ask
    with ThreadPoolExecutor(8) as pool:
        for _ in range(16):
            pool.submit(fails, unknown.coordination.store, ACTS["acquire"])

    assert len([thread for thread in threading.enumerate() if thread.name == "celery_coord-lookup"]) == 1


@pytest.mark.parametrize("act", ["acquire", "renew", "settle", "look"])
def test_an_act_on_half_open_connections_ends_within_three_timeouts(scene: Scene, act: str) -> None:
    """Nobody tells the client that its peer is gone: only its own patience does."""
    store = scene.process.coordination.store
    store.acquire("other", Owner.new("run"), LONG, heed_cooldown=True)

    with scene.proxy.being(Line.VANISHED), in_time(TIMEOUT):
        fails(store, ACTS[act])


def test_the_act_after_one_on_a_half_open_connection_works(scene: Scene) -> None:
    """Who asks first finds out that the peer knows nothing of its connections; then all ask on new ones."""
    with ThreadPoolExecutor(8) as pool:
        with scene.proxy.being(Line.STALLS):  # until all of them ask at once, on connections of their own
            beginning = [pool.submit(scene.process.begin, f"k{number}", ttl=LONG) for number in range(8)]
            wait_until(lambda: scene.proxy.open >= 8, "eight connections")
        bodies = [begun.result() for begun in beginning]
    scene.proxy.set(Line.VANISHED)
    scene.proxy.set(Line.PASSES)  # those who were connected stay unheard

    with in_time(TIMEOUT):
        asked = scene.process.ask("k")

    assert isinstance(asked, Unanswered)
    for body in bodies:
        assert isinstance(body.end(), Admitted)
    assert isinstance(scene.process.ask("k"), Admitted)
    assert not scene.process.said("store_failed")


def test_a_server_that_is_slow_but_answers_in_time_is_no_outage(scene: Scene) -> None:
    """9. Only a store that cannot be reached puts a run off."""
    patient = scene.another(coord_store_timeout=LONG)
    scene.proxy.delay(TIMEOUT / 4)

    assert isinstance(patient.ask("k"), Admitted)


def test_a_server_that_is_too_slow_is_one(scene: Scene) -> None:
    impatient = scene.another(coord_store_timeout=BRIEF)
    scene.proxy.delay(TIMEOUT)

    with in_time():
        asked = impatient.ask("k")

    assert isinstance(asked, Unanswered)


def test_connections_that_were_cut_are_no_outage(scene: Scene) -> None:
    """9. The server was started anew, or a firewall dropped what was idle: who asks asks once more."""
    body = scene.process.begin("k", ttl=LONG)
    scene.proxy.cut()

    assert isinstance(scene.process.ask("other"), Admitted)
    assert isinstance(body.end(), Admitted)
    assert not scene.process.said("store_failed")
