"""What one sees while the demo runs: a live view on a terminal, else one plain line a second."""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, Self

from example_project.demo.view import ClusterView, View

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_NEWS = 10


class Screen(Protocol):
    """Where the demo is shown."""

    def say(self, news: str) -> None:
        """Tell what has just happened."""
        ...

    def show(self, view: View) -> None:
        """Show how things are now."""
        ...


class PlainScreen:
    """Lines of text; one a second, and one for each piece of news."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to put in order."""

    def say(self, news: str) -> None:
        """See `Screen.say`."""
        self._print(f"* {news}")

    def show(self, view: View) -> None:
        """See `Screen.show`."""
        if self._seconds >= self._next:
            self._next = self._seconds + 1.0
            clusters = "; ".join(map(_in_words, view.clusters))
            who = f"leader {view.leader}; discovery on {view.runner}"
            self._print(f"{who}; {clusters}; last dropped: {view.last_drop or 'nothing yet'}")

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _print(self, text: str) -> None:
        print(f"{self._seconds:5.1f} s  {text}", flush=True)


class LiveScreen:
    """A view that is drawn anew all the time."""

    def __init__(self) -> None:
        from rich.live import Live  # noqa: PLC0415  only where there is a terminal

        self._began = time.monotonic()
        self._news: deque[str] = deque(maxlen=_NEWS)
        self._live = Live(auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, news: str) -> None:
        """See `Screen.say`."""
        self._news.append(f"{time.monotonic() - self._began:5.1f} s  {news}")

    def show(self, view: View) -> None:
        """See `Screen.show`."""
        self._live.update(self._drawn(view), refresh=True)

    def _drawn(self, view: View) -> RenderableType:
        from rich.console import Group  # noqa: PLC0415  likewise
        from rich.text import Text  # noqa: PLC0415  likewise

        return Group(
            Text.assemble(
                *("leader: ", (view.leader, "bold green"), "   ", "discovery on: ", (view.runner, "bold green"), "   "),
                *(_mark(*program) for program in view.programs),
            ),
            _clusters(view),
            Text(f"last dropped: {view.last_drop}", style="yellow", overflow="ellipsis", no_wrap=True),
            Text("\n".join(("", *view.fleet, "")), overflow="crop", no_wrap=True, style="cyan"),
            Text("\n".join(self._news), overflow="ellipsis", no_wrap=True),
        )


def best_screen() -> AbstractContextManager[Screen]:
    """The live view where standard output is a terminal."""
    return LiveScreen() if sys.stdout.isatty() and find_spec("rich") else PlainScreen()


def _in_words(cluster: ClusterView) -> str:
    idle = f"quiet {cluster.quiet:.1f} s" if cluster.quiet else "free"
    now = f"runs {cluster.holder}" if cluster.holder else idle
    return f"{cluster.name}: {now}, asked {cluster.asked} ran {cluster.ran} dropped {cluster.held}+{cluster.cooling}"


def _mark(name: str, runs: bool) -> tuple[str, str]:  # noqa: FBT001
    return f"{'●' if runs else '○'} {name}  ", "green" if runs else "red"


def _clusters(view: View) -> Table:
    from rich.table import Table  # noqa: PLC0415  likewise

    table = Table(expand=True)
    table.add_column("cluster", no_wrap=True)
    table.add_column("runs now", no_wrap=True, ratio=1)
    for head in ("quiet", "asked", "ran", "held", "cooling"):
        table.add_column(head, no_wrap=True, justify="right", min_width=5)
    for cluster in view.clusters:
        quiet = f"{cluster.quiet:.1f} s" if cluster.quiet else ""
        numbers = (cluster.asked, cluster.ran, cluster.held, cluster.cooling)
        table.add_row(cluster.name, cluster.holder, quiet, *map(str, numbers))
    return table
