"""A cluster of one's own: primaries that share the slots, and replicas of theirs, on free ports of this machine."""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from typing import Any, Self

import redis

from celery_coord.testing import server_binary
from tests.integration.local_processes import wait_until
from tests.servers.certificates import Certificates
from tests.servers.local_nodes import TO_BUS, Node, Together, held_with_bus, started

SLOTS = 16_384
#: For how long a node must be silent before it is taken for dead, in milliseconds: where a death is waited for, or the
#: end of one, and at all other times, when a node that the machine lets stand still for a while is not to be replaced.
NODE_TIMEOUT, PATIENT = 1_000, 60_000


class LocalCluster(Together):
    """Some primaries and replicas of each; they end with this process.

    Args:
        binary: the server to run; None: the one that is found.
        primaries: among how many the slots are shared; three at least, or nobody would be promoted.
        replicas: how many copy each primary.
        options: more options of the servers.
        certificates: with which they speak TLS, and nothing else; None: they do not.
        host: what the address calls this machine.

    Raises:
        ServerMissing: there is no server to start.
    """

    def __init__(
        self,
        binary: str | None = None,
        *,
        primaries: int = 3,
        replicas: int = 1,
        options: Sequence[str] = (),
        certificates: Certificates | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._binary = binary or server_binary()
        self._options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(PATIENT), *options]
        self._certificates = certificates
        self._host = host
        self._count = primaries
        self.nodes = [self._new_node() for _ in range(primaries * (1 + replicas))]

    @property
    def url(self) -> str:
        """The address, as ``coord_url`` takes it."""
        return self.url_of(self.nodes)

    def url_of(self, nodes: Sequence[Node]) -> str:
        """The address, with some of the nodes alone."""
        hosts = ",".join(f"{self._host}:{node.port}" for node in nodes)
        if self._certificates is None:
            return f"redis+cluster://{hosts}"
        return f"rediss+cluster://{hosts}?{self._certificates.query}"

    @property
    def primaries(self) -> list[Node]:
        """The living nodes that have slots, by the first of their slots."""
        owners = self._owners()
        return [owners[first] for first in sorted(owners)]

    def primary_of(self, slot: int) -> Node:
        """Who has a slot."""
        for first, last, *told in self._slots():
            if first <= slot <= last:
                return self.on_port(int(told[0][1]))
        raise LookupError(f"nobody has slot {slot}")

    def replicas_of(self, primary: Node) -> list[Node]:
        """Who copies a primary, of those that live."""
        return [node for node in self.living if node.info().get("master_port") == primary.port]

    def on_port(self, port: int) -> Node:
        """The node that listens there."""
        return next(node for node in self.nodes if node.port == port)

    @property
    def living(self) -> list[Node]:
        """The nodes that answer."""
        return [node for node in self.nodes if node.answers]

    def start(self) -> Self:
        """Start all, let them meet, share the slots, and wait until every node finds the cluster whole."""
        atexit.register(self.close)
        self.nodes = [started(node, Node.start, self._new_node) for node in self.nodes]
        primaries, replicas = self.nodes[: self._count], self.nodes[self._count :]
        for number, node in enumerate(self.nodes):
            _cluster(node, "SET-CONFIG-EPOCH", number + 1)  # or they would have to agree on the order first
        for number, node in enumerate(primaries):
            begin, end = (SLOTS * n // self._count for n in (number, number + 1))
            _cluster(node, "ADDSLOTS", *range(begin, end))
        for node, other in permutations(self.nodes, 2):
            _cluster(node, "MEET", "127.0.0.1", other.port)
        wait_until(self._have_met, "nodes that know each other")
        for number, node in enumerate(replicas):
            _cluster(node, "REPLICATE", _id(primaries[number % self._count]))
        self.wait_until_whole()
        return self

    def wait_until_whole(self) -> None:
        """Until every node is up, finds the cluster whole, and copies its primary if it is a replica."""
        wait_until(self.is_whole, "a cluster that is whole, and replicas that are linked")

    def is_whole(self) -> bool:
        """Whether nothing is amiss."""
        try:
            views = {self._view_of(node) for node in self.nodes}
            links = [node.info() for node in self.nodes]
        except redis.RedisError:
            return False
        is_agreed = len(views) == 1 and not any("fail" in line or "handshake" in line for line in views.pop())
        return (
            is_agreed
            and all("cluster_state:ok" in str(_cluster(node, "INFO")) for node in self.nodes)
            and all(link["role"] == "master" or link["master_link_status"] == "up" for link in links)
        )

    def migrate(self, slot: int, to: Node) -> None:
        """Move a slot and its keys to another primary, as a resharding does, while clients use it."""
        self.begin_migration(slot, to)
        self.finish_migration(slot, to)

    def begin_migration(self, slot: int, to: Node) -> None:
        """From now on what does not exist yet is made at its new place; nothing has been moved yet."""
        source = self.primary_of(slot)
        _cluster(to, "SETSLOT", slot, "IMPORTING", _id(source))
        _cluster(source, "SETSLOT", slot, "MIGRATING", _id(to))

    def finish_migration(self, slot: int, to: Node) -> None:
        """Move what the slot has, a key at a time, and give it to its new owner."""
        source = self.primary_of(slot)
        while found := _cluster(source, "GETKEYSINSLOT", slot, 1):
            source.client.execute_command("MIGRATE", "127.0.0.1", to.port, found[0], 0, 5000)
        for node in (to, source, *self.primaries):
            _cluster(node, "SETSLOT", slot, "NODE", _id(to))
        wait_until(lambda: self.primary_of(slot) is to, "whom we ask knows it: it may be a replica, which hears of it")

    def kill(self, primary: Node) -> None:
        """End a node as a crash does; one of its replicas is promoted when that is waited for."""
        primary.kill()

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """For as long as the block lasts, who is silent is soon taken for dead, and who comes back soon for alive."""
        self._take_for_dead_after(NODE_TIMEOUT)
        try:
            yield
        finally:
            self._take_for_dead_after(PATIENT)

    def _take_for_dead_after(self, silence: int) -> None:
        for node in self.living:
            node.client.config_set("cluster-node-timeout", silence)

    def promote(self, slot: int) -> Node:
        """Let a replica take a slot over from its primary, which agrees to it, and wait until it has."""
        primary = self.primary_of(slot)
        with self.impatient():  # a patient node that has voted lately does not vote again for minutes
            _cluster(self.replicas_of(primary)[0], "FAILOVER")
            return self.wait_for_heir(primary, slot)

    def wait_for_heir(self, dead: Node, slot: int, timeout: float = 60.0) -> Node:
        """Until another node has a slot, and all that live find the cluster whole.

        Args:
            dead: who had it, be it dead or not.
            slot: what it had.
            timeout: for how long to wait, in seconds.
        """

        def inherited() -> Node | None:
            try:
                heir = self.primary_of(slot)
            except LookupError:
                return None  # who had it has said that he has it no more, and the heir has not yet said that he has it
            is_known = heir is not dead and all("cluster_state:ok" in _cluster(node, "INFO") for node in self.living)
            return heir if is_known else None

        with self.impatient():
            found = wait_until(inherited, f"an heir of {dead.port}", timeout=timeout)
        assert found is not None
        return found

    def mend(self) -> None:
        """Wake who was paused, start who was killed, let all be copied, and wait until nothing is amiss."""
        for node in self.nodes:
            node.wake()
            if not node.runs:
                node.start_again()
            node.let_copy()
        with self.impatient():
            self.wait_until_whole()

    def flush(self) -> None:
        """Forget everything that was written, on every node."""
        for node in self.primaries:
            node.flush(len(self.replicas_of(node)))

    def close(self) -> None:
        """End all; may be called twice."""
        atexit.unregister(self.close)
        for node in self.nodes:
            node.clean()

    def _new_node(self) -> Node:
        # A replica is never too far behind to be promoted: what it has lost is what the tests are about.
        options, held = [*self._options, "--cluster-replica-validity-factor", "0"], held_with_bus()
        if self._certificates:
            port = held[0].getsockname()[1]
            # A node finds out by itself only what it is started with, and these come when it has started.
            ports = ["--cluster-port", str(port + TO_BUS), "--cluster-announce-tls-port", str(port)]
            options += ["--tls-cluster", "yes", *ports]
        return Node(options, held=held, binary=self._binary, certificates=self._certificates)

    def _slots(self) -> list[Any]:
        """What the first node that lives says of the slots."""
        return list(self.living[0].client.execute_command(*_RAW, "SLOTS"))

    def _owners(self) -> dict[int, Node]:
        owners = {}
        for first, _, told, *_ in self._slots():
            node = self.on_port(int(told[1]))
            if node not in owners.values():
                owners[int(first)] = node
        return owners

    def _have_met(self) -> bool:
        return all(len(self._view_of(node)) == len(self.nodes) for node in self.nodes) and not any(
            "handshake" in line for node in self.nodes for line in self._view_of(node)
        )

    def _view_of(self, node: Node) -> frozenset[str]:
        """Who is what, as one node sees it: port and flags, whose replica, and slots."""
        return frozenset(
            " ".join([fields[1].partition("@")[0], fields[2].replace("myself,", ""), fields[3], *fields[8:]])
            for fields in map(str.split, _nodes(node))
        )


#: Two words, so that redis-py leaves the answer as it is.
_RAW = ("CLUSTER",)


def _cluster(node: Node, *command: Any) -> Any:
    return node.client.execute_command(*_RAW, *command)


def _id(node: Node) -> str:
    return str(_cluster(node, "MYID"))


def _nodes(node: Node) -> list[str]:
    return str(_cluster(node, "NODES")).splitlines()
