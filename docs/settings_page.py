"""Writes the page on settings from the settings themselves: ``python -m docs.settings_page``."""

from __future__ import annotations

from pathlib import Path

from celery_coord.settings import PREFIX, SETTINGS, Setting

PAGE = Path(__file__).with_name("settings.md")

_BEFORE = """\
# Settings

<!-- Written by `python -m docs.settings_page`: change celery_coord/settings.py instead. -->

Settings are Celery settings with the prefix `coord_`. They are read when they are first needed, and checked then: a
worker or a beat with a setting that is misspelt, of the wrong kind or out of range does not start, and says in one
sentence what to write.

| setting | default | kind | meaning |
|---|---|---|---|
"""

_AFTER = """
A length of time is a number of seconds or a `timedelta`.

## Where to write them

Where you write Celery's own settings. On the application:

```python
from celery import Celery

app = Celery("fleet")
app.conf.coord_url = "memory://"
app.conf.coord_lease_ttl = 30
```

In a module or an object, with a namespace, as Django projects have it:

```python
class DjangoSettings:
    CELERY_COORD_URL = "memory://"
    CELERY_COORD_LEASE_TTL = 30


app = Celery("fleet")
app.config_from_object(DjangoSettings, namespace="CELERY")
```

In a module or an object without one, as `coord_url` or as `COORD_URL`:

```python
class Configuration:
    coord_url = "memory://"
    coord_lease_ttl = 30


app = Celery("fleet")
app.config_from_object(Configuration)
```

## What goes before what

An option of a task goes before the setting: `Exclusive(ttl=5)` before `coord_lease_ttl`, `Exclusive(max_hold=60)` and
then the task's time limit before `coord_max_hold`, `on_drop="return"` before `coord_on_drop`.
"""


def page() -> str:
    """The whole page."""
    return _BEFORE + "".join(map(_row, SETTINGS)) + _AFTER


def _row(setting: Setting) -> str:
    return f"| `{PREFIX}{setting.name}` | {_default(setting)} | {setting.kind} | {setting.meaning} |\n"


def _default(setting: Setting) -> str:
    if setting.default is None:
        return "none"
    return f"`{setting.default:g}`" if isinstance(setting.default, float) else f"`{setting.default}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
