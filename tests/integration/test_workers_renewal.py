"""A lease is renewed while its body runs, up to a bound."""

from __future__ import annotations

import pytest
from coord_site import Site, fresh_n
from local_processes import PATIENCE, wait_until

pytestmark = pytest.mark.server


def wait_for_renewals(site: Site, *keys: str, times: int) -> None:
    """Until what is left of each of these leases has grown so often."""
    seen = dict.fromkeys(keys, 0)
    last = {n: site.client.pttl(site.lock_name(n)) for n in keys}

    def renewed_often_enough() -> bool:
        for n in keys:
            left = site.client.pttl(site.lock_name(n))
            seen[n], last[n] = seen[n] + (left > last[n]), left
        return min(seen.values()) >= times

    wait_until(renewed_often_enough, f"{times} renewals of {keys}")


@pytest.mark.parametrize("site", ["prefork", "threads", "solo"], indirect=True)
def test_the_lease_is_renewed_while_the_body_runs(site: Site) -> None:
    """5. The lease is renewed while the body runs, also far beyond its ttl."""
    n = fresh_n()

    with site.holding(n, "steady") as running:
        owner = site.client.get(site.lock_name(n))
        wait_for_renewals(site, n, times=4)  # one each third of the ttl
        assert site.client.get(site.lock_name(n)) == owner

    assert running.get(timeout=PATIENCE)["lost"] is False
    assert site.words(n) == ["begin", "end"]


@pytest.mark.parametrize("site", ["prefork", "threads"], indirect=True)
def test_all_leases_of_a_process_are_renewed(site: Site) -> None:
    """5. The lease is renewed while the body runs, however many run beside it."""
    keys = [fresh_n() for _ in range(4)]
    runs = [site.task("steady").delay(n) for n in keys]

    for n in keys:
        site.wait_for_word(n, "begin")
    wait_for_renewals(site, *keys, times=2)
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
    site.wait_for_signal("lease_lost", key=f"n:{n}", why="max_hold")
    site.go(n)

    ended = hung.get(timeout=PATIENCE)
    assert ended["lost"] is True
    assert next_one["token"] > ended["token"]


def test_the_time_limit_of_a_task_bounds_its_lease(threads: Site) -> None:
    """5. The bound is the task's time limit if it has one, also where the pool does not enforce that."""
    n = fresh_n()
    hung = threads.task("limited").delay(n)

    threads.wait_for_word(n, "lost")
    threads.wait_for_signal("lease_lost", key=f"n:{n}", why="max_hold")
    threads.go(n)

    assert hung.get(timeout=PATIENCE)["lost"] is True
