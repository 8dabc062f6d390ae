"""Rounds of times, as a table and verdicts."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from statistics import median

from benchmarks.variants import BARE, COORDINATED, FLOOR, OTHERS, VARIANTS, Variant
from benchmarks.worker import Times

#: How near to the floor we want to be.
MARK = 1.3

_PACKAGES = ("celery", "kombu", "redis", "hiredis", "python-redis-lock")
_ROW = "{:<48} {:>12} {:>12} {:>15} {:>15}"


def report(rounds: Sequence[Times], *, tasks: int, server: str) -> str:
    """All that is to be said of a benchmark.

    Args:
        rounds: the times.
        tasks: how many tasks of a variant a round has.
        server: the name and version of the server.
    """
    return "\n".join([*_about(tasks, len(rounds), server), "", *_table(rounds), "", *_verdicts(rounds)])


def _about(tasks: int, rounds: int, server: str) -> Iterator[str]:
    yield f"{tasks} tasks a variant and round, medians of {rounds} rounds; solo pool; broker and store: {server}"
    yield f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}"
    yield ", ".join(f"{package} {_version(package)}" for package in _PACKAGES)


def _table(rounds: Sequence[Times]) -> Iterator[str]:
    header = _ROW.format("variant", "ms a task", "added ms", "times the floor", "(its range)")
    yield header
    yield "-" * len(header)
    for variant in VARIANTS:
        yield _row(rounds, variant)


def _row(rounds: Sequence[Times], variant: Variant) -> str:
    total = median(times[variant] for times in rounds) * 1000
    if variant is BARE:
        return _ROW.format(variant.title, f"{total:.3f}", "", "", "").rstrip()
    added = median(_added(times, variant) for times in rounds) * 1000
    ratios = _each(rounds, lambda times: _ratio(times, variant, FLOOR))
    return _ROW.format(
        variant.title, f"{total:.3f}", f"{added:.3f}", f"{median(ratios):.2f}", f"{min(ratios):.2f}-{max(ratios):.2f}"
    )


def _verdicts(rounds: Sequence[Times]) -> Iterator[str]:
    for other in OTHERS:
        ratio = median(_each(rounds, lambda times, other=other: _ratio(times, COORDINATED, other)))  # type: ignore[misc]
        yield f"below {other.title}: {_yes(ratio < 1)} ({ratio:.2f} times its added cost)"
    ratio = median(_each(rounds, lambda times: _ratio(times, COORDINATED, FLOOR)))
    yield f"within {MARK} times the floor: {_yes(ratio <= MARK)} ({ratio:.2f})"


def _added(times: Times, variant: Variant) -> float:
    return times[variant] - times[BARE]


def _ratio(times: Times, variant: Variant, other: Variant) -> float:
    """How the added costs of two variants compare, within one round."""
    return _added(times, variant) / _added(times, other)


def _each(rounds: Sequence[Times], figure: Callable[[Times], float]) -> list[float]:
    return [figure(times) for times in rounds]


def _yes(true: bool) -> str:  # noqa: FBT001
    return "yes" if true else "no"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
