"""What was tried on each broker, and what holds there: read by the tests, and shown by the page on brokers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: What each claim says, in the words of the page.
CLAIMS = {
    "drop": "a run that finds its key held is dropped",
    "quiet": "a run in a quiet period is dropped",
    "twice": "a message that is delivered twice waits for its first delivery, and ends as a duplicate",
    "away": "a run that the store does not answer is sent again for later, until it does",
    "chord": "a chord with a dropped member ends",
    "beat": "beat under a leader sends, and another beat takes over",
    "death": "the run of a worker that was killed runs again, late ack",
}


@dataclass(frozen=True)
class Broker:
    """One broker.

    Attributes:
        name: of the broker, in the tests.
        title: of the broker, on the page.
        ran: what was run.
        conf: settings beside the address.
        limits: the claims that do not hold, and why.
    """

    name: str
    title: str
    ran: str
    conf: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)

    def holds(self, claim: str) -> bool:
        return claim not in self.limits


#: What a worker took and did not acknowledge comes again after so many seconds, where the broker counts them.
SOON = 3

BROKERS = {
    broker.name: broker
    for broker in (
        Broker(
            "redis",
            "Redis",
            f"a Redis or Valkey of its own, `visibility_timeout` {SOON} s",
            # A worker that is killed while it looks for such messages leaves its mutex behind.
            conf={
                "broker_transport_options": {
                    "visibility_timeout": SOON,
                    "unacked_restore_interval": 1,
                    "unacked_restore_throttle": 1,
                    "unacked_mutex_expire": 2,
                }
            },
        ),
        Broker("rabbitmq", "RabbitMQ, classic queues", "RabbitMQ 3.10, a classic queue on a direct exchange"),
        Broker(
            "quorum",
            "RabbitMQ, quorum queues",
            "RabbitMQ 3.10, a quorum queue on a topic exchange, countdowns by Celery's native delayed delivery",
            conf={
                "task_default_queue": "quorum",
                "task_default_exchange": "quorum",
                "task_default_routing_key": "quorum",
                "task_default_exchange_type": "topic",
                "task_default_queue_type": "quorum",
            },
        ),
        Broker(
            "sqs",
            "Amazon SQS",
            f"the SQS server of moto 5, a standard queue, `visibility_timeout` {SOON} s",
            conf={
                "worker_enable_remote_control": False,
                "broker_transport_options": {
                    "region": "us-east-1",
                    "is_secure": False,
                    "visibility_timeout": SOON,
                    "polling_interval": 0.1,
                    "wait_time_seconds": 0,
                },
            },
        ),
        Broker(
            "filesystem",
            "Files in a folder",
            "kombu's `filesystem://`, one folder for all",
            limits={"death": "does not: a message is removed when a worker takes it, and is gone with that"},
        ),
        Broker(
            "memory",
            "Memory",
            "`memory://`, publisher and worker in one process, in threads",
            conf={"broker_transport_options": {"polling_interval": 0.1}},
            limits={
                "beat": "does not apply: beat is another process, which does not reach this one's messages",
                "death": "does not apply: the messages die with the process",
            },
        ),
    )
}


def tables() -> str:
    """The tables of the page: what was run, and what holds."""
    ran = "".join(f"| {broker.title} | {broker.ran} |\n" for broker in BROKERS.values())
    titles = " | ".join(broker.title for broker in BROKERS.values())
    held = "".join(
        f"| {words} | {' | '.join('holds' if broker.holds(claim) else 'no' for broker in BROKERS.values())} |\n"
        for claim, words in CLAIMS.items()
    )
    limits = "".join(
        f"* **{broker.title}**, {CLAIMS[claim]}: {why}.\n"
        for broker in BROKERS.values()
        for claim, why in broker.limits.items()
    )
    rule = "|---" * (len(BROKERS) + 1)
    return (
        f"| broker | what was run |\n|---|---|\n{ran}\n| | {titles} |\n{rule}|\n{held}\nWhere it says no:\n\n{limits}"
    )
