"""Problems of a config: found, worded for people, and collected in one error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from extract_jobs.errors import ConfigError

MAX_SHOWN = 100
"""Maximum problems that one message lists; it also says how many more there are."""

_MAX_TEXT = 4_000
"""Characters of a problem: a value that is wrong may be megabytes."""

Path = tuple[str | int, ...]
_PRIVATE = frozenset({"connection", "query", "where"})
"""Parts whose values no message repeats."""
_SECRETS = frozenset({"password", "passwd", "pwd", "secret", "token"})


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a config.

    Attributes:
        path: Dotted path of the value; empty for the whole config.
        text: What is wrong and what to do. Never holds a credential.
        line: Line in the file, from 1; None for values that are not in the file, such as overrides.
    """

    path: str
    text: str
    line: int | None = None


@dataclass(frozen=True)
class DataProblem:
    """A problem in plain data, before the value's file and line are known.

    Attributes:
        path: Keys and indexes down to the value.
        text: What is wrong and what to do.
        partial: Whether more data could fix it: something is missing, or parts conflict.
        of_key: Whether the key is wrong, whatever its value.
    """

    path: Path
    text: str
    partial: bool = False
    of_key: bool = False


def refusal(where: str, problems: Iterable[Problem]) -> ConfigError:
    """Return the error that lists all problems of ``where``, in order of line.

    A single problem makes one line; several make a heading and a line each.
    """
    unique = sorted(dict.fromkeys(problems), key=lambda p: p.line or 0)
    lines = [_described(where, p) for p in unique[:MAX_SHOWN]]
    if len(unique) == 1:
        return ConfigError(lines[0])
    if len(unique) > MAX_SHOWN:
        lines.append(f"… and {len(unique) - MAX_SHOWN} more")
    return ConfigError("\n".join([f"{where}: {len(unique)} problems", *lines]))


def _described(where: str, problem: Problem) -> str:
    place = f"{where}:{problem.line}" if problem.line else where
    return ": ".join(filter(None, (place, *map(_cut, (problem.path, problem.text)))))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 200]} … {text[-200:]}"


def dotted(path: Path) -> str:
    """Return ``tables.public.orders.columns.include[0]`` for a path of keys and indexes."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def exists(data: Any, path: Path) -> bool:
    """Return whether ``data`` has a value, None included, at ``path``."""
    return depth_reached(data, path) == len(path)


def depth_reached(data: Any, path: Path) -> int:
    """Return how many parts of ``path`` can be followed into ``data``."""
    for depth, part in enumerate(path):
        if isinstance(data, Mapping):
            leads_on = part in data
        else:
            leads_on = isinstance(data, list | tuple) and part in range(len(data))
        if not leads_on:
            return depth
        data = data[part]
    return len(path)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with the likeliest of ``known``, or nothing."""
    known = list(known)
    folded = {k.casefold(): k for k in known}
    close = get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[close[0]]}?" if close else ""


def problems_in(error: ValidationError, data: Any, model: type[BaseModel]) -> list[DataProblem]:
    """Return the problems of a validation, in YAML's terms.

    Args:
        error: What validating ``data`` raised.
        data: The plain data.
        model: The model that it was validated against.

    Returns:
        One problem per path: the branches of a union are one problem.
    """
    messages: dict[tuple[Path, bool, bool], list[str]] = {}
    unknown = 0
    errors = [(_as_given(one["loc"], data), one) for one in error.errors(include_url=False)]
    given = {loc for loc, _ in errors if exists(data, loc)}
    for loc, one in errors:
        kind = one["type"]
        if kind == "string_type" and isinstance(one["input"], Mapping):
            inside = any(loc[:-1] == p[:-1] and loc != p for p, _ in errors)
        else:
            is_word = kind == "literal_error" and loc not in given
            inside = is_word and any(loc[:-1] == p[:-1] for p in given)
        if inside:
            continue  # the union's short form, but this is a mapping: the problem is inside it
        if kind == "missing":
            key, text = (loc, True, False), "is required"
        elif kind == "extra_forbidden":
            unknown += 1
            # No message lists more, and a hint takes longer than all else.
            text = unknown_key(model, loc) if unknown <= MAX_SHOWN else "unknown key"
            key = (loc, False, True)
        else:
            path = loc[: depth_reached(data, loc)]
            between = kind == "value_error" and isinstance(one["input"], Mapping)
            key, text = (path, between, False), _reason(one, path)
        messages.setdefault(key, []).append(text)
    return [
        DataProblem(path, "; or ".join(dict.fromkeys(texts)), partial, of_key)
        for (path, partial, of_key), texts in messages.items()
    ]


def _as_given(loc: Path, data: Any) -> Path:
    """Return a location without the names that pydantic adds for the branches of a union."""
    for depth, part in enumerate(loc[:-1]):
        if isinstance(data, Mapping) and part not in data and loc[depth + 1] in data:
            return (*loc[:depth], *_as_given(loc[depth + 1 :], data))
        if str(part).endswith("Spec") and depth == len(loc) - 2:
            return (*loc[:depth], loc[-1])  # a model's name, before a key that is not there
        if not depth_reached(data, (part,)):
            break
        data = data[part]
    return loc


def _reason(error: Any, path: Path) -> str:
    kind, value = error["type"], error["input"]
    shown = _shown(value) if not _PRIVATE.intersection(path) else None
    if kind == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    if kind == "literal_error":
        expected = str(error["ctx"]["expected"]).replace("'", "")
        choices = [c.strip() for c in expected.replace(" or ", ", ").split(",")]
        hint = nearest(value, choices) if isinstance(value, str) else ""
        return f"{shown or 'the value'} is not {expected}{hint}"
    if kind == "string_type" and isinstance(value, bool):
        return (
            "expected text, but bare yes, no, on, off, true, false are booleans; put it in quotes"
        )
    if kind == "string_type" and isinstance(value, int | float):
        return f"expected text, found {shown or 'a number'}; put it in quotes"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return "expected a mapping"
    if kind == "tuple_type":
        return "expected a list"
    text = str(error["msg"])
    text = text[:1].lower() + text[1:]
    return text.replace("input should be", f"{shown or 'the value'} should be", 1)


def _shown(value: Any) -> str | None:
    """Return a short scalar as YAML spells it; None if it is long or not a scalar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str | int | float) and len(str(value)) <= 60:
        return repr(value)
    return None


def unknown_key(model: type[BaseModel], path: Path) -> str:
    """Return the message for a key at ``path`` that ``model`` does not have there."""
    key = str(path[-1])
    if key.casefold() in _SECRETS:
        return (
            "a config holds no secret; use connection.secret_id, or name an environment variable "
            "in connection.password_env"
        )
    here = model_at(model, path[:-1])
    fields = list(here.model_fields) if here else []
    hint = nearest(key, fields)
    elsewhere = _first_paths(model).get(key)
    if elsewhere and not (hint and len(key) > 3 and key[:3] in hint):
        hint = f"; did you mean {elsewhere}?"
    return f"unknown key{hint or '; known here: ' + ', '.join(fields)}"


def model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """Return the model of the mapping at ``path``; None if it is not a model."""
    here: type[BaseModel] | None = model
    parts = iter(path)
    for part in parts:
        field = here.model_fields.get(str(part)) if here else None
        here = next(_models(field.annotation), None) if field else None
        if field and here is None and next(parts, None) is not None:
            here = next(_models_by_key(field.annotation), None)
    return here


def key_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted paths of all keys of a model, each section before its keys."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for part in _models(field.annotation):
            yield from key_paths(part, f"{prefix}{name}.")


@cache
def _first_paths(model: type[BaseModel]) -> dict[str, str]:
    """Return the first dotted path of each key of a model, by the key alone."""
    found: dict[str, str] = {}
    for path in key_paths(model):
        found.setdefault(path.rsplit(".", 1)[-1], path)
    return found


def _models_by_key(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a field holds under keys of a person's own: those of a dict."""
    for part in get_args(annotation):
        if getattr(annotation, "__origin__", None) is dict:
            yield from _models(part)
        else:
            yield from _models_by_key(part)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a field may hold itself: those of a union, not those of a dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif not hasattr(annotation, "__origin__") or annotation.__origin__ not in (dict, tuple, list):
        for part in get_args(annotation):
            yield from _models(part)
