"""What other libraries for locking tasks do wrong, each named after what it prevents here.

The docstrings say what was measured with whom.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from celery import chord
from celery.exceptions import ChordError, TaskRevokedError
from coord_site import fresh_n
from local_processes import PATIENCE, wait_until
from peers_project import PeersSite

from celery_coord import Dropped, TaskDropped, current_lease
from celery_coord.testing import LocalServer
from tests.faults.proxy import reserved

pytestmark = pytest.mark.server

#: Far less than a lease lasts: only a release can explain a key that is free by then.
SOON = 10.0
#: A broker that delivers a message again after 2 s, and looks each second whether it must.
IMPATIENT = {
    "visibility_timeout": 2,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 2,
}


def runs_soon(site: PeersSite, n: str) -> bool:
    """Whether the key is to be had: a run on it is admitted."""
    return "token" in site.task("step").delay(n).get(timeout=SOON)


# The key that stays blocked


def test_a_killed_child_does_not_block_its_key(peers: PeersSite) -> None:
    """4. With celery-once and celery-heimdall the key stayed blocked for an hour, with celery-singleton for ever."""
    n = fresh_n()
    killed = peers.task("hold").delay(n)
    begun = peers.wait_for_word(n, "begin")

    os.kill(begun["pid"], signal.SIGKILL)
    wait_until(lambda: not peers.keys_of(n), "the key is free", timeout=SOON)

    assert runs_soon(peers, n)
    wait_until(lambda: killed.state == "FAILURE", "the end of the killed run is known")


def test_a_revoked_run_leaves_no_key(peers: PeersSite) -> None:
    """4. celery-once, celery-singleton, celery-heimdall: a run that was revoked in the queue kept its key locked."""
    n = fresh_n()
    with peers.holding(n) as holder:
        task_id = f"revoked-{holder.id}"
        peers.app.control.revoke(task_id)
        inspect = peers.app.control.inspect()
        wait_until(lambda: any(task_id in ids for ids in (inspect.revoked() or {}).values()), "it is revoked")

    with pytest.raises(TaskRevokedError):
        peers.task("step").apply_async((n,), task_id=task_id).get(timeout=PATIENCE)

    assert peers.keys_of(n) == []
    assert runs_soon(peers, n)


def test_an_expired_run_leaves_no_key(peers: PeersSite) -> None:
    """4. celery-once, celery-singleton, celery-heimdall: a run that expired in the queue kept its key locked."""
    n = fresh_n()

    with pytest.raises(TaskRevokedError) as caught:
        peers.task("step").apply_async((n,), expires=-1).get(timeout=PATIENCE)

    assert not isinstance(caught.value, TaskDropped)
    assert peers.keys_of(n) == []
    assert runs_soon(peers, n)


def test_a_cold_shutdown_leaves_no_key_of_a_queued_run(folder: Path) -> None:
    """4. celery-once, celery-singleton, celery-heimdall: a run that waited in a worker that was shut down kept its key.

    And it is not lost: it runs as soon as there is a worker again.
    """
    with PeersSite(folder) as site:
        busy, n = fresh_n(), fresh_n()
        [worker] = site.ready_workers("prefork", count=1)
        [site.task("hold").delay(f"{busy}-{slot}") for slot in range(4)]
        for slot in range(4):
            site.wait_for_word(f"{busy}-{slot}", "begin")
        queued = site.task("sturdy").delay(n)
        wait_until(lambda: f"Task sturdy[{queued.id}] received" in worker.output, "it waits in the worker")

        worker.signal(signal.SIGQUIT)
        worker.wait()
        assert site.keys_of(n) == []
        site.ready_workers("prefork")
        site.go(n)

        assert queued.get(timeout=SOON)["token"]
        assert site.words(n) == ["begin", "end"]


# The lock that ends before the body, and is then deleted for somebody else


def test_a_body_longer_than_its_ttl_does_not_run_twice(peers: PeersSite) -> None:
    """5. celery-once, celery-singleton, celery-heimdall: a body longer than the ttl ran a second time beside itself."""
    n = fresh_n()
    with peers.holding(n, "frail"):  # its ttl is seven seconds
        begun_at = time.monotonic()
        drops = 0
        while time.monotonic() - begun_at < 8:  # there is nothing to wait for but time: nothing may happen
            with pytest.raises(TaskDropped):
                peers.task("step").delay(n).get(timeout=PATIENCE)
            drops += 1
            time.sleep(0.1)

    assert drops > 1
    assert peers.words(n) == ["begin", "end"]


def test_a_late_end_deletes_nobodys_lock(peers: PeersSite) -> None:
    """6. The same three: the first run's end deleted the second one's lock, and a third began beside the second."""
    n = fresh_n()
    first, second = f"{n}-first", f"{n}-second"
    late = peers.task("one_of").delay(n, first)
    peers.wait_for_word(n, f"begin {first}")
    peers.client.delete(peers.lock_name(n))  # as if its lease had ended
    holder = peers.task("one_of").delay(n, second)
    peers.wait_for_word(n, f"begin {second}")
    lock = peers.client.get(peers.lock_name(n))

    peers.go(first)
    late.get(timeout=PATIENCE)

    assert peers.client.get(peers.lock_name(n)) == lock
    with pytest.raises(TaskDropped):
        peers.task("step").delay(n).get(timeout=PATIENCE)
    peers.go(second)
    assert holder.get(timeout=PATIENCE)["lost"] is False
    assert peers.words(n) == [f"begin {first}", f"begin {second}", f"end {first}", f"end {second}"]


# Messages that are delivered again


@pytest.mark.parametrize("task", ["sturdy", "hold"])
def test_a_visibility_timeout_starts_no_second_body(folder: Path, task: str) -> None:
    """7. celery-once, celery-singleton, celery-heimdall: four bodies of one id ran at once.

    With late acknowledgement the message comes back while its body runs; with an early one it comes back while it
    waits for its time.
    """
    with PeersSite(folder, broker_transport_options=IMPATIENT) as site:
        n = fresh_n()
        site.ready_workers("prefork", count=2)
        run = site.task(task).apply_async((n,), countdown=0 if task == "sturdy" else 6)
        received = f"Task {task}[{run.id}] received"
        wait_until(lambda: site.output().count(received) >= 2, "it is delivered again", timeout=60)
        site.wait_for_word(n, "begin")

        site.go(n)
        value = run.get(timeout=PATIENCE)
        wait_for_empty_queues(site)

        assert site.words(n) == ["begin", "end"]
        assert value["token"] == site.story(n)[0]["token"]
        assert not site.signals("task_dropped", task_id=run.id)


def test_a_visibility_timeout_multiplies_no_messages(folder: Path) -> None:
    """7. The same: each delivery of one id led to more of them. Here copies wait, and stay as few as they were."""
    with PeersSite(folder, broker_transport_options=IMPATIENT) as site:
        n = fresh_n()
        site.ready_workers("prefork")
        run = site.task("sturdy").delay(n)
        site.wait_for_word(n, "begin")

        wait_until(lambda: len(site.signals("task_deferred", task_id=run.id)) >= 12, "it waits often", timeout=60)
        # The holder's own, and the one that waits; for a moment it is there twice, when it is sent to wait again.
        wait_until(lambda: messages_of(site) <= 2, "no more messages than that")
        site.go(n)

        assert run.get(timeout=PATIENCE)
        assert site.words(n) == ["begin", "end"]


def messages_of(site: PeersSite) -> int:
    """How many there are, delivered or not."""
    with site.client.pipeline() as counting:
        return sum(counting.hlen("unacked").llen("celery").execute())


def wait_for_empty_queues(site: PeersSite) -> None:
    """Until every message has been delivered and acknowledged, those among them that were sent again for later."""
    wait_until(lambda: not site.client.exists("celery", "unacked"), "no message is left", timeout=60)


def test_a_crash_does_not_lose_the_work_of_a_child(peers: PeersSite) -> None:
    """7. rhubarb, celery-once-task, fencekit: the message came back, met the lock of its own dead run, and was lost."""
    n = fresh_n()
    run = peers.task("sturdy").delay(n)
    begun = peers.wait_for_word(n, "begin")

    os.kill(begun["pid"], signal.SIGKILL)
    peers.wait_for_word(n, "begin", times=2, timeout=SOON)
    peers.go(n)

    assert run.get(timeout=PATIENCE)["pid"] != begun["pid"]
    assert peers.words(n) == ["begin", "begin", "end"]


def test_a_crash_does_not_lose_the_work_of_a_worker(folder: Path) -> None:
    """7. The same three: nor was it done where the whole worker died, and another one was there."""
    with PeersSite(folder, broker_transport_options=IMPATIENT) as site:
        n = fresh_n()
        [first] = site.ready_workers("prefork")
        run = site.task("frail").delay(n)
        begun = site.wait_for_word(n, "begin")

        first.signal(signal.SIGKILL)
        first.wait()
        site.ready_workers("prefork")
        site.wait_for_word(n, "begin", times=2, timeout=60)
        site.go(n)

        assert run.get(timeout=PATIENCE)["pid"] != begun["pid"]
        assert site.words(n) == ["begin", "begin", "end"]


def test_a_second_delivery_leaves_the_holders_result_and_chord_alone(peers: PeersSite) -> None:
    """7. The same three: a second delivery overwrote the living holder's result, and failed its chord."""
    n, behind = fresh_n(), fresh_n()
    member = peers.task("durable").si(n).set(task_id=f"member-{n}")
    body = chord([member, peers.task("note").si(fresh_n())])(peers.task("note").si(behind))
    peers.wait_for_word(n, "begin")

    # The holder's message, as the broker would deliver it again.
    [sent] = [sent for sent in peers.client.hvals("unacked") if f'"id": "member-{n}"' in sent]
    message, _, queue = json.loads(sent)
    message["properties"]["delivery_tag"] = f"again-{n}"
    message["properties"]["delivery_info"]["redelivered"] = True
    peers.client.lpush(queue, json.dumps(message))
    peers.wait_for_signal("task_deferred", task_id=f"member-{n}", why="redelivered")
    while_it_ran = peers.app.AsyncResult(f"member-{n}").state
    peers.go(n)

    assert while_it_ran == "PENDING"
    assert body.get(timeout=PATIENCE) == behind
    peers.wait_for_signal("task_duplicate", task_id=f"member-{n}")
    assert peers.app.AsyncResult(f"member-{n}").get(timeout=PATIENCE)["token"] == peers.story(n)[0]["token"]
    assert peers.words(n) == ["begin", "end"]
    assert peers.words(behind) == ["note"]


def test_a_retry_is_not_lost(peers: PeersSite) -> None:
    """7. celery-singleton, celery-heimdall: `self.retry()` met the run's own lock, and stayed RETRY for ever."""
    n = fresh_n()

    run = peers.task("lingering").delay(n)
    peers.wait_for_word(n, "try 1")  # while the try that sent it still runs
    peers.go(n)

    assert run.get(timeout=PATIENCE)["token"]
    assert peers.words(n) == ["try 0", "try 1"]
    assert not peers.signals("task_dropped", task_id=run.id)


# What a drop does to others


@pytest.mark.parametrize("task", ["step", "yielding"])
def test_a_dropped_member_does_not_hang_its_chord(peers: PeersSite, task: str) -> None:
    """10. celery-singleton, celery-heimdall, celery-once (graceful): the chord of a dropped run hung."""
    n = fresh_n()
    header = [peers.task(task).si(n), peers.task("note").si(fresh_n())]

    with peers.holding(n):
        body = peers.app.AsyncResult(chord(header)(peers.task("same").s()).id)  # which knows nothing of its members
        if task == "step":
            with pytest.raises(ChordError, match="TaskDropped"):
                body.get(timeout=SOON)
        else:
            assert Dropped.of(body.get(timeout=SOON)[0])


@pytest.mark.parametrize("task", ["step", "yielding", "unheard"])
def test_a_drop_leaves_the_holders_lock(peers: PeersSite, task: str) -> None:
    """2. celery-heimdall: a run that was dropped as it started deleted the lock of the holder."""
    n = fresh_n()
    with peers.holding(n):
        lock = peers.client.get(peers.lock_name(n))

        for _ in range(2):
            dropped = peers.task(task).delay(n)
            peers.wait_for_signal("task_dropped", task_id=dropped.id)
        peers.task("note").delay(fresh_n()).get(timeout=PATIENCE)

        assert peers.client.get(peers.lock_name(n)) == lock
        with pytest.raises(TaskDropped):
            peers.task("step").delay(n).get(timeout=PATIENCE)

    assert peers.words(n) == ["begin", "end"]


def test_a_direct_call_leaks_nothing(peers: PeersSite) -> None:
    """celery-heimdall: a task that was called as a function took its lock, and never gave it back."""
    n = fresh_n()

    assert peers.task("calling")(n, n) == [n]

    assert peers.keys_of(n) == []
    assert current_lease(None) is None
    assert runs_soon(peers, n)


def test_a_direct_call_in_a_body_leaks_nothing(peers: PeersSite) -> None:
    """celery-heimdall: the same; here the call is made by another body, of the task itself as well."""
    n, other = fresh_n(), fresh_n()

    assert peers.task("calling").delay(n, other).get(timeout=PATIENCE) == [other, n]

    assert peers.keys_of(n) == peers.keys_of(other) == []
    assert [held["key"] for held in peers.signals("lease_acquired") if held["key"] == f"n:{other}"] == []
    assert runs_soon(peers, n)
    assert runs_soon(peers, other)


def test_a_run_asks_its_store_twice_and_waits_for_nothing(folder: Path, server: LocalServer) -> None:
    """celery-heimdall: with its defaults a run cost 0.9 s more, for it waited. Here: one question before, one after."""
    patient = {"coord_store_timeout": 20}  # what takes long is not asked again
    with LocalServer() as store, PeersSite(folder, coord_url=store.url, **patient) as site:
        site.ready_workers("solo")
        site.task("step").delay(fresh_n()).get(timeout=PATIENCE)  # opens connections, loads scripts

        before, waits = calls_of(site, store)
        for _ in range(20):
            site.task("step").delay(fresh_n()).get(timeout=PATIENCE)

        assert calls_of(site, store) == (before + 40, waits)


def calls_of(site: PeersSite, store: LocalServer) -> tuple[int, int]:
    """How many scripts a store has run, and how many commands that wait; a worker tries one as it starts."""
    with site.client.__class__.from_url(store.url, decode_responses=True) as client:
        stats = client.info("commandstats")
    waits = sum(stats.get(name, {"calls": 0})["calls"] for name in ("cmdstat_blpop", "cmdstat_brpop"))
    return int(stats["cmdstat_evalsha"]["calls"]), waits


# Keys that differ though the call is the same


def test_one_call_has_one_key_however_it_is_spelt(peers: PeersSite) -> None:
    """celery-singleton, celery-heimdall and others: these were four different keys."""
    priced = peers.task("priced")
    sent_through_json = json.loads(json.dumps([[1, 2.0], {}]))

    keys = {
        priced.key_of(1),
        priced.key_of(n=1),
        priced.key_of(1, 2.0),
        priced.key_of(1, rate=2.0),
        priced.key_of(*sent_through_json[0], **sent_through_json[1]),
    }

    assert len(keys) == 1


def test_runs_of_one_call_exclude_each_other_however_it_is_spelt(peers: PeersSite) -> None:
    """1. The same: so the runs were let through beside each other."""
    holder = peers.task("priced").delay(1)
    wait_until(lambda: peers.task("priced").look(1).held, "it runs")

    for args, kwargs in [((), {"n": 1}), ((1, 2.0), {}), ((), {"rate": 2.0, "n": 1})]:
        with pytest.raises(TaskDropped):
            peers.task("priced").apply_async(args, kwargs).get(timeout=PATIENCE)

    peers.go("priced-1")
    assert holder.get(timeout=PATIENCE) == 2.0


# The store that is away


def test_a_run_is_not_silently_skipped_while_the_store_is_away(folder: Path, server: LocalServer) -> None:
    """9. celery-once-task: while its store was away a run ended well, with None, and without its body."""
    with (
        reserved() as port,  # for the store, also while that is away
        LocalServer(port=port.getsockname()[1]) as store,
        PeersSite(folder, coord_url=store.url) as site,
    ):
        n = fresh_n()
        site.ready_workers("threads")
        store.stop()

        run = site.task("step").delay(n)
        deferred = site.wait_for_signal("task_deferred", task_id=run.id)
        wait_until(lambda: "the store failed while asking for" in site.output(), "a log line")
        while_it_was_away = run.state
        store.start()

        assert deferred["why"] == "store"
        assert while_it_was_away == "PENDING"
        assert run.get(timeout=PATIENCE)["token"]
        assert site.words(n) == ["begin", "end"]
