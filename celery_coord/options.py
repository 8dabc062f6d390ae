"""What a task class says of coordination, checked where it is written and compiled to a `Policy`.

Celery makes a class of each task and an attribute of each of its options, whether it knows them or not. So a misspelt
option would silently guard nothing; here it is refused.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from celery import Task

from celery_coord.errors import ConfigurationError
from celery_coord.keys import KeyMaker
from celery_coord.policy import (
    ON_DROP,
    ON_STORE_ERROR,
    Cooldown,
    Exclusive,
    OnDrop,
    OnStoreError,
    cooldown_from,
    did_you_mean,
    exclusive_from,
    one_of,
)

#: The options that this library adds to `@app.task`.
OPTIONS = ("key", "exclusive", "cooldown", "on_drop", "on_store_error", "private_arguments")

_METHODS = ("key_of", "look", "clear_cooldown", "lock")
#: How like one of ours an unknown option is that must be a typo: "keys" is, "api_key" is not.
_MISSPELT = 0.8

_POLICY_FIELDS = {
    "ttl": "exclusive=Exclusive(ttl=30)",
    "max_hold": "exclusive=Exclusive(max_hold=3600)",
    "on_conflict": 'exclusive=Exclusive(on_conflict="drop")',
    "hold_on_retry": "exclusive=Exclusive(hold_on_retry=True)",
    "on_lost": 'exclusive=Exclusive(on_lost="raise")',
    "jitter": "cooldown=Cooldown(60, jitter=0.1)",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What a task asks for, compiled."""

    make_key: KeyMaker
    exclusive: Exclusive | None
    cooldown: Cooldown | None
    on_drop: OnDrop | None
    on_store_error: OnStoreError | None


def option(cls: type[Task], name: str) -> Any:
    """An option as it was written: a plain function must not become a method."""
    value = inspect.getattr_static(cls, name)
    return value.__func__ if isinstance(value, staticmethod) else value


def shown_name(cls: type[Task]) -> str:
    """What a task is called in a message before it has a name."""
    return cls.name or f"{cls.__module__}.{cls.__qualname__}"


def is_concrete(cls: type[Task]) -> bool:
    """Whether the class has a body, and so is a task and not a base of tasks."""
    return inspect.getattr_static(cls, "run") is not inspect.getattr_static(Task, "run")


def compile_policy(cls: type[Task], name: str, *, needs_cooldown: bool) -> Policy | None:
    """Check the options of a class; its policy, where it has a body and asks for something."""
    exclusive = exclusive_from(option(cls, "exclusive"))
    cooldown = cooldown_from(option(cls, "cooldown"))
    on_drop = option(cls, "on_drop")
    if on_drop is not None:
        one_of("on_drop", on_drop, ON_DROP)
    on_store_error = option(cls, "on_store_error")
    if on_store_error is not None:
        one_of("on_store_error", on_store_error, ON_STORE_ERROR)
    if not is_concrete(cls):
        return None
    if cooldown is None and needs_cooldown:
        msg = f"{name}: a CooldownTask says for how long it is quiet: write cooldown=60"
        raise ConfigurationError(msg)
    spec = option(cls, "key")
    if exclusive is None and cooldown is None and spec is None:
        return None
    make_key = KeyMaker(name, _signature(cls), spec, private=bool(option(cls, "private_arguments")))
    return Policy(make_key, exclusive, cooldown, on_drop, on_store_error) if exclusive or cooldown else None


def _signature(cls: type[Task]) -> inspect.Signature:
    """The signature of the body, without the task itself."""
    run = inspect.getattr_static(cls, "run")
    if isinstance(run, staticmethod):
        return inspect.signature(run.__func__)
    signature = inspect.signature(run)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def refuse_misspelt(cls: type[Task]) -> None:
    """Celery makes an attribute of any option, so that a typo would silently guard nothing."""
    own = [name for name in vars(cls) if not name.startswith("_")]
    if isinstance(vars(cls).get("on_failure"), int | float):
        msg = f"{shown_name(cls)}: on_failure is Celery's hook: write cooldown=Cooldown(60, on_failure=10)"
        raise ConfigurationError(msg)
    for name in _METHODS:
        if name in vars(cls) and not callable(vars(cls)[name]):
            msg = f"{shown_name(cls)}: {name!r} is a method of the task, not an option: give yours another name"
            raise ConfigurationError(msg)
    for name in own:
        if any(name in vars(base) for base in cls.__mro__[1:]):
            continue
        if name in _POLICY_FIELDS:
            msg = f"{shown_name(cls)}: there is no option {name!r}: write {_POLICY_FIELDS[name]}"
            raise ConfigurationError(msg)
        near = did_you_mean(name, OPTIONS, likeness=_MISSPELT)
        if near and (not callable(vars(cls)[name]) or "_decorated" in vars(cls)):
            msg = f"{shown_name(cls)}: there is no option {name!r}{near} An attribute of your own needs another name"
            raise ConfigurationError(msg)
