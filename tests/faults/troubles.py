"""What keeps a store from answering: each trouble begins and ends in a `with`, and loses nothing that the store knows.

What makes a store forget is elsewhere: see test_faults_forgotten.py.
"""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from local_processes import wait_until
from proxy import Line, reserved
from scene import TIMEOUT, Scene

from tests.servers.binaries import binary

Happens = Callable[[Scene], AbstractContextManager[None]]

#: A server that loads so many keys, each of them slowly, takes longer than the trouble lasts; it is told to hurry then.
#: It listens to clients all the while; Redis 6.2 cannot be told to.
_KEYS_TO_LOAD = 15_000
_LOADS_SLOWLY = ("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")


@dataclass(frozen=True)
class Trouble:
    """One trouble.

    Attributes:
        name: in words.
        happens: it lasts as long as the block.
        options: what the server is started with; ``FOLDER`` stands for a folder of its own.
        is_the_servers: whether no act that writes is answered; not where some are, as with a right that is missing.
        is_named: whether it has to do with the name of the server.
        server: which one it can happen to, as `tests.servers.binaries` names it; empty: to any.
    """

    name: str
    happens: Happens
    options: Sequence[str] = ()
    is_the_servers: bool = True
    is_named: bool = False
    server: str = ""

    def scene(self, folder: Path, *, timeout: float = TIMEOUT) -> Scene:
        """A store to which it can happen."""
        folder.mkdir(exist_ok=True)
        options = [option.replace("FOLDER", str(folder)) for option in self.options]
        program = binary(self.server).path if self.server else None
        return Scene(options, timeout=timeout, is_named=self.is_named, binary=program)

    def __str__(self) -> str:
        return self.name


@contextmanager
def _dies(scene: Scene) -> Iterator[None]:
    """Connections are cut, and new ones refused, as where the server's process has died."""
    scene.proxy.die()
    try:
        yield
    finally:
        scene.proxy.heal()


@contextmanager
def _vanishes_and_refuses(scene: Scene) -> Iterator[None]:
    """Those who were connected hear nothing more, and new connections are refused: the host has started anew."""
    scene.proxy.set(Line.VANISHED)
    scene.proxy.refuse()
    try:
        yield
    finally:
        scene.proxy.heal()


@contextmanager
def _is_not_resolved(scene: Scene) -> Iterator[None]:
    """Connections are cut, and no name server says where to connect to."""
    with scene.name.unanswered():
        scene.proxy.cut()
        yield


def _line(line: Line) -> Happens:
    return lambda scene: scene.proxy.being(line)


@contextmanager
def _reads_only(scene: Scene) -> Iterator[None]:
    """It has become the replica of a primary that is not there."""
    with reserved() as nobodys:
        scene.client.replicaof("127.0.0.1", nobodys.getsockname()[1])
        try:
            yield
        finally:
            scene.client.replicaof("NO", "ONE")


@contextmanager
def _cannot_save(scene: Scene) -> Iterator[None]:
    """It takes no more writes, since it could not write its snapshot: its folder is gone, as on a full disk."""
    shutil.rmtree(scene.client.config_get("dir")["dir"])
    scene.client.config_set("save", "3600 1")
    scene.client.bgsave()
    wait_until(lambda: scene.client.info("persistence")["rdb_last_bgsave_status"] == "err", "a snapshot that failed")
    try:
        yield
    finally:
        scene.client.config_set("save", "")  # else it would not end when it is asked to


@contextmanager
def _is_busy(scene: Scene) -> Iterator[None]:
    """Somebody's script does not end."""
    scene.client.config_set("lua-time-limit", 1)

    def run() -> None:
        with redis.Redis.from_url(scene.server.url, socket_timeout=60) as other, ignoring_its_end():
            other.eval("while true do end", 0)

    runs = threading.Thread(target=run, daemon=True)
    runs.start()
    wait_until(lambda: says(scene, "BUSY"), "a script that runs")
    try:
        yield
    finally:
        scene.client.script_kill()
        runs.join(10)


@contextmanager
def _wants_a_password(scene: Scene) -> Iterator[None]:
    """Its password was changed: whoever connects from now on is refused."""
    scene.client.config_set("requirepass", "changed")
    scene.proxy.cut()
    try:
        yield
    finally:
        scene.client.config_set("requirepass", "")


@contextmanager
def _takes_rights_away(scene: Scene) -> Iterator[None]:
    """The account that the processes use may do nothing any more."""
    scene.client.acl_setuser("admin", enabled=True, passwords="+admin", keys="*", commands=["+@all"])
    with redis.Redis.from_url(f"redis://admin:admin@127.0.0.1:{scene.server.port}/0") as admin:
        admin.execute_command("ACL", "SETUSER", "default", "-@all")
        try:
            yield
        finally:
            admin.execute_command("ACL", "SETUSER", "default", "+@all")


@contextmanager
def _is_full_of_clients(scene: Scene) -> Iterator[None]:
    """It takes no more connections, and those that were there are gone."""
    allowed = scene.client.config_get("maxclients")["maxclients"]
    scene.client.config_set("maxclients", 1)
    scene.proxy.cut()
    try:
        yield
    finally:
        scene.client.config_set("maxclients", allowed)


@contextmanager
def _loads(scene: Scene) -> Iterator[None]:
    """It was started anew, and is still reading what it had saved."""
    scene.client.mset({f"filler:{number}": "x" * 20 for number in range(_KEYS_TO_LOAD)})
    scene.client.save()
    scene.restart(more=_LOADS_SLOWLY)
    wait_until(lambda: says(scene, "LOADING"), "a server that loads")
    try:
        yield
    finally:
        scene.client.config_set("key-load-delay", 0)
        wait_until(lambda: not says(scene, "LOADING"), "a server that has loaded")


@contextmanager
def ignoring_its_end() -> Iterator[None]:
    try:
        yield
    except redis.RedisError:
        return


def says(scene: Scene, word: str) -> bool:
    """Whether the server answers with such an error; redis-py would ask again and again."""
    with socket.create_connection(("127.0.0.1", scene.server.port), timeout=10) as line:
        line.sendall(b"PING\r\n")
        return line.recv(1000).startswith(b"-" + word.encode())


@contextmanager
def is_full(scene: Scene) -> Iterator[None]:
    """Its memory is full, and it evicts nothing."""
    scene.client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        scene.client.config_set("maxmemory", 0)


_IN_A_FOLDER = ("--dir", "FOLDER")

TROUBLES = (
    Trouble("connections refused", _dies),
    Trouble("stalled network", _line(Line.STALLS)),
    Trouble("answers lost", _line(Line.MUTE)),
    Trouble("half-open connections", _line(Line.VANISHED)),
    Trouble("half-open connections and new ones refused", _vanishes_and_refuses),
    Trouble("silent resolver", _is_not_resolved, is_named=True),
    Trouble("stopped server", lambda scene: scene.stopped()),
    Trouble("read-only replica", _reads_only),
    Trouble("snapshot fails", _cannot_save, _IN_A_FOLDER),
    Trouble("busy script", _is_busy),
    Trouble("password changed", _wants_a_password),
    Trouble("rights revoked", _takes_rights_away, is_the_servers=False),
    Trouble("too many clients", _is_full_of_clients),
    Trouble("loading", _loads, _IN_A_FOLDER, server="valkey-8.1"),
)
#: A trouble of its own kind: what takes no room goes on, see test_faults_full.py.
FULL = Trouble("full memory", is_full)
