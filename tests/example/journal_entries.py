"""Entries of a journal, as tests write them down."""

from __future__ import annotations

from example_project.journal import Entry

REFRESH = "example_project.tasks.refresh_cluster_state"
DISCOVER = "example_project.tasks.discover"
COMPONENT = "discovery"


def asked(at: float, run: str, *, task: str = REFRESH, cluster: str = "orders", pid: int = 1) -> Entry:
    return Entry(at, "asked", pid, task, run, cluster)


def entered(at: float, run: str, token: int, *, cluster: str = "orders", pid: int = 11) -> Entry:
    return Entry(at, "entered", pid, REFRESH, run, cluster, token)


def left(
    at: float, run: str, token: int, *, cluster: str = "orders", pid: int = 11, detail: str = "well", commands: int = 0
) -> Entry:
    return Entry(at, "left", pid, REFRESH, run, cluster, token, detail, commands=commands)


def dropped(at: float, run: str, reason: str = "held", *, cluster: str = "orders") -> Entry:
    return Entry(at, "dropped", 12, REFRESH, run, cluster, detail=reason)


def elected(at: float, pid: int, term: int = 1, *, name: str = "beat") -> Entry:
    return Entry(at, "elected", pid, name, token=term)


def began(at: float, pid: int, term: int) -> Entry:
    return Entry(at, "began", pid, COMPONENT, token=term)


def ended(at: float, pid: int, term: int, *, detail: str = "well", found: int = 0) -> Entry:
    return Entry(at, "ended", pid, COMPONENT, token=term, detail=detail, found=found)


def killed(at: float, pid: int) -> list[Entry]:
    return [Entry(at, "killing", pid), Entry(at, "killed", pid)]
