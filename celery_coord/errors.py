"""What can go wrong, as a tree.

A refusal is a value (`celery_coord.lease.Held`, `Cooling`), a loss is an error, and a store that does
not answer is a third thing; mixing two of them is how locks get released by those who do not own them.

    CoordError
    ├── ConfigurationError    an option or a setting is wrong: raised where the task is defined, or at start
    ├── UnstableKey           an argument has no form that is the same in every process
    ├── NoLease               the code asked for its lease where it holds none
    ├── LeaseLost             the lease was ours and no longer is
    ├── NotLeader             the code acts as a leader where this process does not lead
    └── StoreError            the store did not answer, or not in time
        └── NewerLayout       a later version of this library uses the key

`celery_coord.drop.TaskDropped` stands apart: it is what Celery hands to those who wait for a dropped run, and
so it is a `celery.exceptions.TaskRevokedError`.

Every error rebuilds from its ``args``: exceptions cross processes by pickle, and by JSON in a result backend.
"""

from __future__ import annotations


class CoordError(Exception):
    """The base of this library's errors."""


class ConfigurationError(CoordError, ValueError):
    """An option or a setting is wrong; the message says what to write instead."""


class UnstableKey(CoordError, TypeError):
    """An argument has no stable form, so runs with equal arguments could not be told to be equal."""


class NoLease(CoordError, LookupError):
    """`celery_coord.current_lease` was asked where no lease is held."""


class LeaseLost(CoordError):
    """The lease was ours and no longer is, or can no longer be believed to be.

    Args:
        key: the name of what is guarded.
        owner: the id of the acquisition that lost it.
    """

    def __init__(self, key: str, owner: str) -> None:
        super().__init__(key, owner)
        self.key = key
        self.owner = owner

    def __str__(self) -> str:
        return f"the lease on {self.key} is lost: {self.owner} must not act on it any more"


class NotLeader(CoordError):
    """This process does not lead, or can no longer be sure of it.

    Args:
        name: what is led.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"this process does not lead {self.name}, and must not act in its name"


class StoreError(CoordError):
    """The store did not answer, or not in time: nothing is known of the lease."""


class NewerLayout(StoreError):
    """The key is in use by a later version of this library, whose layout of the store this one does not know.

    Args:
        key: the name of what is guarded.
        layout: the number of the layout that is in use.
        known: the latest one that this version knows.
    """

    def __init__(self, key: str, layout: int, known: int) -> None:
        super().__init__(key, layout, known)
        self.key = key
        self.layout = layout
        self.known = known

    def __str__(self) -> str:
        return (
            f"a later version of celery_coord is in use (layout {self.layout}, known here: {self.known}): "
            f"upgrade this process (the key is {self.key})"
        )
