"""A leader whose schedule is out of reach gives up, says why, and another beat takes over."""

from __future__ import annotations

import signal
import time

import pytest
from beat_site import DATABASE_SCHEDULERS, SCHEDULERS, BeatSite, MakeSite, at
from local_processes import CeleryProcess, wait_until
from users_schedulers import TROUBLE, TROUBLED

pytestmark = pytest.mark.server

EVERY = 0.3
SCHEDULE = {"often": {"task": "note", "schedule": EVERY, "args": ["tick"]}}


def assert_acts_alone(site: BeatSite, beat: CeleryProcess) -> None:
    """This beat leads, and nobody else sends from now on."""
    so_far = len(site.sent())
    site.wait_for_sends(5, pid=beat.pid)
    assert {sent.pid for sent in site.sent()[so_far:]} == {beat.pid}


def test_a_beat_that_cannot_open_its_database_leaves_the_leadership_to_one_that_can(make_site: MakeSite) -> None:
    """15. While one beat can send, it does: a beat that cannot take over says why, and does not stand in its way."""
    site = make_site(DATABASE_SCHEDULERS["plain"])
    site.database.add("often", every=EVERY)
    broken = site.start(database=site.database.file.parent / "nowhere" / "db.sqlite3")
    broken.wait_for("unable to open database file")

    whole = site.start()

    assert_acts_alone(site, whole)
    assert "beat: cannot act as the leader" in broken.output


def test_a_leader_whose_database_hangs_gives_way_and_writes_nothing_when_it_goes_on(make_site: MakeSite) -> None:
    """16. A beat whose loop is stuck stops leading; 14. unsure means no: it writes nothing over the next one's."""
    site = make_site(DATABASE_SCHEDULERS["hanging"])
    site.database.add("often", every=EVERY)
    stuck, follower = site.leader(), site.follower()
    site.wait_for_sends(3, entry="often")  # the scheduler writes after its first message, and then for minutes no more

    elected = site.succession((stuck.folder / TROUBLE).touch)
    site.wait_for_sends(3, term=elected["term"])
    written = site.database.row("often").last_run_at
    (stuck.folder / TROUBLE).unlink()
    assert_acts_alone(site, follower)
    site.end(stuck)

    assert site.database.row("often").last_run_at >= written > at(site.sent(pid=stuck.pid)[-1].due)


def test_a_leader_that_is_asked_to_end_in_the_middle_of_a_query_resigns_all_the_same(make_site: MakeSite) -> None:
    """16. Take-over soon after SIGTERM: what is left to write does not wait for the query that it struck."""
    site = make_site(DATABASE_SCHEDULERS["reading"], coord_leader_ttl=30)  # which only a resignation can shorten
    site.database.add("often", every=EVERY)
    reading, follower = site.leader(), site.follower()
    site.wait_for_sends(3, entry="often")

    (reading.folder / TROUBLE).touch()
    wait_until((reading.folder / TROUBLED).exists, "a query that lasts")
    elected = site.succession(lambda: site.end(reading))

    assert elected["pid"] == follower.pid
    resigned = site.wait_for_signal("leader_resigned", pid=reading.pid)
    assert elected["at"] - resigned["at"] < 10  # the promise is less than a second; the machine may be busy
    assert "stuck" not in reading.output


def test_a_leader_that_is_asked_to_end_between_claim_and_message_loses_no_instant(make_site: MakeSite) -> None:
    """15. Each instant at most once, and at least once: an orderly end leaves none that is claimed and not sent."""
    site = make_site(SCHEDULERS["persistent"], beat_schedule=SCHEDULE)
    sending, follower = site.leader(), site.follower()
    site.wait_for_sends(3)

    (sending.folder / "slow").touch()
    wait_until((sending.folder / "sending").exists, "a message on its way")
    so_far, run = len(site.sent()), site.last_run("often")
    sending.signal(signal.SIGTERM)
    time.sleep(0.2)  # until the signal has arrived
    (sending.folder / "slow").unlink()
    site.wait_for_sends(3, pid=follower.pid)

    last, first, *_ = site.sent()[so_far:]
    assert last.due <= run  # the instant that was claimed
    assert first.due == pytest.approx(run + EVERY, abs=0.001)


def test_a_leader_whose_scheduler_raises_gives_way(make_site: MakeSite) -> None:
    """Leadership follows health: a scheduler that raises costs its beat the leadership, not its life."""
    site = make_site("users_schedulers:FailingScheduler", beat_schedule=SCHEDULE)
    troubled, follower = site.leader(), site.follower()
    site.wait_for_sends(3)

    (troubled.folder / TROUBLE).touch()
    # The troubled one may be faster once more, and then gives way again.
    site.wait_for_signal("leader_elected", name="beat", pid=follower.pid)
    assert_acts_alone(site, follower)
    troubled.wait_for("the schedule cannot be read")
    (troubled.folder / TROUBLE).unlink()
    site.succession(lambda: site.end(follower))

    assert_acts_alone(site, troubled)
