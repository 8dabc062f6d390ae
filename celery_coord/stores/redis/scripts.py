"""Scripts are source: one act a file, sent by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import redis
from redis.exceptions import NoScriptError

from celery_coord.stores.redis.lines import Lines

#: One call of a script: its keys and its arguments.
Call = tuple[Sequence[str], Sequence[str | int]]


class Script:
    """One act.

    Args:
        name: the verb, which is the name of the file.
        after: the file of what must stand before it.
    """

    def __init__(self, name: str, *, after: str = "") -> None:
        self.source = (_read(after) if after else "") + _read(name)
        self._digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def run(self, lines: Lines, keys: Sequence[str], *args: str | int) -> Any:
        """Call it once; a server that does not know it yet learns it."""
        try:
            return lines.ask("EVALSHA", self._digest, len(keys), *keys, *args)
        except NoScriptError:
            return lines.ask("EVAL", self.source, len(keys), *keys, *args)

    def run_many(self, client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
        """Call it many times in one round trip; an answer may be an error, which is that call's alone."""
        answers = self._pipelined(client, calls)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            client.script_load(self.source)
            answers = self._pipelined(client, calls)
        return answers

    def _pipelined(self, client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
        with client.pipeline(transaction=False) as pipeline:
            for keys, args in calls:
                pipeline.evalsha(self._digest, len(keys), *keys, *args)
            return pipeline.execute(raise_on_error=False)


def _read(name: str) -> str:
    return files("celery_coord.stores.redis").joinpath(f"{name}.lua").read_text(encoding="utf-8")
