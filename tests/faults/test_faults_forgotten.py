"""A store that forgets: all of it, what it had not saved, or what it had no room for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from local_processes import wait_until
from scene import LONG, MakeScene, Scene, grew

from celery_coord.gate import Admitted
from celery_coord.lease import Cooling, Held

#: Long enough for a server to be started anew, and renewed soon enough for a test to wait for it.
WHILE = 9.0


def flushes(scene: Scene) -> None:
    scene.client.flushall()


def starts_anew(scene: Scene) -> None:
    scene.restart()


forgets = pytest.mark.parametrize("forget", [flushes, starts_anew], ids=["FLUSHALL", "restart"])


@forgets
def test_a_holder_that_the_store_forgot_learns_it_at_its_next_renewal(
    scene: Scene, forget: Callable[[Scene], None]
) -> None:
    """5. It is told by the store, and not by the end of its trust."""
    holder = scene.process.begin("k", ttl=WHILE)

    forget(scene)

    holder.wait_until_lost()
    assert scene.process.wait_for("lease_lost", key="k")["why"] == "gone"


@forgets
def test_tokens_grow_over_a_store_that_forgot(scene: Scene, forget: Callable[[Scene], None]) -> None:
    """1. A second run can be admitted while the first still believes in its lease: the token tells the two apart."""
    holder = scene.process.begin("k", ttl=LONG)

    forget(scene)
    other = scene.another().begin("k", ttl=LONG)

    assert other.token > holder.token
    assert not holder.lost


@forgets
def test_a_body_that_the_store_forgot_touches_nothing_of_the_next_holder(
    scene: Scene, forget: Callable[[Scene], None]
) -> None:
    """6. Only the owner's own lease is ever released; 12. and no quiet period begins."""
    holder = scene.process.begin("k", ttl=LONG)
    forget(scene)
    other = scene.another().begin("k", ttl=LONG)
    owner = scene.lock("k")

    assert isinstance(holder.end(), Admitted)

    assert scene.process.said("lease_lost", key="k", why="gone")
    assert scene.process.said("lease_outlived", key="k")
    assert scene.lock("k") == owner
    assert not scene.is_cooling("k")
    assert not other.lost


@forgets
def test_a_leader_that_the_store_forgot_is_deposed_and_terms_grow(
    scene: Scene, forget: Callable[[Scene], None]
) -> None:
    """14. While the store remembers one leads; here it learns it at its next renewal."""
    leader = scene.process.lead(ttl=WHILE)
    term = leader.term

    forget(scene)

    scene.process.wait_for("leader_deposed", why="gone")
    assert grew(term, wait_until(lambda: leader.term, "elected anew"))


@forgets
def test_a_quiet_period_that_the_store_forgot_is_over(scene: Scene, forget: Callable[[Scene], None]) -> None:
    scene.process.ask("k")
    assert isinstance(scene.process.ask("k"), Cooling)

    forget(scene)

    assert isinstance(scene.process.ask("k"), Admitted)


def test_nobody_notices_that_scripts_were_flushed(scene: Scene) -> None:
    """They are source: whoever finds that the server does not know one sends it again."""
    process = scene.process
    holder, ending, leader = process.begin("k"), process.begin("ending"), process.lead()
    term = leader.term

    for _ in range(3):
        scene.client.script_flush()
        scene.wait_for_renewal("k")
    scene.client.script_flush()

    assert isinstance(process.ask("other"), Admitted)
    assert isinstance(ending.end(), Admitted)
    assert scene.is_cooling("ending")
    assert isinstance(holder.end(), Admitted)
    assert leader.term == term
    for trouble in ("store_failed", "lease_lost", "leader_deposed"):
        assert not process.said(trouble)


SAVES_EVERYTHING = ("--appendonly", "yes", "--appendfsync", "always")
SAVES_AT_ITS_END = ("--save", "3600", "1")


@pytest.mark.parametrize(
    ("options", "crash"), [(SAVES_EVERYTHING, True), (SAVES_AT_ITS_END, False)], ids=["AOF, crash", "RDB, orderly end"]
)
def test_what_was_saved_is_there_after_a_restart(
    make_scene: MakeScene, tmp_path: Path, options: tuple[str, ...], crash: bool
) -> None:
    """Leases go on, bodies are settled, quiet periods last, terms go on; the restart was shorter than a ttl."""
    scene = make_scene(("--dir", str(tmp_path), *options))
    process = scene.process
    holder, ending = process.begin("k", ttl=WHILE), process.begin("ending", ttl=LONG)
    leader = process.lead(ttl=WHILE)
    term = leader.term
    process.ask("cooled")

    scene.restart(crash=crash)

    assert isinstance(scene.another().ask("k"), Held)
    assert isinstance(process.ask("cooled"), Cooling)
    assert isinstance(ending.end(), Admitted)
    assert scene.is_cooling("ending")
    scene.wait_for_renewal("k")
    assert not holder.lost
    assert not process.said("lease_lost")
    assert leader.term == term
    assert isinstance(holder.end(), Admitted)
    process.coordination.store.clear("k")
    assert process.begin("k").token > holder.token


def test_a_crash_takes_back_what_was_not_in_the_last_snapshot(make_scene: MakeScene, tmp_path: Path) -> None:
    """What had begun since then is forgotten; what had ended since then is held once more, for a ttl at most."""
    scene = make_scene(("--dir", str(tmp_path), *SAVES_AT_ITS_END))
    process = scene.process
    kept, ended = process.begin("kept", ttl=LONG), process.begin("ended", ttl=LONG)
    scene.client.save()
    ended.end()
    begun = process.begin("begun", ttl=LONG)

    scene.restart()

    other = scene.another()
    assert isinstance(other.ask("kept"), Held)
    assert isinstance(other.ask("ended"), Held)
    assert other.begin("begun", ttl=LONG).token > begun.token
    assert isinstance(begun.end(), Admitted)
    assert process.said("lease_lost", key="begun", why="gone")
    assert isinstance(kept.end(), Admitted)
    assert scene.is_cooling("kept")


def test_a_holder_whose_lease_was_evicted_learns_it(make_scene: MakeScene) -> None:
    """A server that evicts keys forgets leases: the next holder's token is larger."""
    scene = make_scene(("--maxmemory-policy", "allkeys-lru"))
    process = scene.process
    holder, ending, leader = process.begin("k"), process.begin("ending", ttl=LONG), process.lead()
    term = leader.term
    process.ask("cooled")
    scene.client.config_set("maxmemory", scene.client.info("memory")["used_memory"] + 500_000)

    fillers = itertools.count()

    def is_evicted() -> bool:
        scene.client.mset({f"filler:{next(fillers)}": "x" * 1000 for _ in range(50)})
        left = scene.client.exists("lock:{coord:ending}", "coord1-cooldown:{coord:cooled}")  # to look is not to use
        return holder.lost and not left and process.said("leader_deposed", why="gone")

    wait_until(is_evicted, "an eviction")
    scene.client.config_set("maxmemory", 0)

    assert process.wait_for("lease_lost", key="k")["why"] == "gone"
    assert scene.another().begin("k").token > holder.token
    assert isinstance(process.ask("cooled"), Admitted)
    assert isinstance(ending.end(), Admitted)
    assert process.said("lease_outlived", key="ending")
    assert not scene.is_cooling("ending")
    assert grew(term, wait_until(lambda: leader.term, "elected anew"))
