"""A full extract into an Iceberg table keeps the data files of what has not changed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from pyiceberg.types import LongType

from extract_jobs.attempt.dry_run import planned
from extract_jobs.commit.expiry import expire_snapshots
from extract_jobs.commit.rollback import roll_back
from extract_jobs.commit.table_log import commit_log
from extract_jobs.commit.verification import verify_files
from extract_jobs.errors import Interrupted, WriteFailed
from extract_jobs.iceberg.table import IcebergTable
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from infra.local.emulator import Emulator
from tests.service.test_iceberg_altered import before_publishing, drop
from tests.support.crash import bucket_of
from tests.support.emulators import use
from tests.support.iceberg import IcebergLake
from tests.support.sampling import sample
from tests.support.specs import make_spec


class Drop:
    """Three CSV files in S3, each a part of its own, and the Iceberg table of their rows."""

    def __init__(self, uri: str, lake: IcebergLake) -> None:
        self.uri, self.lake, self.count = uri, lake, 0
        for number in (1, 2, 3):
            self.put(number, number * 10)

    def put(self, number: int, *ids: int) -> None:
        body = "\n".join(["id", *map(str, ids), ""]).encode()
        bucket = self.uri.removeprefix("s3://")
        boto3.client("s3").put_object(Bucket=bucket, Key=f"{number}.csv", Body=body)

    def spec(self, run_id: str, **more: Any) -> ExtractSpec:
        target = {"format": "iceberg", "catalog": self.lake.where, **more.pop("target", {})}
        return make_spec(
            self.lake.folder, run_id=run_id, source_type="files", connection={"uri": self.uri},
            files={"glob": "*.csv"}, extract_table="t", reuse="auto", target=target,
            split={"target_bytes": 2**16, "max_connections": 1}, **more,
        )  # fmt: skip

    def run(self, **more: Any) -> Report:
        self.count += 1
        return run_extract(self.spec(f"r{self.count}", **more))

    def ids(self) -> list[int]:
        return sorted(row["id"] for row in self.lake.rows())

    def files(self) -> set[str]:
        return {task.file.file_path for task in self.lake.table().scan().plan_files()}


@pytest.fixture
def here(ministack: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Drop:
    use(ministack, monkeypatch)
    return Drop(bucket_of(ministack, f"drop-{uuid4().hex[:8]}"), IcebergLake(tmp_path))


def test_data_files_of_what_has_not_changed_stay(here: Drop) -> None:
    assert here.run().rows == 3
    before = here.files()
    here.put(2, 21, 22)
    seen = planned(here.spec("plan"))
    assert not isinstance(seen.reuse, str | None)
    assert (len(seen.reuse.kept), seen.retired.goes.files) == (2, 1)
    second = here.run()
    assert (second.rows, second.kept_rows, second.kept_files) == (2, 2, 2)
    assert here.ids() == [10, 21, 22, 30]
    assert len(before & here.files()) == 2
    third = here.run()
    assert (third.rows, third.kept_rows) == (0, 4)
    assert here.ids() == [10, 21, 22, 30]
    snapshots = here.lake.table().metadata.snapshots
    counts = [here.lake.table().scan(snapshot_id=one.snapshot_id).count() for one in snapshots]
    assert counts == [3, 4, 4]
    assert here.lake.rows_by_duckdb() == here.lake.rows()
    expire_snapshots(commit_log(here.spec("any")), timedelta(0), datetime.now(UTC))
    assert len(here.lake.table().metadata.snapshots) == 1
    assert here.ids() == [10, 21, 22, 30]


def test_partitions_of_the_table_are_kept(here: Drop) -> None:
    target = {"partition_by": ["id"]}
    here.run(target=target)
    here.put(2, 20, 25)
    second = here.run(target=target)
    assert (second.kept_rows, here.ids()) == (2, [10, 20, 25, 30])


def delete_rows(here: Drop) -> None:
    here.lake.table().delete("id = 10")


def add_rows(here: Drop) -> None:
    table = here.lake.table()
    table.append(table.scan(row_filter="id = 10").to_arrow())


def add_column(here: Drop) -> None:
    with here.lake.table().update_schema() as update:
        update.add_column("more", LongType())


def partition(here: Drop) -> None:
    with here.lake.table().update_spec() as update:
        update.add_identity("id")


MEDDLING: dict[str, Callable[[Drop], None]] = {
    "rows deleted": delete_rows,
    "dropped": lambda here: drop(here.lake),
    "rows added": add_rows,
    "partitioned": partition,
    "a column added": add_column,
}


BETWEEN, LATE = "between runs", "before it is published"
CASES = [
    (BETWEEN, "rows added"), (BETWEEN, "rows deleted"), (LATE, "rows deleted"),
    (BETWEEN, "partitioned"), (LATE, "partitioned"), (BETWEEN, "a column added"),
    (LATE, "a column added"), (BETWEEN, "dropped"), (LATE, "dropped"),
]  # fmt: skip


@pytest.mark.parametrize(("moment", "what"), sample(CASES, 3))
def test_what_another_tool_did_is_replaced(
    here: Drop, monkeypatch: pytest.MonkeyPatch, moment: str, what: str
) -> None:
    """As without reuse, the table holds what the source holds, whatever was done to it."""
    meddle = MEDDLING[what]
    here.run()
    here.put(2, 21)
    if moment == BETWEEN:
        meddle(here)
        here.run()
    else:
        before_publishing(monkeypatch, lambda: meddle(here))
        try:
            here.run()
        except WriteFailed:
            run_extract(here.spec("r2", attempt=2))
    assert here.ids() == [10, 21, 30]


def test_nothing_is_kept_whose_rows_delete_files_take_away(
    here: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data files are still there; neither pyiceberg nor DuckDB writes such deletes."""
    here.run()
    monkeypatch.setattr("extract_jobs.iceberg.table.has_delete_files", lambda manifests: True)
    assert here.run().not_reused == "another tool deleted rows of the Iceberg table"


def test_a_rollback_past_what_was_kept(here: Drop) -> None:
    here.run()
    here.put(2, 21)
    here.run()
    log = commit_log(here.spec("any"))
    assert verify_files(log, here.spec("any").target.uri).faults == ()
    roll_back(log, 1, run_id="back", keep=False)
    assert here.ids() == [10, 20, 30]
    assert here.run().rows == 3
    assert here.run().kept_rows == 3
    assert here.ids() == [10, 21, 30]


def test_an_unpublished_commit_is_published_by_the_next_run(
    here: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.run()
    here.put(2, 21)

    def killed(table: IcebergTable, commit: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(IcebergTable, "publish", killed)
        with pytest.raises(Interrupted):
            here.run()
    here.put(3, 31)
    assert here.run().kept_rows == 2
    assert here.ids() == [10, 21, 31]
