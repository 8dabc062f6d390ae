from __future__ import annotations

from dataclasses import dataclass, field

from celery_coord.errors import StoreError
from celery_coord.events import Event
from celery_coord.lease import Cooling, Done, Lease, Look, Owner, Recorded, Refusal
from celery_coord.renewal import Keeper
from celery_coord.stores.memory import MemoryStore
from celery_coord.testing import FakeClock


@dataclass
class Seen:
    """What was notified."""

    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


class StillKeeper(Keeper):
    """Without its thread: the test makes the rounds."""

    def _look_at(self, at: float) -> None:
        pass


class FlakyStore(MemoryStore):
    """The reference store, which can be away, and which counts what it is asked."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.away = False
        self.slow = 0.0
        self.asked: list[str] = []

    def _ask(self, act: str) -> None:
        self.asked.append(act)
        self.clock.advance(self.slow)
        if self.away:
            raise StoreError("away")

    def acquire(
        self, key: str, owner: Owner, ttl: float, *, heed_cooldown: bool, label: str = "", remember: float = 0.0
    ) -> Lease | Refusal | Done:
        self._ask("acquire")
        return super().acquire(key, owner, ttl, heed_cooldown=heed_cooldown, label=label, remember=remember)

    def renew(self, leases: list[Lease]) -> list[bool | StoreError]:  # type: ignore[override]
        try:
            self._ask("renew")
        except StoreError as error:
            return [error] * len(leases)
        return super().renew(leases)

    def settle(
        self, lease: Lease, *, cooldown: float = 0.0, remember: float = 0.0, told: bool = True, wake: int = 1
    ) -> bool:
        self._ask("settle")
        return super().settle(lease, cooldown=cooldown, remember=remember, told=told, wake=wake)

    def record(
        self,
        lease: Lease,
        name: str,
        value: str,
        *,
        was: str | None = None,
        by_holder: bool = True,
        within: float | None = None,
    ) -> Recorded:
        self._ask("record")
        return super().record(lease, name, value, was=was, by_holder=by_holder, within=within)

    def records(self, key: str) -> dict[str, str]:
        self._ask("records")
        return super().records(key)

    def request(self, key: str) -> str:
        self._ask("request")
        return super().request(key)

    def hold(self, lease: Lease, seconds: float, *, remember: float = 0.0) -> bool:
        self._ask("hold")
        return super().hold(lease, seconds, remember=remember)

    def look(self, key: str) -> Look:
        self._ask("look")
        return super().look(key)

    def refuses(self, key: str, owner: Owner, *, heed_cooldown: bool) -> Cooling | Done | None:
        self._ask("refuses")
        return super().refuses(key, owner, heed_cooldown=heed_cooldown)

    def cool(self, key: str, owner: Owner, seconds: float, *, remember: float = 0.0, told: bool = True) -> None:
        self._ask("cool")
        super().cool(key, owner, seconds, remember=remember, told=told)

    def expire(self, key: str) -> None:
        self._guards[key].held_until = 0.0
