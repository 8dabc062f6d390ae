"""Around RedBeat: it has a lock of its own, which would let a follower wait for ever; under a leader it needs none."""

from __future__ import annotations

import pytest
from beat_site import SCHEDULERS, MakeSite

pytestmark = pytest.mark.server

SCHEDULE = {"often": {"task": "note", "schedule": 0.2, "args": ["tick"]}}


def test_the_lock_of_redbeat_is_neither_taken_nor_waited_for(make_site: MakeSite) -> None:
    """14. One leader, by one election: RedBeat's own lock stands aside, though the settings give it a key."""
    locked = {"redbeat_lock_key": "redbeat:mine", "redbeat_lock_timeout": 600}
    site = make_site(SCHEDULERS["redbeat"], beat_schedule=SCHEDULE, **locked)
    leader, follower = site.leader(), site.follower()
    site.wait_for_sends(3, entry="often")

    elected = site.succession(lambda: site.end(leader))
    site.wait_for_sends(3, entry="often", term=elected["term"])

    assert set(site.client.keys("redbeat*")) == {"redbeat::schedule", "redbeat::statics", "redbeat:often"}
    assert "Traceback" not in leader.output + follower.output
