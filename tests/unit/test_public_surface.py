from __future__ import annotations

import re
from importlib.metadata import entry_points, requires
from importlib.resources import files

import celery_coord


def test_the_exported_names_are_what_they_should_be() -> None:
    assert sorted(celery_coord.__all__) == celery_coord.__all__
    assert set(celery_coord.__all__) == {
        "ConfigurationError",
        "Cooldown",
        "CooldownTask",
        "Cooling",
        "CoordError",
        "CoordinatedTask",
        "Dropped",
        "Election",
        "Exclusive",
        "ExclusiveTask",
        "Held",
        "Holding",
        "Leader",
        "LeaseLost",
        "Look",
        "NoLease",
        "NotLeader",
        "ParentLease",
        "StoreError",
        "TaskDropped",
        "UnstableKey",
        "component",
        "current_lease",
        "parent_lease",
        "signals",
    }
    assert all(hasattr(celery_coord, name) for name in celery_coord.__all__)


def test_the_package_is_typed_and_brings_nothing_else() -> None:
    assert files("celery_coord").joinpath("py.typed").is_file()
    needed = {line.split(";")[0] for line in requires("celery_coord") or [] if "extra ==" not in line}
    assert {re.split(r"[<>!]", name)[0] for name in needed} == {
        "celery",
        "kombu[redis]",
        "redis",
        "python-redis-lock",
    }


def test_the_scheduler_has_an_alias() -> None:
    [alias] = [entry for entry in entry_points(group="celery.beat_schedulers") if entry.name == "coord"]

    assert alias.value == "celery_coord.beat:LeaderScheduler"


def test_operators_have_a_command() -> None:
    [command] = [entry for entry in entry_points(group="celery.commands") if entry.name == "coord"]

    assert command.value == "celery_coord.cli:coord"
