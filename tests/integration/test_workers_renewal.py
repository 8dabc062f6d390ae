"""A lease is renewed while its body runs, up to a bound."""

from __future__ import annotations

import pytest
from coord_site import Site, fresh_n
from local_processes import PATIENCE, wait_until

pytestmark = pytest.mark.server


def wait_for_renewals(site: Site, n: str, times: int) -> None:
    """Until what is left of a lease has grown so often."""
    seen, last = 0, site.client.pttl(site.lock_name(n))

    def renewed_often_enough() -> bool:
        nonlocal seen, last
        left = site.client.pttl(site.lock_name(n))
        seen, last = seen + (left > last), left
        return seen >= times

    wait_until(renewed_often_enough, f"{times} renewals of {n}")


@pytest.mark.parametrize("site", ["prefork", "threads", "solo"], indirect=True)
def test_the_lease_is_renewed_while_the_body_runs(site: Site) -> None:
    """5. The lease is renewed while the body runs, also far beyond its ttl."""
    n = fresh_n()

    with site.holding(n, "brief") as running:
        owner = site.client.get(site.lock_name(n))
        wait_for_renewals(site, n, 5)  # one each third of the ttl
        assert site.client.get(site.lock_name(n)) == owner

    assert running.get(timeout=PATIENCE)["lost"] is False
    assert site.words(n) == ["begin", "end"]


@pytest.mark.parametrize("site", ["prefork", "threads"], indirect=True)
def test_all_leases_of_a_process_are_renewed(site: Site) -> None:
    """5. The lease is renewed while the body runs, however many run beside it."""
    keys = [fresh_n() for _ in range(4)]
    runs = [site.task("brief").delay(n) for n in keys]

    for n in keys:
        site.wait_for_word(n, "begin")
    for n in keys:
        wait_for_renewals(site, n, 2)
    site.go(*keys)

    assert not any(run.get(timeout=PATIENCE)["lost"] for run in runs)


@pytest.mark.parametrize("site", ["prefork", "threads"], indirect=True)
def test_a_hung_body_does_not_keep_its_key_for_ever(site: Site) -> None:
    """5. The lease is renewed up to a bound (`max_hold`); past it the lease is lost, and another may run."""
    n = fresh_n()
    hung = site.task("bounded").delay(n)

    site.wait_for_word(n, "lost")
    wait_until(lambda: not site.client.exists(site.lock_name(n)), "the key is free")
    next_one = site.task("step").delay(n).get(timeout=PATIENCE)
    site.go(n)

    ended = hung.get(timeout=PATIENCE)
    assert ended["lost"] is True
    assert next_one["token"] > ended["token"]
    assert site.signals("lease_lost", key=f"n:{n}", why="max_hold")


def test_the_time_limit_of_a_task_bounds_its_lease(threads: Site) -> None:
    """5. The bound is the task's time limit if it has one, also where the pool does not enforce that."""
    n = fresh_n()
    hung = threads.task("limited").delay(n)

    threads.wait_for_word(n, "lost")
    threads.go(n)

    assert hung.get(timeout=PATIENCE)["lost"] is True
    assert threads.signals("lease_lost", key=f"n:{n}", why="max_hold")
