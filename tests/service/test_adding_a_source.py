"""The page on adding a source: its example is a source, and passes the suite's basics."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

from extract_jobs.sources import Snapshot
from extract_jobs.sources.splits import Split
from tests.contract import test_sources as suite
from tests.support.source_cases import Kind, SourceDatabase

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-source.md"
_TYPES = {"integer": pa.int64(), "text": pa.string()}


class MemoryDatabase(SourceDatabase):
    """The example's tables."""

    source_type = "sqlite"  # any word: what is opened is patched

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.connection = {"path": "memory"}
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
def example() -> str:
    found = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture
def database(example: str, monkeypatch: pytest.MonkeyPatch) -> MemoryDatabase:
    module = ModuleType("the_page_example")
    # Where pickle looks for its classes.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(example, str(PAGE), "exec"), module.__dict__)
    for place in ("extract_jobs.run", suite.__name__):
        monkeypatch.setattr(
            f"{place}.open_source", lambda spec, *_: module.MemorySource(spec), raising=True
        )
    return MemoryDatabase(module)


@pytest.mark.parametrize(
    "behaviour",
    [
        suite.test_the_plan_of_a_run_is_kept_for_all_its_attempts,
        suite.test_splits_are_disjoint_and_exhaustive,
        suite.test_a_full_extract,
        suite.test_no_row_is_lost_or_repeated_over_incremental_runs,
        suite.test_a_table_that_is_not_there_is_told_with_the_nearest,
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


def test_the_example_is_short(example: str) -> None:
    lines = [line for line in example.splitlines() if line.strip()]
    assert len(lines) <= 70


def test_what_the_page_names_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)", PAGE.read_text()):
        assert (PAGE.parent / link).exists(), link
