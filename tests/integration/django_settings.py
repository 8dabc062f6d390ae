"""The settings of a Django project, as far as Celery is concerned."""

from __future__ import annotations

import os

SECRET_KEY = "none"
INSTALLED_APPS: list[str] = []
CELERY_BROKER_URL = CELERY_RESULT_BACKEND = os.environ["PROJECT_URL"]
CELERY_COORD_URL = os.environ["PROJECT_STORE"]
