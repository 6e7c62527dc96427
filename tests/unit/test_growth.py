"""What a long history costs: storage calls and bytes at two sizes, a decade apart.

Counts, never times: `make bench BENCH=growth` has those.
"""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from extract_jobs.commit.at_once import each
from extract_jobs.commit.live_files import LIVE_EVERY
from tests.support.long_history import TARGET, CountedStorage, History, hours, written

DECADE = 10


@pytest.fixture(scope="module")
def short() -> History:
    """50 commits of two files."""
    return History().hourly(50, partitions=2)


@pytest.fixture(scope="module")
def long(short: History) -> History:
    """500 commits of two files."""
    return short.copy().hourly(450, partitions=2)


def counted(history: History) -> CountedStorage:
    history.storage.reset()
    return history.storage


def test_state_grows_with_the_number_of_commits(short: History, long: History) -> None:
    assert long.stored() <= 1.1 * DECADE * short.stored()
    assert long.stored("live") <= 100 * 2 * long.seq  # bytes a file
    assert long.stored("live") <= 0.05 * long.stored()


def test_an_append_costs_the_same_however_many_there_were(short: History, long: History) -> None:
    """On average, with the commits that write segments among them."""
    cost = []
    for history in (short.copy(), long.copy()):
        storage = counted(history)
        history.hourly(LIVE_EVERY, partitions=2)
        cost.append((storage.calls.total(), storage.read_bytes, storage.written_bytes))
    assert all(after <= 1.1 * before for before, after in zip(*cost, strict=True)), cost


def test_a_lag_reaches_as_far_back_as_it_is_long(long: History) -> None:
    """Behind 10 commits as behind 500: the same calls, and no list of live files."""
    cost = []
    for history in (History().hourly(10, partitions=2), long):
        storage = counted(history)
        found = list(history.log.live(history.last, [hours(history.seq - 2, history.seq)]))
        assert [one.seq for one in found] == [history.seq, history.seq - 1]
        assert storage.calls["list"] == 0
        cost.append((storage.calls.total(), storage.read_bytes))
    assert cost[1][0] <= cost[0][0]
    assert cost[1][1] <= 1.1 * cost[0][1]


def test_a_longer_lag_reads_segments(long: History) -> None:
    storage = counted(long)
    found = list(long.log.live(long.last, [hours(long.seq - 200, long.seq)]))
    assert {one.seq for one in found} >= set(range(long.seq - 199, long.seq + 1))
    assert storage.calls.total() <= 200 / LIVE_EVERY + LIVE_EVERY


def test_all_live_files_are_read_from_few_objects(short: History, long: History) -> None:
    bytes_read = []
    for history in (short, long):
        storage = counted(history)
        assert len(history.log.live_files(history.last)) == 2 * history.seq
        assert storage.calls.total() <= 2 * LIVE_EVERY + 1
        bytes_read.append(storage.read_bytes)
    assert bytes_read[1] <= bytes_read[0] + 100 * 2 * long.seq


def test_committing_takes_few_bytes_of_memory_a_file() -> None:
    """Beside the files themselves, which the caller has."""
    peaks = []
    for count in (1_500, 6_000):
        history = History(columns=1)
        files = [written(1, {"day": str(n % 28)}) for n in range(count)]
        gone = [f"{TARGET}/gone-{n}.parquet" for n in range(count)]
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            history.commit(files, removes=gone)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
        finally:
            tracemalloc.stop()
    assert peaks[1] - peaks[0] <= 200 * 4_500, peaks


def test_each_makes_all_calls_in_order_and_raises_the_first_error() -> None:
    """More calls than are in memory at a time, of which two fail, the later one first."""
    begun: list[int] = []

    def call(number: int) -> int:
        begun.append(number)
        if number in (700, 1_500):
            raise ValueError(str(number))
        return number

    assert each(abs, range(-3_000, 0)) == list(range(3_000, 0, -1))
    with pytest.raises(ValueError, match="700"):
        each(call, range(3_000))
    assert sorted(begun) == list(range(3_000))
