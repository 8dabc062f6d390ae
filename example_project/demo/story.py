"""The story: a flood, a worker's process killed in mid-refresh, the leading beat killed, a replica that dies,
a worker killed that runs the component; the end.

Nothing here waits for a time to pass where it can wait for a thing to happen.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from celery.states import READY_STATES

from example_project.app import app
from example_project.components import COMPONENT
from example_project.demo import verdict
from example_project.demo.processes import see_it_dead
from example_project.demo.screen import Screen
from example_project.demo.stage import BEATS, DISCOVER_SECONDS, WORKERS, Stage
from example_project.demo.tally import Tally
from example_project.demo.view import look
from example_project.inventory import Address
from example_project.journal import Entry, Journal
from example_project.state import State
from example_project.tasks import refresh_cluster_state

_TICK = 0.2
#: How long the flood is watched before anything breaks, in seconds.
_CALM = 8.0
#: And after each thing that broke, so that it can be seen.
_AFTERMATH = 3.0
#: How long any one thing may take to happen, and all of it together, in seconds.
_PATIENCE = 30.0
_LONGEST = 80.0
#: A body that is this old has long been accepted by the worker, and is far from its end; in seconds.
_RIPE = (0.3, 0.8)
#: A round that ended this long ago has been dealt with, and the next one has not begun; in seconds.
_BETWEEN_ROUNDS = (0.2 * DISCOVER_SECONDS, 0.6 * DISCOVER_SECONDS)


class Stuck(Exception):
    """What the story waits for did not happen."""


class Interrupted(Exception):
    """Somebody wants the demo to end."""


class Story:
    """Tells it.

    Args:
        stage: what it plays on.
        screen: where it is shown.
        interrupted: whether somebody wants it to end.

    Attributes:
        tally: what happened.
        unanswered: how many runs have no final state for those who wait; None until they are counted, at the end.
    """

    def __init__(self, stage: Stage, screen: Screen, interrupted: Callable[[], bool]) -> None:
        client = stage.client(stage.url)
        self.tally = Tally()
        self.state = State(client)
        self.unanswered: int | None = None
        self._stage = stage
        self._screen = screen
        self._interrupted = interrupted
        self._journal = Journal(client)
        self._place = "0"
        self._gone: set[str] = set()
        self._written = 0
        self._over = time.monotonic() + _LONGEST

    def tell(self) -> None:
        """All acts, in order.

        Raises:
            Stuck: one of them did not get on.
            Interrupted: somebody wants it to end.
        """
        self._open()
        self._flood()
        self._kill_a_refresh()
        self._kill_the_leader()
        self._until("the killed run comes to its end", self._killed_run_has_ended)
        self._stop_the_stray()
        self._end_the_flood()
        self._kill_a_worker()
        self._close()

    def _open(self) -> None:
        self._screen.say("starting two workers and two beats")
        self._stage.start_monitor()
        self._until(
            "the workers are ready", lambda: all(self._stage.programs[name].has_said(" ready.") for name in WORKERS)
        )
        self._until("a beat leads", lambda: verdict.BEAT in self.tally.leaders)
        self._screen.say(f"{self._leader(verdict.BEAT)} was elected to send")
        self._until("a worker runs the component", lambda: COMPONENT in self.tally.leaders)
        self._screen.say(f"{self._leader(COMPONENT)} was elected to run {COMPONENT}")

    def _flood(self) -> None:
        self._screen.say("the API begins to ask, far too often")
        self._stage.start_api()
        self._until("every cluster is known", self._every_cluster_is_known)
        self._screen.say(f"a replica that the inventory does not list was found: {self._stray}")
        self._watch_for(_CALM)

    def _kill_a_refresh(self) -> None:
        self._until("a refresh is killed", self._kill_one)
        [(body, _)] = verdict.interrupted(self.tally.entries)
        self._screen.say(
            f"killed process {body.pid} in mid-refresh of {body.cluster}: its message goes back to the queue"
        )
        self._watch_for(_AFTERMATH)

    def _kill_one(self) -> bool:
        for body in self._ripe():
            self._kill(lambda pid=body.pid: _kill_and_see(pid), body.pid)
            return bool(verdict.interrupted(self.tally.entries))
        return False

    def _ripe(self) -> Iterator[Entry]:
        """The refreshes that are under way and no longer starting."""
        now = self._journal.now()
        youngest, oldest = _RIPE
        for body in self.tally.running(refresh_cluster_state.name):
            if youngest <= now - body.at <= oldest:
                yield body

    def _kill_the_leader(self) -> None:
        name = self._leader(verdict.BEAT)
        leader = self._stage.programs[name]
        self._gone.add(name)
        self._kill(leader.kill, leader.pid)
        self._screen.say(f"killed {name}, which led")
        self._await_take_over("another beat leads", "elected", verdict.BEAT)
        self._watch_for(_AFTERMATH)

    def _await_take_over(self, happened: str, what: str, name: str) -> None:
        self._until(happened, lambda: verdict.take_over(self.tally.entries, what, name) is not None)
        seconds = verdict.take_over(self.tally.entries, what, name)
        self._screen.say(f"{self._leader(name)} took over after {seconds:.2f} s")

    def _kill(self, kill: Callable[[], None], *pids: int) -> None:
        """Kill processes, with an entry before it and one after it is dead, for each."""
        for pid in pids:
            self._journal.write("killing", pid=pid)
        kill()
        for pid in pids:
            self._journal.write("killed", pid=pid)
        self._read()

    def _killed_run_has_ended(self) -> bool:
        return all(end is not None for _, end in verdict.interrupted(self.tally.entries))

    def _stop_the_stray(self) -> None:
        self._stage.stray.stop()
        self._screen.say(f"the replica that nobody wrote down is dead: {self._stray}")
        self._until("the dead replica is forgotten", lambda: self._stray not in self.state.found("orders"))
        self._screen.say("it was forgotten by the other task, which shares the key of the refreshes")
        self._until("a refresh goes by without it", self._stray_is_out_of_sight)
        self._watch_for(_AFTERMATH)

    def _end_the_flood(self) -> None:
        names = [name for name in ("api", *BEATS) if name not in self._gone]
        self._screen.say(f"the API and the beat end; {COMPONENT} goes on without them")
        self._gone.update(names)
        self._stage.stop(*names)

    def _kill_a_worker(self) -> None:
        self._until("all is still for a moment", self._is_between_rounds)
        name = self._leader(COMPONENT)
        worker = self._stage.programs[name]
        self._gone.add(name)
        self._kill(worker.kill_all, *worker.family)
        self._screen.say(f"killed {name}, which ran {COMPONENT}, with all of its processes")
        self._await_take_over(f"another worker runs {COMPONENT}", "began", COMPONENT)
        self._watch_for(_AFTERMATH)

    def _is_between_rounds(self) -> bool:
        """Whether no message is on its way to a worker: a Redis broker would lose it with that worker."""
        earliest, latest = _BETWEEN_ROUNDS
        now = self._journal.now()
        ended = max((entry.at for entry in self.tally.entries if entry.what == "ended"), default=0.0)
        is_still = now - self.tally.entries[-1].at >= earliest and not verdict.lost(self.tally.entries)
        return is_still and earliest <= now - ended <= latest

    def _close(self) -> None:
        self._screen.say("what is under way comes to its end")
        with suppress(Stuck):  # then the verdict says which runs were lost
            self._until("every run has ended", self._every_run_has_ended)
        self.unanswered = self._count_unanswered()

    def _every_run_has_ended(self) -> bool:
        """The component asks for more in its next round; the moment in between is what is judged."""
        return not verdict.lost(self.tally.entries) and not self._count_unanswered()

    def _leader(self, name: str) -> str:
        """What the process is called that was elected last."""
        return self._stage.name_of(self.tally.leaders[name])

    def _count_unanswered(self) -> int:
        return sum(app.AsyncResult(run).state not in READY_STATES for run in self.tally.asked)

    @property
    def _stray(self) -> Address:
        return Address("127.0.0.1", self._stage.stray.port)

    def _every_cluster_is_known(self) -> bool:
        known = all(self.state.nodes(cluster) for cluster in self._stage.clusters)
        return known and self._stray in self.state.found("orders")

    def _stray_is_out_of_sight(self) -> bool:
        return str(self._stray) not in {node.address for node in self.state.nodes("orders")}

    def _watch_for(self, seconds: float) -> None:
        over = time.monotonic() + seconds
        self._until("time passes", lambda: time.monotonic() > over)

    def _until(self, what: str, happened: Callable[[], bool]) -> None:
        """Watch until something happens."""
        began = time.monotonic()
        self._watch()
        while not happened():
            if time.monotonic() > min(began + _PATIENCE, self._over):
                raise Stuck(f"waited {time.monotonic() - began:.0f} s in vain: {what}")
            time.sleep(_TICK)
            self._watch()

    def _watch(self) -> None:
        if self._interrupted():
            raise Interrupted
        for name, program in self._stage.programs.items():
            if not program.runs and name not in self._gone:
                raise Stuck(f"{name} ended by itself")
        self._read()
        self._write_to_the_fleet()
        self._screen.show(look(self._stage, self.tally, self.state))

    def _read(self) -> None:
        entries, self._place = self._journal.read(self._place)
        self.tally.add(entries)

    def _write_to_the_fleet(self) -> None:
        """Some work for the fleet, so that there is something to see."""
        for primary in self._stage.primaries:
            self._written += 1
            primary.set(f"order:{self._written}", "x" * 1000)


def _kill_and_see(pid: int) -> None:
    """Kill a process that is not our child, and see that it is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    see_it_dead(pid)
