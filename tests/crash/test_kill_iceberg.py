"""The publisher of an Iceberg table killed before and after each call of S3, Glue and storage.

After each kill the next attempt and a recovery leave a table whose snapshots name files that are
there, once, and no file that no snapshot names. A quick run fails one call of each operation.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog

from infra.local.emulator import Emulator
from tests.support.crash import ROWS, Driver, Ended, Lake, Story, killable
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.iceberg import glue_catalog
from tests.support.postgres import Server
from tests.support.sampling import EXHAUSTIVE, sample

pytestmark = [pytest.mark.crash, pytest.mark.timeout(7200 if EXHAUSTIVE else 1800)]

MODULES = ("pyiceberg.io.pyarrow", "pyiceberg.catalog.sql", "pyiceberg.catalog.glue")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with Driver(tmp_path_factory.mktemp("crash") / "driver.log", MODULES) as driver:
        yield driver


GONE = 5
"""The second of two runs that merge does not see this row."""


class IcebergStory(Story):
    """One Iceberg table, extracted through the proxy or directly."""

    rows: ClassVar = ROWS

    def __init__(
        self, driver: Driver, server: Server, lake: Lake, write_mode: str, proxy: FaultProxy | None
    ) -> None:
        super().__init__(driver, server, lake, write_mode, proxy)
        where: dict[str, str] = {"database": lake.uri.rpartition("/")[2], "table": "t"}
        if not lake.environment:
            where |= {"type": "sqlite", "path": f"{lake.uri}/catalog.db"}
        self.where = where
        self.target |= {"format": "iceberg", "catalog": where}

    def every_state(self) -> list[list[int]]:
        """Return the rows that a reader may see."""
        return [self.rows]

    def catalog(self) -> Catalog:
        if not self.lake.environment:
            return SqlCatalog("default", uri=f"sqlite:///{self.where['path']}")
        return glue_catalog(self.lake.environment)

    def assert_whole(self, context: str, attempt: int = 2) -> None:
        ended = self.extract("r", attempt, then_recover=True)
        assert ended.exit == 0, f"{context}: {ended.stderr}"
        # In a folder everything but Parquet counts as staged; Iceberg's metadata is checked below.
        assert [uri for uri in self.lake.staged() if "/metadata/" not in uri] == [], context
        table = self.catalog().load_table((self.where["database"], "t"))
        assert sorted(table.scan().to_arrow().column("id").to_pylist()) == self.rows, context
        named = {
            table.metadata_location,
            *(one.metadata_file for one in table.metadata.metadata_log),
        }
        for snapshot in table.metadata.snapshots:
            found = table.scan(snapshot_id=snapshot.snapshot_id).to_arrow()
            assert sorted(found.column("id").to_pylist()) in self.every_state(), context
            named.add(snapshot.manifest_list)
            for manifest in snapshot.manifests(table.io):
                named.add(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
                named |= {entry.data_file.file_path for entry in entries}
        there = {uri for uri in self.lake.visible() if "/_extract_probe-" not in uri}
        assert there == named, context


class MergeStory(IcebergStory):
    """Two runs: the second adds rows, replaces some, and deletes one."""

    rows: ClassVar = [row for row in ROWS if row != GONE]

    def every_state(self) -> list[list[int]]:
        return [self.rows, [row for row in ROWS if row <= 30]]

    def extract(
        self, run_id: str, attempt: int = 1, *, faulty: bool = False, **more: object
    ) -> Ended:
        first = run_id == "first"
        self.more = {
            "mode": "incremental", "columns": {"key": ["id"]}, "deletes": "detect",
            "watermark": {"column": "id", "lag": 5} | ({"upper": 30} if first else {}),
            "where": None if first else f"id <> {GONE}",
        }  # fmt: skip
        return super().extract(run_id, attempt, faulty=faulty, **more)


class ExpireStory(IcebergStory):
    """Two runs: the second replaces the rows, and expires the snapshot of the first."""

    def extract(
        self, run_id: str, attempt: int = 1, *, faulty: bool = False, **more: object
    ) -> Ended:
        self.more = {"keep_retired": "0s"}
        return super().extract(run_id, attempt, faulty=faulty, **more)

    def assert_whole(self, context: str, attempt: int = 2) -> None:
        super().assert_whole(context, attempt)
        table = self.catalog().load_table((self.where["database"], "t"))
        assert len(table.metadata.snapshots) == 1, context


class RollbackStory(IcebergStory):
    """Two runs, of which the second loses a row, and a rollback to the first."""

    def every_state(self) -> list[list[int]]:
        return [ROWS, [row for row in ROWS if row != GONE]]

    def extract(
        self, run_id: str, attempt: int = 1, *, faulty: bool = False, **more: object
    ) -> Ended:
        if run_id == "first":
            ended = super().extract(run_id, attempt)
            assert ended.exit == 0, ended.stderr
            self.more = {"where": f"id <> {GONE}"}
            return super().extract("second", attempt)
        return super().extract(run_id, attempt, faulty=faulty, back_to=1, **more)


KINDS = {"merge": MergeStory, "expire": ExpireStory, "rollback": RollbackStory}


def stories(
    driver: Driver, server: Server, base: str, environment: dict[str, str], write_mode: str,
    proxy: FaultProxy | None,
) -> Iterator[IcebergStory]:  # fmt: skip
    """Yield fresh tables; where rows are replaced, one that holds a commit already."""
    while True:
        mode = "overwrite" if write_mode in ("expire", "rollback") else write_mode
        lake = Lake(f"{base}/t{uuid4().hex[:12]}", environment)
        story = KINDS.get(write_mode, IcebergStory)(driver, server, lake, mode, proxy)
        if write_mode != "append":
            assert story.extract("first").exit == 0
        yield story


@pytest.mark.parametrize(
    ("fault", "write_mode"),
    [
        ("kill_after", "overwrite"),
        *(
            [
                ("kill_before", "append"),
                ("kill_after", "merge"),
                ("kill_before", "expire"),
                ("kill_after", "expire"),
                ("kill_after", "rollback"),
            ]
            if EXHAUSTIVE
            else []
        ),
    ],
)
def test_s3_and_glue_every_call(
    driver: Driver, database: Server, ministack: Emulator, proxy: FaultProxy, bucket: str,
    write_mode: str, fault: Fault,
) -> None:  # fmt: skip
    """Takes over ten seconds: a process is killed at calls of every operation."""
    fresh = stories(driver, database, bucket, ministack.environment(), write_mode, proxy)
    story = next(fresh)
    proxy.clear()
    ended = story.extract("r", faulty=True)
    assert ended.exit == 0, ended.stderr
    operations = [(of.operation, "metadata/" in of.path) for of in proxy.requests]
    assert ("Post", False) in operations  # Glue's
    chosen = sample(killable(operations), 1, by=lambda call: call[1])
    for number, operation in chosen:
        context = f"{fault} at call {number} of {len(operations)}, {operation}"
        story = next(fresh)
        proxy.clear()
        proxy.fail(number, fault)
        ended = story.extract("r", faulty=True)
        assert ended.exit == -signal.SIGKILL, context
        story.assert_whole(context)


STORIES = [(-1, "append"), (1, "overwrite"), (1, "merge")]
if EXHAUSTIVE:
    STORIES += [(1, "expire"), (-1, "expire"), (1, "rollback"), (-1, "rollback")]


@pytest.mark.parametrize(("sign", "write_mode"), STORIES)
def test_local_every_call(
    driver: Driver, database: Server, tmp_path: Path, write_mode: str, sign: int
) -> None:
    fresh = stories(driver, database, str(tmp_path), {}, write_mode, None)
    count = tmp_path / "count"
    assert next(fresh).extract("r", kill_call=0, count_to=str(count)).exit == 0
    calls = int(count.read_text())
    for number in sample(range(1, calls + 1), 3):
        context = f"killed {'before' if sign > 0 else 'after'} call {number} of {calls}"
        story = next(fresh)
        ended = story.extract("r", kill_call=number * sign)
        assert ended.exit == -signal.SIGKILL, f"{context}: {ended.stderr}"
        story.assert_whole(context)
