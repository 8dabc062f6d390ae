"""The promises for leaders hold around each scheduler: Celery's own, the two that most people use, and one's own."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from beat_site import LEASE, SCHEDULERS, BeatSite, MakeSite, assert_each_instant_once
from local_processes import wait_until

pytestmark = pytest.mark.server

EVERY = 0.1
OFTEN = {"task": "note", "schedule": EVERY, "args": ["tick"]}
SCHEDULE = {
    "often": OFTEN,
    "changed": {**OFTEN, "schedule": 3600},
    "removed": OFTEN,
}
NEXT_SCHEDULE = {
    "often": OFTEN,
    "changed": {**OFTEN, "schedule": 1},
    "added": {**OFTEN, "schedule": 1},
}
#: In the settings of a Django project are whole seconds, and what they name stays in its database for ever.
NOT_FOR_DJANGO = {"often", "removed"}


@pytest.fixture(scope="module", params=SCHEDULERS)
def site(request: pytest.FixtureRequest, make_module_site: MakeSite) -> BeatSite:
    """A site whose beats go on from test to test; each test leaves one that leads."""
    site = make_module_site(SCHEDULERS[request.param])
    site.conf.update(in_settings(site, SCHEDULE))
    if site.has_database:
        site.database.add("often", every=EVERY)
    return site


def in_settings(site: BeatSite, schedule: dict[str, Any]) -> dict[str, Any]:
    left_out = NOT_FOR_DJANGO if site.has_database else set()
    return {"beat_schedule": {name: entry for name, entry in schedule.items() if name not in left_out}}


def traces(site: BeatSite, folder: Path) -> set[str]:
    """What an inner scheduler leaves behind: in the folder of its beat, and in Redis."""
    return {path.name for path in folder.iterdir()} - {"output.txt"} | set(site.client.keys("redbeat*"))


def shared_last_run(site: BeatSite) -> Any:
    """When an entry was last run, as the inner schedulers tell each other; those that do not: 0."""
    if site.has_database:
        return site.database.row("often").last_run_at
    return float(site.client.zscore("redbeat::schedule", "redbeat:often") or 0)


def is_gone(pid: int) -> bool:
    """Whether a process that is not ours has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_follower_loads_nothing_writes_nothing_and_sends_nothing(site: BeatSite) -> None:
    """A follower loads nothing, writes nothing and sends nothing: the tables of its scheduler may even be away."""
    site.end_all()
    site.client.delete(*site.client.keys("redbeat*"), "celery")
    site.client.set(LEASE, "somebody/0/else")

    with site.without_database():
        beat = site.start()
        beat.wait_for("beat: following somebody/0/else")
        time.sleep(0.5)  # several rounds in which it could do wrong
        assert not site.has_database or not site.database.file.exists()

    assert traces(site, beat.folder) == set()
    assert site.sent() == []
    assert "Traceback" not in beat.output
    site.succession(lambda: site.client.delete(LEASE))


def test_of_two_beats_one_acts(site: BeatSite) -> None:
    """14. Two processes never both act, whatever the scheduler; each message carries the fencing token of the term."""
    leader, follower = site.leader(), site.follower()

    messages = site.wait_for_sends(5, entry="often", term=site.elections()[-1]["term"])

    assert {sent.pid for sent in messages} == {leader.pid}
    assert all(sent.headers["coord_lease"] == ["leader:beat", sent.term] for sent in messages)
    assert traces(site, leader.folder) or site.database.names() > {"often"}
    assert "Traceback" not in leader.output + follower.output


def test_what_came_due_after_a_crash_is_sent_late(site: BeatSite) -> None:
    """15. Each due instant at most once, and, while one beat lives, at least once (late, not never)."""
    leader, follower = site.leader(), site.follower()
    site.wait_for_sends(3, entry="often", pid=leader.pid)

    elected = site.succession(lambda: site.end(leader, signal.SIGKILL))
    ended_at = time.time()
    late, *_ = site.wait_for_sends(3, entry="often", term=elected["term"])

    assert elected["pid"] == follower.pid
    assert late.due <= ended_at + EVERY
    assert_each_instant_once(site.sent("often"), every=EVERY)


def test_a_paused_leader_writes_nothing_over_the_values_of_the_next_one(site: BeatSite) -> None:
    """14. Unsure means no: what a deposed leader had not yet written to a table that both use, it never writes."""
    leader, follower = site.leader(), site.follower()
    site.wait_for_sends(3, entry="often", pid=leader.pid)

    paused_at = math.inf

    def pause() -> None:
        nonlocal paused_at
        leader.signal(signal.SIGSTOP)
        wait_until(lambda: psutil.Process(leader.pid).status() == psutil.STATUS_STOPPED, "it stands still")
        paused_at = time.time()

    elected = site.succession(pause)
    sent_before = site.wait_for_sends(3, entry="often", term=elected["term"])
    shared = shared_last_run(site)
    leader.signal(signal.SIGCONT)
    site.wait_for_signal("leader_deposed", pid=leader.pid)
    site.wait_for_sends(3, entry="often", pid=follower.pid)
    site.end(leader)

    assert elected["pid"] == follower.pid
    assert shared_last_run(site) >= shared
    since = site.sent("often")
    late = [sent for sent in since[since.index(sent_before[-1]) :] if sent.pid != follower.pid]
    assert len(late) <= 1  # it may have been paused between its last look and the message
    assert all(sent.pid == leader.pid and sent.due <= paused_at for sent in late)
    assert_each_instant_once(site.sent("often"), every=EVERY)


def test_a_deploy_that_changes_the_schedule(site: BeatSite) -> None:
    """15. The beats of a new release take over from the old: nothing twice, and what is new or changed starts."""
    old, new = site.lone_leader(), site.follower(**in_settings(site, NEXT_SCHEDULE))
    assert not site.sent("added")

    elected = site.succession(lambda: site.end(old))
    ended_at = time.time()
    # In whichever of its terms: a busy machine may end one, and begin the next.
    for name in ("often", "changed", "added"):
        wait_until(lambda name=name: site.sent(name, pid=new.pid), name)

    assert elected["pid"] == new.pid
    assert site.sent("often", pid=new.pid)[0].due <= ended_at + EVERY
    assert_each_instant_once(site.sent("often"), every=EVERY)
    assert not site.sent("removed", pid=new.pid)


def test_a_beat_that_a_worker_embeds_takes_over_and_ends_with_its_worker(site: BeatSite) -> None:
    """14. `worker -B` works around each scheduler; a beat whose worker was killed ends, and gives way."""
    leader, worker = site.lone_leader(), site.start_embedded()
    worker.wait_for("beat: following")

    embedded = site.succession(lambda: site.end(leader))
    site.wait_for_sends(3, entry="often", pid=embedded["pid"])
    assert psutil.Process(embedded["pid"]).ppid() == worker.pid
    heir = site.start()
    elected = site.succession(lambda: worker.signal(signal.SIGKILL))
    site.wait_for_sends(3, entry="often", term=elected["term"])

    assert elected["pid"] == heir.pid
    wait_until(lambda: is_gone(embedded["pid"]), "the orphan's end")
    assert_each_instant_once(site.sent("often"), every=EVERY)
