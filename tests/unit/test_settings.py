from __future__ import annotations

import re
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from celery_coord import ConfigurationError
from celery_coord.app import coordination
from celery_coord.settings import SETTINGS, Settings

REDIS = "redis://127.0.0.1:1/3"


def app_with(**conf: Any) -> Celery:
    app = Celery("settings", broker="memory://", set_as_current=False)
    app.conf.update(conf)
    return app


def of(**conf: Any) -> Settings:
    return Settings.of(app_with(**conf))


def test_settings_are_read_from_attributes() -> None:
    app = app_with()
    app.conf.coord_url = REDIS
    app.conf.coord_lease_ttl = 12

    assert Settings.of(app).url == REDIS
    assert Settings.of(app).lease_ttl == 12


@pytest.mark.parametrize("names", [("coord_url", "coord_lease_ttl"), ("COORD_URL", "COORD_LEASE_TTL")])
def test_settings_are_read_from_a_module(names: tuple[str, str]) -> None:
    module = ModuleType("celeryconfig")
    setattr(module, names[0], REDIS)
    setattr(module, names[1], 12)
    app = Celery("settings", broker="memory://", set_as_current=False)
    app.config_from_object(module)

    assert Settings.of(app).url == REDIS
    assert Settings.of(app).lease_ttl == 12


def test_settings_are_read_from_a_namespace_as_django_projects_have_it() -> None:
    settings = SimpleNamespace(
        CELERY_COORD_URL=REDIS, CELERY_COORD_LEASE_TTL=12, CELERY_BROKER_URL="memory://", DEBUG=True
    )
    app = Celery("settings", set_as_current=False)
    app.config_from_object(settings, namespace="CELERY")

    assert Settings.of(app).url == REDIS
    assert Settings.of(app).lease_ttl == 12


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = of(coord_url=REDIS)

    assert (settings.lease_ttl, settings.leader_ttl) == (30, 10)
    assert (settings.on_conflict, settings.on_drop, settings.on_store_error) == ("drop", "revoke", "retry")


def test_a_run_is_remembered_for_as_long_as_the_broker_may_deliver_its_message_again() -> None:
    assert of(coord_url=REDIS).done_ttl == 3600 + 600
    assert of(coord_url=REDIS, broker_transport_options={"visibility_timeout": 7200}).done_ttl == 7200 + 600
    assert of(coord_url=REDIS, coord_done_ttl=60).done_ttl == 60
    with pytest.raises(ConfigurationError, match="coord_done_ttl is more than 0 seconds"):
        of(coord_url=REDIS, coord_done_ttl=0)


def test_without_a_url_the_result_backend_serves_else_the_broker() -> None:
    other = "redis://127.0.0.1:2/0"

    assert of(result_backend=REDIS, broker_url=other).url == REDIS
    assert of(result_backend="db+sqlite://", broker_url=other).url == other
    assert of(coord_url="memory://", result_backend=REDIS).url == "memory://"


@pytest.mark.parametrize(
    ("borrowed", "meant"),
    [
        ("redis://", "redis://localhost"),
        ("redis:///1", "redis://localhost/1"),
        ("redis://:pw@/1", "redis://:pw@localhost/1"),
        ("redis://:7000/1", "redis://localhost:7000/1"),
    ],
)
def test_a_borrowed_url_without_a_host_is_this_machine_as_it_is_for_celery(borrowed: str, meant: str) -> None:
    assert of(broker_url=borrowed).url == meant


def test_settings_can_be_shown_without_showing_a_password() -> None:
    assert "hunter2" not in repr(of(coord_url="redis://:hunter2@localhost/0"))


@pytest.mark.parametrize("broker", ["memory://", "amqp://", "redis://a;redis://b"])
def test_without_any_redis_the_app_says_what_to_write(broker: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no store: .* write coord_url = 'redis://127.0.0.1:6379/0'"):
        of(broker_url=broker)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coord_lease_ttl", "30"),
        ("coord_lease_ttl", 0),
        ("coord_leader_ttl", -1),
        ("coord_store_timeout", "soon"),
        ("coord_max_hold", True),
        ("coord_on_drop", "ignore"),
        ("coord_on_conflict", "wait"),
        ("coord_on_store_error", 5),
        ("coord_namespace", ""),
        ("coord_namespace", "a{b}"),
        ("coord_namespace", 7),
        ("coord_beat_scheduler", 7),
        ("coord_url", 7),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named_in_the_error(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name):
        of(**{"coord_url": REDIS, name: value})


def test_a_misspelt_setting_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigurationError, match="no setting 'coord_lease_tll': did you mean 'coord_lease_ttl'"):
        of(coord_url=REDIS, coord_lease_tll=5)
    settings = SimpleNamespace(CELERY_COORD_URL=REDIS, CELERY_COORD_ULR=REDIS)
    app = Celery("settings", set_as_current=False)
    app.config_from_object(settings, namespace="CELERY")
    with pytest.raises(ConfigurationError, match="no setting 'coord_ulr'"):
        Settings.of(app)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "redis:/localhost",
        "http://user:hunter2@localhost",
        "redis://user:hunter2@localhost:notaport",
        "redis://user:hunter2@localhost/db",
        "redis://user:hunter2@/0",
        "redis://:hun/ter2@localhost:6379",
        "redis://user:12#hunter2@localhost:6379/0",
        "rediss://:hunter2@localhost/0?ssl_cert_reqs=perhaps",
        "unix://",
        "redis+socket://",
    ],
)
def test_a_malformed_url_is_refused_without_repeating_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="coord_url") as refused:
        coordination(app_with(coord_url=url))

    assert "hunter2" not in str(refused.value)
    assert "ter2" not in str(refused.value)
    assert re.search(r"write coord_url = '(redis|unix|redis\+socket)://", str(refused.value))


def test_every_setting_says_what_it_means() -> None:
    assert all(setting.meaning.endswith(".") and setting.kind for setting in SETTINGS)
