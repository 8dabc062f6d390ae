from __future__ import annotations

import inspect
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from kombu.utils import json

from celery_coord import ConfigurationError, UnstableKey
from celery_coord.keys import KeyMaker, KeySpec, canonical


def refresh(cluster: Any, deep: Any = 2.0, *, nodes: Any = (1, 2)) -> None: ...


def maker(spec: KeySpec = None, body: Callable[..., Any] = refresh, *, private: bool = False) -> Callable[..., str]:
    make = KeyMaker("proj.refresh", inspect.signature(body), spec, private=private)
    return lambda *args, **kwargs: make(args, kwargs)


def test_one_call_has_one_key_however_it_is_spelt() -> None:
    key = maker()

    assert key("a") == key(cluster="a") == key("a", 2.0) == key("a", deep=2.0, nodes=[1, 2]) == key("a", nodes=(1, 2))
    assert key("a") == "proj.refresh(cluster=a,deep=2.0,nodes=[1,2])"


def test_named_arguments_alone_make_the_key() -> None:
    key = maker(["cluster"])

    assert key("a", deep=1) == key("a", deep=2) == "proj.refresh(cluster=a)"
    assert key("a") != key("b")


def test_a_number_and_its_text_are_different_arguments() -> None:
    key = maker(["cluster"])

    assert key(7) == "proj.refresh(cluster=7)"
    assert key("7") == 'proj.refresh(cluster="7")'
    assert len({key(None), key("null"), key(True), key("true"), key(1), key("1"), key("")}) == 7


def test_a_template_is_one_key_for_several_tasks_and_takes_a_number_as_its_text() -> None:
    key = maker("cluster:{cluster}")

    assert key(7) == key("7") == "cluster:7"
    assert key("alpha") == "cluster:alpha"


def test_no_argument_of_a_template_can_look_like_the_text_beside_it() -> None:
    key = maker("pair:{cluster}:{deep}")

    assert key("1:2", "3") != key("1", "2:3")


def test_a_callable_gets_the_arguments_that_it_names() -> None:
    key = maker(lambda cluster: cluster["id"])

    assert key({"id": "x", "noise": 1}) == "proj.refresh(x)"


def test_a_callable_that_takes_everything_gets_everything() -> None:
    assert maker(lambda **arguments: sorted(arguments))("a") == "proj.refresh([cluster,deep,nodes])"


def test_a_long_or_unplain_key_is_a_digest() -> None:
    key = maker(["cluster"])

    for unplain in ("x" * 200, "with {braces}", "new\nline", "späti"):
        made = key(unplain)
        assert made.startswith("proj.refresh(#")
        assert len(made) < 60
    assert key("x" * 200) != key("x" * 201)


def test_private_arguments_are_never_readable_in_the_key() -> None:
    named, templated = maker(["cluster"], private=True), maker("customer:{cluster}", private=True)

    assert "alice" not in named("alice@example.org")
    assert templated("alice@example.org").startswith("customer:#")
    assert named("alice@example.org") == named("alice@example.org") != named("bob@example.org")


def test_arguments_by_position_and_by_any_name_are_arguments() -> None:
    def body(*parts: Any, **options: Any) -> None: ...

    assert maker(body=body)(1, 2, b=1, a=2) == maker(body=body)(1, 2, a=2, b=1)
    assert maker(["a"], body)(a=1) != maker(["a"], body)(a=2)


class Colour(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1


class Kind(StrEnum):
    A = "a"


@dataclass
class Point:
    x: int
    y: Any = None


ROUND_TRIPS = [
    (1, 2),
    {"b": 1, "a": (2, {"c": None})},
    {1: "x", None: "y", True: "z"},
    datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    datetime(2026, 1, 2, 3, 4),  # noqa: DTZ001
    date(2026, 1, 2),
    time(3, 4),
    uuid.UUID(int=7),
    Decimal("1.10"),
    b"\x00\xff",
    b"text",
    Level.LOW,
    Kind.A,
    1.0,
    10**30,
    "späti \u2603 \ud83d",
]


@pytest.mark.parametrize("value", ROUND_TRIPS, ids=repr)
def test_a_key_is_the_same_before_and_after_the_json_round_trip(value: Any) -> None:
    [args, kwargs] = json.loads(json.dumps([[value], {"deep": value}]))

    assert maker()(value, deep=value) == maker()(*args, **kwargs)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(plain)
def test_any_plain_value_keeps_its_text_over_the_json_round_trip(value: Any) -> None:
    assert canonical(json.loads(json.dumps(value))) == canonical(value)


@settings(deadline=None)
@given(plain, plain)
def test_two_values_that_json_tells_apart_have_two_texts(one: Any, other: Any) -> None:
    same = json.dumps(json.loads(json.dumps(one)), sort_keys=True) == json.dumps(
        json.loads(json.dumps(other)), sort_keys=True
    )

    assert (canonical(one) == canonical(other)) == same


def test_sets_enumerations_lengths_and_dataclasses_have_a_text() -> None:
    assert canonical({"b", "a"}) == canonical({"a", "b"}) == "set(a,b)"
    assert canonical(Colour.RED) == "Colour.RED"
    assert canonical(timedelta(seconds=1)) == "timedelta(1000000)"
    assert canonical(Point(1)) == 'Point{"x":1,"y":null}'


def test_an_object_that_serializes_itself_is_what_it_serializes_to() -> None:
    class Cluster:
        def __json__(self) -> dict[str, int]:
            return {"id": 7}

    assert canonical(Cluster()) == canonical({"id": 7})


def test_an_argument_without_a_stable_form_is_refused_with_what_to_pass_instead() -> None:
    with pytest.raises(UnstableKey, match="an argument of type object has no stable form .* pass an id instead"):
        maker()(object())


def test_a_key_is_the_same_in_every_process_and_under_every_hash_seed() -> None:
    code = (
        "import inspect\nfrom celery_coord.keys import KeyMaker\ndef f(a, b=2.0): ...\n"
        "print(KeyMaker('t', inspect.signature(f), None)(({'x', 'y', 'z'}, {'k': 1, 'j': (2, 3)}), {}))"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "4711")
    }

    assert len(keys) == 1


BAD_SPECS: list[tuple[Any, str]] = [
    (["clutser"], "key names the argument 'clutser', which the task lacks .*did you mean 'cluster'"),
    ("cluster:{clutser}", "which the task lacks .*did you mean 'cluster'"),
    (lambda clutser: clutser, "which the task lacks .*did you mean 'cluster'"),
    ("cluster", r"write key=\['cluster'\]"),
    ("", "key is empty"),
    ("x:{cluster.id}", "give key a callable"),
    ("x:{cluster!r}", "give key a callable"),
    ("x:{cluster:>3}", "give key a callable"),
    ("x:{}", "give key a callable"),
    ("x:{cluster", "is not a template"),
    ("leader:{cluster}", "which elections use"),
    (lambda cluster, /: cluster, "by position only"),
    (7, r"write key=\['cluster_id'\]"),
    ([], r"write key=\['cluster_id'\]"),
    ([7], r"write key=\['cluster_id'\]"),
]


@pytest.mark.parametrize(("spec", "message"), BAD_SPECS)
def test_a_wrong_key_is_refused_with_what_to_write(spec: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        maker(spec)
