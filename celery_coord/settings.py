"""Settings: Celery settings with the prefix ``coord_``, read once and checked.

They are read with `conf.get`, so that attributes, modules, ``config_from_object(..., namespace="CELERY")`` and
Django's settings work as they do for Celery's own. (`app.add_defaults` would override the user's module.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from celery_coord.stores.redis.urls import OPTIONS, TLS, borrowed, refuse_unknown, servers_in

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


def _count(least: int) -> Check:
    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            msg = f"{name} is a number of at least {least}, not {value!r}: write {name} = {max(least, 1)}"
            raise ConfigurationError(msg)
        return value

    return check


def _options(name: str, value: object) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        # The value is not repeated: it may hold a password.
        kind = type(value).__name__
        msg = f"{name} is a dictionary, not a value of type {kind}: write {name} = {{'master_name': 'mymaster'}}"
        raise ConfigurationError(msg)
    if value is not None:
        refuse_unknown(value)
    return value


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
        "The store: `redis://`, `rediss://`, `unix://`, `redis+socket://`, `sentinel://`, `sentinels://`, "
        "`redis+cluster://`, `rediss+cluster://`, or `memory://` for one process; see [Servers](servers.md). "
        "Without it the result backend's Redis serves, else the broker's.",
    ),
    Setting(
        "transport_options",
        None,
        _options,
        "dictionary",
        "How to connect, beside what the URL says: `master_name`, `sentinel_kwargs`, `ssl_ca_certs` and others of "
        "redis-py. Without it those of the result backend or of the broker count, where the URL is theirs or names the "
        "same servers.",
    ),
    Setting(
        "min_replicas",
        0,
        _count(0),
        "number",
        "How many replicas have to confirm that a key was taken, renewed or given back, before that counts. It narrows "
        "what a fail-over can lose, and costs time; see [Fail-over](failover.md).",
    ),
    Setting(
        "max_connections",
        10,
        _count(1),
        "number",
        "How many connections to a server the runs of one process share. The keeper has one more, and so has each "
        "thread that waits to lead.",
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
        "What becomes of a run when the store does not answer, where the task's `on_store_error` does not say: `retry` "
        "sends it again for later, `run` lets it through unguarded, `fail` fails it.",
    ),
    Setting(
        "store_retry_pause",
        60.0,
        _seconds(2.0),
        "seconds",
        "The longest pause before a run that met no store is tried again. The first is a second or two, each next one "
        "twice as long, and all are jittered by half.",
    ),
    Setting(
        "store_retry_for",
        None,
        _maybe_seconds,
        "seconds",
        "For how long a run that met no store is tried again before it fails with `StoreError`. Without it there is no "
        "end.",
    ),
    Setting(
        "store_timeout",
        2.0,
        _seconds(),
        "seconds",
        "How long the store may take to connect, and to answer. What failed sooner is asked for once more; where there "
        "is no answer all of it takes no longer than three times that.",
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
    transport_options: Mapping[str, Any] = field(repr=False)  # so may they
    min_replicas: int
    max_connections: int
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
    store_retry_pause: float
    store_retry_for: float | None
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
        if values["transport_options"] is None:
            values["transport_options"] = _borrowed_options(conf, values["url"])
        values["visibility_timeout"] = _visibility_timeout(conf)
        values["done_ttl"] = values["done_ttl"] or values["visibility_timeout"] + _SPARE
        return cls(**values)


def _read(conf: Any, setting: Setting) -> Any:
    name = PREFIX + setting.name
    # With a prefix (`namespace="CELERY"`) a name without it belongs to others: Django's settings have many of them.
    for spelling in (name,) if getattr(conf, "prefix", None) else (name, name.upper()):
        value = conf.get(spelling)
        if value is not None:
            return setting.check(name, value)
    return setting.default


def _borrowed_url(conf: Any) -> str:
    """The Redis of the result backend, else of the broker."""
    for named in (conf.result_backend, conf.broker_url):
        url = _joined(named)
        if not isinstance(url, str):
            continue
        is_single = url.startswith(("redis://", "rediss://", "redis+socket://")) and ";" not in url
        if is_single or url.startswith("sentinel://"):
            return borrowed(_with_host(url))
    msg = (
        "there is no store: coord_url is not set, and neither the result backend nor the broker is a single Redis, or "
        "one behind Sentinels: write coord_url = 'redis://127.0.0.1:6379/0'"
    )
    raise ConfigurationError(msg)


def _joined(named: Any) -> Any:
    """Celery takes a list of URLs, or one text with semicolons between."""
    return ";".join(named) if isinstance(named, list | tuple) else named


def _borrowed_options(conf: Any, url: str) -> Mapping[str, Any]:
    """How the result backend, else the broker, connects, where it is the same servers."""
    ours = servers_in(url)
    lenders = (
        (conf.result_backend, conf.get("result_backend_transport_options"), conf.get("redis_backend_use_ssl")),
        (conf.broker_url, conf.get("broker_transport_options"), conf.get("broker_use_ssl")),
    )
    for named, options, tls in lenders:
        theirs = _joined(named)
        if isinstance(theirs, str) and ours is not None and servers_in(_with_host(theirs)) == ours:
            said = {name: value for name, value in (options or {}).items() if name in OPTIONS}
            return {**said, **(tls if isinstance(tls, Mapping) else {}), **({TLS: True} if tls else {})}
    return {}


def _visibility_timeout(conf: Any) -> float:
    """After how many seconds a broker delivers a message again that nobody has acknowledged."""
    said = (conf.broker_transport_options or {}).get("visibility_timeout")
    return float(said) if isinstance(said, int | float) else _VISIBILITY_TIMEOUT


def _with_host(url: str) -> str:
    """Celery takes a URL without a host for one of this machine."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or parts.hostname:
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
    namespace = getattr(conf, "prefix", None) or ""
    for key in map(str, set(conf.keys())):
        if namespace and key.isupper() and not key.startswith(namespace):
            continue
        name = key.lower().removeprefix(namespace.lower())
        if name.startswith(PREFIX):
            yield name
