"""What a URL says, and the options beside it: where the servers are and how to connect, in redis-py's words.

One server (``redis``, ``rediss``, ``unix``, Celery's ``redis+socket``), one that Sentinel names (``sentinel``,
``sentinels``), or a cluster (``redis+cluster``, ``rediss+cluster``). Several hosts are written with commas, or as
Celery has it, a URL for each with semicolons between.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

import redis
from redis.connection import parse_url

from celery_coord.errors import ConfigurationError
from celery_coord.policy import did_you_mean

#: What may stand before ``://``.
SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+socket",
    "sentinel",
    "sentinels",
    "redis+cluster",
    "rediss+cluster",
)
#: What a set-up may say beside its URL of how to connect. Others are the broker's own business.
OPTIONS = frozenset(
    {
        *("master_name", "sentinel_kwargs", "min_other_sentinels"),
        *("username", "password", "client_name", "protocol"),
        *("socket_keepalive", "socket_keepalive_options", "health_check_interval"),
        *("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_password"),
        *("ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers"),
    }
)
#: This, set to True, stands for TLS where the URL does not say so.
TLS = "ssl"

Host = tuple[str, int]

#: How each kind of URL is written.
EXAMPLES = {
    "sentinel": "sentinel://sentinel-1:26379,sentinel-2:26379/0?master_name=mymaster",
    "redis+cluster": "redis+cluster://node-1:6379,node-2:6379",
}

#: What redis-py has as options and this library as settings, each with an example.
_SETTINGS = {
    "socket_timeout": ("coord_store_timeout", 2),
    "socket_connect_timeout": ("coord_store_timeout", 2),
    "max_connections": ("coord_max_connections", 10),
}

# redis-py has no types for it.
_parse_url: Callable[[str], dict[str, Any]] = parse_url

#: What a URL may say beside those.
_IN_A_URL = frozenset({"db", "virtual_host", "sentinel_username", "sentinel_password"})

_PORT, _SENTINEL_PORT = 6379, 26379
#: In what stands for a user before several hosts: another host, with a user of its own.
_NEXT_HOST = re.compile(r"@.*,|^[^:,]+:[0-9]+,[^:]*:")
#: The numbers that a server reads.
_DATABASES = range(2**31)
_TLS_SCHEMES = frozenset({"rediss", "sentinels", "rediss+cluster"})
#: redis-py 4 knows but one protocol, and no option that names it.
_SPEAKS_RESP3 = int(redis.__version__.partition(".")[0]) >= 5


def parsed(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the URL and the options say.

    Args:
        url: as in the setting ``coord_url``.
        options: as in ``coord_transport_options``. What the URL says counts for more.

    Returns:
        Options of a connection, and under ``hosts`` those of the servers or Sentinels, none for a Unix socket.

    Raises:
        ConfigurationError: the URL is malformed. The message repeats no password.
    """
    scheme = url.partition("://")[0]
    parts, user, hosts = _split(scheme, url)
    query = {name: value for part in parts for name, value in parse_qsl(part.query)}
    if scheme == "redis+socket":
        query["db"] = query.pop("virtual_host", query.get("db", "0"))
    if "credential_provider" in query:
        msg = (
            "coord_url has a credential_provider, and takes a user and a password: 'redis://user:password@host:6379/0'"
        )
        raise ConfigurationError(msg)
    refuse_unknown([name for name in query if name not in _IN_A_URL], "coord_url")
    path = next((part.path for part in parts if part.path.strip("/")), "")
    base, host = ("unix", "") if _is_socket(scheme) else ("redis", "host")
    said: dict[str, Any]
    try:
        # urlunsplit drops // before a bare path; a host of its own keeps the path apart from the user
        said = _parse_url(f"{base}://{user}@{host}{path}?{urlencode(query)}")
    except ValueError:
        said = {"db": -1}
    if said.get("db", 0) not in _DATABASES:
        msg = "coord_url has an option of the wrong kind: write coord_url = 'redis://127.0.0.1:6379/0'"
        raise ConfigurationError(msg)
    said.pop("host", None)
    if not _SPEAKS_RESP3 and str(said.get("protocol")) == "2":
        del said["protocol"]
    beside = {name: value for name, value in options.items() if name in OPTIONS and value is not None}
    if scheme in _TLS_SCHEMES or options.get(TLS):
        said["connection_class"] = redis.SSLConnection
    elif any(name.startswith("ssl_") for name in beside):
        msg = "coord_transport_options speaks of TLS, and the URL of none: write coord_url = 'rediss://host:6379/0'"
        raise ConfigurationError(msg)
    found = {**_in_words_of_redis_py(beside), **_in_words_of_redis_py(said), "hosts": hosts}
    if re.search("[^!-~]", str(found.get("client_name", ""))):  # which the server refuses at each connection
        msg = "client_name takes neither spaces nor what is not ASCII: write 'client_name': 'my-app'"
        raise ConfigurationError(msg)
    return found


def _split(scheme: str, url: str) -> tuple[list[SplitResult], str, tuple[Host, ...]]:
    """The parts of a URL, the user in it, and the hosts."""
    try:
        parts = [urlsplit(part) for part in url.split(";") if part]
    except ValueError:  # which repeats what it does not like
        _refuse(scheme)
    is_single = scheme in ("redis", "rediss")
    users, behind = zip(*(part.netloc.rpartition("@")[::2] for part in parts), strict=True)
    netlocs = [host for hosts in behind for host in ([hosts] if is_single else hosts.split(","))]
    hosts = _hosts(scheme, netlocs)
    if _is_socket(scheme):
        is_sound = len(parts) == 1 and len(parts[0].path) > 1 and behind[0] in ("", "localhost")
    else:
        is_sound = bool(hosts) and (len(netlocs) == 1 or not is_single) and all(_is_number(part.path) for part in parts)
        is_sound &= is_single or not any(_NEXT_HOST.search(user) for user in users)
        is_sound &= not any(_is_cut_in_two(part) for part, user in zip(parts, users, strict=True) if not user)
    if hosts is None or not is_sound or any(part.fragment or part.scheme != scheme for part in parts):
        _refuse(scheme)
    return parts, next(filter(None, users), ""), tuple(hosts)


def _is_cut_in_two(part: SplitResult) -> bool:
    """Whether the user goes on in what looks like options: a password with a ``?`` that is not quoted."""
    said = (piece.partition("=") for piece in part.query.split("&") if "@" in piece)
    return any(name not in OPTIONS | _IN_A_URL for name, _, _ in said)


def _is_socket(scheme: str) -> bool:
    return scheme in ("unix", "redis+socket")


def _in_words_of_redis_py(said: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(said)
    if "ssl_cert_reqs" in found:
        found["ssl_cert_reqs"] = _certificates(found["ssl_cert_reqs"])
    if isinstance(found.get("ssl_min_version"), str):
        found["ssl_min_version"] = getattr(ssl.TLSVersion, found["ssl_min_version"], found["ssl_min_version"])
    return found


def _hosts(scheme: str, netlocs: Sequence[str]) -> list[Host] | None:
    """The hosts, with their ports; None where that is not what stands there."""
    if _is_socket(scheme):
        return []
    default = _SENTINEL_PORT if scheme.startswith("sentinel") else _PORT
    found = []
    for netloc in netlocs:
        try:
            part = urlsplit(f"//{netloc}")
            port = part.port
            (part.hostname or "").encode("idna")  # as the resolver does it
        except ValueError:
            return None
        if not part.hostname or re.search(r"[\s,]", part.hostname) or port == 0:
            return None
        found.append((unquote(part.hostname), port or default))
    return found


def _is_number(path: str) -> bool:
    return re.fullmatch("[0-9]*", path.strip("/")) is not None


def _certificates(said: Any) -> Any:
    """Celery's words for what is asked of a certificate, in redis-py's."""
    if isinstance(said, ssl.VerifyMode):
        said = said.name
    return said.removeprefix("CERT_").lower() if isinstance(said, str) else said


def _refuse(scheme: str) -> NoReturn:
    # Not even masked: where a URL is malformed, the password may stand anywhere in it.
    kind = _kind(scheme)
    example, form = EXAMPLES.get(kind, "redis://127.0.0.1:6379/0"), "host[:port][/database]"
    if _is_socket(scheme):
        example, form = f"{scheme}:///run/redis/redis.sock", "/path/to/socket"
    if kind in EXAMPLES:
        form = "host[:port],host[:port]" + ("/database?master_name=NAME" if kind == "sentinel" else "")
    msg = (
        f"coord_url is malformed, it is not {scheme}://[user:password@]{form} (quote what is special): "
        f"write coord_url = '{example}'"
    )
    raise ConfigurationError(msg)


def borrowed(url: str) -> str:
    """A URL of Celery's, without what it says to Celery alone."""
    return ";".join(map(_without_celerys, url.split(";")))


def _without_celerys(url: str) -> str:
    head, _, query = url.partition("?")
    ours = urlencode([(name, value) for name, value in parse_qsl(query) if name in OPTIONS | _IN_A_URL])
    return f"{head}?{ours}" if ours else head


def servers_in(url: str) -> tuple[str, object] | None:
    """What is equal for two URLs that name the same servers; None where one names none of Redis."""
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        return None
    try:
        found = parsed(borrowed(url), {})
    except ConfigurationError:
        return None
    return _kind(scheme), frozenset(found["hosts"]) or found.get("path")


def _kind(scheme: str) -> str:
    """A scheme, whether with TLS or not."""
    return scheme.replace("rediss", "redis").replace("sentinels", "sentinel")


def refuse_unknown(options: Iterable[str], where: str = "coord_transport_options") -> None:
    """See to it that every option is one that says how to connect.

    Args:
        options: their names.
        where: the setting that they are in.

    Raises:
        ConfigurationError: one is not.
    """
    for name in options:
        if name in _SETTINGS:
            setting, example = _SETTINGS[name]
            msg = f"{where}: {name!r} is the setting {setting}: write {setting} = {example}"
            raise ConfigurationError(msg)
        if name not in OPTIONS and name != TLS:
            near = did_you_mean(name, OPTIONS | _SETTINGS.keys()) or f": there are {', '.join(sorted(OPTIONS))}"
            msg = f"{where}: there is no option {name!r}{near}"
            raise ConfigurationError(msg)
