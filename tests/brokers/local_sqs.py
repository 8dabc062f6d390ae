"""A server that speaks Amazon SQS, on this machine: the one that the package ``moto`` carries."""

from __future__ import annotations

import atexit
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from celery_coord.testing import free_port

#: What a worker needs to speak to it, and what it needs to serve.
NEEDED = ("boto3", "moto", "flask", "flask_cors")


class SQSMissing(RuntimeError):
    """No package that serves SQS is installed, or none that speaks to it."""


class LocalSQS:
    """An SQS on a free port of 127.0.0.1, which keeps its queues in memory. It ends with this process.

    Raises:
        SQSMissing: a package is missing.
    """

    _PATIENCE = 90.0

    def __init__(self) -> None:
        missing = [name for name in NEEDED if find_spec(name) is None]
        if missing:
            raise SQSMissing(f"no {', '.join(missing)}: pip install 'kombu[sqs]' moto flask flask-cors")
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """Its address as a broker; any name and secret will do."""
        return f"sqs://name:secret@127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="celery-coord-")
        said = Path(self._folder.name) / "output.txt"
        atexit.register(self.stop)
        with said.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + self._PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = said.read_text(errors="replace")
                self.stop()
                raise RuntimeError(f"moto did not start on port {self.port}; it said:\n{text}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """End it; may be called twice."""
        atexit.unregister(self.stop)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _answers(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/moto-api/", timeout=10):
                return True
        except (URLError, OSError):
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
