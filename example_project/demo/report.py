"""The verdict in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from example_project.demo.stage import Stage
from example_project.demo.story import Story
from example_project.demo.tally import Tally
from example_project.demo.verdict import Promise
from example_project.show import table
from example_project.tasks import discover, forget_dead_replicas, refresh_cluster_state

_TASKS = (refresh_cluster_state, forget_dead_replicas, discover)


def report(stage: Stage, story: Story, promises: Sequence[Promise]) -> str:
    """What was seen, what was run and dropped, what coordination saved, and which promises were kept."""
    sections = (
        ("The fleet, as the monitor saw it last", table(story.state, stage.clusters)),
        ("Runs", _runs(story.tally)),
        ("The component", _rounds(stage, story.tally)),
        ("Without coordination", _cost(story.tally)),
        (
            "Promises",
            (f"{'kept  ' if promise.kept else 'BROKEN'}  {promise.text}; {promise.seen}" for promise in promises),
        ),
    )
    return "\n".join(f"\n{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections)


def _runs(tally: Tally) -> Iterator[str]:
    yield f"{'task':<24}{'asked for':>10}{'run':>8}{'failed':>8}{'dropped: held':>15}{'dropped: cooling':>18}"
    for task in _TASKS:
        count = tally.of(task.name)
        name = task.name.rpartition(".")[2]
        drops = f"{count.dropped['held']:>15}{count.dropped['cooling']:>18}"
        yield f"{name:<24}{count.asked:>10}{count.ran:>8}{count.failed:>8}{drops}"


def _rounds(stage: Stage, tally: Tally) -> Iterator[str]:
    yield f"{'name':<12}{'ran on':<12}{'rounds':>8}  in term"
    for (name, pid, term), rounds in tally.rounds.items():
        yield f"{name:<12}{stage.name_of(pid):<12}{rounds:>8}  {term}"


def _cost(tally: Tally) -> Iterator[str]:
    refreshes = tally.of(refresh_cluster_state.name)
    each = tally.commands / max(refreshes.ran, 1)
    uncoordinated = round(each * refreshes.asked)
    yield f"all {refreshes.asked} refreshes that were asked for would have run, not {refreshes.ran}"
    yield (
        f"the nodes would have been sent about {uncoordinated} commands, not {tally.commands}: "
        f"{uncoordinated - tally.commands} saved"
    )
