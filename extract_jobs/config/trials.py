"""Overrides that try something out, kept away from a table's own files.

A run with a narrower condition, other columns or another query would replace the table's rows with
its result. It has to go to a scratch folder, or be confirmed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extract_jobs.config.locations import STATE_FOLDER
from extract_jobs.config.places import Place
from extract_jobs.config.problems import Path, Problem, dotted, exists
from extract_jobs.config.resolve import ResolvedTable
from extract_jobs.errors import ConfigError
from extract_jobs.spec.uris import NormalUris, overlap

_OF_ONE_TABLE: tuple[Path, ...] = (("query",), ("files", "glob"))
"""Keys whose value decides the rows: with several tables, each would get the same rows."""

_COLUMN_KEYS = ("include", "exclude", "rename", "cast", "mask")


def scratch_overrides(place: str) -> dict[str, Any]:
    """Return the overrides that send every table to a folder below ``place``, with its state.

    A catalog table is not touched, so a sample of an Iceberg table is a folder of Parquet files.
    """
    folder = place.rstrip("/")
    return {
        "target": {
            "uri": f"{folder}/{{source_name}}/{{schema}}/{{table}}",
            "catalog": None,
            "properties": None,
            "format": "parquet",
        },
        "state_uri": f"{folder}/{STATE_FOLDER}",
    }


def sample_overrides() -> dict[str, Any]:
    """Return the overrides for a sample of a table's rows: each run replaces the last one."""
    return {
        "mode": "full",
        "watermark": None,
        "deletes": "ignore",
        "target": {"write_mode": "overwrite"},
    }


def shared_rows(overrides: Mapping[str, Any], tables: Sequence[str]) -> Iterator[Problem]:
    """Yield the overrides that would give the same rows to several tables."""
    if len(tables) == 1:
        return
    for path in _OF_ONE_TABLE:
        if exists(overrides, path):
            yield Problem(
                dotted(("overrides", *path)),
                f"belongs to one table, and {len(tables)} are selected: each would be replaced "
                "by the same rows. Select one",
            )


def replaced_by_less(old: ResolvedTable, new: ResolvedTable) -> Iterator[Problem]:
    """Yield why a table may not be run with overrides that narrow or alter what is read.

    Yields nothing if the run writes to another location than the config's own.
    """
    if not overlap(old.location.target.uri, new.location.target.uri):
        return
    changed = [dotted(path) for path in _narrowed(old, new)]
    if changed:
        yield Problem(
            dotted(("tables", old.name)),
            f"the overridden {' and '.join(changed)} would change which rows or values replace the "
            f"table's own target {old.location.target.uri}. Try it in a scratch folder "
            "(extract-jobs run --target FOLDER), or confirm it with --yes",
            old.line,
        )


def check_scratch(places: Mapping[str, Place], place: str) -> None:
    """Refuse a scratch folder that overlaps the config's tables or states.

    Raises:
        ConfigError: It is a table's own location, inside one, or contains one.
    """
    normal = NormalUris()
    for name, at in places.items():
        for uri in (at.target_uri, at.state_uri):
            if normal.overlap(place, uri):
                raise ConfigError(
                    f"--target {place}: it overlaps {uri}, where table {name} has its own files or "
                    "state; choose a separate folder"
                )


def _narrowed(old: ResolvedTable, new: ResolvedTable) -> Iterator[Path]:
    before, after = old.config, new.config
    for name in ("where", "query", "files"):
        if getattr(after, name) not in (None, getattr(before, name)):
            yield (name,)
    for name in _COLUMN_KEYS:
        if getattr(after.columns, name) != getattr(before.columns, name):
            yield ("columns", name)
