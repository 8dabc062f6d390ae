"""The application that the beats of these tests run: ``celery -A beat_project ...``, its schedule came as JSON."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from celery import signals
from celery.schedules import crontab, solar
from coord_project import app

__all__ = ["app"]

#: While this file exists in the folder of a beat, its messages take that long; and the file that tells that one does.
SLOW, SENDING = "slow", "sending"


def _schedule(written: Any) -> Any:
    """A number of seconds, ``{"crontab": {...}}``, or ``{"solar": [event, latitude, longitude]}``."""
    if isinstance(written, dict):
        return solar(*written["solar"]) if "solar" in written else crontab(**written["crontab"])
    return written


app.conf.beat_schedule = {
    name: {**entry, "schedule": _schedule(entry["schedule"])} for name, entry in app.conf.beat_schedule.items()
}


@signals.before_task_publish.connect
def _send_slowly(**_: Any) -> None:
    while Path(SLOW).exists():
        Path(SENDING).touch()
        time.sleep(0.02)
