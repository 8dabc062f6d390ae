"""The Celery application: ``celery -A example_project.app worker``."""

from __future__ import annotations

from celery import Celery

app = Celery("monitor", include=["example_project.tasks", "example_project.components"])
app.config_from_object("example_project.settings")
