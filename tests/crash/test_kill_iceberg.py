"""The publisher of an Iceberg table killed before and after each call of storage and catalog.

Storage is S3 or a folder; the catalog is Glue's, a SQLite file or a REST server. After each kill
the next attempt and a recovery leave a table whose snapshots name files that are there, once, and
no file that no snapshot names. A quick run fails one call of each operation on S3, and a few calls
of some kinds of run elsewhere; `pytest -rP` shows how many.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog

from infra.local.emulator import Emulator
from tests.support.crash import ROWS, Driver, Ended, Lake, Story, killable
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.iceberg import glue_catalog
from tests.support.iceberg_rest import TOKEN, RestServer
from tests.support.postgres import Server
from tests.support.sampling import EXHAUSTIVE, sample

pytestmark = [pytest.mark.crash, pytest.mark.timeout(7200 if EXHAUSTIVE else 1800)]

MODULES = (
    "pyiceberg.io.pyarrow", "pyiceberg.catalog.sql", "pyiceberg.catalog.glue",
    "extract_jobs.iceberg.rest",
)  # fmt: skip


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with Driver(tmp_path_factory.mktemp("crash") / "driver.log", MODULES) as driver:
        yield driver


GONE = 5
"""The second of two runs that merge does not see this row."""


class IcebergStory(Story):
    """One Iceberg table, extracted through the proxy or directly."""

    rows: ClassVar = ROWS
    write_mode: ClassVar = "overwrite"

    def __init__(
        self, driver: Driver, server: Server, lake: Lake, proxy: FaultProxy | None,
        rest: RestServer | None,
    ) -> None:  # fmt: skip
        super().__init__(driver, server, lake, self.write_mode, proxy)
        self.rest = rest
        where: dict[str, Any] = {"database": lake.uri.rpartition("/")[2], "table": "t"}
        if rest:
            where |= {"type": "rest", "url": rest.url, "token": {"env": "CATALOG_TOKEN"}}
        elif not lake.environment:
            where |= {"type": "sqlite", "path": f"{lake.uri}/catalog.db"}
        self.where = where
        self.target |= {"format": "iceberg", "catalog": where}

    def environment(self, *, faulty: bool = False) -> dict[str, str]:
        return super().environment(faulty=faulty) | {"CATALOG_TOKEN": TOKEN}

    def prepare(self) -> None:
        """Make the commit that the table has before the run that is killed."""
        assert self.extract("first").exit == 0

    def every_state(self) -> list[list[int]]:
        """Return the rows that a reader may see."""
        return [self.rows]

    def catalog(self) -> Catalog:
        if self.rest:
            return self.rest.catalog
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


class AppendStory(IcebergStory):
    """The first run of a table."""

    write_mode: ClassVar = "append"

    def prepare(self) -> None:
        pass


class PartitionsStory(IcebergStory):
    """Two runs: the second replaces all partitions, and has one row more."""

    write_mode: ClassVar = "overwrite_partitions"

    def every_state(self) -> list[list[int]]:
        return [ROWS, [row for row in ROWS if row != GONE]]

    def extract(
        self, run_id: str, attempt: int = 1, *, faulty: bool = False, **more: object
    ) -> Ended:
        self.more = {"where": f"id <> {GONE}" if run_id == "first" else None}
        return super().extract(run_id, attempt, faulty=faulty, **more)


class MergeStory(IcebergStory):
    """Two runs: the second adds rows and replaces some."""

    write_mode: ClassVar = "merge"
    deletes: ClassVar = "ignore"

    def every_state(self) -> list[list[int]]:
        return [self.rows, [row for row in ROWS if row <= 30]]

    def extract(
        self, run_id: str, attempt: int = 1, *, faulty: bool = False, **more: object
    ) -> Ended:
        first = run_id == "first"
        self.more = {
            "mode": "incremental", "columns": {"key": ["id"]}, "deletes": self.deletes,
            "watermark": {"column": "id", "lag": 5} | ({"upper": 30} if first else {}),
            "where": f"id <> {GONE}" if self.deletes == "detect" and not first else None,
        }  # fmt: skip
        return super().extract(run_id, attempt, faulty=faulty, **more)


class DetectStory(MergeStory):
    """Two runs: the second adds rows, replaces some, and deletes one."""

    rows: ClassVar = [row for row in ROWS if row != GONE]
    deletes: ClassVar = "detect"


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


KINDS: dict[str, type[IcebergStory]] = {
    "append": AppendStory, "overwrite": IcebergStory, "overwrite_partitions": PartitionsStory,
    "merge": MergeStory, "detect": DetectStory, "expire": ExpireStory, "rollback": RollbackStory,
}  # fmt: skip


def stories(
    driver: Driver, server: Server, base: str, environment: dict[str, str], kind: str,
    proxy: FaultProxy | None = None, rest: RestServer | None = None,
) -> Iterator[IcebergStory]:  # fmt: skip
    """Yield fresh tables, all but those of the first run with a commit."""
    while True:
        lake = Lake(f"{base}/t{uuid4().hex[:12]}", environment)
        story = KINDS[kind](driver, server, lake, proxy, rest)
        story.prepare()
        yield story


# What a process leaves that is killed before a call is what it leaves killed after the call before
# it, so one of the two will do where each takes long.
@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("overwrite", "kill_after"),
        *(
            [
                ("append", "kill_before"),
                ("overwrite_partitions", "kill_before"),
                ("merge", "kill_before"),
                ("detect", "kill_after"),
                ("expire", "kill_before"),
                ("expire", "kill_after"),
                ("rollback", "kill_after"),
            ]
            if EXHAUSTIVE
            else []
        ),
    ],
)
def test_s3_and_glue_every_call(
    driver: Driver, database: Server, ministack: Emulator, proxy: FaultProxy, bucket: str,
    kind: str, fault: Fault,
) -> None:  # fmt: skip
    """Takes over ten seconds: a process is killed at calls of every operation."""
    fresh = stories(driver, database, bucket, ministack.environment(), kind, proxy)
    story = next(fresh)
    proxy.clear()
    ended = story.extract("r", faulty=True)
    assert ended.exit == 0, ended.stderr
    operations = [(of.operation, "metadata/" in of.path) for of in proxy.requests]
    assert ("Post", False) in operations  # Glue's
    chosen = sample(sample(killable(operations), 1, by=lambda call: call[1]), 6)
    for number, operation in chosen:
        context = f"{fault} at call {number} of {len(operations)}, {operation}"
        story = next(fresh)
        proxy.clear()
        proxy.fail(number, fault)
        ended = story.extract("r", faulty=True)
        assert ended.exit == -signal.SIGKILL, context
        story.assert_whole(context)
    print(f"S3 and Glue, {kind}, {fault}: {len(chosen)} kills")


EVERY = [(kind, when) for kind in KINDS for when in ("before", "after")]
QUICK = [("overwrite", "before"), ("detect", "after")]


@pytest.mark.parametrize(("kind", "when"), EVERY if EXHAUSTIVE else QUICK)
def test_local_every_call(
    driver: Driver, database: Server, tmp_path: Path, kind: str, when: str
) -> None:
    kill_every_call(stories(driver, database, str(tmp_path), {}, kind), tmp_path, kind, when)


@pytest.mark.parametrize(("kind", "when"), EVERY if EXHAUSTIVE else [("append", "before")])
def test_rest_every_call(
    driver: Driver, database: Server, tmp_path: Path, kind: str, when: str
) -> None:
    with RestServer(tmp_path) as rest:
        fresh = stories(driver, database, str(tmp_path), {}, kind, rest=rest)
        kill_every_call(fresh, tmp_path, kind, when)


def kill_every_call(fresh: Iterator[IcebergStory], folder: Path, kind: str, when: str) -> None:
    """Kill runs of fresh tables before or after each call."""
    count = folder / "count"
    assert next(fresh).extract("r", kill_call=0, count_to=str(count)).exit == 0
    calls = int(count.read_text())
    chosen = sample(range(1, calls + 1), 3)
    for number in chosen:
        context = f"killed {when} call {number} of {calls}"
        story = next(fresh)
        ended = story.extract("r", kill_call=number if when == "before" else -number)
        assert ended.exit == -signal.SIGKILL, f"{context}: {ended.stderr}"
        story.assert_whole(context)
    print(f"folder, {kind}, {when}: {len(chosen)} kills")
