"""Settings: Celery settings with the prefix ``coord_``, read once and checked.

They are read with `conf.get`, so that attributes, modules, ``config_from_object(..., namespace="CELERY")`` and
Django's settings work as they do for Celery's own. (`app.add_defaults` would override the user's module.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from celery_coord.errors import ConfigurationError
from celery_coord.policy import (
    CATCH_UP,
    ON_CONFLICT,
    ON_DROP,
    ON_STORE_ERROR,
    SHORTEST_LEASE,
    CatchUp,
    OnDrop,
    OnStoreError,
    did_you_mean,
    one_of,
    seconds,
)

PREFIX = "coord_"

#: What kombu's Redis transport has as a default, in seconds.
_VISIBILITY_TIMEOUT = 3600.0
_SPARE = 600.0

Check = Callable[[str, object], object]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name without the prefix, its default, how a value is checked, and what it means."""

    name: str
    default: object
    check: Check
    kind: str
    meaning: str


def _seconds(least: float = 0.0) -> Check:
    return lambda name, value: seconds(name, value, example=f"{name} = 30", least=least)


def _maybe_seconds(name: str, value: object) -> float | None:
    return None if value is None else seconds(name, value, example=f"{name} = 3600")


def _word(allowed: tuple[str, ...]) -> Check:
    return lambda name, value: one_of(name, value, allowed)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        msg = f"{name} is a text, not {value!r}: write {name} = '...'"
        raise ConfigurationError(msg)
    return value


def _maybe_text(name: str, value: object) -> str | None:
    return None if value is None else _text(name, value)


def _url(name: str, value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and value):
        # The value is not repeated: it may hold a password.
        msg = f"{name} is a URL, not a value of type {type(value).__name__}: write {name} = 'redis://127.0.0.1:6379/0'"
        raise ConfigurationError(msg)
    return value


def _namespace(name: str, value: object) -> str:
    text = _text(name, value)
    if not text.isprintable() or any(character in text for character in "{} :"):
        msg = f"{name} is a plain word, without spaces, colons and braces, not {value!r}: write {name} = 'shop'"
        raise ConfigurationError(msg)
    return text


#: Every setting there is, in the order of the docs.
SETTINGS: tuple[Setting, ...] = (
    Setting(
        "url",
        None,
        _url,
        "URL",
        "The store: `redis://`, `rediss://`, `unix://`, `redis+socket://`, or `memory://` for one process. "
        "Without it the result backend's Redis serves, else the broker's.",
    ),
    Setting(
        "namespace",
        "coord",
        _namespace,
        "word",
        "What the keys in the store begin with. Give each application that shares a server its own.",
    ),
    Setting(
        "lease_ttl",
        30.0,
        _seconds(SHORTEST_LEASE),
        "seconds",
        "How long a task's lease outlives its last renewal, where `Exclusive(ttl=...)` does not say. "
        "It is renewed every third of that.",
    ),
    Setting(
        "leader_ttl",
        10.0,
        _seconds(SHORTEST_LEASE),
        "seconds",
        "How long a leader's lease outlives its last renewal: how soon another takes over after a crash.",
    ),
    Setting(
        "leader_term_limit",
        None,
        _maybe_seconds,
        "seconds",
        "For how long a beat or a component leads at most before it lets another, so that take-over is practised. "
        "Without it there is no limit.",
    ),
    Setting(
        "label",
        None,
        _maybe_text,
        "text",
        "What others see of this process beside host and process id where it leads or holds: a version, a site.",
    ),
    Setting(
        "max_hold",
        86400.0,
        _seconds(),
        "seconds",
        "For how long the lease of a running body is renewed at most, where neither `Exclusive(max_hold=...)` nor a "
        "time limit says.",
    ),
    Setting(
        "done_ttl",
        None,
        _maybe_seconds,
        "seconds",
        "For how long a run that has ended is remembered, so that its message, should it be delivered again, ends as a "
        "duplicate. Without it: ten minutes longer than the broker's `visibility_timeout`, which is an hour where "
        "`broker_transport_options` does not say.",
    ),
    Setting(
        "on_conflict",
        "drop",
        _word(ON_CONFLICT),
        "`drop`",
        "What becomes of a run that finds its key held, where `Exclusive(on_conflict=...)` does not say.",
    ),
    Setting(
        "on_drop",
        "revoke",
        _word(ON_DROP),
        "`revoke` or `return`",
        "What a dropped run is to those who wait for it, where the task's `on_drop` does not say: `revoke` ends it, "
        "and what stands after it, as REVOKED; `return` counts it as done with a `Dropped` value, and what stands "
        "after it goes on.",
    ),
    Setting(
        "on_store_error",
        "retry",
        _word(ON_STORE_ERROR),
        "`retry`, `run` or `fail`",
        "What becomes of a run when the store does not answer: `retry` sends it again for later, `run` lets it through "
        "unguarded, `fail` fails it.",
    ),
    Setting(
        "store_timeout",
        2.0,
        _seconds(),
        "seconds",
        "How long the store may take to connect, and to answer. An answer that got lost is asked for once more.",
    ),
    Setting(
        "beat_scheduler",
        "celery.beat:PersistentScheduler",
        _text,
        "dotted name",
        "The scheduler that `celery_coord.beat:LeaderScheduler` runs while it leads.",
    ),
    Setting(
        "beat_catch_up",
        "one",
        _word(CATCH_UP),
        "`one`, `all` or `none`",
        "What becomes of the instants of an entry that nobody sent: `one` sends one message for all of them, `all` one "
        "for each, `none` passes over those that are late by more than `coord_leader_ttl` and a second.",
    ),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one application, checked. Lengths of time are in seconds.

    Beside those of this library it knows the broker's ``visibility_timeout``, which is Celery's.
    """

    url: str = field(repr=False)  # it may hold a password
    namespace: str
    lease_ttl: float
    leader_ttl: float
    leader_term_limit: float | None
    label: str | None
    max_hold: float
    done_ttl: float
    on_conflict: str
    on_drop: OnDrop
    on_store_error: OnStoreError
    store_timeout: float
    beat_scheduler: str
    beat_catch_up: CatchUp
    visibility_timeout: float

    @classmethod
    def of(cls, app: Any) -> Settings:
        """Read and check the settings of an application.

        Args:
            app: the Celery application.

        Raises:
            ConfigurationError: a setting is misspelt, of the wrong kind or out of range, or there is no store.
        """
        app.conf.get("broker_url")  # Celery loads its configuration, and exchanges `conf`, when it is first read
        conf = app.conf
        _refuse_unknown(conf)
        values = {setting.name: _read(conf, setting) for setting in SETTINGS}
        values["url"] = values["url"] or _borrowed_url(conf)
        values["visibility_timeout"] = _visibility_timeout(conf)
        values["done_ttl"] = values["done_ttl"] or values["visibility_timeout"] + _SPARE
        return cls(**values)


def _read(conf: Any, setting: Setting) -> Any:
    name = PREFIX + setting.name
    for spelling in (name, name.upper()):
        value = conf.get(spelling)
        if value is not None:
            return setting.check(name, value)
    return setting.default


def _borrowed_url(conf: Any) -> str:
    """The Redis of the result backend, else of the broker."""
    for url in (conf.result_backend, conf.broker_url):
        if isinstance(url, str) and url.startswith(("redis://", "rediss://", "redis+socket://")) and ";" not in url:
            return _with_host(url)
    msg = (
        "there is no store: coord_url is not set, and neither the result backend nor the broker is a single Redis: "
        "write coord_url = 'redis://127.0.0.1:6379/0'"
    )
    raise ConfigurationError(msg)


def _visibility_timeout(conf: Any) -> float:
    """After how many seconds a broker delivers a message again that nobody has acknowledged."""
    said = (conf.broker_transport_options or {}).get("visibility_timeout")
    return float(said) if isinstance(said, int | float) else _VISIBILITY_TIMEOUT


def _with_host(url: str) -> str:
    """Celery takes a URL without a host for one of this machine."""
    parts = urlsplit(url)
    if parts.scheme == "redis+socket" or parts.hostname:
        return url
    credentials, at, port = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{credentials}{at}localhost{port}"))


def _refuse_unknown(conf: Any) -> None:
    known = {PREFIX + setting.name for setting in SETTINGS}
    for name in _names(conf):
        if name not in known:
            near = did_you_mean(name, known) or f": there are {', '.join(sorted(known))}"
            msg = f"there is no setting {name!r}{near}"
            raise ConfigurationError(msg)


def _names(conf: Any) -> Iterator[str]:
    """The names of all settings of ours, however the application spells them."""
    namespace = (getattr(conf, "prefix", None) or "").lower()
    for key in set(conf.keys()):
        name = str(key).lower().removeprefix(namespace)
        if name.startswith(PREFIX):
            yield name
