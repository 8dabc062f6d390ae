"""Keys: a task and its arguments, as the name of what is guarded.

Equal arguments give one key, whatever the spelling of the call, the process, the hash seed or the Python version,
and before and after the JSON round trip that a message makes. So arguments are bound to the signature first, and
rendered in one canonical form:

* ``name(a=1,b=beta)`` where the key is made from arguments, all of them or those that are named;
* the filled-in template where there is one: ``cluster:7``;
* ``name(...)`` around what a callable returns.

A key is readable where it is short and plain. Otherwise its changing part is a digest: ``name(#5f2a...)``. A task
whose arguments are private always gets a digest, since keys show up in the store, in logs and on screens. A digest
is not a secret: who can guess the arguments can confirm the guess.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from string import Formatter
from typing import Any
from urllib.parse import quote
from uuid import UUID

from celery_coord.errors import ConfigurationError, UnstableKey
from celery_coord.policy import did_you_mean

#: What the option ``key`` may be; None: all arguments.
KeySpec = str | Iterable[str] | Callable[..., Any] | None
#: Arguments of a call, positional and by name -> what changes in the key.
Render = Callable[[Mapping[str, Any]], str]

#: What the keys of elections begin with.
LEADER_PREFIX = "leader:"

_LONGEST = 160
_DIGEST_BYTES = 16
_PLAIN_KEY = re.compile(r"[\w.,:;=()\[\]\"@%+/-]*", re.ASCII)
_PLAIN_WORD = re.compile(r"[A-Za-z][\w.@+/-]*", re.ASCII)
_JSON_WORDS = frozenset({"true", "false", "null", "NaN", "Infinity"})
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class KeyMaker:
    """Makes the key of each call of one task.

    Args:
        task: the task's name.
        signature: the signature of its body.
        spec: the option ``key``: argument names, a template, a callable, or None for all arguments.
        private: whether the arguments must not be readable in the key.

    Raises:
        ConfigurationError: `spec` is of the wrong kind, or names an argument that the task lacks.
    """

    def __init__(self, task: str, signature: inspect.Signature, spec: KeySpec, *, private: bool = False) -> None:
        self._signature = signature
        self._plain = _plain_parameters(signature)
        self._private = private
        self._before, self._render, self._after = _compile(task, signature, spec)

    def __call__(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> str:
        """The key of a call.

        Args:
            args: its positional arguments.
            kwargs: its arguments by name.

        Raises:
            TypeError: the arguments do not fit the task's signature.
            UnstableKey: an argument has no stable form.
        """
        text = self._render(self._bound(tuple(args), kwargs))
        if self._private or len(text) > _LONGEST or not _PLAIN_KEY.fullmatch(text):
            text = "#" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
        return f"{self._before}{text}{self._after}"

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the signature makes of the arguments; where each is given by position, without the cost of asking it."""
        if self._plain is not None and len(args) == len(self._plain) and not kwargs:
            return dict(zip(self._plain, args, strict=True))
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


def canonical(value: object) -> str:
    """The one text of a value: JSON where JSON has a word for it, bare where a string is plain.

    Raises:
        UnstableKey: the value has no form that is the same in every process.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return _scalar(value)
    if isinstance(value, Mapping):
        # As JSON has it: keys become text, and of two that become equal the last one wins.
        items = {_json_key(key): item for key, item in value.items()}
        return "{" + ",".join(f"{json.dumps(key)}:{canonical(items[key])}" for key in sorted(items)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(canonical, value)) + "]"
    return _tagged(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        plain = str.__str__(value)
        return plain if _PLAIN_WORD.fullmatch(plain) and plain not in _JSON_WORDS else json.dumps(plain)
    return str(value) if type(value) is int else json.dumps(value)


def _json_key(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, bool | int | float):
        return json.dumps(key)
    return canonical(key)


def _tagged(value: object) -> str:
    """The text of what JSON has no word for: ``kind(text)``, which no JSON text looks like."""
    match value:
        case bytes() | bytearray() | memoryview():
            return f"bytes({base64.b64encode(bytes(value)).decode()})"
        case datetime() | date() | time():
            return f"{type(value).__name__}({value.isoformat()})"
        case timedelta():
            return f"timedelta({value // timedelta(microseconds=1)})"
        case UUID() | Decimal():
            return f"{type(value).__name__.lower()}({value})"
        case set() | frozenset():
            return f"set({','.join(sorted(map(canonical, value)))})"
    return _composed(value)


def _composed(value: object) -> str:
    """The text of what is made by a program: an enumeration, a dataclass, or what serializes itself."""
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    reducer = getattr(value, "__json__", None)  # what kombu's serializer goes by
    if callable(reducer):
        return canonical(reducer())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return f"{type(value).__qualname__}{canonical(fields)}"
    msg = (
        f"an argument of type {type(value).__qualname__} has no stable form to make a key from: "
        "pass an id instead, or give the task key=[...] with arguments that have one, or a callable"
    )
    raise UnstableKey(msg)


def _compile(task: str, signature: inspect.Signature, spec: KeySpec) -> tuple[str, Render, str]:
    """What stands before the changing part of the key, how that is made, and what stands after it."""
    if spec is None:
        spec = list(signature.parameters)
        return f"{task}(", _from_names(task, signature, spec), ")"
    if isinstance(spec, str):
        if "{" not in spec:
            _refuse_single_name(task, signature, spec)
        return _from_template(task, signature, spec)
    if callable(spec):
        return f"{task}(", _from_callable(task, signature, spec), ")"
    if isinstance(spec, list | tuple | set | frozenset) and spec and all(isinstance(name, str) for name in spec):
        return f"{task}(", _from_names(task, signature, spec), ")"
    msg = f"{task}: key is a list of argument names, a template or a callable, not {spec!r}: write key=['cluster_id']"
    raise ConfigurationError(msg)


def _from_names(task: str, signature: inspect.Signature, names: Iterable[str]) -> Render:
    wanted = sorted(_known(task, signature, names))
    loose = _loose_keywords(signature)

    def render(arguments: Mapping[str, Any]) -> str:
        values = {**arguments.get(loose, {}), **arguments} if loose else arguments
        return ",".join(f"{name}={canonical(values.get(name))}" for name in wanted)

    return render


def _from_template(task: str, signature: inspect.Signature, template: str) -> tuple[str, Render, str]:
    pieces: list[tuple[str, str | None]] = []
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        msg = f"{task}: key={template!r} is not a template ({error}): write key='cluster:{{cluster_id}}'"
        raise ConfigurationError(msg) from None
    for literal, field, form, conversion in parsed:
        if field is not None and (not field.isidentifier() or form or conversion):
            msg = (
                f"{task}: key={template!r} has the field {{{field}}}, and a field is the plain name of an argument: "
                "for anything else give key a callable"
            )
            raise ConfigurationError(msg)
        pieces.append((literal, field))
    _known(task, signature, [field for _, field in pieces if field is not None])
    loose = _loose_keywords(signature)
    before = pieces[0][0]
    if template.startswith(LEADER_PREFIX):
        msg = f"{task}: key={template!r} begins with {LEADER_PREFIX!r}, which elections use: begin it with another word"
        raise ConfigurationError(msg)
    pieces[0] = ("", pieces[0][1])

    def render(arguments: Mapping[str, Any]) -> str:
        values = {**arguments.get(loose, {}), **arguments} if loose else arguments
        return "".join(literal + ("" if field is None else _filled(values.get(field))) for literal, field in pieces)

    return before, render, ""


def _filled(value: object) -> str:
    """A value in a template: as `str.format` has it where it is plain, so that 7 and "7" name one cluster.

    What is not plain is quoted, so that no value can look like the text that stands beside it.
    """
    text = str.__str__(value) if isinstance(value, str) else canonical(value)
    return quote(text, safe="@+")


def _from_callable(task: str, signature: inspect.Signature, function: Callable[..., Any]) -> Render:
    """A callable gets those of the task's arguments that it names."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        msg = f"{task}: the signature of key={function!r} cannot be read: wrap it, key=lambda cluster_id: ..."
        raise ConfigurationError(msg) from None
    if any(p.kind is p.POSITIONAL_ONLY for p in parameters):
        msg = f"{task}: key={function!r} takes arguments by position only: give it the names of the task's arguments"
        raise ConfigurationError(msg)
    names = _known(task, signature, [p.name for p in parameters if p.kind not in _VARIADIC and p.default is p.empty])
    greedy = any(p.kind is p.VAR_KEYWORD for p in parameters)
    loose = _loose_keywords(signature)

    def render(arguments: Mapping[str, Any]) -> str:
        values = {**arguments.get(loose, {}), **arguments} if loose else arguments
        return canonical(function(**(values if greedy else {name: values.get(name) for name in names})))

    return render


def _known(task: str, signature: inspect.Signature, names: Iterable[str]) -> list[str]:
    """The names, once it is sure that the task has them."""
    names = list(names)
    if _loose_keywords(signature):
        return names
    for name in names:
        if name not in signature.parameters:
            has = ", ".join(signature.parameters) or "none"
            near = did_you_mean(name, signature.parameters)
            msg = f"{task}: key names the argument {name!r}, which the task lacks (it has: {has}){near}"
            raise ConfigurationError(msg)
    return names


def _refuse_single_name(task: str, signature: inspect.Signature, spec: str) -> None:
    """A string without a field is one lock for all calls, unless a name was meant."""
    if spec in signature.parameters:
        msg = f"{task}: key={spec!r} is a template without a field: write key=[{spec!r}] for the argument of that name"
        raise ConfigurationError(msg)
    if not spec:
        msg = f"{task}: key is empty: write key=['cluster_id'], a template, or leave it out for all arguments"
        raise ConfigurationError(msg)


def _plain_parameters(signature: inspect.Signature) -> tuple[str, ...] | None:
    """The names of the arguments, where each of them may be given by position; else None."""
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature.parameters.values()
    return tuple(p.name for p in parameters) if all(p.kind in by_position for p in parameters) else None


def _loose_keywords(signature: inspect.Signature) -> str | None:
    """The name of the task's ``**kwargs``, where other arguments may hide."""
    return next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
