"""Long records are held by one thread of a process at a time, and nobody waits for ever."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from extract_jobs.errors import SourceQueryFailed
from extract_jobs.sources.files import blocks as module
from extract_jobs.sources.files.blocks import Block, blocks, cut_lines

LONG = 5_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 1_000)
    monkeypatch.setattr(module, "LONG_RECORD_BYTES", LONG)
    monkeypatch.setattr(module, "MAX_RECORD_BYTES", 20 * LONG)


def read(data: bytes) -> list[Block]:
    return list(blocks(io.BytesIO(data), cut_lines, "f"))


def test_one_thread_at_a_time_holds_a_long_record() -> None:
    lock, now, most = threading.Lock(), 0, 0
    data = b"x\n" * 800 + b"y" * 3 * LONG + b"\n" + b"z\n" * 800

    def consume(_: int) -> int:
        nonlocal now, most
        rows = 0
        for block in blocks(io.BytesIO(data), cut_lines, "f"):
            rows += block.data.count(b"\n")
            if len(block.data) > LONG:
                with lock:
                    now += 1
                    most = max(most, now)
                time.sleep(0.05)
                with lock:
                    now -= 1
        return rows

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(consume, range(4))) == [1_601] * 4
    assert most == 1


def test_the_turn_is_given_back_by_who_stops_or_fails() -> None:
    long = b"y" * 3 * LONG + b"\n"
    reading = blocks(io.BytesIO(long + b"z\n" * 5_000), cut_lines, "f")
    assert len(next(reading).data) > LONG
    assert sum(len(block.data) for block in read(long)) == len(long)  # the same thread, once more
    reading.close()
    with pytest.raises(SourceQueryFailed, match=r"does not end.*a line may have"):
        read(b"y" * 30 * LONG)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(read, long).result(timeout=30)[0].data == long
