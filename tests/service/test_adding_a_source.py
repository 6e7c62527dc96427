"""The page on adding a source: its example is a source, and passes the suite's basics."""

from __future__ import annotations

import importlib
import pickle
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from extract_jobs.sources import Snapshot
from extract_jobs.sources.splits import Split
from extract_jobs.spec import source_types
from tests.contract import test_sources as suite
from tests.support.source_cases import Kind, SourceDatabase
from tests.support.specs import make_spec

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-source.md"
_TYPES = {"integer": pa.int64(), "text": pa.string()}


class MemoryDatabase(SourceDatabase):
    """The example's tables."""

    source_type = "memory"

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.connection = {"uri": "memory"}
        self.several = {"strategy": "auto"}

    def create(
        self,
        table: str,
        columns: Mapping[str, Kind],
        rows: Iterable[Sequence[int | str | None]] = (),
        key: str | None = None,
    ) -> None:
        schema = pa.schema([(name, _TYPES[kind]) for name, kind in columns.items()])
        self.module.TABLES[table] = schema.empty_table()
        self.insert(table, rows)

    def insert(self, table: str, rows: Iterable[Sequence[int | str | None]]) -> None:
        before = self.module.TABLES[table]
        listed = [dict(zip(before.schema.names, row, strict=True)) for row in rows]
        added = pa.Table.from_pylist(listed, before.schema)
        self.module.TABLES[table] = pa.concat_tables([before, added])

    def read(self, snapshot: Snapshot, split: Split) -> pa.Table:
        reader = pickle.loads(pickle.dumps(snapshot.reader))
        return pa.Table.from_batches(list(reader.read(split)), reader.table.schema)


@pytest.fixture
def blocks() -> list[str]:
    found = re.findall(r"(?ms)^```(?:python|toml)\n(.*?)^```$", PAGE.read_text())
    assert len(found) == 3
    return found


@pytest.fixture
def database(
    blocks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MemoryDatabase]:
    """The page's source, installed as a package: modules, and the metadata of an entry point."""
    source, registration, project = blocks
    site = tmp_path / "site"
    package, metadata = site / "lake_memory", site / "lake_memory-1.dist-info"
    package.mkdir(parents=True)
    metadata.mkdir()
    (package / "source.py").write_text(source)
    (package / "__init__.py").write_text(registration)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lake-memory\nVersion: 1\n")
    entries = tomllib.loads(project)["project"]["entry-points"]
    (metadata / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n{name} = {value}\n"
            for group, listed in entries.items()
            for name, value in listed.items()
        )
    )
    monkeypatch.syspath_prepend(site)
    source_types.registrations.cache_clear()
    yield MemoryDatabase(importlib.import_module("lake_memory.source"))
    source_types.registrations.cache_clear()
    for name in ("lake_memory", "lake_memory.source"):
        del sys.modules[name]


@pytest.mark.parametrize(
    "behaviour",
    [
        suite.test_the_plan_of_a_run_is_kept_for_all_its_attempts,
        suite.test_splits_are_disjoint_and_exhaustive,
        suite.test_a_full_extract,
        suite.test_no_row_is_lost_or_repeated_over_incremental_runs,
        suite.test_a_table_that_is_not_there_is_reported_with_the_nearest,
    ],
)
def test_the_example_passes_the_basics_of_the_suite(
    database: MemoryDatabase, behaviour: Any, tmp_path: Path
) -> None:
    behaviour(database, tmp_path)


@pytest.mark.parametrize("nulls", ["include", "exclude", "refuse"])
def test_the_example_knows_rows_without_a_watermark(
    database: MemoryDatabase, nulls: str, tmp_path: Path
) -> None:
    suite.test_rows_without_a_watermark(database, tmp_path, nulls)


def test_the_example_is_short(blocks: list[str]) -> None:
    lines = [line for line in blocks[0].splitlines() if line.strip()]
    assert len(lines) <= 70


def test_what_the_page_names_is_there() -> None:
    names = re.findall(r"`((?:extract_jobs|infra|tests)/[\w/.]+)`", PAGE.read_text())
    assert names
    assert [name for name in names if not (PAGE.parents[1] / name).exists()] == []


@pytest.mark.usefixtures("database")
def test_a_registered_source_is_checked_like_our_own() -> None:
    given = {"source_type": "memory", "connection": {"uri": "memory"}}
    assert make_spec(**given).source_type == "memory"
    with pytest.raises(ValidationError, match="takes no url; it takes uri"):
        make_spec(source_type="memory", connection={"url": "x"})
    with pytest.raises(ValidationError, match="takes no host"):
        make_spec(source_type="memory", connection={"uri": "x", "host": "h"})
    with pytest.raises(ValidationError, match="where is not for sources of type memory"):
        make_spec(**given, where="a = 1")


def test_an_unregistered_source_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match=r"postgres, mysql, .* or files"):
        make_spec(source_type="memory", connection={"uri": "memory"})
