"""One suite that every source passes; which sources there are is in `tests.support.source_cases`.

A behaviour that a source cannot have is no test of it: the case says why, and the table of results
at the end of the run repeats it.
"""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract_jobs.errors import ConfigError, ReconcileFailed, SourceUnavailable
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.sources import ReadRequest, Source, open_source
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.watermark import WatermarkValue
from tests.support.sampling import sample
from tests.support.source_cases import (
    BEHAVIOURS,
    CASES,
    Behaviour,
    Kind,
    SourceCase,
    SourceDatabase,
)
from tests.support.source_matrix import CELL

COLUMNS: dict[str, Kind] = {"id": "integer", "w": "integer", "k": "integer", "note": "text"}
ROWS = [
    (n, 10 * n, None if n % 10 == 0 else (n * 7919) % 1000, f"{n:03} {'ü' * (n % 100)}")
    for n in range(1, 2001)
]
"""2,000 rows: a key, a watermark, a skewless number that is NULL in every tenth row, text."""
INT64 = (-(2**63), 2**63 - 1)


def behaves(behaviour: Behaviour) -> Callable[[Any], Any]:
    """Run a test for every source that can have a behaviour."""
    return pytest.mark.parametrize(
        "database",
        [
            pytest.param((case, behaviour), id=case.name, marks=case.marks)
            for case in CASES.values()
            if behaviour not in case.lacks
        ],
        indirect=True,
    )


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[SourceDatabase]:
    """An empty database of the source under test."""
    case, behaviour = request.param
    request.node.user_properties.append((CELL, [case.name, behaviour]))
    with case.open(request) as opened:
        yield opened


@pytest.fixture
def case(request: pytest.FixtureRequest) -> SourceCase:
    """The source under test."""
    found: SourceCase = request.node.callspec.params["database"][0]
    return found


def test_what_a_source_lacks_is_a_behaviour_with_a_reason() -> None:
    assert any(case.lacks for case in CASES.values())
    for case in CASES.values():
        assert set(case.lacks) <= set(BEHAVIOURS)
        assert all(len(reason) > 10 for reason in case.lacks.values())


def run(database: SourceDatabase, spec: ExtractSpec) -> Report:
    return run_extract(spec, spark=database.spark)


def source_of(database: SourceDatabase, spec: ExtractSpec) -> Source:
    return open_source(spec, database.spark)


def read(folder: Path) -> pa.Table:
    """Read what is in the target, whoever wrote it."""
    files = sorted((folder / "target").rglob("*.parquet"))
    return pa.concat_tables([pq.ParquetFile(file).read() for file in files])


def ids(folder: Path) -> list[int]:
    return sorted(read(folder).column("id").to_pylist())


def read_splits(database: SourceDatabase, spec: ExtractSpec, **request: Any) -> list[pa.Table]:
    """Read every split as executors do, and check what all snapshots promise."""
    source = source_of(database, spec)
    columns = source.describe().columns
    with source.snapshot(ReadRequest(columns, **request)) as snapshot:
        splits = snapshot.splits(spec)
        assert [split.index for split in splits] == list(range(len(splits)))
        tables = [database.read(snapshot, split) for split in splits]
        snapshot.check()
        assert snapshot.count() == sum(table.num_rows for table in tables)
    assert all(table.schema.names == [c.name for c in columns] for table in tables)
    return tables


@behaves("describe")
def test_describe(database: SourceDatabase, case: SourceCase, tmp_path: Path) -> None:
    database.create("t", COLUMNS, ROWS[:10], key="id")
    spec = database.spec(tmp_path)
    found = source_of(database, spec).describe()
    assert found.table == spec.extract_table
    assert [c.name for c in found.columns] == list(COLUMNS)
    assert [c.arrow_type for c in found.columns] == [pa.int64()] * 3 + [pa.string()]
    if "NULL watermarks" not in case.lacks:
        assert [c.watermark for c in found.columns] == ["integer"] * 3 + ["string"]
    assert all(c.fidelity == "lossless" and c.rule and c.source_type for c in found.columns)
    assert found.columns[1].nullable
    assert found.source_version
    assert found.fingerprint
    assert found.fingerprint == source_of(database, spec).describe().fingerprint
    for estimate in (found.estimated_rows, found.estimated_bytes):
        assert estimate is None or estimate >= 0


@behaves("plan")
def test_the_plan_of_a_run_is_kept_for_all_its_attempts(
    database: SourceDatabase, tmp_path: Path
) -> None:
    database.create("t", COLUMNS, ROWS[:10], key="id")
    more = database.incremental("w")
    first = run(database, database.spec(tmp_path, **more))
    [plan] = (tmp_path / "state" / "plans" / "run-1").iterdir()
    pinned = json.loads(plan.read_bytes())
    assert [field["name"] for field in pinned["schema"]][:4] == list(COLUMNS)
    database.insert("t", ROWS[10:20])
    again = run(database, database.spec(tmp_path, attempt=2, **more))
    assert (again.rows, again.commit_seq) == (10, first.commit_seq)
    assert ids(tmp_path) == list(range(1, 11))


@behaves("splits")
def test_splits_are_disjoint_and_exhaustive(database: SourceDatabase, tmp_path: Path) -> None:
    database.create("t", COLUMNS, ROWS, key="id")
    tables = read_splits(database, database.spec(tmp_path, split=database.several))
    assert len(tables) > 2
    rows = [tuple(row.values()) for table in tables for row in table.to_pylist()]
    assert sorted(rows) == ROWS
    assert max(table.num_rows for table in tables) < 3 * len(ROWS) / len(tables)


@behaves("full")
def test_a_full_extract(database: SourceDatabase, tmp_path: Path) -> None:
    rows = [(1, INT64[0], INT64[1], "plain"), (2, 0, None, ""), (3, -1, 1, None),
            (4, 1, 2, "é☃😀 'quoted' \"twice\" back\\slash\ttab\nline"), (5, 2, 3, "NULL"),
            (6, 3, 4, " blanks "), (7, 4, 5, "x" * 300)]  # fmt: skip
    database.create("t", COLUMNS, rows, key="id")
    for run_id in ("run-1", "run-2"):
        report = run(database, database.spec(tmp_path, run_id=run_id))
        assert (report.rows, report.status) == (7, "succeeded")
        found = read(tmp_path).drop_columns(["_run_id", "_extracted_at"])
        assert sorted(tuple(row.values()) for row in found.to_pylist()) == rows
    assert set(read(tmp_path).column("_run_id").to_pylist()) == {"run-2"}


@behaves("sample")
@pytest.mark.parametrize("limit", [1, 300, 5000])
def test_a_sample_has_so_many_rows_at_most(
    database: SourceDatabase, tmp_path: Path, limit: int
) -> None:
    database.create("t", COLUMNS, ROWS, key="id")
    report = run(database, database.spec(tmp_path, limit=limit))
    assert (report.rows, report.source_rows, report.reconciled) == (min(limit, 2000), None, False)
    found = read(tmp_path).drop_columns(["_run_id", "_extracted_at"]).to_pylist()
    assert len({row["id"] for row in found}) == min(limit, 2000)
    assert {tuple(row.values()) for row in found} <= set(ROWS)


@behaves("incremental")
def test_no_row_is_lost_or_repeated_over_incremental_runs(
    database: SourceDatabase, tmp_path: Path
) -> None:
    more = database.incremental("w")
    # Equal watermarks on both sides of where one run ends: all of them, once.
    database.create("t", COLUMNS, [*ROWS[:50], (51, 500, 1, "x"), (52, 500, None, None)], key="id")
    assert run(database, database.spec(tmp_path, run_id="a", **more)).rows == 52
    nothing = run(database, database.spec(tmp_path, run_id="b", **more))
    assert nothing.rows == 0
    database.insert("t", [(n, 10 * n, 1, "later") for n in range(53, 80)])
    assert run(database, database.spec(tmp_path, run_id="c", **more)).rows == 27
    assert run(database, database.spec(tmp_path, run_id="d", **more)).rows == 0
    assert ids(tmp_path) == list(range(1, 80))


@behaves("empty table")
def test_an_empty_table(database: SourceDatabase, tmp_path: Path) -> None:
    database.create("t", COLUMNS, key="id")
    report = run(database, database.spec(tmp_path))
    assert (report.rows, report.files) == (0, 1)
    found = read(tmp_path)
    assert found.num_rows == 0
    assert found.schema.names[:4] == list(COLUMNS)
    assert [table.num_rows for table in read_splits(database, database.spec(tmp_path))] == [0]


@behaves("NULL keys")
def test_rows_whose_split_column_is_null_are_in_one_split(
    database: SourceDatabase, tmp_path: Path
) -> None:
    database.create("t", COLUMNS, ROWS, key="id")
    tables = read_splits(database, database.spec(tmp_path, split=database.by_column("k")))
    assert len(tables) > 2
    assert sorted(n for t in tables for n in t.column("id").to_pylist()) == [r[0] for r in ROWS]
    assert Counter(t.column("k").null_count for t in tables) == {200: 1, 0: len(tables) - 1}


@behaves("NULL watermarks")
@pytest.mark.parametrize("nulls", ["include", "exclude", "refuse"])
def test_rows_without_a_watermark(database: SourceDatabase, tmp_path: Path, nulls: str) -> None:
    database.create("t", COLUMNS, [(1, 10, 1, "a"), (2, None, 2, "b"), (3, 30, 3, "c")], key="id")
    more = database.incremental("w")
    more["watermark"] |= {"nulls": nulls}
    if nulls == "refuse":
        with pytest.raises(ConfigError, match="1 rows have NULL in watermark column w"):
            run(database, database.spec(tmp_path, **more))
        return
    first = run(database, database.spec(tmp_path, run_id="a", **more))
    database.insert("t", [(4, None, 4, "d"), (5, 50, 5, "e")])
    second = run(database, database.spec(tmp_path, run_id="b", **more))
    taken = int(nulls == "include")
    assert (first.rows, first.null_watermark_rows) == (2 + taken, 1)
    assert (second.rows, second.null_watermark_rows) == (1, 2)
    assert ids(tmp_path) == ([1, 2, 3, 5] if taken else [1, 3, 5])


@behaves("reconcile")
def test_a_count_that_differs_in_the_same_snapshot_commits_nothing(
    database: SourceDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.create("t", COLUMNS, ROWS[:100], key="id")
    spec = database.spec(tmp_path)
    source = source_of(database, spec)
    with source.snapshot(ReadRequest(source.describe().columns)) as snapshot:
        assert snapshot.count() == 100
        shared, counted = snapshot.shared, type(snapshot)
    with monkeypatch.context() as patched:
        patched.setattr(counted, "count", lambda _: 99)
        if shared:
            with pytest.raises(ReconcileFailed, match="99"):
                run(database, spec)
            assert not list((tmp_path / "target").rglob("*.parquet"))
        else:
            report = run(database, spec)
            assert (report.source_rows, report.reconciled) == (99, False), "told, not enforced"
            patched.setattr(counted, "count", lambda _: 101)
            with pytest.raises(ReconcileFailed, match="101 rows before and 101 after, but 100"):
                run(database, database.spec(tmp_path, run_id="run-2"))
            return
    report = run(database, database.spec(tmp_path, attempt=2))
    assert (report.rows, report.source_rows, report.reconciled) == (100, 100, True)


@behaves("retry")
def test_a_read_that_breaks_is_taken_up_again(
    database: SourceDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database.create("t", COLUMNS, ROWS, key="id")
    broken = False
    with database.breaking() as changes:
        try:
            report = run(database, database.spec(tmp_path, **changes))
        except SourceUnavailable:
            # Where the snapshot went with the connection, the next attempt of the run takes over.
            broken = True
            assert not list((tmp_path / "target").rglob("*.parquet"))
            report = run(database, database.spec(tmp_path, attempt=2, **changes))
    assert broken or "trying again" in caplog.text, "nothing broke"
    assert report.rows == 2000
    assert ids(tmp_path) == [row[0] for row in ROWS]


@behaves("hostile names")
def test_hostile_names(database: SourceDatabase, case: SourceCase, tmp_path: Path) -> None:
    assert len(case.hostile) > 5
    # Each is a job of Spark's there.
    names = sample(case.hostile, 4) if pytest.mark.spark in case.marks else case.hostile
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        database.create(name, {"id": "integer", name: "text"}, [(1, "x"), (2, None)], key="id")
        given = {"target": {"uri": f"{folder}/target", "partition_by": [name]}}
        report = run(database, database.spec(folder, name, **given))
        assert report.rows == 2, name
        assert ids(folder) == [1, 2], name
        if "NULL watermarks" not in case.lacks:
            source = source_of(database, database.spec(folder, name))
            assert source.highest(name) == WatermarkValue("string", "x")
            assert source.null_watermarks(name) == 1


@behaves("no such table")
def test_a_table_that_is_not_there_is_reported_with_the_nearest(
    database: SourceDatabase, tmp_path: Path
) -> None:
    database.create("customers", COLUMNS, ROWS[:1], key="id")
    with pytest.raises(ConfigError, match=r"custommers.*customers"):
        run(database, database.spec(tmp_path, "custommers"))
    assert not list((tmp_path / "target").rglob("*.parquet"))


@behaves("wrong password")
def test_a_wrong_password(database: SourceDatabase, tmp_path: Path) -> None:
    database.create("t", COLUMNS, ROWS[:1], key="id")
    with pytest.raises(ConfigError, match=r"password|login") as caught:
        run(database, database.spec(tmp_path, **database.wrong_password()))
    assert "wr0ng-and-secret" not in "".join(traceback.format_exception(caught.value))


@behaves("unreachable")
def test_a_source_that_cannot_be_reached(database: SourceDatabase, tmp_path: Path) -> None:
    with pytest.raises((SourceUnavailable, ConfigError)) as caught:
        run(database, database.spec(tmp_path, **database.unreachable()))
    # What passes by itself is retryable; a file that is not there is a matter of configuration.
    assert caught.value.retryable == isinstance(caught.value, SourceUnavailable)
    assert "\n" not in str(caught.value)
