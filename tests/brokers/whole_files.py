"""Messages in files that are whole as soon as they can be seen.

Kombu makes the file of a message where others look for one, and writes it then: who takes it in between takes nothing,
and ends. That is not what is tried here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from kombu.transport.filesystem import Channel

_put = Channel._put


def write_whole() -> None:
    """Let this process write each message elsewhere, and then move it to the others."""
    Channel._put = _put_whole


def _put_whole(channel: Any, queue: str, payload: Any, **kwargs: Any) -> None:
    folder = channel.data_folder_out
    with tempfile.TemporaryDirectory(dir=channel.control_folder) as aside:
        channel.data_folder_out = aside
        try:
            _put(channel, queue, payload, **kwargs)
        finally:
            channel.data_folder_out = folder
        [message] = Path(aside).iterdir()
        message.rename(Path(folder, message.name))
