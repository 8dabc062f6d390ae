"""With the store apart from the broker, on each broker: what is promised there, and what the broker cannot do."""

from __future__ import annotations

import signal

import pytest
from brokers_site import Place
from brokers_table import BROKERS
from celery import chord, uuid
from celery.exceptions import ChordError
from coord_site import fresh_n
from local_processes import PATIENCE, wait_until

from celery_coord import TaskDropped
from celery_coord.app import coordination
from celery_coord.lease import Owner

pytestmark = pytest.mark.server


def where(claim: str, *, holds: bool = True) -> pytest.MarkDecorator:
    """On each broker on which a claim holds; or, on each on which it does not."""
    return pytest.mark.parametrize("broker", [name for name, broker in BROKERS.items() if broker.holds(claim) == holds])


@where("drop")
def test_a_run_that_finds_its_key_held_is_dropped(place: Place) -> None:
    """2. The body of a refused run never starts; 10. and who waits for it is told."""
    n = fresh_n()
    with place.holding(n):
        refused = place.run("step", n)
        with pytest.raises(TaskDropped, match="held"):
            refused.get(timeout=PATIENCE)

    assert place.words(n) == ["begin", "end"]


@where("quiet")
def test_a_run_in_a_quiet_period_is_dropped(place: Place) -> None:
    """12. The cooldown begins with the end of the lease."""
    n = fresh_n()
    place.run("costly", n).get(timeout=PATIENCE)

    with pytest.raises(TaskDropped, match="cooling"):
        place.run("costly", n).get(timeout=PATIENCE)

    assert place.words(n) == ["begin", "end"]


@where("twice")
def test_a_message_that_is_delivered_twice_waits_and_ends_as_a_duplicate(place: Place) -> None:
    """7. A redelivered message is never dropped on account of its own earlier delivery."""
    n = fresh_n()
    with place.holding(n) as run:
        place.run("hold", n, task_id=run.id)
        place.wait_for_signal("task_deferred", task_id=run.id)
        assert run.state == "PENDING"

    place.wait_for_signal("task_duplicate", task_id=run.id)
    assert place.words(n) == ["begin", "end"]
    assert not place.signals("task_dropped", task_id=run.id)


@where("chord")
def test_a_chord_with_a_dropped_member_ends(place: Place) -> None:
    """10. A chord on a dropped run comes to an end, promptly, with the reason."""
    n = fresh_n()
    with place.holding(n):
        body = place.send(chord([place.task("note").si(fresh_n()), place.task("step").si(n)], place.task("same").s()))
        wait_until(body.ready, "the chord ends")

    assert isinstance(body.result, ChordError)
    assert "TaskDropped" in str(body.result)


@where("beat")
def test_beat_under_a_leader_sends_and_another_takes_over(place: Place) -> None:
    """15. Each due instant is sent, while one beat lives; 16. within 200 ms of a resignation another one leads."""
    n = fresh_n()
    schedule = {"note": {"task": "note", "schedule": 0.5, "args": [n]}}
    first, second = (place.beat(f"beat-{name}", beat_schedule=schedule) for name in ("first", "second"))
    place.wait_for_word(n, "note")
    elected = place.wait_for_signal("leader_elected", name="beat")["pid"]
    leader, follower = (first, second) if first.pid == elected else (second, first)
    place.wait_for_signal("leader_observed", pid=follower.pid)

    leader.signal(signal.SIGTERM)
    place.wait_for_signal("leader_elected", pid=follower.pid)
    place.wait_for_word(n, "note", times=len(place.words(n)) + 1)

    follower.end()
    tokens = [said["token"] for said in place.story(n)]
    assert tokens == [None] * len(tokens)


@where("away")
def test_a_run_that_the_store_does_not_answer_is_tried_again_until_it_does(place: Place) -> None:
    """9. When the store cannot be reached a run is neither dropped nor let through: it is tried again later."""
    n = fresh_n()
    place.store.stop()

    run = place.run("step", n)
    place.wait_for_signal("task_deferred", task_id=run.id, why="store")
    assert place.words(n) == []
    place.store.start()

    assert run.get(timeout=PATIENCE)["token"] > 0
    assert place.words(n) == ["begin", "end"]


@pytest.mark.parametrize("broker", ["quorum"])
def test_on_quorum_queues_what_was_sent_for_later_can_be_sent_for_later_again(place: Place) -> None:
    """9. It is tried again: RabbitMQ keeps no message back that has gone through the queues for what is due later.

    It notes in a header where a message has been, and takes one that comes to the same queue again for one in a circle.
    """
    n = fresh_n()
    place.store.stop()

    run = place.run("step", n, countdown=1)
    wait_until(lambda: len(place.signals("task_deferred", task_id=run.id, why="store")) >= 3, "it is sent again often")
    place.store.start()

    assert run.get(timeout=PATIENCE)["token"] > 0
    assert place.words(n) == ["begin", "end"]


@pytest.mark.parametrize("broker", ["quorum"])
def test_on_quorum_queues_a_run_can_be_sent_again_for_in_less_than_a_second(place: Place) -> None:
    """7. While its earlier delivery may still live it waits. Celery counts in whole seconds there, and refuses none."""

    def has_waited() -> bool:
        """Whether the run came before the lease of its earlier delivery was over; it is done in either case."""
        n, run_id = fresh_n(), uuid()
        coordination(place.app).store.acquire(f"n:{n}", Owner.new(run_id), 0.4, heed_cooldown=False)
        run = place.run("step", n, task_id=run_id)
        assert run.get(timeout=PATIENCE)["token"] > 0
        return bool(place.signals("task_deferred", task_id=run_id, why="redelivered"))

    wait_until(has_waited, "a run that comes within 0.4 s")


@where("death")
def test_the_run_of_a_worker_that_was_killed_runs_again(place: Place) -> None:
    """7. If the earlier delivery died it runs: no sooner than the broker says so, and than its lease has ended."""
    n = fresh_n()
    run = place.run("brief", n)
    begun = place.wait_for_word(n, "begin")

    place.worker_of(begun["pid"]).signal(signal.SIGKILL)
    again = place.wait_for_word(n, "begin", times=2)
    place.go(n)

    assert run.get(timeout=PATIENCE)["token"] == again["token"] > begun["token"]
    assert place.words(n) == ["begin", "begin", "end"]
    assert not place.signals("task_dropped", task_id=run.id)


def test_on_files_the_run_of_a_worker_that_was_killed_is_lost_and_its_key_is_free(places: dict[str, Place]) -> None:
    """4. The key is free within the ttl, whatever became of the message."""
    place = places["filesystem"]
    n = fresh_n()
    lost = place.run("brief", n)
    begun = place.wait_for_word(n, "begin")

    place.worker_of(begun["pid"]).signal(signal.SIGKILL)
    wait_until(lambda: not place.task("brief").look(n), "its lease ends")
    place.go(n)
    next_one = place.run("brief", n)

    assert next_one.get(timeout=PATIENCE)["token"] > begun["token"]
    assert place.words(n) == ["begin", "begin", "end"]
    assert lost.state == "PENDING"
