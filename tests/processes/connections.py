"""Whose connections to a server are whose: what the server lists, and what the system knows of a process's files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import redis

from celery_coord.testing import LocalServer

#: What the system calls an open file that is no socket, as it begins, and what it is called here.
KINDS = {"pipe:": "pipes", "anon_inode:[eventpoll]": "polls", "anon_inode:": "events"}


def ports_of(pid: int, server: LocalServer) -> set[int]:
    """The ports from which a process is connected to a server; two processes with the same one share a connection."""
    return {connection.laddr.port for connection in _sockets(pid) if _leads_to(connection, server)}


def files_of(pid: int, servers: Mapping[str, LocalServer]) -> Counter[str]:
    """How many open files of each kind a process has: connections to each of these servers, by its name, and the rest.

    That is: other ``sockets``, such as lead nowhere any more, ``pipes``, ``polls`` (of epoll), other ``events``,
    and ``plain`` files. Where the system has no ``/proc`` only connections are known.
    """
    leads = {known.fd: name for known in _sockets(pid) for name, server in servers.items() if _leads_to(known, server)}
    others = (_kind_of(target) for file, target in _open_files(pid) if file not in leads)
    return Counter([*leads.values(), *others])


def processes_of(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def ports_by_process(pid: int, server: LocalServer) -> dict[int, set[int]]:
    """For a process and each that descends from it, the ports from which it is connected to a server."""
    return {found: ports_of(found, server) for found in processes_of(pid)}


def shared(ports: dict[int, set[int]]) -> set[int]:
    """The ports that more than one process has."""
    every = [port for found in ports.values() for port in found]
    return {port for port in every if every.count(port) > 1}


class Watcher:
    """One who is connected to a server to ask it who else is."""

    def __init__(self, server: LocalServer) -> None:
        self.client = redis.Redis.from_url(server.url, decode_responses=True)

    def ports(self) -> set[int]:
        """The ports from which others are connected, as the server has it."""
        with self.client.client() as line:
            own = str(line.client_id())
            listed = line.client_list()
        return {int(known["addr"].rpartition(":")[2]) for known in listed if known["id"] != own}

    def prolonged(self) -> int:
        """How often the server has let a key last longer since it began: twice with each renewal."""
        return int(self.client.info("commandstats").get("cmdstat_pexpire", {}).get("calls", 0))

    def close(self) -> None:
        self.client.close()


def _sockets(pid: int) -> list[Any]:
    try:
        return list(psutil.Process(pid).net_connections("tcp4"))
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended, or is about to be waited for
        return []


def _open_files(pid: int) -> Iterator[tuple[int, str]]:
    with suppress(OSError):  # it has ended
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                yield int(file.name), str(file.readlink())


def _kind_of(target: str) -> str:
    if target.startswith("socket:"):
        return "sockets"
    return next((kind for begins, kind in KINDS.items() if target.startswith(begins)), "plain")


def _leads_to(connection: Any, server: LocalServer) -> bool:
    return bool(connection.raddr) and connection.raddr.port == server.port
