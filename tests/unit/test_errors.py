from __future__ import annotations

import pickle

import pytest

from celery_coord import (
    ConfigurationError,
    CoordError,
    Dropped,
    LeaseLost,
    NoLease,
    StoreError,
    TaskDropped,
    UnstableKey,
)


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("write this"),
        UnstableKey("no form"),
        NoLease("none"),
        LeaseLost("k", "run/0/x"),
        StoreError("away"),
        TaskDropped("held", "k", "run/0/x", 1.5),
    ],
)
def test_an_error_pickles_and_rebuilds_from_its_args(error: Exception) -> None:
    for again in (pickle.loads(pickle.dumps(error)), type(error)(*error.args)):
        assert type(again) is type(error)
        assert again.args == error.args
        assert str(again) == str(error)


def test_every_error_of_ours_is_a_coord_error_but_what_celery_hands_to_waiters() -> None:
    assert all(
        issubclass(error, CoordError) for error in (ConfigurationError, UnstableKey, NoLease, LeaseLost, StoreError)
    )
    assert not issubclass(TaskDropped, CoordError)


def test_the_value_of_a_drop_is_a_plain_mapping_that_reads_back() -> None:
    dropped = Dropped("cooling", "k", "run/0/x", None)

    assert type(dropped.as_result()) is dict
    assert Dropped.of(dropped.as_result()) == dropped
    assert Dropped.of({"reason": "cooling"}) is None
    assert Dropped.of(None) is None
