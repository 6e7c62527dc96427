"""A server that sends nothing more, while its connection is up, is not waited for without end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from extract_jobs.errors import SourceUnavailable
from tests.support.postgres import Server
from tests.support.postgres_source import filled, read_wide, snapshot_of, source
from tests.support.switch_proxy import SwitchProxy

ROWS = 400_000
READERS = pytest.mark.parametrize("width", ["narrow", "wide"])


@pytest.fixture
def door(pg_database: Server) -> Iterator[SwitchProxy]:
    filled(pg_database, ROWS)
    with SwitchProxy(pg_database.port) as door:
        yield door


def stalled(door: SwitchProxy, batches: Iterator[pa.RecordBatch]) -> int:
    """Read on until the door has shut behind the first batch, and give the rows that came."""
    rows = next(batches).num_rows
    door.stalled.set()
    for batch in batches:
        rows += batch.num_rows
    return rows


@READERS
def test_a_stall_ends_when_its_time_is_over(
    door: SwitchProxy,
    pg_database: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    width: str,
) -> None:
    if width == "wide":
        read_wide(monkeypatch)
    connection = {"stall_timeout": "2s", "sslmode": "disable"}
    found = source(
        replace(pg_database, port=door.port),
        monkeypatch,
        tmp_path,
        extract_table="t",
        connection=connection,
    )
    with snapshot_of(found) as snapshot:
        batches = iter(snapshot.reader.read(snapshot.splits(found.spec)[0]))
        started = time.monotonic()
        with pytest.raises(SourceUnavailable, match=r"sent nothing for 2 s.*stall_timeout"):
            stalled(door, batches)
        assert time.monotonic() - started < 30
        assert "source-reader" not in {
            thread.name for thread in threading.enumerate() if thread.is_alive()
        }


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Have Ctrl-C heard, which a shell turns off for what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@READERS
def test_ctrl_c_ends_a_stalled_read(
    door: SwitchProxy,
    pg_database: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    width: str,
) -> None:
    if width == "wide":
        read_wide(monkeypatch)
    found = source(replace(pg_database, port=door.port), monkeypatch, tmp_path, extract_table="t")
    with snapshot_of(found) as snapshot:
        batches = iter(snapshot.reader.read(snapshot.splits(found.spec)[0]))
        pressed: list[float] = []

        def press() -> None:
            pressed.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Timer(3, press)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            stalled(door, batches)
        assert time.monotonic() - pressed[0] < 5
