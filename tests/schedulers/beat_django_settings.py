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
        # Who reads before it writes is otherwise refused at once where another writes meanwhile.
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
    }
}
