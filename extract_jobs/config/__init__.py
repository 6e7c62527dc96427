"""Source config × event → specs.

A config is layers: ``defaults``, over them a table's own values, over them an event's overrides.
Every problem of a config is reported at once, with its line.
"""

from __future__ import annotations

from extract_jobs.config.source_config import SourceConfig, load_config, open_config, with_table
from extract_jobs.config.specs import (
    job_settings,
    map_concurrency,
    specs_for,
    tables_at_a_time,
)
from extract_jobs.config.table_selection import resolve_tables, with_tags
from extract_jobs.config.taken_tables import with_listed

__all__ = [
    "SourceConfig",
    "job_settings",
    "load_config",
    "map_concurrency",
    "open_config",
    "resolve_tables",
    "specs_for",
    "tables_at_a_time",
    "with_listed",
    "with_table",
    "with_tags",
]
