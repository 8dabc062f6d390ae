"""What there is to see at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from example_project.components import COMPONENT
from example_project.demo import verdict
from example_project.demo.stage import Stage
from example_project.demo.tally import Tally
from example_project.show import table
from example_project.state import State
from example_project.tasks import refresh_cluster_state


@dataclass(frozen=True, slots=True)
class ClusterView:
    """One cluster.

    Attributes:
        name: its name.
        holder: what runs on it; empty for nothing.
        quiet: the seconds that it is left in peace; 0 where it is not.
        asked: the refreshes that were asked for.
        ran: those that ran.
        held: those that were dropped since another held the key.
        cooling: those that were dropped in the quiet period.
    """

    name: str
    holder: str
    quiet: float
    asked: int
    ran: int
    held: int
    cooling: int


@dataclass(frozen=True, slots=True)
class View:
    """All of it.

    Attributes:
        leader: which beat leads.
        runner: which worker runs the component.
        programs: the workers, beats and the API, and whether each runs.
        clusters: what is going on on each.
        last_drop: the newest drop, and why.
        fleet: the state as a table.
    """

    leader: str
    runner: str
    programs: tuple[tuple[str, bool], ...]
    clusters: tuple[ClusterView, ...]
    last_drop: str
    fleet: tuple[str, ...]


def look(stage: Stage, tally: Tally, state: State) -> View:
    """See what there is to see."""
    return View(
        leader=_leader(verdict.BEAT, stage, tally),
        runner=_leader(COMPONENT, stage, tally),
        programs=tuple((name, program.runs) for name, program in stage.programs.items()),
        clusters=tuple(_cluster(name, tally) for name in stage.clusters),
        last_drop=_last_drop(tally),
        fleet=tuple(table(state, stage.clusters)),
    )


def _leader(name: str, stage: Stage, tally: Tally) -> str:
    program = stage.name_of(tally.leaders.get(name, 0))
    leads = program in stage.programs and stage.programs[program].runs
    return program if leads else "nobody"


def _cluster(name: str, tally: Tally) -> ClusterView:
    now = refresh_cluster_state.look(name)
    count = tally.of(refresh_cluster_state.name, name)
    return ClusterView(
        name,
        holder=_who(now.held.label) if now.held else "",
        quiet=(now.cooling.left or 0.0) if now.cooling else 0.0,
        asked=count.asked,
        ran=count.ran,
        held=count.dropped["held"],
        cooling=count.dropped["cooling"],
    )


def _who(label: str) -> str:
    """A holder's label, short: which task, in which process."""
    task, _, where = label.partition(" at ")
    return f"{task.rpartition('.')[2].partition('_')[0]}, {where.rpartition(', ')[2]}"


def _last_drop(tally: Tally) -> str:
    for entry in reversed(tally.entries):
        if entry.what == "dropped":
            return f"{entry.task.rpartition('.')[2]}({entry.cluster}) {entry.task_id[:8]}: {entry.detail} {entry.note}"
    return ""
