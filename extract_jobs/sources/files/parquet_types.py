"""Types of Parquet files: what each arrives as, and which type holds the values of two.

Arrow returns some types as the bytes that they are stored in; here they keep their names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from extract_jobs.transform.types import kind

_OPAQUE = {"Interval": "INTERVAL", "Geometry": "GEOMETRY", "Geography": "GEOGRAPHY"}
_DEFAULT_CRS = "OGC:CRS84"
"""The reference system of geometries that do not name one."""
_COLUMN = re.compile(
    r"^  (?:optional|required|repeated) \S+ (?:field_id=\S+ )?(.+?)(?: \(.*)?[;{ ]*$"
)
_VARIANT = re.compile(r"^ +(?:optional|required|repeated) group .* \(Variant\(")
_SPARK = b"org.apache.spark.sql.parquet.row.metadata"
"""Where Spark keeps its own schema, in JSON. Spark 4.0 marks a VARIANT nowhere else."""
_TYPES_INSIDE = ("type", "elementType", "keyType", "valueType", "fields")
_UNPRINTABLE = re.compile(r"[<>:,]")
"""Characters that a type's text, which commits keep, could not be read back with."""


def file_types(opened: pq.ParquetFile) -> dict[str, pa.DataType]:
    """Return the type of each column of a file; all names must be different.

    Types that Arrow returns as the bare bytes or structs that they are stored in are opaque here,
    so that they are not mistaken for binary columns: INTERVAL, GEOMETRY, GEOGRAPHY, VARIANT.
    GeoParquet 1 marks geometries only in the file's metadata, and Spark 4.0 VARIANT.
    """
    schema = opened.schema_arrow
    found = dict(zip(schema.names, schema.types, strict=True))
    leaves = opened.schema
    for position in range(len(leaves)):
        leaf = leaves.column(position)
        text = str(leaf.logical_type)
        what = _OPAQUE.get(text.partition("(")[0])
        # The name of a column may itself contain dots.
        name = leaf.path if leaf.path in found else leaf.path.split(".")[0]
        if what and name in found:
            crs = text[len(what) :].strip("()").removeprefix("crs=").removeprefix(_DEFAULT_CRS)
            found[name] = pa.opaque(found[name], what, crs)
    for name, crs in _geometries(opened.metadata.metadata).items():
        if name in found and not isinstance(found[name], pa.OpaqueType):
            found[name] = pa.opaque(found[name], "GEOMETRY", crs)
    by_spark = _spark_variants(opened.metadata.metadata)
    marked = with_variants(str(leaves)) | {n for n in by_spark if _holds_encoded(found.get(n))}
    for name in marked & found.keys():
        is_whole = _is_encoded(found[name])
        found[name] = VARIANT if is_whole else pa.opaque(found[name], "VARIANT", "")
    return found


VARIANT = pa.opaque(pa.binary(), "VARIANT", "")
"""A whole column of VARIANT, in whichever columns it is stored."""


def _is_encoded(data_type: pa.DataType) -> bool:
    """Return whether a type is what VARIANT is stored in."""
    names = {field.name for field in data_type} if pa.types.is_struct(data_type) else set()
    parts = {"metadata", "value", "typed_value"}
    return {"metadata"} < names <= parts and pa.types.is_binary(data_type.field("metadata").type)


def _holds_encoded(data_type: pa.DataType | None) -> bool:
    """Return whether a type holds what VARIANT is stored in, at any depth."""
    types = pa.types
    if data_type is None or types.is_dictionary(data_type) or not types.is_nested(data_type):
        return False
    inner = [data_type.field(i).type for i in range(data_type.num_fields)]
    return _is_encoded(data_type) or any(map(_holds_encoded, inner))


def with_variants(schema: str) -> set[str]:
    """Return the columns that a schema, as Arrow prints it, marks as VARIANT at any depth."""
    column, marked = "", set()
    for line in schema.splitlines():
        if found := _COLUMN.match(line):
            column = found[1]
        if _VARIANT.match(line):
            marked.add(column)
    return marked


def _spark_variants(metadata: dict[bytes, bytes] | None) -> set[str]:
    """Return the columns that Spark's own schema says are VARIANT at any depth."""
    try:
        fields = json.loads((metadata or {})[_SPARK])["fields"]
        return {field["name"] for field in fields if _names_variant(field["type"])}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return set()


def _names_variant(spark_type: Any) -> bool:
    if isinstance(spark_type, list):
        return any(map(_names_variant, spark_type))
    if isinstance(spark_type, dict):
        return any(_names_variant(spark_type.get(key)) for key in _TYPES_INSIDE)
    return bool(spark_type == "variant")


def _geometries(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    """Return the reference system of each column that GeoParquet's metadata names.

    https://geoparquet.org/releases/v1.1.0/
    """
    try:
        columns = json.loads((metadata or {})[b"geo"])["columns"]
        return {name: _crs_name(about.get("crs", {})) for name, about in columns.items()}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return {}


def _crs_name(crs: Any) -> str:
    """Return a name for a reference system in PROJJSON; empty for the default."""
    if not crs:
        return "unknown" if crs is None else ""
    if isinstance(crs, dict) and isinstance(crs.get("id"), dict):
        return f"{crs['id'].get('authority')}:{crs['id'].get('code')}".removeprefix(_DEFAULT_CRS)
    text = json.dumps(crs, sort_keys=True)
    return text if len(text) <= 40 else f"sha256:{sha256(text.encode()).hexdigest()[:16]}"


def is_geometry(data_type: pa.DataType) -> bool:
    """Return whether a type from `file_types` is a geometry, which arrives as its WKB."""
    opaque = isinstance(data_type, pa.OpaqueType) and pa.types.is_binary(data_type.storage_type)
    return opaque and data_type.type_name in ("GEOMETRY", "GEOGRAPHY")


def spelled(data_type: pa.DataType) -> str:
    """Return the name of a type in messages and reports."""
    if not isinstance(data_type, pa.OpaqueType):
        return str(data_type)
    crs = f" (CRS {data_type.vendor_name})" if data_type.vendor_name else ""
    return f"{data_type.type_name}{crs}"


@lru_cache(4096)
def arrives_as(data_type: pa.DataType, *, to_merge: bool = False) -> pa.DataType | None:
    """Return the type that values of a file's type arrive as; None where there is none.

    Args:
        data_type: A type from `file_types`.
        to_merge: Keep durations as such, so that files whose units differ are told apart, and the
            type of nothing but NULL, which goes with every type.
    """
    types = pa.types
    if to_merge and (types.is_null(data_type) or types.is_duration(data_type)):
        return data_type
    if types.is_dictionary(data_type) or types.is_run_end_encoded(data_type):
        return arrives_as(data_type.value_type, to_merge=to_merge)
    if isinstance(data_type, pa.UuidType | pa.JsonType):
        return pa.string()
    if types.is_nested(data_type):
        return _nested_type(data_type, to_merge=to_merge)
    if types.is_null(data_type) or kind(data_type) == "string":
        return pa.string()
    is_bytes = kind(data_type) == "binary" or types.is_fixed_size_binary(data_type)
    if is_bytes or is_geometry(data_type):
        return pa.binary()
    if types.is_timestamp(data_type):
        return pa.timestamp("us", "UTC" if data_type.tz else None)
    if types.is_date(data_type):
        return pa.date32()
    if types.is_time(data_type):
        return pa.string()
    if types.is_decimal(data_type):
        fits = data_type.precision <= 38
        return pa.decimal128(data_type.precision, data_type.scale) if fits else pa.string()
    return _number_type(data_type)


def _number_type(data_type: pa.DataType) -> pa.DataType | None:
    """Return the type that numbers, durations and booleans arrive as; None for other types."""
    types = pa.types
    if types.is_unsigned_integer(data_type):
        wider = {8: pa.int16(), 16: pa.int32(), 32: pa.int64()}
        return wider.get(data_type.bit_width, pa.decimal128(20, 0))
    if types.is_float16(data_type) or types.is_duration(data_type):
        return pa.float32() if types.is_float16(data_type) else pa.int64()
    plain = types.is_signed_integer(data_type) or types.is_floating(data_type)
    return data_type if plain or types.is_boolean(data_type) else None


def _nested_type(data_type: pa.DataType, *, to_merge: bool) -> pa.DataType | None:
    """Return the type of lists, maps and structs whose leaves arrive as `arrives_as` says."""
    if pa.types.is_struct(data_type):
        names = [field.name.casefold() for field in data_type]
        unfit = any(not name or _UNPRINTABLE.search(name) for name in names)
        inner = [arrives_as(field.type, to_merge=to_merge) for field in data_type]
        if not names or unfit or len(set(names)) < len(names) or None in inner:
            return None
        return pa.struct([(f.name, t) for f, t in zip(data_type, inner, strict=True)])
    if pa.types.is_map(data_type):
        key = arrives_as(data_type.key_type, to_merge=to_merge)
        item = arrives_as(data_type.item_type, to_merge=to_merge)
        nested_key = key is not None and pa.types.is_nested(key)
        return None if key is None or item is None or nested_key else pa.map_(key, item)
    if pa.types.is_union(data_type):
        return None
    item = arrives_as(data_type.value_type, to_merge=to_merge)
    return None if item is None else pa.list_(item)


def without_form(data_type: pa.DataType, path: str = "") -> Iterator[tuple[str, pa.DataType]]:
    """Yield what is in the way of a type that `arrives_as` has no type for.

    Yields:
        The path of a field below the type, each name after a dot, and the field's type.
    """
    types, inner = pa.types, list[tuple[str, pa.DataType]]()
    if types.is_struct(data_type):
        inner = [(f"{path}.{field.name}", field.type) for field in data_type]
    elif types.is_map(data_type):
        inner = [(f"{path}.key", data_type.key_type), (f"{path}.value", data_type.item_type)]
    elif types.is_nested(data_type) and not types.is_union(data_type):
        inner = [(path, data_type.value_type)]
    below = [
        one
        for name, field in inner
        if arrives_as(field) is None
        for one in without_form(field, name)
    ]
    yield from below or [(path, data_type)]


def unified(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """Return the type that holds every value of both faithfully; None where there is none."""
    types = pa.types
    if left == right:
        return left
    if types.is_null(left) or types.is_null(right):
        return right if types.is_null(left) else left
    for one, other in ((left, right), (right, left)):
        # Lists of objects that earlier versions wrote have geometries as binary.
        if is_geometry(one) and types.is_binary(other):
            return one
    if types.is_nested(left) or types.is_nested(right):
        return _unified_nested(left, right)
    if types.is_signed_integer(left) and types.is_signed_integer(right):
        return max(left, right, key=lambda t: t.bit_width)
    if types.is_floating(left) and types.is_floating(right):
        return pa.float64()
    numbers = {t for t in (left, right) if types.is_signed_integer(t)}
    exact = {t for t in (left, right) if types.is_decimal(t)}
    if numbers and {t for t in (left, right) if types.is_floating(t)}:
        return pa.float64() if next(iter(numbers)).bit_width <= 32 else None
    if exact and len(numbers | exact) == 2:
        digits = {8: 3, 16: 5, 32: 10, 64: 19}
        wholes = [t.precision - t.scale for t in exact] + [digits[t.bit_width] for t in numbers]
        scale = max(t.scale for t in exact)
        return pa.decimal128(max(wholes) + scale, scale) if max(wholes) + scale <= 38 else None
    return None


def _unified_nested(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """Return the type of both: a struct has the fields of either."""
    types = pa.types
    if types.is_list(left) and types.is_list(right):
        item = unified(left.value_type, right.value_type)
        return None if item is None else pa.list_(item)
    if types.is_map(left) and types.is_map(right):
        key = unified(left.key_type, right.key_type)
        item = unified(left.item_type, right.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if not (types.is_struct(left) and types.is_struct(right)):
        return None
    found = {field.name: field.type for field in left}
    for field in right:
        both = unified(found.get(field.name, field.type), field.type)
        if both is None:
            return None
        found[field.name] = both
    is_one_name = len({name.casefold() for name in found}) == len(found)
    return pa.struct(list(found.items())) if is_one_name else None
