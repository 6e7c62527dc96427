"""Merged tables against a model: whatever is killed, the table is the source at its last run.

The source is a SQLite file, the catalog another, and storage is in memory, so that a run can be
killed before or after any call. The catalog's conditional write lies between two of those. Another
tool compacts the table between runs and while one is under way.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.table import Table

from extract_jobs.attempt.context import utc_now
from extract_jobs.commit.table_log import commit_log
from extract_jobs.iceberg.catalogs import open_catalog
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import open_storage
from tests.support.memory_storage import Bucket, Killed, Process, ProcessStorage
from tests.support.sampling import examples, sample
from tests.support.specs import make_spec
from tests.support.sqlite_source import write

TARGET, STATE = "s3://lake/t", "s3://lake/state"
Rows = dict[int, tuple[str | None, int]]

changes = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 6), st.sampled_from(["a", "b", None])),
        st.tuples(st.just("delete"), st.integers(0, 6), st.none()),
    ),
    max_size=6,
)
steps = st.lists(
    st.tuples(
        changes,
        st.sampled_from(["run", "run", "kill before", "kill after", "compact during"]),
        st.integers(1, 60),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@dataclass
class Story:
    """One table, and what its source holds."""

    folder: Path
    bucket: Bucket = field(default_factory=Bucket)
    rows: Rows = field(default_factory=dict)
    version: int = 0
    runs: int = 0

    def __post_init__(self) -> None:
        for name in ("shop.db", "catalog.db"):
            (self.folder / name).unlink(missing_ok=True)
        write(self.folder / "shop.db", "create table t (id integer primary key, kind, v integer)")

    def change(self, some: list[tuple[str, int, str | None]]) -> None:
        with contextlib.closing(sqlite3.connect(self.folder / "shop.db")) as opened, opened:
            for what, number, kind in some:
                opened.execute("delete from t where id = ?", [number])
                self.rows.pop(number, None)
                if what == "put":
                    self.version += 1
                    self.rows[number] = kind, self.version
                    row = [number, kind, self.version]
                    opened.execute("insert into t values (?, ?, ?)", row)

    def spec(self) -> ExtractSpec:
        self.runs += 1
        where = {"type": "sqlite", "path": str(self.folder / "catalog.db"), "database": "lake"}
        return make_spec(
            self.folder, run_id=f"r{self.runs}", source_type="sqlite", extract_table="t",
            connection={"path": str(self.folder / "shop.db")}, mode="incremental",
            watermark={"column": "v"}, deletes="detect", state_uri=STATE,
            empty_source="accept",
            columns={"key": ["id"], "cast": {"kind": "string"}},
            target={"uri": TARGET, "format": "iceberg", "catalog": {**where, "table": "t"},
                    "write_mode": "merge", "partition_by": ["kind"]},
        )  # fmt: skip

    def storage(self, process: Process) -> Callable[[str], Any]:
        shared = ProcessStorage(self.bucket, process)
        return lambda uri: shared if uri.startswith("s3://") else open_storage(uri)

    def run(self, process: Process) -> None:
        run_extract(self.spec(), open_storage=self.storage(process))

    def table(self) -> Table | None:
        catalog = self.spec().target.catalog
        assert catalog is not None
        found = open_catalog(catalog, self.storage(Process("other")), create=False)
        if found is None or not found.table_exists("lake.t"):
            return None
        return found.load_table("lake.t")

    def compact(self) -> None:
        table = self.table()
        rows = None if table is None else table.scan().to_arrow()
        if table is not None and rows:
            table.overwrite(rows)

    def assert_same(self) -> None:
        table = self.table()
        found = [] if table is None else table.scan().to_arrow().to_pylist()
        assert len({row["id"] for row in found}) == len(found)
        assert {row["id"]: (row["kind"], row["v"]) for row in found} == self.rows

    def assert_tidy(self) -> None:
        spec = self.spec()
        log = commit_log(spec, self.storage(Process("recover")))
        log.recover(TARGET, abandon_after=timedelta(0), now=utc_now())
        assert self.bucket.uploads == {}
        table = self.table()
        assert table is not None
        named = set()
        for snapshot in table.metadata.snapshots:
            for manifest in snapshot.manifests(table.io):
                entries = manifest.fetch_manifest_entry(table.io)
                named |= {entry.data_file.file_path for entry in entries}
        there = {uri for uri in self.bucket.objects if uri.startswith(f"{TARGET}/data/")}
        assert {task.file.file_path for task in table.scan().plan_files()} <= there
        ours = {uri for uri in there if "/00000-" not in uri}  # the other tool's losing writes
        assert ours <= named


def at(number: int, act: Callable[[], None]) -> Callable[[str], None]:
    """Return what acts at a call of some number, once."""
    left = [number]

    def count(_: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            act()

    return count


def play(story: Story, how: str, number: int) -> None:
    process = Process(how)

    def kill() -> None:
        process.dead = True
        raise Killed(how)

    if how == "compact during":
        process.before = at(number, story.compact)
    elif how == "kill before":
        process.before = at(number, kill)
    elif how == "kill after":
        process.after = at(number, kill)
    try:
        story.run(process)
    except Killed:
        return
    story.assert_same()


@given(steps)
@settings(
    max_examples=examples(5),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_merged_table_is_the_source_at_its_last_run(
    tmp_path: Path, history: list[tuple[Any, str, int, bool]]
) -> None:
    story = Story(tmp_path)
    for some, how, number, compacts in history:
        story.change(some)
        if compacts:
            story.compact()
        play(story, how, number)
    story.run(Process("last"))
    story.assert_same()
    story.assert_tidy()


def test_a_killed_merge_leaves_the_table_as_it_was_or_whole(tmp_path: Path) -> None:
    counted = Process("counted")
    story = Story(tmp_path)

    def begin() -> None:
        story.change([("put", n, "ab"[n % 2]) for n in range(6)])
        story.run(Process("first"))
        story.change([("put", 1, "a"), ("delete", 2, None), ("put", 9, None)])

    begin()
    story.run(counted)
    story.assert_same()
    for number in sample(range(1, len(counted.calls) + 1), 4):
        for how in ("kill before", "kill after"):
            story = Story(tmp_path)
            begin()
            before = dict(story.rows)
            play(story, how, number)
            story.change([("put", 0, "b")])
            assert before != story.rows
            story.run(Process("next"))
            story.assert_same()
            story.assert_tidy()
