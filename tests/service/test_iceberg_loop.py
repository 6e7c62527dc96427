"""Readers in a loop while commits of 40 files are published: every read finds one commit, whole.

The same loop over a folder of Parquet files finds parts of commits, so it is quick enough to see
them.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from extract_jobs.run import run_extract
from extract_jobs.storage.local import LocalStorage
from tests.support.iceberg import IcebergLake
from tests.support.sampling import EXHAUSTIVE
from tests.support.specs import make_spec

PUBLISHES = 50 if EXHAUSTIVE else 2
FILES = 40
PAUSES = 2
"""How often a publisher lets the loop read all of the table while it puts files in place."""
Read = Callable[[], list[int]]


class Loop:
    """Reads the column ``version`` of a table again and again, in a thread of its own."""

    def __init__(self, read: Read) -> None:
        self.found: list[list[int]] = []
        self._read = read
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
            self.wait()
        finally:
            self._stopped = True
            self._thread.join()

    def wait(self) -> None:
        """Return when a read has ended that began after this call."""
        with self._changed:
            wanted = len(self.found) + 2
            self._changed.wait_for(lambda: self._error or len(self.found) >= wanted, timeout=60)
            if self._error is not None:
                raise self._error
            assert len(self.found) >= wanted

    def _run(self) -> None:
        while not self._stopped and self._error is None:
            try:
                found = self._read()
            except Exception as error:  # noqa: BLE001  raised where the loop is waited for
                self._error = error
            with self._changed:
                if self._error is None:
                    self.found.append(found)
                self._changed.notify_all()


@pytest.fixture
def lake(tmp_path: Path) -> IcebergLake:
    lake = IcebergLake(tmp_path)
    rows = ", ".join(f"({number}, 0)" for number in range(FILES))
    lake.source(
        "create table t (id integer primary key, version integer)", f"insert into t values {rows}"
    )
    return lake


def publish(lake: IcebergLake, run: Callable[[str], int], loop: Loop) -> None:
    """Publish commits, each with the next version in all of its files, while the loop reads."""
    complete = LocalStorage.complete
    placed = 0

    def completed(*arguments: object) -> bool:
        nonlocal placed
        done = complete(*arguments)  # type: ignore[arg-type]
        placed += 1
        if placed % (FILES // PAUSES) == 0:
            loop.wait()
        return done

    with pytest.MonkeyPatch.context() as patched, loop.running():
        patched.setattr(LocalStorage, "complete", completed)
        for number in range(PUBLISHES):
            lake.source("update t set version = version + 1")
            assert run(f"r{number}") == FILES
    assert placed >= PUBLISHES * FILES  # and probes


def is_whole(found: list[int]) -> bool:
    return len(found) == FILES and len(set(found)) == 1


def by_turns(*reads: Read) -> Read:
    """Return a read that is made by each reader in turn."""
    turns = itertools.cycle(reads)

    def read() -> list[int]:
        return next(turns)()

    return read


BY_ID = {"partition_by": ["id"]}


def test_every_read_finds_one_whole_commit(lake: IcebergLake) -> None:
    def run(run_id: str) -> int:
        return lake.run(run_id, target=BY_ID).files

    run("first")
    loop = Loop(
        by_turns(
            lambda: [row["version"] for row in lake.rows()],
            lambda: [row["version"] for row in lake.rows_by_duckdb()],
        )
    )
    publish(lake, run, loop)
    assert [found for found in loop.found if not is_whole(found)] == []
    versions = [found[0] for found in loop.found]
    assert versions == sorted(versions)
    assert {0, PUBLISHES} <= set(versions)
    assert len(loop.found) >= PUBLISHES * PAUSES


def test_the_same_loop_finds_parts_of_commits_in_a_folder(lake: IcebergLake) -> None:
    connection = {"path": str(lake.folder / "shop.db")}

    def run(run_id: str) -> int:
        spec = make_spec(lake.folder, run_id=run_id, source_type="sqlite", extract_table="t",
                         connection=connection, target=BY_ID)  # fmt: skip
        return run_extract(spec).files

    def read() -> list[int]:
        with duckdb.connect() as reader:
            try:
                query = f"select version from '{lake.folder}/target/**/*.parquet'"
                return [version for (version,) in reader.execute(query).fetchall()]
            except duckdb.IOException:  # a file was deleted after it had been listed
                return []

    run("first")
    loop = Loop(read)
    publish(lake, run, loop)
    assert [found for found in loop.found if not is_whole(found)] != []
