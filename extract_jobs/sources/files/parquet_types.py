"""Types that a Parquet file names and Arrow gives as the bytes they are stored in."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_OPAQUE = {"Interval": "INTERVAL", "Geometry": "GEOMETRY", "Geography": "GEOGRAPHY"}
_DEFAULT_CRS = "OGC:CRS84"
"""The reference system of geometries that name none."""
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
        what = _OPAQUE.get(text.partition("(")[0])
        # The name of a column may itself have dots.
        name = leaf.path if leaf.path in found else leaf.path.split(".")[0]
        if what and name in found:
            crs = text[len(what) :].strip("()").removeprefix("crs=").removeprefix(_DEFAULT_CRS)
            found[name] = pa.opaque(found[name], what, crs)
    marked = [(name, "VARIANT", "") for name in _VARIANT.findall(str(leaves))]
    marked += [(n, "GEOMETRY", crs) for n, crs in _geometries(opened.metadata.metadata).items()]
    for name, what, crs in marked:
        if name in found and not isinstance(found[name], pa.OpaqueType):
            found[name] = pa.opaque(found[name], what, crs)
    return found


def _geometries(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    """Return the reference system of each column that GeoParquet's metadata names.

    https://geoparquet.org/releases/v1.1.0/
    """
    try:
        columns = json.loads((metadata or {})[b"geo"])["columns"]
        return {name: _crs_name(about.get("crs", {})) for name, about in columns.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
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
    """Return whether a type of `file_types` is a geometry, which arrives as its WKB."""
    opaque = isinstance(data_type, pa.OpaqueType) and pa.types.is_binary(data_type.storage_type)
    return opaque and data_type.type_name in ("GEOMETRY", "GEOGRAPHY")


def spelled(data_type: pa.DataType) -> str:
    """Return what messages and reports call a type."""
    if not isinstance(data_type, pa.OpaqueType):
        return str(data_type)
    crs = f" (CRS {data_type.vendor_name})" if data_type.vendor_name else ""
    return f"{data_type.type_name}{crs}"
