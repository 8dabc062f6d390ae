"""After a long gap: the store is told that the last run was long ago, and a beat is started."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from beat_site import SCHEDULERS, BeatSite, MakeSite
from local_processes import wait_until

pytestmark = pytest.mark.server

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


class Gap:
    """Entries of every kind, and the instants at which they came due while nobody led: none of them just now."""

    def __init__(self) -> None:
        now = time.time()
        this_minute = now // MINUTE * MINUTE
        minutes = [this_minute - ago * MINUTE for ago in range(11, 1, -1)]
        hours = [now - HOUR / 2 - ago * HOUR for ago in range(9, -1, -1)]
        midnight = ((24 - now % DAY / HOUR) * 15 + 180) % 360 - 180  # the longitude where noon is far away
        at_minutes = ",".join(str(datetime.fromtimestamp(at, UTC).minute) for at in minutes)
        self.schedules: dict[str, Any] = {
            "crontab": {"crontab": {"minute": at_minutes}},
            "interval": HOUR,
            "solar": {"solar": ["solar_noon", 51.5, midnight]},
        }
        self.dues = {"crontab": minutes, "interval": hours}
        self.last_runs = {"crontab": minutes[0] - 30, "interval": hours[0] - HOUR, "solar": now - 3 * DAY}

    def settings(self) -> dict[str, Any]:
        """The schedule, beside an entry that shows by its messages that the beat goes on."""
        schedules = {"often": 0.2, **self.schedules}
        entry = {"task": "note", "args": ["tick"], "options": {"expires": 60}}
        return {"beat_schedule": {name: {**entry, "schedule": schedule} for name, schedule in schedules.items()}}


@pytest.fixture
def gap() -> Gap:
    return Gap()


def after_the_gap(make: MakeSite, gap: Gap, **conf: Any) -> BeatSite:
    """A site whose beat leads, and has done what there was to do about the gap."""
    site = make(SCHEDULERS["persistent"], **gap.settings(), **conf)
    for name, last_run in gap.last_runs.items():
        site.rewrite_last_run(name, last_run)
    site.leader()
    site.wait_for_sends(5, entry="often")
    return site


def dues(site: BeatSite, entry: str) -> list[float]:
    found = [sent.due for sent in site.sent(entry)]
    assert None not in found
    return found  # type: ignore[return-value]


def test_many_missed_instants_are_sent_as_one(gap: Gap, make_site: MakeSite) -> None:
    """15. Late, not never; `coord_beat_catch_up = "one"`, the default: many missed instants are sent as one."""
    site = after_the_gap(make_site, gap)

    for name in ("crontab", "interval"):
        [due] = dues(site, name)
        assert any(due == pytest.approx(instant, abs=0.01) for instant in gap.dues[name])
    [due] = dues(site, "solar")
    assert gap.last_runs["solar"] < due < time.time()
    # `expires` is counted from the sending: what is sent late is not dead on arrival
    expiries = {sent.headers["expires"] for sent in site.sent() if sent.entry != "often"}
    assert len(expiries) == 3
    assert all(datetime.fromisoformat(expiry).timestamp() > time.time() for expiry in expiries)


def test_each_missed_instant_is_sent(gap: Gap, make_site: MakeSite) -> None:
    """15. `coord_beat_catch_up = "all"`: each missed instant has its message, once, in order."""
    site = after_the_gap(make_site, gap, coord_beat_catch_up="all")

    for name in ("crontab", "interval"):
        wait_until(lambda name=name: len(dues(site, name)) >= len(gap.dues[name]), f"all of {name}")
        assert dues(site, name) == pytest.approx(gap.dues[name], abs=0.01)
    wait_until(lambda: len(dues(site, "solar")) >= 3, "all noons")
    noons = dues(site, "solar")
    assert len(noons) == 3
    assert [later - earlier for earlier, later in itertools.pairwise(noons)] == pytest.approx(
        [DAY, DAY], abs=2 * MINUTE
    )


def test_missed_instants_are_passed_over(gap: Gap, make_site: MakeSite) -> None:
    """`coord_beat_catch_up = "none"`: instants later than a take-over takes are passed over."""
    site = after_the_gap(make_site, gap, coord_beat_catch_up="none")

    assert {sent.entry for sent in site.sent()} == {"often"}


def test_an_entry_that_no_leader_lived_to_send_is_sent_all_the_same(make_site: MakeSite) -> None:
    """15. At least once: an interval that is longer than each leader's term is counted from when it was first seen."""
    entry = {"task": "note", "args": ["tick"]}
    schedule = {"often": {**entry, "schedule": 0.2}, "rare": {**entry, "schedule": 3}}
    site = make_site(SCHEDULERS["persistent"], beat_schedule=schedule)
    site.leader()
    site.wait_for_sends(1, entry="often")
    first_seen = time.time()

    while time.time() < first_seen + 3:
        site.follower()
        site.wait_for_sends(1, entry="often", pid=site.leader().pid)
        site.succession(lambda: site.end(site.leader()))
    wait_until(lambda: site.sent("rare"), "the rare one")

    assert site.sent("rare")[0].due <= first_seen + 3
