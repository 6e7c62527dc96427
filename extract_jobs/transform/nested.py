"""Lists, maps and structs: their rows as Python values, as JSON, and the fields inside them."""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.transform.types import kind

Leaf = Callable[[pa.Array], list[Any]]
"""Returns the values of an array that is not nested, None for NULL."""
Pairs = Callable[[list[tuple[Any, Any]]], Any]
"""Returns the value of a map from its keys and values."""


def listed(values: pa.Array) -> pa.Array:
    """Return maps as lists of structs of ``key`` and ``value``; lists unchanged."""
    if not pa.types.is_map(values.type):
        return values
    # Arrow neither flattens a map nor counts its entries.
    pair = [("key", values.type.key_type), ("value", values.type.item_type)]
    return values.cast(pa.list_(pa.struct(pair)))


def rows_of(values: pa.Array, leaf: Leaf, pairs: Pairs = list) -> list[Any]:
    """Return nested values as lists and dictionaries; NULL is None.

    Args:
        values: Of any type.
        leaf: Returns the values at the leaves.
        pairs: Returns a map's value; by default, a list of pairs.
    """
    types = pa.types
    if not types.is_nested(values.type):
        return leaf(values)
    if types.is_struct(values.type):
        names = [field.name for field in values.type]
        fields = [rows_of(field, leaf, pairs) for field in values.flatten()]
        there = values.is_valid().to_pylist()
        by_row = zip(there, zip(*fields, strict=True), strict=True)
        return [dict(zip(names, row, strict=True)) if valid else None for valid, row in by_row]
    lists = listed(values)
    lengths = pc.list_value_length(lists).to_pylist()
    if types.is_map(values.type):
        keys, items = (rows_of(part, leaf, pairs) for part in lists.flatten().flatten())
        entries = zip(keys, items, strict=True)
        return [None if n is None else pairs(list(itertools.islice(entries, n))) for n in lengths]
    inner = iter(rows_of(lists.flatten(), leaf, pairs))
    return [None if n is None else list(itertools.islice(inner, n)) for n in lengths]


def json_texts(values: pa.Array) -> pa.Array:
    """Return nested values as JSON without blanks; NULL stays NULL.

    Maps are objects. Decimals, times and floats that are not finite are text, binary is base64.

    Raises:
        ArrowInvalid: A map has a key twice.
    """
    found = [
        None if row is None else json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        for row in rows_of(values, _json_values, _json_object)
    ]
    return pa.array(found, pa.string())


def _json_object(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    found = {key if isinstance(key, str) else json.dumps(key): value for key, value in pairs}
    if len(found) < len(pairs):
        raise pa.ArrowInvalid("a map names a key twice")
    return found


def _json_values(values: pa.Array) -> list[Any]:
    found = kind(values.type)
    if found in ("string", "boolean", "integer"):
        return list(values.to_pylist())
    if found == "binary":
        return [None if v is None else base64.b64encode(v).decode() for v in values.to_pylist()]
    # Arrow prints floats as the shortest text that reads back, and supports all years.
    texts = values.cast(pa.string()).to_pylist()
    if found == "float":
        return [None if text is None else _json_number(float(text)) for text in texts]
    return [text and text.replace(" ", "T") for text in texts]


def _json_number(number: float) -> float | str:
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


Path = tuple[str, ...]
"""Names of fields from a column down: lists are skipped, the values of a map are ``value``."""


def type_at(data_type: pa.DataType, path: Path) -> pa.DataType | None:
    """Return the type of a field inside a type; None if there is no such field."""
    if not path:
        return data_type
    types = pa.types
    if types.is_struct(data_type):
        place = data_type.get_field_index(path[0])
        return None if place < 0 else type_at(data_type.field(place).type, path[1:])
    if types.is_map(data_type):
        return type_at(data_type.item_type, path[1:]) if path[0] == "value" else None
    return type_at(data_type.value_type, path) if types.is_list(data_type) else None


def with_type_at(data_type: pa.DataType, path: Path, new: pa.DataType) -> pa.DataType:
    """Return a type in which the field at an existing path has another type."""
    if not path:
        return new
    if pa.types.is_struct(data_type):
        fields = list(data_type)
        place = data_type.get_field_index(path[0])
        fields[place] = fields[place].with_type(with_type_at(fields[place].type, path[1:], new))
        return pa.struct(fields)
    if pa.types.is_map(data_type):
        return pa.map_(data_type.key_type, with_type_at(data_type.item_type, path[1:], new))
    return pa.list_(with_type_at(data_type.value_type, path, new))


def changed_at(values: pa.Array, path: Path, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Return values in which a function has changed the field at an existing path."""
    if not path:
        return change(values)
    missing = values.is_null()
    if pa.types.is_struct(values.type):
        inner = list(values.flatten())
        place = values.type.get_field_index(path[0])
        inner[place] = changed_at(inner[place], path[1:], change)
        fields = [f.with_type(a.type) for f, a in zip(values.type, inner, strict=True)]
        return pa.StructArray.from_arrays(inner, fields=fields, mask=missing)
    lists = listed(values)
    offsets, items = offsets_of(lists), lists.flatten()
    if pa.types.is_map(values.type):
        keys, inner_items = items.flatten()
        changed = changed_at(inner_items, path[1:], change)
        kept = pa.map_(values.type.key_type, changed.type)
        return pa.MapArray.from_arrays(offsets, keys, changed, type=kept, mask=missing)
    return pa.ListArray.from_arrays(offsets, changed_at(items, path, change), mask=missing)


def _unchanged(values: pa.Array) -> pa.Array:
    return values


def rebuilt(
    values: pa.Array,
    target: pa.DataType,
    leaf: Callable[[pa.Array, pa.DataType, Path], pa.Array],
    *,
    before: Callable[[pa.Array], pa.Array] = _unchanged,
    path: Path = (),
) -> pa.Array:
    """Return values in another type of the same nesting.

    Args:
        values: Of any type.
        target: Its structs may have more fields, which are NULL, or fewer.
        leaf: Converts values that are not nested; given their type in ``target`` and their path.
        before: Called with the values of each level first.
        path: Where the values are inside of a column.
    """
    values, types = before(values), pa.types
    if not types.is_nested(target):
        return leaf(values, target, path)
    if types.is_null(values.type):
        return pa.nulls(len(values), target)

    def inner(part: pa.Array, part_type: pa.DataType, *names: str) -> pa.Array:
        return rebuilt(part, part_type, leaf, before=before, path=(*path, *names))

    missing = values.is_null()
    if types.is_struct(target):
        names = [field.name for field in values.type]
        # Flattened, so that nothing below a NULL struct is examined.
        given = dict(zip(names, values.flatten(), strict=True))
        fields = [
            inner(given[field.name], field.type, field.name)
            if field.name in given
            else pa.nulls(len(values), field.type)
            for field in target
        ]
        return pa.StructArray.from_arrays(fields, fields=list(target), mask=missing)
    lists = listed(values)
    offsets, items = offsets_of(lists), lists.flatten()
    if types.is_map(target):
        pair = items.flatten()
        keys = inner(pair[0], target.key_type, "key")
        entries = inner(pair[1], target.item_type, "value")
        return pa.MapArray.from_arrays(offsets, keys, entries, type=target, mask=missing)
    below = inner(items, target.value_type)
    return pa.ListArray.from_arrays(offsets, below, type=target, mask=missing)


def offsets_of(values: pa.Array) -> pa.Array:
    """Return where each list of an array begins in its flattened items, and the end of the last."""
    lengths = pc.list_value_length(values).fill_null(0).cast(pa.int64())
    ends: Sequence[pa.Array] = [pa.array([0], pa.int64()), pc.cumulative_sum(lengths)]
    return pa.concat_arrays(ends).cast(pa.int32())
