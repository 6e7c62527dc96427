"""Twelve alterations of one table over twelve runs, under each policy, read by everybody."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.errors import SchemaChanged, TypeNotRepresentable
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage.local import LocalStorage
from tests.support.crash import Lake
from tests.support.postgres import Server
from tests.support.readers import (
    Rows,
    athena_problems,
    by_duckdb,
    by_pyarrow,
    by_spark_merged,
    by_spark_schema,
    comparable,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIRST = ("id", "n", "small", "price", "ratio", "big", "day", "name", "note")


@dataclass(frozen=True)
class Step:
    """One alteration, and the changes that a run after it reports: kind, column, from, to."""

    sql: str
    changes: tuple[tuple[str, str | None, str | None, str | None], ...]


WALK = [
    Step("alter table t add extra int default 7", (("added", "extra", None, "int32"),)),
    Step("alter table t drop note", (("dropped", "note", "string", None),)),
    Step("alter table t alter n type bigint", (("widened", "n", "int32", "int64"),)),
    Step(
        "alter table t alter price type numeric(12,2)",
        (("widened", "price", "decimal128(9, 2)", "decimal128(12, 2)"),),
    ),
    Step(
        "alter table t alter ratio type double precision",
        (("widened", "ratio", "float", "double"),),
    ),
    Step("alter table t alter big type int", (("narrowed", "big", "int64", "int32"),)),
    Step(
        "alter table t alter day type timestamp",
        (("widened", "day", "date32[day]", "timestamp[us]"),),
    ),
    Step("alter table t alter name type text", ()),
    Step(
        "alter table t alter small set not null",
        (("nullability", "small", "NULL", "NOT NULL"),),
    ),
    Step(
        "alter table t drop name; alter table t add name text default 'moved'",
        (
            (
                "reordered",
                None,
                "name, extra",
                "extra, name",
            ),
        ),
    ),
    Step("alter table t add note text default 'back'", (("added", "note", None, "string"),)),
    Step(
        "alter table t rename extra to other",
        (("added", "other", None, "int32"), ("dropped", "extra", "int32", None)),
    ),
]


@dataclass
class Walk:
    """The table, its lake, and the rows that all files together should hold."""

    server: Server
    lake: Lake
    policy: Any
    write_mode: str = "append"
    expected: Rows = field(default_factory=list)
    runs: int = 0

    def spec(self, policy: Any = None, **more: Any) -> ExtractSpec:
        self.runs += 1
        more |= {
            "split": {"strategy": "none"},
            "target": {"write_mode": self.write_mode},
            "on_schema_change": policy or self.policy,
        }
        return ExtractSpec.model_validate(self.lake.spec(self.server, f"r{self.runs}", **more))

    def run(self, policy: Any = None) -> Report:
        report = run_extract(self.spec(policy))
        files = {column["name"] for column in report.columns}
        before = self.expected if self.write_mode == "append" else []
        self.expected = before + [
            {name: self.as_written(name, row[name]) for name in row if name in files}
            for row in self.rows()
        ]
        return report

    def as_written(self, name: str, value: Any) -> Any:
        """Return a value as files hold it, which keep days unless all is replaced."""
        follows = (self.write_mode, self.policy) == ("overwrite", "evolve")
        keeps_days = name == "day" and isinstance(value, datetime) and not follows
        return value.date() if keeps_days else value

    def rows(self) -> Rows:
        with self.server.connect() as connection:
            cursor = connection.execute("select * from t")
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def commit(self) -> Commit:
        log = CommitLog(LocalStorage(), self.lake.state, LocalStorage())
        newest = log.newest()
        assert newest is not None
        return newest

    def check(self, spark: SparkSession | None) -> None:
        """Let everybody read all files together, and compare what they find."""
        folder, columns = self.lake.target, self.commit().columns
        names = [name for name in columns if not name.startswith("_")]
        wanted = comparable(self.expected, names)
        assert comparable(by_duckdb(folder), names) == wanted
        assert comparable(by_pyarrow(folder), names) == wanted
        assert athena_problems(folder, columns) == []
        if spark:
            assert comparable(by_spark_merged(spark, folder), names) == wanted
            assert comparable(by_spark_schema(spark, folder, columns), names) == wanted


def begin(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, policy: Any, *more: str
) -> Walk:
    monkeypatch.setenv("CRASH_PASSWORD", server.password)
    server.execute(
        "create table t (id int not null, n int, small smallint, price numeric(9,2), ratio real,"
        " big bigint, day date, name varchar(10), note text)",
        "insert into t values (1, 5, 6, 1.25, 1.5, 8, '2026-01-02', 'a', 'x'),"
        " (2, -5, -6, -0.01, -0.5, -8, '1500-03-01', null, '')",
    )
    walk = Walk(server, Lake(str(folder)), policy, *more)
    walk.run()
    return walk


def changes_of(report: Report) -> tuple[tuple[str, str | None, str | None, str | None], ...]:
    return tuple((c.kind, c.column, c.before, c.after) for c in report.schema_changes)


@pytest.mark.spark
@pytest.mark.parametrize("policy", ["evolve", pytest.param("freeze", marks=pytest.mark.any_spark)])
def test_after_each_alteration_everybody_reads_all_files(
    pg_database: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spark: SparkSession,
    policy: str,
) -> None:  # fmt: skip
    walk = begin(pg_database, tmp_path, monkeypatch, policy)
    for step in WALK:
        pg_database.execute(*step.sql.split("; "))
        assert changes_of(walk.run()) == step.changes, step.sql
        # Frozen files are all alike, so that Spark's slower look at them can wait for the last.
        walk.check(spark if policy == "evolve" else None)
    assert changes_of(walk.run()) == ()  # each is told once
    walk.check(spark)
    more = ("extra", "other") if policy == "evolve" else ()
    assert tuple(walk.commit().columns) == (*FIRST, *_audited(more))


def _audited(more: tuple[str, ...]) -> tuple[str, ...]:
    return ("_run_id", "_extracted_at", *more)


@pytest.mark.parametrize("policy", ["evolve", "freeze"])
def test_an_overwrite_follows_the_table_or_keeps_its_columns(
    pg_database: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    walk = begin(pg_database, tmp_path, monkeypatch, policy, "overwrite")
    first = walk.commit().columns
    for step in WALK:
        pg_database.execute(*step.sql.split("; "))
        assert changes_of(walk.run()) == step.changes, step.sql
        walk.check(None)
        if policy == "freeze":
            assert walk.commit().columns == first
        else:
            assert list(walk.commit().columns)[:-2] == list(walk.rows()[0])
    if policy == "evolve":
        assert walk.commit().columns["n"] == "int64"
        assert walk.commit().columns["day"] == "timestamp[us]"


def test_fail_refuses_each_alteration_until_it_is_let_through(
    pg_database: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = begin(pg_database, tmp_path, monkeypatch, "fail")
    for step in WALK:
        pg_database.execute(*step.sql.split("; "))
        before = walk.lake.visible()
        for kind, column, *_ in step.changes:
            others = dict.fromkeys({"added", "dropped", "widened", "narrowed"} - {kind}, "freeze")
            with pytest.raises(SchemaChanged, match=f"on_schema_change.{kind} is fail") as caught:
                run_extract(walk.spec({**others, kind: "fail"}))
            assert column is None or f"column {column} " in str(caught.value)
        assert walk.lake.visible() == before
        assert walk.lake.staged() == []
        assert changes_of(walk.run("freeze")) == step.changes
        assert changes_of(walk.run()) == ()  # what was let through is let through
        walk.check(None)


@pytest.mark.parametrize("policy", ["evolve", "freeze"])
def test_what_does_not_fit_is_refused_and_overwrite_is_the_way_out(
    pg_database: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    walk = begin(pg_database, tmp_path, monkeypatch, policy)
    pg_database.execute("alter table t alter small type int", "update t set small = 70001")
    before = walk.lake.visible()
    with pytest.raises(TypeNotRepresentable, match="'small' is int32 now and int16") as caught:
        walk.run()
    assert "70001" not in str(caught.value)
    pg_database.execute("alter table t alter small type text")
    with pytest.raises(SchemaChanged, match="column small is int16 in older files and now string"):
        walk.run()
    assert (walk.lake.visible(), walk.lake.staged()) == (before, [])
    overwrite = walk.spec("evolve").model_dump()
    overwrite["target"]["write_mode"] = "overwrite"
    report = run_extract(ExtractSpec.model_validate(overwrite))
    assert changes_of(report) == (("narrowed", "small", "int16", "string"),)
    walk.expected = walk.rows()
    walk.check(None)
