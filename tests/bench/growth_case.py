"""Measures one size of one curve in this process, and prints its figures as JSON.

The commit log is the real one, over a state in memory that counts calls and bytes. Only what
earlier versions have too is used, so that another checkout can be measured.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet  # noqa: F401 - a run has it before it comes to the log

from extract_jobs.commit.deduplication import files_on
from extract_jobs.engine.pandas_free import skip_pandas
from tests.support.long_history import CountedStorage, History, hours

EVERY = 64
"""Commits between two that write live files down."""
PROC = Path("/proc/self")


def main(curve: str, size: int) -> None:
    """Print the figures of a curve at a size."""
    skip_pandas()  # as a run does
    print(json.dumps(CURVES[curve](size)))


def whole_history(commits: int) -> dict[str, Any]:
    """Measure all commits of a file each, from the first on."""
    history = History()
    figures = measured(history.storage, lambda: history.hourly(commits))
    return {**figures, "state": history.stored(), "live": history.stored("live")}


def dearest_append(files: int) -> dict[str, Any]:
    """Measure the dearest of the appends behind some live files; one of them writes lists."""
    history = History().hourly(files // 100, partitions=100)
    runs = [measured(history.storage, lambda: history.hourly(1)) for _ in range(EVERY + 1)]
    return max(runs, key=lambda run: run["cpu"])


def all_live_files(files: int) -> dict[str, Any]:
    """Measure a walk over all live files, as for a rollback or the catalog's repair."""
    history = History().hourly(files // 100, partitions=100)

    def walk() -> None:
        live = history.log.live(history.last)
        assert sum(len(one.files) for one in live) == files // 100 * 100

    return measured(history.storage, walk)


def lag_of_two(commits: int) -> dict[str, Any]:
    """Measure looking for the files of the last two hours, behind commits of 10 partitions."""
    history = History().hourly(commits, partitions=10)
    wanted = [hours(commits - 2, commits)]
    later = "within" in type(history.log).live.__code__.co_varnames

    def look() -> None:
        live = history.log.live(history.last, wanted) if later else history.log.live(history.last)
        assert len(files_on(live, wanted)) == 20

    return measured(history.storage, look)


def one_record(columns: int) -> dict[str, Any]:
    """Measure the commit of a table of some columns."""
    history = History(columns=columns)
    return measured(history.storage, lambda: history.hourly(1))


CURVES = {
    curve.__name__: curve
    for curve in (whole_history, dearest_append, all_live_files, lag_of_two, one_record)
}


def measured(storage: CountedStorage, call: Callable[[], Any]) -> dict[str, Any]:
    """Return calls, bytes, CPU seconds, and bytes of memory beyond what the process had."""
    storage.reset()
    (PROC / "clear_refs").write_text("5")  # the high-water mark begins anew
    before, began = _memory("VmRSS"), _cpu()
    call()
    return {
        "calls": storage.calls.total(),
        "read": storage.read_bytes,
        "written": storage.written_bytes,
        "cpu": _cpu() - began,
        "memory": max(0, _memory("VmHWM") - before),
    }


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _memory(name: str) -> int:
    for line in (PROC / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
