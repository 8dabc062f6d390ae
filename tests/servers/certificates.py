"""A certificate authority of our own, with a certificate for a server and one for its clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode

import trustme


@dataclass(frozen=True)
class Certificates:
    """The files of one authority: its own certificate, and certificates and keys that it has issued."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    @property
    def server_options(self) -> list[str]:
        """What a server is started with: it accepts clients with a certificate of the authority alone."""
        files = {"cert": self.server, "key": self.server_key, "ca-cert": self.authority}
        given = [word for name, path in files.items() for word in (f"--tls-{name}-file", str(path))]
        return [*given, "--tls-auth-clients", "yes"]

    def on_port(self, port: int) -> list[str]:
        """What a server is started with to speak TLS on a port, to its clients and to other servers."""
        return ["--tls-port", str(port), *self.server_options, "--tls-replication", "yes"]

    @property
    def options(self) -> dict[str, str]:
        """What a client is given, by the names that redis-py has."""
        files = {"ssl_ca_certs": self.authority, "ssl_certfile": self.client, "ssl_keyfile": self.client_key}
        return {name: str(path) for name, path in files.items()}

    @property
    def query(self) -> str:
        """The same as the query of a URL; names are checked, as newer releases of redis-py do it unasked."""
        return urlencode({**self.options, "ssl_check_hostname": "true"}, safe="/")


@contextmanager
def issued(host: str = "127.0.0.1") -> Iterator[Certificates]:
    """Certificates of a new authority, for as long as the block lasts; that of the server names the host alone."""
    with TemporaryDirectory(prefix="celery-coord-tls-") as folder:
        where, authority = Path(folder), trustme.CA()
        names = Certificates(
            *(where / f"{name}.pem" for name in ("ca", "server", "server-key", "client", "client-key"))
        )
        authority.cert_pem.write_to_path(names.authority)
        for identity, certificate, key in (
            (host, names.server, names.server_key),
            ("worker@example.org", names.client, names.client_key),
        ):
            issue = authority.issue_cert(identity)
            issue.cert_chain_pems[0].write_to_path(certificate)
            issue.private_key_pem.write_to_path(key)
        yield names
