"""A primary, its replicas, and the sentinels that watch them, on free ports of this machine."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from typing import Any, Self

import redis

from celery_coord.testing import server_binary
from tests.integration.local_processes import wait_until
from tests.servers.local_nodes import Node, Together, started
from tests.servers.local_watcher import DOWN_AFTER, MASTER, PATIENT, QUICK, SLOW, Watcher


class LocalSentinel(Together):
    """One primary, some replicas and some sentinels; they end with this process.

    Args:
        binary: the server to run; None: the one that is found.
        replicas: how many copy the primary.
        sentinels: how many watch it.
        options: more options of the servers, not of the sentinels.

    Raises:
        ServerMissing: there is no server to start.
    """

    def __init__(
        self, binary: str | None = None, *, replicas: int = 2, sentinels: int = 3, options: Sequence[str] = ()
    ) -> None:
        self._binary = binary or server_binary()
        self._options = options
        self._quorum = sentinels // 2 + 1
        self.nodes = [self._new_node() for _ in range(1 + replicas)]
        self.sentinels = [self._new_sentinel() for _ in range(sentinels)]

    @property
    def url(self) -> str:
        """The address, as ``coord_url`` takes it."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"sentinel://{hosts}/0?master_name={MASTER}"

    @property
    def celery_url(self) -> str:
        """The address, as Celery's broker and result backend take it."""
        return ";".join(f"sentinel://127.0.0.1:{sentinel.port}/0" for sentinel in self.sentinels)

    @property
    def transport_options(self) -> dict[str, Any]:
        """What Celery's form leaves to the transport options."""
        return {"master_name": MASTER}

    @property
    def primary(self) -> Node:
        """Whom most sentinels take for the primary."""
        told = [sentinel.primary_port() for sentinel in self.sentinels]
        return self.on_port(max(told, key=told.count))

    @property
    def replicas(self) -> list[Node]:
        """All others, whether they live or not."""
        primary = self.primary
        return [node for node in self.nodes if node is not primary]

    def on_port(self, port: int) -> Node:
        """The server that listens there."""
        return next(node for node in self.nodes if node.port == port)

    def start(self) -> Self:
        """Start all, and wait until each sentinel knows every server and every other sentinel."""
        atexit.register(self.close)
        self.nodes = [started(node, Node.start, self._new_node) for node in self.nodes]
        first, *others = self.nodes
        for node in others:
            node.client.execute_command("REPLICAOF", "127.0.0.1", first.port)
        for node in others:
            wait_until(lambda node=node: node.info()["master_link_status"] == "up", f"{node.port} copies {first.port}")
        self.sentinels = [
            started(sentinel, lambda one: one.start(first.port), self._new_sentinel) for sentinel in self.sentinels
        ]
        self.wait_until_whole()
        return self

    def hurry(self, **periods: int) -> None:
        """Let the sentinels look around so often: `QUICK`, or `SLOW` as they do by themselves."""
        for sentinel in self.sentinels:
            sentinel.hurry(**periods)

    def wait_until_whole(self) -> None:
        """Until every server is up and copies the primary, and every sentinel knows that."""
        wait_until(self.is_whole, "sentinels that know each other, and replicas that are linked")

    def is_whole(self) -> bool:
        """Whether nothing is amiss."""
        others = len(self.sentinels) - 1
        try:
            if not all(sentinel.is_content(len(self.nodes) - 1, others) for sentinel in self.sentinels):
                return False
            primary = self.primary
            links = [node.info() for node in self.nodes if node is not primary]
            return primary.info()["role"] == "master" and all(
                link.get("master_port") == primary.port and link.get("master_link_status") == "up" for link in links
            )
        except redis.RedisError:
            return False

    def kill_primary(self) -> Node:
        """End the primary as a crash does; the sentinels promote another one when that is waited for."""
        primary = self.primary
        primary.kill()
        return primary

    def pause(self, node: Node | None = None) -> Node:
        """Let a server stand still, the primary if none is named; wake it with ``wake``."""
        node = node or self.primary
        node.pause()
        return node

    def promote(self) -> Node:
        """Ask for a promotion, as an operator does, and wait for it; the old primary becomes a replica."""
        former = self.primary
        self._ask_any_sentinel("FAILOVER")
        return self.wait_for_new_primary(former)

    def cut_replication(self) -> Node:
        """Let no replica learn of what the primary is told from now on; its clients do not notice."""
        primary = self.primary
        primary.cut_off()
        for node in self.nodes:
            if node is not primary:
                wait_until(lambda node=node: node.info()["master_link_status"] == "down", f"{node.port} is cut off")
        return primary

    def wait_for_new_primary(self, former: Node, timeout: float = 60.0) -> Node:
        """Until all sentinels name another one, and that one calls itself a primary; until then they are impatient.

        Args:
            former: who was the primary.
            timeout: for how long to wait, in seconds.
        """

        def promoted() -> Node | None:
            told = {sentinel.primary_port() for sentinel in self.sentinels}
            now = self.on_port(told.pop())
            return now if not told and now is not former and now.info()["role"] == "master" else None

        self._take_for_dead_after(DOWN_AFTER)
        try:
            found = wait_until(promoted, f"another primary than {former.port}", timeout=timeout)
        finally:
            self._take_for_dead_after(PATIENT)
        assert found is not None
        return found

    def _take_for_dead_after(self, silence: int) -> None:
        for sentinel in self.sentinels:
            sentinel.take_for_dead_after(silence)

    def mend(self) -> None:
        """Wake who was paused, start who was killed, let all be copied, and wait until nothing is amiss."""
        for node in self.nodes:
            node.wake()
            if not node.runs:
                node.start_again()
                node.client.execute_command("REPLICAOF", "127.0.0.1", self.primary.port)
            node.let_copy()
        self.wait_until_whole()

    def flush(self) -> None:
        """Forget everything that was written, on every server."""
        self.primary.flush(len(self.nodes) - 1)

    def close(self) -> None:
        """End all; may be called twice."""
        atexit.unregister(self.close)
        for sentinel in self.sentinels:
            sentinel.clean()
        for node in self.nodes:
            node.clean()

    def _new_node(self) -> Node:
        return Node(self._options, binary=self._binary)

    def _new_sentinel(self) -> Watcher:
        return Watcher(self._binary, quorum=self._quorum)

    def _ask_any_sentinel(self, command: str) -> None:
        """A sentinel refuses a promotion while another one is under way, or just was."""

        def asked() -> bool:
            try:
                self.sentinels[0].client.execute_command("SENTINEL", command, MASTER)
            except redis.ResponseError:
                return False
            return True

        wait_until(asked, f"SENTINEL {command}")


__all__ = ["MASTER", "QUICK", "SLOW", "LocalSentinel"]
