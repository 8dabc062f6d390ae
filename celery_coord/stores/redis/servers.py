"""Whom a store asks: one server, one that Sentinel names, or the nodes of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import redis
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
    RedisError,
    TimeoutError as RedisTimeoutError,
)

from celery_coord.stores.redis.lines import Command, Lines
from celery_coord.stores.redis.trouble import OnOver, Trouble

#: What is sent for one key.
Request = tuple[str, Command]

#: Who is the primary is asked once in so many seconds, and later where no Sentinel answers.
_LOOK_EVERY, _LOOK_LATER = 1.0, 10.0
#: As many as there are threads that wait.
_UNBOUNDED = 2**31


class TooFewReplicas(RedisError):
    """What was written is not on as many replicas as it has to be.

    Args:
        confirmed: how many have it.
        wanted: how many have to.
    """

    def __init__(self, confirmed: int, wanted: int) -> None:
        super().__init__(confirmed, wanted)
        self.confirmed = confirmed
        self.wanted = wanted

    def __str__(self) -> str:
        return f"{self.confirmed} of {self.wanted} replicas (coord_min_replicas) have confirmed it in time"


class Servers(Protocol):
    """Those who keep the keys. All that belongs to one key is asked of the one server that has it."""

    def ask(self, key: str, command: Command, *, confirm: bool = False) -> Any:
        """The answer to one command on a key.

        Args:
            key: which says who is asked.
            command: the command.
            confirm: whether it writes something that the replicas have to confirm, as many as the store asks for.

        Raises:
            RedisError: the server's error, or that there is no answer.
        """
        ...

    def ask_many(self, requests: Sequence[Request]) -> list[Any]:
        """The answers to commands that write, in one round trip to each server; an error in the place of an answer."""
        ...

    def wait(self, key: str, command: Command) -> None:
        """Send a command that blocks, on a connection of its own."""
        ...

    def primaries(self) -> list[redis.Redis]:
        """A client of each server that has keys.

        Raises:
            RedisError: it cannot be found out.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Server:
    """One server, or the one that Sentinel names.

    Args:
        client: of it.
        timeout: the longest wait for a connection and for an answer, in seconds.
        most: how many connections the short acts share.
        min_replicas: how many replicas have to confirm what is written.
        on_recovered: is told when it answers again.
    """

    def __init__(
        self, client: redis.Redis, *, timeout: float, most: int, min_replicas: int, on_recovered: OnOver
    ) -> None:
        self.client = client
        self.lines = Lines(client, most=most, timeout=timeout)
        self._batches = Lines(client, most=1, timeout=timeout)  # renewals are not to wait for runs
        self._waits = Lines(client, most=_UNBOUNDED, timeout=timeout)
        self._min_replicas = min_replicas
        self.trouble = Trouble(on_recovered)
        #: Whether it did not answer when it was asked last.
        self.is_away = False
        # What redis-py's pool has where there is a Sentinel.
        self._find_primary = getattr(client.connection_pool, "get_master_address", None)
        self._look_again_at = 0.0
        # Half of it: the answer, also one that says no, is to be there before the connection is given up.
        self._after: list[Command] = [("WAIT", min_replicas, int(timeout * 500))] if min_replicas else []

    def ask(self, key: str, command: Command, *, confirm: bool = False) -> Any:  # noqa: ARG002  there is but one
        """See `Servers.ask`."""
        self.follow()
        return self._asked(self.lines, self.lines.ask, (command,), confirm=confirm)

    def ask_once(self, command: Command, *, before: Sequence[Command] = (), confirm: bool = False, until: float) -> Any:
        """As `ask`, without a second try.

        Args:
            command: the command.
            before: what is sent before it.
            confirm: as in `ask`.
            until: how long to wait for a connection, on the monotonic clock.
        """
        ask = partial(self.lines.ask_once, until=until)
        return self._asked(self.lines, ask, (*before, command), confirm=confirm)

    def _asked(self, lines: Lines, ask: Callable[..., list[Any]], commands: Sequence[Command], *, confirm: bool) -> Any:
        """The answer to the last of some commands, once enough replicas have what it says."""
        try:
            answers = self._sent(lines, ask, commands, confirm=confirm)
            answer = answers[len(commands) - 1]
            if isinstance(answer, RedisError):
                raise answer
            unconfirmed = self._unconfirmed(answers[-1]) if confirm and self._after else None
            if unconfirmed:
                raise unconfirmed
        except RedisError as error:
            self.trouble.failed(error, writes=confirm)
            raise
        if self.trouble.lasts:
            self.trouble.answered(writes=confirm)
        return answer

    def _sent(
        self, lines: Lines, ask: Callable[..., list[Any]], commands: Sequence[Command], *, confirm: bool
    ) -> list[Any]:
        try:
            answers = ask(*commands, *(self._after if confirm else ()))
        except (RedisConnectionError, RedisTimeoutError):
            self.is_away = True
            lines.close()  # what ended this connection has probably ended the idle ones
            raise
        self.is_away = False
        return answers

    def ask_many(self, requests: Sequence[Request]) -> list[Any]:
        """See `Servers.ask_many`."""
        commands = [command for _, command in requests]
        if not commands:
            return []
        self.follow()
        try:
            answers = self._sent(self._batches, self._batches.ask, commands, confirm=True)
        except RedisError as error:
            answers = [error] * len(requests)
        else:
            unconfirmed = self._unconfirmed(answers.pop()) if self._after else None
            if unconfirmed:  # what is an error already says more: that the slot has moved
                answers = [answer if isinstance(answer, RedisError) else unconfirmed for answer in answers]
        errors = [answer for answer in answers if isinstance(answer, RedisError)]
        if errors:
            self.trouble.failed(errors[0], writes=True)
        elif self.trouble.lasts:
            self.trouble.answered(writes=True)
        return answers

    def _unconfirmed(self, said: Any) -> RedisError | None:
        """What the answer to WAIT says against an act; None: nothing."""
        if isinstance(said, RedisError):
            return said
        return TooFewReplicas(said, self._min_replicas) if said < self._min_replicas else None

    def wait(self, key: str, command: Command) -> None:  # noqa: ARG002  there is but one who has it
        """See `Servers.wait`."""
        self.follow()
        self._asked(self._waits, self._waits.ask, (command,), confirm=False)

    def primaries(self) -> list[redis.Redis]:
        """See `Servers.primaries`."""
        return [self.client]

    def follow(self) -> None:
        """Leave a primary that was replaced: for some seconds it takes writes of all who are connected, and loses them.

        Asked of a Sentinel once a second, where there is one, by whoever comes first.
        """
        now = time.monotonic()
        if self._find_primary is None or now < self._look_again_at:
            return
        self._look_again_at = now + _LOOK_EVERY
        try:
            primary = self._find_primary()
        except RedisError:
            # Nobody knows better. The next one is not to wait for that, too.
            self._look_again_at = time.monotonic() + _LOOK_LATER
            return
        for lines in (self.lines, self._batches, self._waits):
            lines.only = primary

    def close(self) -> None:
        """See `Servers.close`."""
        for lines in (self.lines, self._batches, self._waits):
            lines.close()
        self.client.connection_pool.disconnect(inuse_connections=False)  # others may read there
