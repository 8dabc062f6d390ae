"""What a failure to use a server, as a process starts, says of the set-up: what waiting will not mend is refused.

A server that is away is no reason not to start. One that speaks TLS to who does not, or is a Sentinel and not a server,
will be so tomorrow; and what the client says of it ("connection reset") helps nobody.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError as RedisConnectionError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
)
from redis.sentinel import MasterNotFoundError

from celery_coord.errors import StoreError
from celery_coord.stores.redis.address import Address
from celery_coord.stores.redis.connecting import connected
from celery_coord.stores.redis.examine import CLUSTER, OLDEST, SENTINEL, SERVER, dotted, refuse

#: What a server says of an account that lacks a right, by itself or inside a script (6.2, and later).
NO_RIGHT = re.compile("NOPERM|ACL failure|no permissions|can't run this command|can't access at least one")

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def refuse_for_ever(error: RedisError, address: Address) -> None:
    """Nothing, where waiting may help.

    Args:
        error: what using the servers came to.
        address: of the servers.

    Raises:
        ConfigurationError: it will not: with one sentence that says what to write.
    """
    text = str(error)
    if address.is_tls:
        _refuse_certificates(text, address)
    if address.master_name:
        _refuse_sentinels(error, address)
    _refuse_account(error, text)
    _refuse_kind(text, address)
    if isinstance(error, RedisConnectionError | RedisTimeoutError) and address.hosts and not address.master_name:
        _refuse_encryption(address)


def store_error(error: RedisError) -> StoreError:
    """Any failure of the client, as the port's one error."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, MasterNotFoundError):  # which describes each Sentinel at length
        head, _, causes = said.partition(" : ")
        said = f"{head} ({', '.join(sorted(set(re.findall('[A-Za-z]+Error', causes))) or ['they know none'])})"
    if isinstance(error, NoPermissionError) or (isinstance(error, ResponseError) and NO_RIGHT.search(str(error))):
        said += " (the rights that are needed: docs/servers.md)"
    return StoreError(said)


def _refuse_certificates(text: str, address: Address) -> None:
    for name in _FILES:
        path = address.options.get(name)
        if path and not Path(path).exists():
            refuse(f"names a file that is not there: {name}={path}")
    if re.search("hostname mismatch|address mismatch|doesn't match", text, re.IGNORECASE):
        refuse("names a server whose certificate is another's: write the name that it was made for")
    if re.search("NO_CERTIFICATE|NO_START_LINE|PEM lib", text):
        refuse("names a file that holds no certificate: see ssl_ca_certs, ssl_certfile and ssl_keyfile")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        why = "has expired" if "expired" in text else "is not trusted: name the authority that signed it"
        refuse(
            f"names a server whose certificate {why}, coord_url = 'rediss://host:6379/0?ssl_ca_certs=/path/to/ca.pem'"
        )
    asks = "CERTIFICATE_REQUIRED" in text or ("EOF occurred" in text and _asks_for_certificate(address))
    if asks and not address.options.get("ssl_certfile"):
        refuse(
            "names a server that asks for a certificate of yours: name it, and its key, "
            "coord_url = 'rediss://host:6379/0?ssl_certfile=/path/to/cert.pem&ssl_keyfile=/path/to/key.pem'"
        )


def _refuse_sentinels(error: RedisError, address: Address) -> None:
    if isinstance(error, MasterNotFoundError) and "AuthenticationError" in str(error):
        refuse(
            "names Sentinels that refuse us: check their user and password, "
            "coord_url = 'sentinel://sentinel-1:26379/0?master_name=mymaster&sentinel_password=...'"
        )
    if re.search(r"unknown command\W+sentinel", str(error), re.IGNORECASE):
        refuse(f"names a server that is no Sentinel: write {CLUSTER if _is_node(address) else SERVER}")
    if isinstance(error, MasterNotFoundError) and address.is_unknown_to_sentinels():
        refuse(f"names Sentinels that watch no {address.master_name!r}: write the name that they know, {SENTINEL}")


def _is_node(address: Address) -> bool:
    """Whether what stands there is the node of a cluster."""
    try:
        return address.server(address.hosts[0]).info("server").get("redis_mode") == "cluster"
    except RedisError:
        return False


def _refuse_account(error: RedisError, text: str) -> None:
    # The third is what a server says that wants a password, and is sent something long without one.
    refuses = re.search("NOAUTH|WRONGPASS|unauthenticated", text)
    if isinstance(error, AuthenticationError | AuthorizationError) or refuses:
        refuse(
            f"names a server that refuses us ({type(error).__name__}): "
            "check its user and password, coord_url = 'redis://user:password@host:6379/0'"
        )
    if isinstance(error, NoPermissionError) or (isinstance(error, ResponseError) and NO_RIGHT.search(text)):
        refuse(f"names a user who lacks a right ({text.strip()}): those that are needed are in docs/servers.md")


def _refuse_kind(text: str, address: Address) -> None:
    said = text.lower()
    if "cluster support disabled" in said:
        refuse(f"names a server that is no cluster: write {SERVER}")
    if re.search(r"unknown command\W+cluster", said):
        refuse(f"names a Sentinel, not a node of a cluster: write {SENTINEL}")
    if re.search(r"unknown command\W+hello", said):
        refuse(f"names a server that is too old: Redis {dotted(OLDEST)} or Valkey is needed")
    if "db index is out of range" in said:
        refuse(f"names the database {address.options.get('db')}, which the server does not have: write {SERVER}")


def _refuse_encryption(address: Address) -> None:
    """Nothing is sent that says more than that somebody is here."""
    host = address.hosts[0]
    if address.is_tls and _speaks_plainly(host, address.timeout):
        refuse(f"asks for TLS, and names a server that speaks no TLS there: write {SERVER}")
    if not address.is_tls and _speaks_tls(host, address.timeout):
        refuse("names a server that speaks TLS there: write coord_url = 'rediss://host:6379/0'")


def _speaks_plainly(host: tuple[str, int], timeout: float) -> bool:
    try:
        with connected(host, timeout) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(1) in (b"+", b"-")
    except OSError:
        return False


def _asks_for_certificate(address: Address) -> bool:
    """It says so to who waits for its answer. A balancer with nobody behind it closes, too, and says nothing."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    try:
        with connected(address.hosts[0], address.timeout) as probe, anybody.wrap_socket(probe) as tls:
            tls.recv(1)
    except OSError as error:
        return "CERTIFICATE_REQUIRED" in str(error)
    return False


def _speaks_tls(host: tuple[str, int], timeout: float) -> bool:
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    try:
        with connected(host, timeout) as probe, anybody.wrap_socket(probe):
            return True
    except OSError:
        return False
