"""One leader for any component: a poller, a consumer, a loop of your own.

`Election` is a candidate for a name that may be made at import, and used after a fork, from threads and from asyncio.
What an election is, and what each failure does to it, is said in `celery_coord.election`.

    with Election("poller", app=app) as election:
        while True:
            if election.leads:      # costs nothing; unsure means no
                poll()
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

from celery import current_app

from celery_coord.app import coordination
from celery_coord.election import UNABLE, Candidate
from celery_coord.errors import ConfigurationError, NotLeader
from celery_coord.events import ComponentFailed
from celery_coord.leader import Leader, leader_of
from celery_coord.policy import SHORTEST_LEASE, Seconds, seconds

#: How soon a loop learns that it leads no more, or that it is to end, in seconds.
_GLANCE = 0.05

#: What `celery_coord.beat` campaigns for.
BEATS = "beat"

_making = threading.Lock()


def _after_fork() -> None:
    global _making  # noqa: PLW0603  another thread of the parent may have held it at the fork
    _making = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class Election:
    """A candidate of this process for the leadership of a name; nothing is begun when it is made.

    After a fork the child's is a candidate of its own, and follows.

    Args:
        name: what is led; candidates of one name and one `coord_namespace` compete.
        app: the Celery application; None: the current one.
        ttl: how long the lease outlives its last renewal, in seconds. None: the setting ``coord_leader_ttl``.
        label: what others see of this candidate beside host and process id.
        term_limit: for how long it leads at most before it lets another, in seconds. None: the setting
            ``coord_leader_term_limit``.
        healthy: asked before each renewal, in another thread: a leader that is not healthy resigns, and does not
            campaign until it is.
        elected: called by `run` and `arun` with the term when it begins.
        deposed: called by `run` and `arun` with the term when it has ended, or is about to be given up.

    Raises:
        ConfigurationError: an argument is out of range or of the wrong kind.
    """

    def __init__(
        self,
        name: str,
        *,
        app: Any = None,
        ttl: Seconds | None = None,
        label: str | None = None,
        term_limit: Seconds | None = None,
        healthy: Callable[[], bool] = lambda: True,
        elected: Callable[[int], object] = lambda _: None,
        deposed: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.name = checked_name(name)
        self._app = app
        self._ttl = None if ttl is None else _seconds("ttl", ttl, least=SHORTEST_LEASE)
        self._term_limit = None if term_limit is None else _seconds("term_limit", term_limit)
        self._label = label
        self._healthy = healthy
        self._on_elected = elected
        self._on_deposed = deposed
        self._ended = False
        self._round_began: float | None = None
        self._longest_round: float | None = None
        self._made: tuple[int, Candidate] | None = None

    @property
    def leads(self) -> bool:
        """Whether this process leads; costs no round trip, and unsure means no."""
        return self.term is not None

    @property
    def term(self) -> int | None:
        """The number of the term in which this process leads, its fencing token; None while it does not."""
        candidate = self._known()
        return candidate.term if candidate else None

    @property
    def trusted_for(self) -> float:
        """For how many seconds the leadership can be believed in without a renewal; 0 while there is none."""
        candidate = self._known()
        return candidate.trusted_for if candidate else 0.0

    @property
    def retiring(self) -> str:
        """Why the work should be brought to an end: ``"limit"`` or ``"asked"``; empty: it need not."""
        candidate = self._known()
        return candidate.retiring if candidate else ""

    def ensure(self) -> int:
        """Go on only as the leader; call it before what only the leader may do.

        Returns:
            The number of the term: store it with what you write, and refuse smaller ones.

        Raises:
            NotLeader: this process does not lead, or cannot be sure of it.
        """
        term = self.term
        if term is None:
            raise NotLeader(self.name)
        return term

    def campaign(self, timeout: float | None = None) -> bool:
        """Begin to campaign, and wait until this process leads.

        Args:
            timeout: for how long to wait, in seconds; 0: not at all. None: until it leads, or `resign` was called.

        Returns:
            Whether it leads. If not, it goes on campaigning in the background.

        Raises:
            ConfigurationError: the application's settings are wrong, or there is no store.
        """
        candidate = self._candidate()
        candidate.campaign()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not candidate.leads and candidate.campaigns:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            candidate.wait(_GLANCE if left is None else min(left, _GLANCE))
        return candidate.leads

    def observe(self) -> Leader | None:
        """Who leads now, as the store knows it: one that crashed leads until its lease ends. None: nobody.

        Raises:
            StoreError: the store does not answer.
        """
        return leader_of(coordination(self._the_app()).store, self.name)

    def acted(self, what: str) -> None:
        """Something was done in this name: operators see it with the leader, after the next renewal."""
        if candidate := self._known():
            candidate.acted(what)

    def step_down(self) -> None:
        """Give up the leadership, let others be faster, and go on campaigning."""
        if candidate := self._known():
            candidate.step_down(candidate.retiring or UNABLE)

    def resign(self) -> None:
        """Stop campaigning, and give up the leadership; others are woken. May be called twice."""
        if candidate := self._known():
            candidate.resign()

    def stop(self) -> None:
        """Let `run` or `arun` end soon, at once where it has not begun; from any thread, and from a signal handler."""
        self._ended = True

    def run(
        self,
        each_round: Callable[[int], object],
        *,
        every: Seconds = 1.0,
        until: threading.Event | None = None,
        longest_round: Seconds | None = None,
    ) -> None:
        """Campaign, and while this process leads call a function again and again. Returns when told to end.

        A round is not interrupted when the leadership ends, nor by a term limit or an operator: those wait for it. Call
        `ensure` in it before what only the leader may do. One that raises is logged, and the next one comes as usual. A
        hook `elected` that raises gives the term up.

        Args:
            each_round: gets the term.
            every: from the beginning of a round to that of the next, in seconds.
            until: ends the loop when it is set, as `stop` does.
            longest_round: after how many seconds in one round this process is taken for stuck: it then gives the
                leadership up. None: a round may last for as long as it likes.

        Raises:
            ConfigurationError: an argument or a setting is wrong, or there is no store.
        """
        if inspect.iscoroutinefunction(each_round):
            msg = (
                "a round that is a coroutine needs an event loop: write await election.arun(each_round), or a plain def"
            )
            raise ConfigurationError(msg)
        pause = self._begin_loop(every, longest_round)
        acting: int | None = None
        try:
            while not self._is_over() and not (until and until.is_set()):
                acting = self._turn(acting)
                if acting is None:
                    self._candidate().wait(_GLANCE)
                    continue
                if not self._goes_on(acting):  # its hook took its time
                    continue
                began = time.monotonic()
                self._call("round", each_round, acting)
                self._rest(began + pause, acting, until)
        finally:
            if acting is not None:
                self._call("deposed", self._on_deposed, acting)
            self._ended = False
            self.resign()

    def _rest(self, end: float, term: int, until: threading.Event | None) -> None:
        while (left := end - time.monotonic()) > 0 and self._goes_on(term) and not (until and until.is_set()):
            time.sleep(min(left, _GLANCE))

    async def arun(
        self,
        each_round: Callable[[int], Awaitable[object]],
        *,
        every: Seconds = 1.0,
        longest_round: Seconds | None = None,
    ) -> None:
        """As `run`, for asyncio: a round is a coroutine, and is cancelled when the leadership ends under it.

        The hooks `elected` and `deposed` are called in the event loop. The loop ends by `stop`, or as it is cancelled.
        """
        pause = self._begin_loop(every, longest_round)
        acting: int | None = None
        try:
            while not self._is_over():
                acting = self._turn(acting)
                if acting is not None and self._goes_on(acting):
                    began = time.monotonic()
                    await self._around(each_round, acting)
                    await self._arest(began + pause, acting)
                else:
                    await asyncio.sleep(_GLANCE)
        finally:
            if acting is not None:
                self._call("deposed", self._on_deposed, acting)
            self._ended = False
            # In a thread: it waits for the store, and the event loop has others to serve.
            await asyncio.shield(asyncio.to_thread(self.resign))

    async def _arest(self, end: float, term: int) -> None:
        while time.monotonic() < end and self._goes_on(term):  # noqa: ASYNC110  it is a thread's to say
            await asyncio.sleep(_GLANCE)

    async def _around(self, each_round: Callable[[int], Awaitable[object]], term: int) -> None:
        """One round, for as long as the term lasts."""
        self._round_began = time.monotonic()
        try:
            error = await self._cancelled_with_its_term(asyncio.ensure_future(each_round(term)), term)
        except Exception as raised:  # noqa: BLE001  the loop outlives its rounds
            error = raised
        finally:
            self._round_began = None
        if error is not None:
            self._notify(ComponentFailed(self.name, "round", f"{type(error).__name__}: {error}"))

    async def _cancelled_with_its_term(self, work: asyncio.Future[object], term: int) -> BaseException | None:
        """Wait for the work, which is told once that its term has ended; what it raised, if anything."""
        was_told = False
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=_GLANCE)
                if not was_told and self.term != term:
                    was_told = work.cancel()
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.wait({work})  # it may have to clean up
            raise
        return None if work.cancelled() else work.exception()

    def _begin_loop(self, every: Seconds, longest_round: Seconds | None) -> float:
        pause = _seconds("every", every)
        self._longest_round = None if longest_round is None else _seconds("longest_round", longest_round)
        self._candidate().steps_down_itself = True
        self._candidate().campaign()
        return pause

    def _is_over(self) -> bool:
        """Whether the loop was told to end, or another thread has resigned."""
        return self._ended or not self._candidate().campaigns

    def _goes_on(self, term: int) -> bool:
        return not self._ended and self.term == term and not self.retiring

    def _turn(self, acting: int | None) -> int | None:
        """See who leads, and call the hooks: the term in which to act now, if any."""
        if acting is not None and not self._goes_on(acting):
            self._call("deposed", self._on_deposed, acting)
            if self.retiring:
                self.step_down()
            acting = None
        term = self.term
        if acting is None and term is not None and not self.retiring:
            if self._call("elected", self._on_elected, term):
                return term
            self._candidate().step_down()
        return acting

    def _call(self, doing: str, function: Callable[[int], object], term: int) -> bool:
        """Call a function of the user's; False where it raised."""
        self._round_began = time.monotonic()
        try:
            function(term)
            if doing == "round":
                self.acted("a round")
        except Exception as error:  # noqa: BLE001  the loop outlives its rounds
            self._notify(ComponentFailed(self.name, doing, f"{type(error).__name__}: {error}"))
            return False
        finally:
            self._round_began = None
        return True

    def _notify(self, event: ComponentFailed) -> None:
        coordination(self._the_app()).notify(event)

    def _is_healthy(self) -> bool:
        began, most = self._round_began, self._longest_round
        is_stuck = began is not None and most is not None and time.monotonic() - began > most
        return not is_stuck and self._healthy()

    def __enter__(self) -> Self:
        self.campaign(timeout=0)
        return self

    def __exit__(self, *_: object) -> None:
        self.resign()

    async def __aenter__(self) -> Self:
        await self.acampaign(timeout=0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aresign()

    async def acampaign(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  as `campaign` has it
        """As `campaign`, for asyncio."""
        candidate = self._candidate()
        candidate.campaign()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not candidate.leads and candidate.campaigns and (deadline is None or time.monotonic() < deadline):  # noqa: ASYNC110
            # A thread's to say, and a thread of one's own to wait for that would outlive a cancelled wait.
            await asyncio.sleep(_GLANCE)
        return self.leads

    async def aobserve(self) -> Leader | None:
        """As `observe`, for asyncio."""
        return await asyncio.to_thread(self.observe)

    async def aresign(self) -> None:
        """As `resign`, for asyncio."""
        await asyncio.to_thread(self.resign)

    def _the_app(self) -> Any:
        return self._app if self._app is not None else current_app._get_current_object()  # noqa: SLF001  Celery's own

    def _known(self) -> Candidate | None:
        """The candidate of this process; None where there is none yet: that of a parent is the parent's."""
        made = self._made
        return made[1] if made and made[0] == os.getpid() else None

    def _candidate(self) -> Candidate:
        candidate = self._known()
        if candidate is None:
            coordinated = coordination(self._the_app())
            with _making:
                candidate = self._known()
                if candidate is None:
                    candidate = coordinated.candidate(
                        self.name,
                        ttl=self._ttl,
                        label=self._label,
                        term_limit=self._term_limit,
                        healthy=self._is_healthy,
                    )
                    self._made = os.getpid(), candidate
        return candidate


def checked_name(name: object) -> str:
    """The name of an election.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(name, str) or not name or not name.isprintable() or set(name) & set("{}"):
        msg = f"the name of an election is a text without braces, not {name!r}: write Election('poller')"
        raise ConfigurationError(msg)
    if name == BEATS:
        msg = f"the beats of an application campaign for {name!r}, and would follow this: write another name"
        raise ConfigurationError(msg)
    return name


def _seconds(name: str, value: Seconds, *, least: float = 0.0) -> float:
    return seconds(f"Election({name}=...)", value, example=f"Election('poller', {name}=30)", least=least)
