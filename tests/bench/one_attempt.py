"""One attempt of a run as a whole process; it may be made to break off after some splits.

python -m tests.bench.one_attempt SPEC.json [--break-off-after 0.9]
"""

from __future__ import annotations

import argparse
import os
import threading
from pathlib import Path

from extract_jobs.engine.pandas_free import skip_pandas
from extract_jobs.reporting.progress import Progress
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import parse_spec


class BreakingOff(Progress):
    """Kills its process once a share of the splits is done and has been noted."""

    def __init__(self, after: float) -> None:
        self.after, self.left = after, 0

    def planned(self, splits: int, rows: int | None, size: int | None) -> None:
        self.left = max(1, int(splits * self.after))

    def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
        self.left -= done
        if self.left == 0:
            threading.Timer(0.3, os._exit, [0]).start()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("spec", type=Path)
    parser.add_argument("--break-off-after", type=float, metavar="SHARE")
    given = parser.parse_args()
    skip_pandas()
    progress = BreakingOff(given.break_off_after) if given.break_off_after else None
    run_extract(parse_spec(given.spec.read_bytes()), progress=progress)


if __name__ == "__main__":
    main()
