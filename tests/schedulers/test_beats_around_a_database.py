"""Around `django_celery_beat`: what is in the database, and what its admin writes there."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from beat_site import DATABASE_SCHEDULER, BeatSite, MakeSite, Sent, at
from local_processes import wait_until

pytestmark = pytest.mark.server

EVERY = 0.5
HOUR = 3600.0


@pytest.fixture(scope="module")
def site(make_module_site: MakeSite) -> BeatSite:
    site = make_module_site(DATABASE_SCHEDULER, beat_max_loop_interval=0.2)
    site.database.add("often", every=EVERY)
    return site


@pytest.fixture(scope="module")
def after_a_gap(make_module_site: MakeSite) -> BeatSite:
    """A beat leads again after an hour and a half; meanwhile users changed this and that."""
    site = make_module_site(DATABASE_SCHEDULER)
    site.database.add("often", every=EVERY)
    ended_at = time.time() - 1.5 * HOUR
    for arrange in ARRANGEMENTS:
        arrange(site, ended_at)
    site.leader()
    site.wait_for_sends(3, entry="often")
    return site


ARRANGEMENTS: list[Callable[[BeatSite, float], None]] = []


def in_the_gap(arrange: Callable[[BeatSite, float], None]) -> Callable[[BeatSite, float], None]:
    ARRANGEMENTS.append(arrange)
    return arrange


def add_clocked(site: BeatSite, name: str, when: float) -> None:
    """An entry that is due once."""
    site.database.add(name, clocked=site.database.clock(at(when)), one_off=True)


def first_of(site: BeatSite, entry: str) -> Sent:
    return wait_until(lambda: site.sent(entry), entry)[0]


def test_an_entry_that_is_added_while_a_beat_leads_is_sent(site: BeatSite) -> None:
    """The leader sees what users add to the tables of its scheduler."""
    site.leader()
    site.wait_for_sends(1, entry="often")
    added_at = time.time()

    site.database.add("added", every=EVERY)

    assert first_of(site, "added").due >= added_at + EVERY - 0.01


def test_a_clocked_entry_is_sent_once_though_its_leader_is_killed_before_the_database_knows(site: BeatSite) -> None:
    """15. Each due instant at most once: an entry that is due once included."""
    leader, follower = site.leader(), site.follower()
    site.wait_for_sends(1, entry="often")  # the scheduler writes after its first message, and then for minutes no more
    due = time.time() + 0.3

    add_clocked(site, "clocked", due)
    first = first_of(site, "clocked")
    elected = site.succession(lambda: site.end(leader, signal.SIGKILL))
    assert site.database.row("clocked").total_run_count == 0
    site.wait_for_sends(3, entry="often", term=elected["term"])

    assert elected["pid"] == follower.pid
    assert first.due == pytest.approx(due, abs=0.001)
    assert site.sent("clocked") == [first]


def test_an_entry_that_was_disabled_for_a_while_is_not_sent_for_what_was_due_meanwhile(site: BeatSite) -> None:
    """Enabled again in the admin, an entry starts anew: its next instant is one interval later."""
    site.leader()
    site.database.add("disabled", every=EVERY)
    first_of(site, "disabled")

    site.database.change("disabled", enabled=False)
    site.wait_for_sends(2, entry="often")
    sent_before = len(site.sent("disabled"))
    site.wait_for_sends(2, entry="often")
    assert len(site.sent("disabled")) == sent_before
    enabled_at = time.time()
    site.database.change("disabled", enabled=True)
    site.wait_for_sends(1, entry="disabled")

    assert site.sent("disabled")[sent_before].due >= enabled_at + EVERY - 0.01


@in_the_gap
def a_clocked_entry_came_due(site: BeatSite, ended_at: float) -> None:
    add_clocked(site, "clocked", ended_at + 60)


def test_a_clocked_entry_that_came_due_while_nobody_led_is_sent_late_and_once(after_a_gap: BeatSite) -> None:
    """15. At least once while one beat lives (late, not never): an entry that is due once included."""
    [late] = after_a_gap.sent("clocked")

    assert late.due == pytest.approx(time.time() - 1.5 * HOUR + 60, abs=60)


@in_the_gap
def a_clocked_entry_had_been_sent(site: BeatSite, ended_at: float) -> None:
    add_clocked(site, "clocked and sent", ended_at)
    site.rewrite_last_run("clocked and sent", ended_at)


def test_a_clocked_entry_that_was_sent_is_not_sent_again_though_the_database_does_not_know(
    after_a_gap: BeatSite,
) -> None:
    """15. Each due instant at most once: the database may have lost what the last leader did."""
    assert after_a_gap.sent("clocked and sent") == []


@in_the_gap
def an_entry_came_due(site: BeatSite, ended_at: float) -> None:
    site.database.add("overdue", every=HOUR, last_run_at=at(ended_at))
    site.rewrite_last_run("overdue", ended_at)


def test_an_entry_that_came_due_while_nobody_led_is_sent_late(after_a_gap: BeatSite) -> None:
    """15. At least once while one beat lives (late, not never)."""
    [late] = after_a_gap.sent("overdue")

    assert late.due == pytest.approx(time.time() - 0.5 * HOUR, abs=60)


@in_the_gap
def an_entry_was_enabled(site: BeatSite, ended_at: float) -> None:
    site.database.add("enabled", every=HOUR, enabled=False)
    site.rewrite_last_run("enabled", ended_at)
    site.database.change("enabled", enabled=True)


def test_an_entry_that_was_enabled_again_while_nobody_led_starts_anew(after_a_gap: BeatSite) -> None:
    """What the database says of an entry's last run counts where it is later than what the store remembers."""
    assert after_a_gap.sent("enabled") == []


@in_the_gap
def the_last_leader_did_not_write(site: BeatSite, ended_at: float) -> None:
    site.database.add("not written", every=HOUR, last_run_at=at(ended_at))
    site.rewrite_last_run("not written", time.time() - 60)


def test_what_the_store_remembers_counts_where_the_database_does_not_know_yet(after_a_gap: BeatSite) -> None:
    """15. At most once: the database learns of a last run only when the scheduler writes, minutes later."""
    assert after_a_gap.sent("not written") == []


@in_the_gap
def an_entry_expired(site: BeatSite, ended_at: float) -> None:
    site.database.add("expired", every=HOUR, last_run_at=at(ended_at), expires=at(ended_at + 1.1 * HOUR))
    site.rewrite_last_run("expired", ended_at)


def test_an_entry_that_has_expired_is_not_sent_late(after_a_gap: BeatSite) -> None:
    """15. Late, not never, as long as the entry is in force: after its `expires` the scheduler disables it."""
    assert after_a_gap.sent("expired") == []
    assert not after_a_gap.database.row("expired").enabled
