"""What an extract works with: Spark, worker processes, clock, storage and progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from extract_jobs.engine.worker_processes import WorkerProcesses
from extract_jobs.reporting.progress import Progress
from extract_jobs.storage import OpenStorage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def utc_now() -> datetime:
    """Return the present, UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class RunContext:
    """What an extract works with; tests pass their own."""

    spark: SparkSession | None
    progress: Progress
    clock: Callable[[], datetime]
    open_storage: OpenStorage
    workers: WorkerProcesses
    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Notify the progress, and add the seconds spent to the timings."""
        self.progress.phase(name)
        started = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - started
            self.timings[name] = round(self.timings.get(name, 0.0) + spent, 3)
