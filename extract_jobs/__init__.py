"""Pull tables from databases and files into an S3 data lake as partitioned Parquet.

What this module exports is the public API (docs/api.md); every other name of the package may change
with any version. Names are imported when they are first used: importing `extract_jobs` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extract_jobs.attempt.dry_run import Planned
    from extract_jobs.attempt.dry_run import planned as plan
    from extract_jobs.config import SourceConfig, load_config, specs_for
    from extract_jobs.errors import (
        CatalogFailed,
        CommitConflict,
        ConfigError,
        ExtractError,
        FilesDamaged,
        Interrupted,
        Outdated,
        ReconcileFailed,
        SchemaChanged,
        SourceMoved,
        SourceQueryFailed,
        SourceUnavailable,
        TypeNotRepresentable,
        WorkerOutOfMemory,
        WriteFailed,
    )
    from extract_jobs.planning.source_tables import with_source_tables
    from extract_jobs.reporting.report import Report
    from extract_jobs.run import run_extract as extract
    from extract_jobs.spec.extract_spec import ExtractSpec

__all__ = [
    "CatalogFailed",
    "CommitConflict",
    "ConfigError",
    "ExtractError",
    "ExtractSpec",
    "FilesDamaged",
    "Interrupted",
    "Outdated",
    "Planned",
    "ReconcileFailed",
    "Report",
    "SchemaChanged",
    "SourceConfig",
    "SourceMoved",
    "SourceQueryFailed",
    "SourceUnavailable",
    "TypeNotRepresentable",
    "WorkerOutOfMemory",
    "WriteFailed",
    "extract",
    "load_config",
    "plan",
    "specs_for",
    "with_source_tables",
]

__version__ = "0.1.0"

_PLACES = {
    "ExtractSpec": ("extract_jobs.spec.extract_spec", "ExtractSpec"),
    "Report": ("extract_jobs.reporting.report", "Report"),
    "SourceConfig": ("extract_jobs.config", "SourceConfig"),
    "Planned": ("extract_jobs.attempt.dry_run", "Planned"),
    "extract": ("extract_jobs.run", "run_extract"),
    "load_config": ("extract_jobs.config", "load_config"),
    "plan": ("extract_jobs.attempt.dry_run", "planned"),
    "specs_for": ("extract_jobs.config", "specs_for"),
    "with_source_tables": ("extract_jobs.planning.source_tables", "with_source_tables"),
}
"""The module and name of each public name; the errors are in `extract_jobs.errors`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, inner = _PLACES.get(name, ("extract_jobs.errors", name))
    found = getattr(import_module(module), inner)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
