"""The settings of a Django project whose schedule is in its database; Celery itself is configured by the project."""

from __future__ import annotations

import os

SECRET_KEY = "none"
USE_TZ = True
INSTALLED_APPS = ["django_celery_beat"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("PROJECT_DATABASE", ":memory:"),
    }
}
