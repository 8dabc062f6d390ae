"""What the user of a real worker sees of a store in trouble: a line in the log, and a run that waits and then ends."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from coord_site import fresh_n
from local_processes import PATIENCE, CeleryProcess, wait_until
from outage_site import OutageSite
from scene import TTL
from troubles import FULL, TROUBLES, Trouble

from celery_coord.testing import LocalServer

#: What the error says, for some of the troubles that can be had without starting the server anew; Redis 6.2 says it in
#: the error of a script.
SAYS = {
    "stopped server": "TimeoutError",
    "read-only replica": "READ ?ONLY",
    "rights revoked": "NoPermissionError",
    "full memory": "OOM|OutOfMemory",
}
SEEN = [trouble for trouble in (*TROUBLES, FULL) if trouble.name in SAYS]


@pytest.fixture(scope="module")
def site(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutageSite]:
    with OutageSite(tmp_path_factory.mktemp("seen"), coord_store_retry_pause=2, coord_lease_ttl=TTL) as site:
        site.workers = [site.start_worker()]
        site.workers[0].wait_for(" ready.")
        yield site


@pytest.fixture
def worker(site: OutageSite) -> CeleryProcess:
    return site.workers[0]


@pytest.mark.parametrize("trouble", SEEN, ids=str)
def test_a_run_waits_until_it_is_over_and_the_log_says_why(
    site: OutageSite, worker: CeleryProcess, trouble: Trouble
) -> None:
    """9. PENDING until then, as if it had not arrived; nothing of it runs meanwhile."""
    n = fresh_n()
    with trouble.happens(site.scene):
        run = site.send("patient", n)
        assert site.wait_for_signal("task_deferred", task_id=run.id)["why"] == "store"
        assert (run.state, site.words(n)) == ("PENDING", [])

    assert run.get(timeout=PATIENCE)["token"] > 0
    assert site.words(n) == ["begin", "end"]
    errors = {told["error"] for told in site.signals("store_failed", doing=f"asking for n:{n}")}
    assert errors  # more than one where it was tried again meanwhile, on another connection
    for error in errors:
        assert re.search(SAYS[trouble.name], error, re.IGNORECASE)
        kind = error.partition(":")[0]
        wait_until(lambda kind=kind: f"{kind}: " in worker.output, "a line in the log, for each kind of trouble")


def test_a_body_whose_lease_the_store_forgot_keeps_its_result_and_the_log_says_so(
    site: OutageSite, worker: CeleryProcess
) -> None:
    """12. SUCCESS stands, since nobody can take it back; there is a warning."""
    n = fresh_n()
    with site.holding(n) as run:
        site.scene.client.flushall()
        site.wait_for_signal("lease_lost", key=f"n:{n}", why="gone")

    assert run.get(timeout=PATIENCE)["lost"] is True
    assert site.wait_for_signal("lease_outlived", key=f"n:{n}")
    wait_until(lambda: "lost (gone); its body may still be running" in worker.output, "a line in the log")
    wait_until(lambda: "ended well under a lost lease; its result stands" in worker.output, "another line")
