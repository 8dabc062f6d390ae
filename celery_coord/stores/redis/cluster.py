"""A cluster: who has which slot, and what to do where that has just changed.

redis-py's own client of a cluster tries for as long as it sees fit, and has no round trip in which a lease is granted
and confirmed by replicas. So the map of slots is kept here, learnt from any node and learnt anew where a node says that
it is wrong or does not answer. What stays the same is that an act ends in time: it is tried again, on the node that
then has the slot, for as long as one answer may take.

Source of the rules: the Redis cluster specification, "Redirection and resharding".
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import redis
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError as RedisConnectionError,
    MovedError,
    NoScriptError,
    RedisError,
    TimeoutError as RedisTimeoutError,
    TryAgainError,
)

from celery_coord.stores.redis.address import Address
from celery_coord.stores.redis.lines import Command
from celery_coord.stores.redis.servers import Request, Server
from celery_coord.stores.redis.trouble import OnOver
from celery_coord.stores.redis.urls import Host

#: Before the second try after one that failed, in seconds; then twice as long each time. Jittered, so that those who
#: were refused together do not come back together.
_PAUSE = 0.05
#: By a node that has a slot no more, and by one that is handing it over; one more for a map that was old.
_REDIRECTIONS = 3
_ASKING: Command = ("ASKING",)
#: The node may answer otherwise soon: a slot on its way, a replica that is about to be promoted.
_LATER = (TryAgainError, ClusterDownError)
_AWAY = (RedisConnectionError, RedisTimeoutError)


class Cluster:
    """The nodes of a cluster.

    Args:
        address: some of them; the others are learnt from these.
        most: how many connections the short acts share, for each node.
        min_replicas: how many replicas have to confirm what is written.
        on_recovered: is told when a node answers again, or another has its slots.
    """

    def __init__(self, address: Address, *, most: int, min_replicas: int, on_recovered: OnOver) -> None:
        self._address = address
        self._most = most
        self._min_replicas = min_replicas
        self._on_recovered = on_recovered
        self._lock = threading.RLock()
        self._nodes: dict[Host, Server] = {}
        self._map: list[tuple[int, int, Host]] = []  # the first slot of a range, its last one, and who has them
        self._stale = True
        self._silent: frozenset[Host] = frozenset()  # those who did not say who has which slot

    def ask(self, key: str, command: Command, *, confirm: bool = False) -> Any:
        """See `Servers.ask`."""
        return self._ask(key, command, confirm=confirm, until=time.monotonic() + self._address.timeout)

    def _ask(self, key: str, command: Command, *, confirm: bool, until: float) -> Any:
        def ask(node: Server, before: Sequence[Command]) -> Any:
            return node.ask_once(command, before=before, confirm=confirm, until=until)

        return self.tried(key, ask, until=until)

    def tried(self, key: str, ask: Callable[[Server, Sequence[Command]], Any], *, until: float) -> Any:
        """Ask again and again, where that is to be tried, until then.

        Nothing is begun when the time of one answer is over: so all of it takes three times that at most, as with one
        server.

        Args:
            key: which says who is asked.
            ask: asks a node, in one go with what is to be sent before.
            until: until when, on the monotonic clock.
        """
        host, redirected = self._address.hosts[0], None
        before: tuple[Command, ...] = ()
        problem: RedisError
        pause = 0.0
        redirections = 0
        while True:
            try:
                host = redirected or self._host_of(key, until)
                return ask(self._node(host), before)
            except MovedError as moved:
                # The map is learnt anew for the next act; this one goes where it was sent: others may not know it yet.
                redirected, before, problem = _target(moved, host), (), moved
                self._stale = True
            except AskError as moving:  # of which redis-py has it that the other is one, too
                redirected, before, problem = _target(moving, host), (_ASKING,), moving
            except (*_LATER, *_AWAY) as error:
                redirected, before, problem = None, (), error
                self._stale = True
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  not a secret
                pause = pause * 2 or _PAUSE
            redirections += redirected is not None
            if redirections > _REDIRECTIONS:  # nodes that disagree send it to and fro
                time.sleep(_PAUSE)
            if time.monotonic() >= until:
                raise problem

    def doubt(self) -> None:
        """Learn anew who has which slot, before anybody is asked."""
        self._stale = True

    def ask_many(self, requests: Sequence[Request]) -> list[Any]:
        """See `Servers.ask_many`: a node that is away takes no other's answers with it."""
        until = time.monotonic() + self._address.timeout
        answers: list[Any] = [None] * len(requests)
        of_each: dict[Host, list[int]] = {}
        for number, (key, _) in enumerate(requests):
            try:
                of_each.setdefault(self._host_of(key, until), []).append(number)
            except RedisError as error:
                answers[number] = error
        # Those that did not answer last stand at the end: the leases of the others are not to wait for them.
        for host in sorted(of_each, key=lambda host: self._node(host).is_away):
            numbers = of_each[host]
            found = self._node(host).ask_many([requests[number] for number in numbers])
            for number, answer in zip(numbers, found, strict=True):
                answers[number] = answer
        for number, (key, command) in enumerate(requests):
            if isinstance(answers[number], RedisError) and not isinstance(answers[number], NoScriptError):
                self._stale = True
            # Not all that long, either: those whose answers are here are waited for.
            if isinstance(answers[number], AskError | TryAgainError) and time.monotonic() < until:
                answers[number] = self._answer_or_error(key, command, until)
        return answers

    def _answer_or_error(self, key: str, command: Command, until: float) -> Any:
        try:
            return self._ask(key, command, confirm=True, until=until)
        except RedisError as error:
            return error

    def wait(self, key: str, command: Command) -> None:
        """See `Servers.wait`."""
        try:
            self._node(self._host_of(key, time.monotonic() + self._address.timeout)).wait(key, command)
        except (AskError, *_LATER):
            self._stale = True
            time.sleep(_PAUSE)

    def primaries(self) -> list[redis.Redis]:
        """See `Servers.primaries`."""
        self._learn(time.monotonic() + self._address.timeout)
        return [self._node(host).client for host in dict.fromkeys(host for _, _, host in self._map)]

    def close(self) -> None:
        """See `Servers.close`."""
        for server in list(self._nodes.values()):
            server.close()

    def _host_of(self, key: str, until: float) -> Host:
        if self._stale:
            self._learn(until)
        slot = key_slot(key.encode())
        for first, last, host in self._map:
            if first <= slot <= last:
                return host
        self._stale = True
        raise ClusterDownError(f"CLUSTERDOWN slot {slot} is nobody's")

    def _node(self, host: Host) -> Server:
        found = self._nodes.get(host)
        if found is None:
            with self._lock:
                found = self._nodes.get(host)
                if found is None:
                    found = Server(
                        self._address.client(host),
                        timeout=self._address.timeout,
                        most=self._most,
                        min_replicas=self._min_replicas,
                        on_recovered=self._on_recovered,
                    )
                    self._nodes[host] = found
        return found

    def _learn(self, until: float) -> None:
        """Ask any node who has which slot.

        Raises:
            RedisError: none of them answers, or not until then.
        """
        nodes = list({*(host for _, _, host in self._map), *self._address.hosts})
        random.shuffle(nodes)  # all who lost the same node are not to ask the same other
        problem: RedisError = RedisTimeoutError("the cluster answered too late")
        for host in sorted(nodes, key=self._is_away):
            is_learnt = False
            try:
                self._map = _ranges(self._asked_for_map(host, timeout=self._address.timeout / min(len(nodes), 4)), host)
                is_learnt = True
            except RedisError as error:
                problem = error
            self._silent = self._silent - {host} if is_learnt else self._silent | {host}
            if time.monotonic() >= until:
                break
            if is_learnt:
                self._stale = False
                self._forget_who_left()
                return
        raise problem

    def _is_away(self, host: Host) -> bool:
        """Whether a node did not answer when it was asked last."""
        node = self._nodes.get(host)
        return host in self._silent or (node is not None and node.is_away)

    def _asked_for_map(self, host: Host, *, timeout: float) -> Any:
        """What one node says, in its share of the time, and on a connection of its own: it may be no concern of ours.

        Raises:
            RedisError: it does not answer.
        """
        client = replace(self._address, timeout=timeout).client(host)
        node = Server(client, timeout=timeout, most=1, min_replicas=0, on_recovered=lambda *_: None)
        try:
            return node.ask_once(("CLUSTER", "SLOTS"), until=time.monotonic() + timeout)
        finally:
            node.close()

    def _forget_who_left(self) -> None:
        serving = {host for _, _, host in self._map}
        for host, server in list(self._nodes.items()):
            if host not in serving:
                server.trouble.answered(writes=True)  # by another, who has its slots
            if host not in {*serving, *self._address.hosts}:
                self._nodes.pop(host, server).close()


def _target(error: Any, asked: Host) -> Host:
    """Where a node sends us; one that does not know another's name has the same."""
    return (error.host if error.host not in ("", "?") else asked[0], error.port)


def _ranges(answer: Any, asked: Host) -> list[tuple[int, int, Host]]:
    """The map in an answer to ``CLUSTER SLOTS``.

    Raises:
        ClusterDownError: it is empty: the node does not know the others yet.
    """
    if not answer:
        raise ClusterDownError("CLUSTERDOWN no slot is anybody's")
    # A node that does not know its own name is where it was asked.
    return [
        (int(first), int(last), (str(host) if host and host != "?" else asked[0], int(port)))
        for first, last, (host, port, *_), *_ in answer
    ]
