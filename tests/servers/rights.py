"""The least rights of the user that coordinates, as docs/servers.md prints them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "servers.md"
USER, PASSWORD = "coord", "secret"


def rules() -> list[str]:
    """What the user may: the words that stand behind its name."""
    return _printed(rf"ACL SETUSER {USER} (on .*lock:.*)")


def rules_in_a_file() -> str:
    """The same as a line of a file of users."""
    return " ".join(["user", USER, *_printed(rf"user {USER} (on .*)")])


def rules_in_a_cluster() -> list[str]:
    """What the user may beside, on the nodes of a cluster."""
    return _printed(rf"ACL SETUSER {USER} (\+.*cluster.*)")


def rules_with_replicas() -> list[str]:
    """What the user may beside, where `coord_min_replicas` is set."""
    return _printed(rf"ACL SETUSER {USER} (\+wait)")


def rules_of_sentinels() -> list[str]:
    """What the user may on the sentinels."""
    return _printed(rf"ACL SETUSER {USER} (on .*sentinel.*)")


def rules_of_sentinels_that_know_others() -> list[str]:
    """What the user may beside, on the sentinels, where `min_other_sentinels` is set."""
    return _printed(rf"ACL SETUSER {USER} (\+sentinel.*)")


def server_options() -> list[str]:
    """What a server is started with to have the user, also when it is started again."""
    return ["--user", USER, *rules()]


def url_of_user(url: str) -> str:
    """A URL that names nobody, for the user."""
    return url.replace("://", f"://{USER}:{PASSWORD}@")


def grant(client: Any, given: Sequence[str]) -> None:
    """Let the user do this and nothing else, on the server of a client that may say so."""
    client.execute_command("ACL", "SETUSER", USER, "reset", *given)


def _printed(line: str) -> list[str]:
    """The words of the one line of the page that is so."""
    [words] = re.findall(rf"^{line}$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return str(words).split()
