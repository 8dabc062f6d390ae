"""The database of a Django project, as its admin writes to it and as a test reads it: one SQLite file for each site."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import beat_django_settings
import django
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.test.utils import override_settings


class Database:
    """The schedule in a file, through Django's own models.

    Args:
        file: where it is; a file that is not there yet becomes a copy of the template.
        template: what `make_template` made.
    """

    def __init__(self, file: Path, template: Path) -> None:
        self.file = file
        if not file.exists():
            shutil.copy(template, file)

    def add(self, name: str, *, every: float | None = None, **fields: Any) -> None:
        """A new row, as a user adds it in the admin.

        Args:
            name: the entry's.
            every: its interval, in seconds; else `fields` say when it is due.
            fields: what else the row says.
        """
        from django_celery_beat.models import IntervalSchedule, PeriodicTask

        with self.connected():
            if every is not None:
                fields["interval"], _ = IntervalSchedule.objects.get_or_create(
                    every=timedelta(seconds=every) // timedelta(microseconds=1), period=IntervalSchedule.MICROSECONDS
                )
            PeriodicTask(name=name, task="note", args='["tick"]', **fields).save()

    def change(self, name: str, **fields: Any) -> None:
        """Change a row, as the admin does: the whole of it is read, and saved."""
        with self.connected():
            row = self._get(name)
            for field, value in fields.items():
                setattr(row, field, value)
            row.save()

    def row(self, name: str) -> Any:
        with self.connected():
            return self._get(name)

    def names(self) -> set[str]:
        """The entries there are."""
        from django_celery_beat.models import PeriodicTask

        with self.connected():
            return set(PeriodicTask.objects.values_list("name", flat=True))

    @staticmethod
    def _get(name: str) -> Any:
        from django_celery_beat.models import PeriodicTask

        return PeriodicTask.objects.get(name=name)

    def clock(self, when: datetime) -> Any:
        """An instant, for an entry that is due once."""
        from django_celery_beat.models import ClockedSchedule

        with self.connected():
            return ClockedSchedule.objects.create(clocked_time=when)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Let Django's models of this process use this file."""
        _use(self.file)
        try:
            yield
        finally:
            connection.close()


def make_template(file: Path) -> Path:
    """A database with the tables of `django_celery_beat`, and nothing in them."""
    _set_up()
    _use(file)
    call_command("migrate", verbosity=0)
    connection.close()
    return file


def _use(file: Path) -> None:
    connection.close()
    connection.settings_dict["NAME"] = str(file)
    connection.settings_dict["OPTIONS"] = dict(beat_django_settings.DATABASES["default"]["OPTIONS"])


@cache
def _set_up() -> None:
    values = {name: value for name, value in vars(beat_django_settings).items() if name.isupper()}
    if settings.configured:  # by a page that other tests run; its default is SQLite, too
        override_settings(**{name: value for name, value in values.items() if name != "DATABASES"}).enable()
    else:
        settings.configure(**values)
        django.setup()
