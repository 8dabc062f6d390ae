"""A user's own subclasses of `DatabaseScheduler`: they need a Django project around them."""

from __future__ import annotations

import time
from pathlib import Path

from django.db import connection
from django_celery_beat.schedulers import DatabaseScheduler
from users_schedulers import TROUBLE, TROUBLED


class HangingDatabaseScheduler(DatabaseScheduler):
    """Its look at the table takes as long as there is trouble; then it goes on where it was."""

    def schedule_changed(self) -> bool:
        while Path(TROUBLE).exists():
            time.sleep(0.05)
        return bool(super().schedule_changed())


class ReadingDatabaseScheduler(DatabaseScheduler):
    """It is in the middle of a query as long as there is trouble."""

    def schedule_changed(self) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT id FROM django_celery_beat_periodictask UNION SELECT id FROM django_migrations")
            cursor.fetchone()
            while Path(TROUBLE).exists():
                Path(TROUBLED).touch()
                time.sleep(0.05)
        return bool(super().schedule_changed())
