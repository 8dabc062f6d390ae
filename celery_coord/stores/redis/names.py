"""The names of what is in the server: see the docstring of the package."""

from __future__ import annotations

#: The layout of what is in the server, as this version writes it; see `celery_coord.stores.redis`.
LAYOUT = 1


class Names:
    """The names of the keys that one lease, and what belongs to it, is kept under.

    Args:
        namespace: what keeps applications apart.
        key: the name of what is guarded.
    """

    __slots__ = ("tag",)

    def __init__(self, namespace: str, key: str) -> None:
        self.tag = f"{{{namespace}:{key}}}"

    @property
    def lock(self) -> str:
        """The lease; python-redis-lock's key."""
        return f"lock:{self.tag}"

    @property
    def signal(self) -> str:
        """What those who wait are woken by; python-redis-lock's key."""
        return f"lock-signal:{self.tag}"

    @property
    def layout(self) -> str:
        """Where a later layout leaves its number; the same in all layouts."""
        return f"coord-layout:{self.tag}"

    @property
    def cooldown(self) -> str:
        """The quiet period."""
        return f"coord{LAYOUT}-cooldown:{self.tag}"

    @property
    def lease(self) -> str:
        """The record of the newest lease."""
        return f"coord{LAYOUT}-lease:{self.tag}"

    @property
    def records(self) -> str:
        """What the holders of the key wrote down."""
        return f"coord{LAYOUT}-records:{self.tag}"

    @property
    def request(self) -> str:
        """What the holder is asked for."""
        return f"coord{LAYOUT}-ask:{self.tag}"

    def done(self, run: str) -> str:
        """The end of a run."""
        return f"coord{LAYOUT}-done:{self.tag}:{run}"


def before_key_in_lease(namespace: str) -> str:
    """What stands before the key in `Names.lease`."""
    return Names(namespace, "").lease.removesuffix("}")
