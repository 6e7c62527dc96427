"""Builders of values that most tests need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from extract_jobs.schema import Column, TableDescription
from extract_jobs.spec.extract_spec import ExtractSpec


def make_spec(folder: Path | None = None, **overrides: Any) -> ExtractSpec:
    """Return a valid spec of a full extract.

    Args:
        folder: Holds target, state and report; None gives paths that nothing should write to.
        overrides: Fields of the spec. A dict for a section that the minimal spec has too
            (``connection``, ``target``) is merged into it, so ``target={"partition_by": ["c"]}``
            keeps the target's URI. Another ``source_type`` comes with its own ``connection``.
    """
    base = str(folder) if folder else "/nonexistent/extract-jobs"
    minimal: dict[str, Any] = {
        "run_id": "run-1",
        "source_name": "sales",
        "source_type": "postgres",
        "connection": {"host": "127.0.0.1", "database": "sales", "user": "reader"},
        "extract_table": "public.orders",
        "target": {"uri": f"{base}/target"},
        "state_uri": f"{base}/state",
        "report_uri": f"{base}/report.json",
    }
    for key, value in overrides.items():
        section = minimal.get(key)
        both = isinstance(section, dict) and isinstance(value, dict)
        if key == "connection" and "source_type" in overrides:
            both = False
        minimal[key] = {**section, **value} if both else value
    return ExtractSpec.model_validate(minimal)


def make_columns(schema: pa.Schema) -> tuple[Column, ...]:
    """Return source columns that arrive as the schema's fields, their types spelled as Arrow's."""
    return tuple(
        Column(f.name, str(f.type), f.type, f.nullable, "lossless", "as it is", f'"{f.name}"')
        for f in schema
    )


def make_description(schema: pa.Schema, **overrides: Any) -> TableDescription:
    """Return the description of a table with the schema's fields."""
    minimal: dict[str, Any] = {
        "table": "public.orders",
        "kind": "table",
        "columns": make_columns(schema),
        "key": (),
        "estimated_rows": None,
        "estimated_bytes": None,
        "fingerprint": {"system": "1", "database": "sales"},
        "source_version": "PostgreSQL 18.0",
    }
    return TableDescription(**{**minimal, **overrides})
