"""How a table's columns have changed since its last commit.

The source's columns are kept with each commit, so that a change is reported once; the files'
columns, so that readers find one type and one spelling for each name. See `schema_comparison`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from extract_jobs.commit.record import Commit
from extract_jobs.planning.schema_comparison import Comparison, Drift, audit_names
from extract_jobs.schema import Column
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.columns import file_type, inner_masks

__all__ = [
    "Drift", "columns_after", "differences", "find_drift", "schema_json", "source_columns",
]  # fmt: skip


def schema_json(schema: pa.Schema) -> list[dict[str, Any]]:
    """Return a schema as plans and commits keep it."""
    return [{"name": f.name, "type": str(f.type), "nullable": f.nullable} for f in schema]


def source_columns(
    spec: ExtractSpec, columns: Sequence[Column], schema: pa.Schema, key: str | None = None
) -> list[dict[str, Any]]:
    """Return the source's columns as commits keep them, in the source's order.

    Args:
        spec: Renames and masks.
        columns: The chosen ones.
        schema: What the files would hold if there were no older files.
        key: Fingerprint of the key of the mask ``hash``.
    """
    found = []
    in_files = dict(zip(schema.names, schema.types, strict=True))
    for column in columns:
        name = spec.columns.rename.get(column.name, column.name)
        is_folder = name not in in_files
        data_type = file_type(column, spec) if is_folder else in_files[name]
        one = {"name": name, "type": str(data_type), "nullable": column.nullable}
        if is_folder:
            one["folder"] = True
        masks = {"": spec.columns.mask.get(column.name)}
        masks |= {f"{'.'.join(path)}: ": m for path, m in inner_masks(column, spec).items()}
        spelled = [
            f"{field}hash with key {key}" if mask == "hash" and key else f"{field}{mask}"
            for field, mask in sorted(masks.items())
            if mask
        ]
        if spelled:
            one["mask"] = ", ".join(spelled)
        found.append(one)
    return found


def find_drift(
    spec: ExtractSpec,
    last: Commit | None,
    columns: tuple[Column, ...],
    schema: pa.Schema,
    *,
    key: str | None = None,
) -> Drift:
    """Compare a table with its last commit, and decide what the files hold.

    Args:
        spec: Its ``on_schema_change`` and ``target.write_mode`` decide.
        last: The last published commit.
        columns: The chosen ones.
        schema: What the files would hold if there were no older files.
        key: Fingerprint of the key of the mask ``hash``.
    """
    audit = audit_names(spec)
    wanted = pa.schema([f for f in schema if f.name not in audit])
    source = source_columns(spec, columns, schema, key)
    if last is None:
        return Drift(columns, wanted, source)
    return Comparison(spec, last, columns, source, wanted).drift()


def columns_after(
    spec: ExtractSpec, last: Commit | None, columns: list[dict[str, Any]]
) -> dict[str, str]:
    """Return the type by name of every column in live files once ``columns`` are committed."""
    older = {} if last is None or spec.target.write_mode == "overwrite" else last.columns
    return older | {c["name"]: c["type"] for c in columns}


def differences(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    """Describe each column that was added, dropped or retyped in one sentence."""
    old = {c["name"]: c["type"] for c in before}
    new = {c["name"]: c["type"] for c in after}
    return [
        *(f"column {n} added ({t})" for n, t in new.items() if n not in old),
        *(f"column {n} dropped ({t})" for n, t in old.items() if n not in new),
        *(
            f"column {n} changed from {old[n]} to {t}"
            for n, t in new.items()
            if n in old and old[n] != t
        ),
    ]
