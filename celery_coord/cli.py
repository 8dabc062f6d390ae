"""The commands of ``celery -A proj coord``: run a command as the leader alone, see who leads, let one step down."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
from celery.bin.base import LOG_LEVEL, CeleryCommand, CeleryOption, handle_preload_options

from celery_coord import operating
from celery_coord.app import coordination
from celery_coord.command import GRACE, SHORTEST_TTL, CommandOfLeader
from celery_coord.errors import CoordError
from celery_coord.leader import Leader
from celery_coord.leading import Election
from celery_coord.worker import check, refuse

_HEAD = ("NAME", "WHO", "TERM", "SINCE", "LEFT", "LAST ACT")
_NOTHING = "-"


@click.group()
@click.pass_context
@handle_preload_options  # type: ignore[untyped-decorator]  # Celery has no types
def coord(ctx: click.Context) -> None:
    """Leaders: run a command as one, see them, ask one to step down."""


@coord.command(cls=CeleryCommand, context_settings={"allow_interspersed_args": False})
@click.option("--name", cls=CeleryOption, required=True, help="What is led: of those that run with one name one leads.")
@click.option(
    "--ttl",
    cls=CeleryOption,
    type=float,
    help="How long the lease outlives its last renewal, in seconds. Defaults to the setting coord_leader_ttl.",
)
@click.option(
    "--grace",
    cls=CeleryOption,
    type=click.FloatRange(min=0),
    help="Seconds from SIGTERM to SIGKILL: a fifth of the ttl at most, which is the default.",
)
@click.option("--label", cls=CeleryOption, help="What others see of this process beside host and process id.")
@click.option("-l", "--loglevel", cls=CeleryOption, type=LOG_LEVEL, default="INFO", help="Logging level.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(  # noqa: PLR0917  click gives them by name
    ctx: click.Context,
    name: str,
    ttl: float | None,
    grace: float | None,
    label: str | None,
    loglevel: int,
    command: Sequence[str],
) -> None:
    """Run COMMAND while this process leads NAME.

    It gets SIGTERM, and SIGKILL after the grace, when the leadership ends, and never outlives this process. When it
    ends by itself, this process resigns and ends with the same exit status.
    """
    app = ctx.obj.app
    app.log.setup_logging_subsystem(loglevel=loglevel, colorize=False if ctx.obj.no_color else None)
    with _in_a_sentence():
        _check(app)
        ttl = _ttl(coordination(app).settings.leader_ttl if ttl is None else ttl)
        runner = CommandOfLeader(command, ttl=ttl, grace=_grace(grace, ttl))
        election = Election(name, app=app, ttl=ttl, label=label, healthy=runner.is_healthy)
        status = runner.run(election)
    ctx.exit(status)


@coord.command(cls=CeleryCommand)
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", cls=CeleryOption, is_flag=True, help="Print JSON.")
@click.pass_context
def leaders(ctx: click.Context, names: Sequence[str], *, as_json: bool) -> None:
    """Print who leads: all, or those of NAMES. Ends with status 1 where one of NAMES has no leader."""
    with _in_a_sentence():
        _refuse_memory(ctx.obj.app)  # who only looks needs no right to write
        everybody = operating.leaders(ctx.obj.app)
    found = sorted((leader for leader in everybody if not names or leader.name in names), key=lambda each: each.name)
    click.echo(json.dumps([dataclasses.asdict(leader) for leader in found], indent=2) if as_json else _table(found))
    if missing := sorted(set(names) - {leader.name for leader in found}):
        refuse(f"nobody leads {', '.join(missing)}")


@coord.command("step-down", cls=CeleryCommand)
@click.argument("name")
@click.option(
    "--timeout",
    cls=CeleryOption,
    type=click.FloatRange(min=0, min_open=True),
    help="How long to wait, in seconds. Defaults to two ttls of the leader.",
)
@click.pass_context
def step_down(ctx: click.Context, name: str, timeout: float | None) -> None:
    """Ask the leader of NAME to step down, wait until it has, and print who leads then."""
    with _in_a_sentence():
        _check(ctx.obj.app)
        successor = operating.step_down(ctx.obj.app, name, timeout)
    if successor is None:
        refuse(f"{name}: it stepped down, and nobody took over: if nobody else campaigns, it leads again in a ttl")
    click.echo(f"{name}: {_who(successor)} leads now, term {successor.term}")


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    """What goes wrong is told without a traceback."""
    try:
        yield
    except CoordError as error:
        refuse(str(error))


def _check(app: Any) -> None:
    check(app)
    _refuse_memory(app)


def _refuse_memory(app: Any) -> None:
    if coordination(app).settings.url.startswith("memory://"):
        refuse("memory:// serves one process, and its leaders are nobody else's: set coord_url = 'redis://...'")


def _ttl(ttl: float) -> float:
    if not ttl >= SHORTEST_TTL:
        refuse(f"a ttl of {ttl:g} s is too short for a process to start and to end in: write --ttl {SHORTEST_TTL:g}")
    return ttl


def _grace(grace: float | None, ttl: float) -> float:
    longest = ttl * GRACE
    if grace is None:
        return longest
    if grace > longest:
        refuse(
            f"--grace {grace:g} is more than a fifth of the ttl of {ttl:g} s, "
            f"and the command might outlive the lease: write --grace {longest:g}, or --ttl {grace / GRACE:g}"
        )
    return grace


def _table(leaders: Sequence[Leader]) -> str:
    rows = [_HEAD, *(_row(leader) for leader in leaders)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(leader: Leader) -> tuple[str, ...]:
    left = _NOTHING if leader.left is None else f"{leader.left:.1f} s"
    act = _NOTHING if leader.last_act_at is None else f"{_instant(leader.last_act_at)} {leader.last_act}"
    return leader.name, _who(leader), str(leader.term), _instant(leader.since), left, act


def _who(leader: Leader) -> str:
    return leader.label or leader.holder


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
