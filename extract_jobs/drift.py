"""Schema change: what a table's columns are now against what its last commit had."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from extract_jobs.commit import Commit
from extract_jobs.errors import SchemaChanged
from extract_jobs.spec import ExtractSpec


def schema_json(schema: pa.Schema) -> list[dict[str, Any]]:
    """Return a schema as plans and commits keep it."""
    return [{"name": f.name, "type": str(f.type), "nullable": f.nullable} for f in schema]


def differences(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    """Return one sentence for each column that was added, dropped or changed its type."""
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


def schema_changes(
    last: Commit | None, columns: list[dict[str, Any]], spec: ExtractSpec
) -> list[str]:
    """Return what changed since the last commit.

    Raises:
        SchemaChanged: ``on_schema_change`` is ``fail`` and anything changed, or a type changed and
            older files stay beside the new ones.
    """
    if last is None:
        return []
    changes = differences(last.schema, columns)
    if spec.on_schema_change == "fail":
        refused = changes
    elif spec.target.write_mode == "overwrite":
        refused = []  # no older file stays beside the new ones
    else:
        refused = [c for c in changes if " changed from " in c]
        refused += clashes(last.columns, columns)
    if refused:
        raise SchemaChanged(
            f"{spec.extract_table}: {'; '.join(refused)}, since commit {last.seq}. Nothing was "
            "written. Cast the column to its old type in columns.cast, or replace the table with "
            "write_mode: overwrite"
        )
    return changes


def clashes(known: dict[str, str], columns: list[dict[str, Any]]) -> list[str]:
    """Return one sentence for each column that older files have under another type or case.

    Columns that were dropped count: their files stay.
    """
    by_lower = {name.lower(): name for name in known}
    found = []
    for column in columns:
        name, kind = column["name"], column["type"]
        older = by_lower.get(name.lower(), name)
        if older != name and name not in known:
            found.append(f"column {name} differs from {older} of older files in its case alone")
        elif known.get(name, kind) != kind:
            found.append(f"column {name} is {known[name]} in older files and now {kind}")
    return list(dict.fromkeys(found))


def columns_after(
    spec: ExtractSpec, last: Commit | None, columns: list[dict[str, Any]]
) -> dict[str, str]:
    """Return type by name of every column that a live file has once ``columns`` are committed."""
    older = {} if last is None or spec.target.write_mode == "overwrite" else last.columns
    return older | {c["name"]: c["type"] for c in columns}
