"""Settings as a module that is named, as Celery's own documentation begins with."""

from __future__ import annotations

import os

broker_url = result_backend = os.environ["PROJECT_URL"]
coord_url = os.environ["PROJECT_STORE"]
