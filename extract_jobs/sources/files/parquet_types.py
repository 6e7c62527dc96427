"""Types that a Parquet file names and Arrow gives as the bytes they are stored in."""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq

_OPAQUE = {"Interval": "INTERVAL", "Geometry": "GEOMETRY", "Geography": "GEOGRAPHY"}
_VARIANT = re.compile(
    r"^  (?:optional|required) group (?:field_id=\S+ )?(.+) \(Variant\(", re.MULTILINE
)


def file_types(opened: pq.ParquetFile) -> dict[str, pa.DataType]:
    """Return the type of each column of a file, whose names are all different.

    Types that Arrow gives as the bare bytes or structs that they are stored in are opaque here, so
    that nobody takes them for binary columns: INTERVAL, GEOMETRY, GEOGRAPHY, VARIANT. GeoParquet
    1 marks geometries by the file's metadata alone.
    """
    schema = opened.schema_arrow
    found = dict(zip(schema.names, schema.types, strict=True))
    leaves = opened.schema
    for position in range(len(leaves)):
        leaf = leaves.column(position)
        text = str(leaf.logical_type)
        name, what = leaf.path.split(".")[0], _OPAQUE.get(text.partition("(")[0])
        if what and name in found:
            crs = text[len(what) :].strip("()").removeprefix("crs=")
            found[name] = pa.opaque(found[name], what, crs)
    for name in (*_VARIANT.findall(str(leaves)), *_geometries(opened.metadata.metadata)):
        if name in found and not isinstance(found[name], pa.OpaqueType):
            what = "VARIANT" if pa.types.is_struct(found[name]) else "GEOMETRY"
            found[name] = pa.opaque(found[name], what, "")
    return found


def _geometries(metadata: dict[bytes, bytes] | None) -> list[str]:
    """Return the columns that GeoParquet's metadata names."""
    try:
        return list(json.loads((metadata or {})[b"geo"])["columns"])
    except (KeyError, TypeError, ValueError):
        return []


def is_geometry(data_type: pa.DataType) -> bool:
    """Return whether a type of `file_types` is a geometry, which arrives as its WKB."""
    opaque = isinstance(data_type, pa.OpaqueType) and pa.types.is_binary(data_type.storage_type)
    return opaque and data_type.type_name in ("GEOMETRY", "GEOGRAPHY")


def spelled(data_type: pa.DataType) -> str:
    """Return what messages and reports call a type."""
    if not isinstance(data_type, pa.OpaqueType):
        return str(data_type)
    crs = f" (CRS {data_type.vendor_name})" if data_type.vendor_name else ""
    return f"{data_type.type_name}{crs}"
