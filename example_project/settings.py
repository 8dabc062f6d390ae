"""Settings: Celery's own, those of celery_coord (``coord_``) and the monitor's, from the environment.

One server does four jobs here: broker, results, coordination and state. Give each its own URL when they grow apart.
"""

from __future__ import annotations

import os
from pathlib import Path

#: Every environment variable that is read, and what holds where it is not set.
ENVIRONMENT = {
    "MONITOR_REDIS_URL": "redis://127.0.0.1:6379/0",
    "MONITOR_INVENTORY": str(Path(__file__).with_name("inventory.toml")),
    "MONITOR_SCHEDULE_FILE": "celerybeat-schedule",
    "MONITOR_QUIET_SECONDS": "10",
    "MONITOR_LEASE_SECONDS": "5",
    "MONITOR_LEADER_SECONDS": "3",
    "MONITOR_DISCOVER_SECONDS": "1",
    "MONITOR_SAMPLES": "5",
    "MONITOR_SAMPLE_SECONDS": "0.3",
    "MONITOR_API_RATE": "20",
}


def _said(name: str) -> str:
    return os.environ.get(name) or ENVIRONMENT[name]


# The monitor's own. Names in capitals, so that Celery does not take them for its settings.
REDIS_URL = _said("MONITOR_REDIS_URL")
INVENTORY = Path(_said("MONITOR_INVENTORY"))
QUIET_SECONDS = float(_said("MONITOR_QUIET_SECONDS"))
LEASE_SECONDS = float(_said("MONITOR_LEASE_SECONDS"))
SAMPLES = int(_said("MONITOR_SAMPLES"))
SAMPLE_SECONDS = float(_said("MONITOR_SAMPLE_SECONDS"))
DISCOVER_SECONDS = float(_said("MONITOR_DISCOVER_SECONDS"))
API_RATE = float(_said("MONITOR_API_RATE"))

# Celery's.
broker_url = REDIS_URL
result_backend = REDIS_URL
result_expires = 600
broker_connection_retry_on_startup = True
worker_prefetch_multiplier = 1
beat_schedule_filename = _said("MONITOR_SCHEDULE_FILE")
beat_schedule = {
    "discover": {"task": "example_project.tasks.discover", "schedule": DISCOVER_SECONDS},
}
# A message is acknowledged when its run has ended, and comes back when the process that ran it was killed.
task_acks_late = True
task_reject_on_worker_lost = True

# celery_coord's.
coord_url = REDIS_URL
coord_namespace = "monitor"
coord_leader_ttl = float(_said("MONITOR_LEADER_SECONDS"))
