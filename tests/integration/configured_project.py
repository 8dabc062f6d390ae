"""An application that is configured in the style that `PROJECT_STYLE` names; its store is not its broker."""

from __future__ import annotations

import os
import types
from collections.abc import Callable

from celery import Celery
from coord_project import URL, Project, declare_tasks, record_signals

#: The variable that names the style; the variable that names the store.
STYLE, STORE = "PROJECT_STYLE", "PROJECT_STORE"

BROKER = os.environ[URL]
STYLES: dict[str, Callable[[Celery, str], None]] = {}


def style(configure: Callable[[Celery, str], None]) -> Callable[[Celery, str], None]:
    STYLES[configure.__name__] = configure
    return configure


@style
def attribute(app: Celery, store: str) -> None:
    app.conf.broker_url = app.conf.result_backend = BROKER
    app.conf.coord_url = store


@style
def module(app: Celery, store: str) -> None:
    settings = types.ModuleType("settings_in_lower_case")
    vars(settings).update(broker_url=BROKER, result_backend=BROKER, coord_url=store)
    app.config_from_object(settings)


@style
def module_by_name(app: Celery, store: str) -> None:
    app.config_from_object("configured_settings")


@style
def namespace(app: Celery, store: str) -> None:
    settings = types.SimpleNamespace(CELERY_BROKER_URL=BROKER, CELERY_RESULT_BACKEND=BROKER, CELERY_COORD_URL=store)
    app.config_from_object(settings, namespace="CELERY")


@style
def upper_case(app: Celery, store: str) -> None:
    app.config_from_object({"BROKER_URL": BROKER, "CELERY_RESULT_BACKEND": BROKER, "COORD_URL": store})


@style
def django(app: Celery, store: str) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "django_settings"
    app.config_from_object("django.conf:settings", namespace="CELERY")


record_signals()
app = Project("project", set_as_current=False)
STYLES[os.environ[STYLE]](app, os.environ[STORE])
declare_tasks(app)
