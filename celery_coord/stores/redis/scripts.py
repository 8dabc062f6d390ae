"""Scripts are source: one act a file, sent by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from celery_coord.stores.redis.lines import Command
from celery_coord.stores.redis.servers import Servers

#: One call of a script: its keys and its arguments.
Call = tuple[Sequence[str], Sequence[str | int]]


class Script:
    """One act.

    Args:
        name: the verb, which is the name of the file.
        after: the files of what must stand before it.
        writes: whether it does, so that replicas have to confirm it.
    """

    def __init__(self, name: str, *, after: Sequence[str] = (), writes: bool = True) -> None:
        self._writes = writes
        self.source = "".join(map(_read, (*after, name)))
        self._digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def run(self, servers: Servers, keys: Sequence[str], *args: str | int) -> Any:
        """Call it once; a server that does not know it yet learns it."""
        try:
            return servers.ask(keys[0], self._by_digest(keys, args), confirm=self._writes)
        except NoScriptError:
            return servers.ask(keys[0], self._by_source(keys, args), confirm=self._writes)

    def run_many(self, servers: Servers, calls: Sequence[Call]) -> list[Any]:
        """Call it many times in one round trip; an answer may be an error, which is that call's alone."""
        answers = servers.ask_many([(keys[0], self._by_digest(keys, args)) for keys, args in calls])
        unknown = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = [calls[number] for number in unknown]
            learnt = servers.ask_many([(keys[0], self._by_source(keys, args)) for keys, args in again])
            for number, answer in zip(unknown, learnt, strict=True):
                answers[number] = answer
        return answers

    def _by_digest(self, keys: Sequence[str], args: Sequence[str | int]) -> Command:
        return ("EVALSHA", self._digest, len(keys), *keys, *args)

    def _by_source(self, keys: Sequence[str], args: Sequence[str | int]) -> Command:
        return ("EVAL", self.source, len(keys), *keys, *args)


def _read(name: str) -> str:
    return files("celery_coord.stores.redis").joinpath(f"{name}.lua").read_text(encoding="utf-8")
