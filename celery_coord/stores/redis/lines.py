"""Connections that stay with one user at a time, for the short acts of every run.

redis-py's pool asks the kernel about a connection each time it hands one out, and its client wraps each command in
layers that an act has no use for; together that costs more than the act. Here a connection goes back to the idle ones
only after an answer was read to its end. After anything else (an outage, a time limit in mid-request) it is closed:
the answer that may still come is nobody else's.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import redis
from redis.exceptions import ConnectionError as RedisConnectionError, ResponseError, TimeoutError as RedisTimeoutError


class Lines:
    """As many connections as there are callers at once.

    Args:
        client: whose pool they come from.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client  # redis-py has no types for what is called here
        self._idle: deque[Any] = deque()

    def ask(self, *command: str | float) -> Any:
        """Send one command, and return its answer. If that was lost, it is asked for once more: acts are idempotent."""
        try:
            return self._ask_once(command)
        except (RedisConnectionError, RedisTimeoutError):
            self.close()  # what ended this connection has probably ended the idle ones
            return self._ask_once(command)

    def _ask_once(self, command: tuple[str | float, ...]) -> Any:
        try:
            line = self._idle.pop()
        except IndexError:
            line = self._client.client()
        try:
            line.connection.send_command(*command)
            answer = line.connection.read_response()
        except ResponseError:
            self._idle.append(line)  # an answer as well
            raise
        except BaseException:
            if line.connection is not None:
                line.connection.disconnect()
            line.close()
            raise
        self._idle.append(line)
        return answer

    def close(self) -> None:
        """Give all idle connections back."""
        while True:
            try:
                line = self._idle.pop()
            except IndexError:
                return
            line.connection.disconnect()
            line.close()
