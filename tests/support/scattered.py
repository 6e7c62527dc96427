"""Rows of many partitions in random order, from splits that are generated where they are read."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from extract_jobs.engine.split_task import SplitTask
from extract_jobs.errors import SourceUnavailable
from extract_jobs.sources.splits import Split
from extract_jobs.storage.local import LocalStorage
from extract_jobs.transform.transform import Transform, choose_columns
from tests.support.specs import make_description, make_spec

SCHEMA = pa.schema([("n", pa.int64()), ("k", pa.int64()), ("filler", pa.string())])
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def open_storage(_: str) -> LocalStorage:
    """Storage of any target."""
    return LocalStorage()


@dataclass
class ScatteredReader:
    """Yields ``rows`` rows per split, each in a random partition; may break in mid-split.

    ``breaks`` says by split how often its connection breaks after half of its rows.
    """

    rows: int
    partitions: int
    width: int = 100
    batch_rows: int = 10_000
    breaks: dict[int, int] = field(default_factory=dict)
    nulled: dict[str, int] = field(default_factory=dict)

    def only(self, columns: Sequence[str]) -> ScatteredReader:
        """Return itself."""
        return self

    def read(self, split: Split) -> Iterator[pa.RecordBatch]:
        """Yield the same rows for the same split, numbered over all splits."""
        by_chance = random.Random(split.index)
        first = split.index * self.rows
        for start in range(0, self.rows, self.batch_rows):
            count = min(self.batch_rows, self.rows - start)
            if start * 2 >= self.rows and self.breaks.get(split.index):
                self.breaks[split.index] -= 1
                raise SourceUnavailable("cut")
            # Texts that do not compress.
            text = by_chance.randbytes(count * self.width // 2).hex()
            yield pa.record_batch(
                [
                    pa.array(range(first + start, first + start + count), pa.int64()),
                    pa.array(by_chance.choices(range(self.partitions), k=count), pa.int64()),
                    pa.array([text[i * self.width : (i + 1) * self.width] for i in range(count)]),
                ],
                SCHEMA,
            )


def scattered_task(folder: Path, spill_folder: Path | None = None, **target: object) -> SplitTask:
    """Return a task that partitions by ``k``."""
    spec = make_spec(folder, target={"partition_by": ["k"], **target})
    transform = Transform.build(
        choose_columns(make_description(SCHEMA), spec),
        spec,
        run_id=spec.run_id,
        extracted_at=NOW,
        extract_date=NOW.date(),
    )
    return SplitTask(
        reader=None,
        transform=transform,
        target=spec.target,
        file_prefix="run-1-1",
        metadata={},
        open_storage=open_storage,
        shares_files=True,
        spill_folder=str(spill_folder) if spill_folder else None,
    )
