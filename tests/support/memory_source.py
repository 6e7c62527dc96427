"""A source in memory: rows of one integer column, its own key and watermark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pyarrow as pa

from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import ReadRequest
from extract_jobs.sources.splits import Split
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.watermark import WatermarkValue

ID = Column(
    "id", "bigint", pa.int64(), False, "lossless", "64-bit integer", '"id"', watermark="integer"
)


@dataclass(frozen=True)
class MemoryReader:
    rows: tuple[int, ...]
    nulled: dict[str, int] = field(default_factory=dict)

    def only(self, columns: Sequence[str]) -> MemoryReader:
        return self

    def read(self, split: Split) -> Iterator[pa.RecordBatch]:
        for start in range(0, len(self.rows), 2):
            part = pa.array(self.rows[start : start + 2], pa.int64())
            yield pa.record_batch([part], names=["id"])


@dataclass(frozen=True)
class MemorySnapshot:
    reader: MemoryReader
    shared: bool = True

    def splits(self, spec: ExtractSpec) -> Sequence[Split]:
        return [Split(0)]

    def count(self) -> int:
        return len(self.reader.rows)

    def check(self) -> None:
        pass


@dataclass
class MemorySource:
    """The table at the time of a snapshot."""

    rows: list[int]
    system: str = "1"

    def describe(self) -> TableDescription:
        return TableDescription(
            table="t",
            kind="table",
            columns=(ID,),
            key=("id",),
            estimated_rows=len(self.rows),
            estimated_bytes=len(self.rows) * 8,
            fingerprint={"system": self.system},
            source_version="memory",
        )

    def highest(
        self,
        column: str,
        *,
        lower: WatermarkValue | None = None,
        upper: WatermarkValue | None = None,
        delay: timedelta | None = None,
    ) -> WatermarkValue | None:
        rows = [r for r in self.rows if _lies_between(r, lower, upper)]
        return WatermarkValue("integer", str(max(rows))) if rows else None

    def precedes(self, column: str, left: WatermarkValue, right: WatermarkValue) -> bool:
        return int(left.text) < int(right.text)

    def null_watermarks(self, column: str) -> int:
        return 0

    @contextmanager
    def snapshot(self, request: ReadRequest) -> Iterator[MemorySnapshot]:
        rows, interval = self.rows, request.interval
        if interval is not None:
            rows = [
                r
                for r in rows
                if not interval.empty and _lies_between(r, interval.lower, interval.upper)
            ]
        yield MemorySnapshot(MemoryReader(tuple(rows)))


def _lies_between(row: int, lower: WatermarkValue | None, upper: WatermarkValue | None) -> bool:
    return (lower is None or int(lower.text) < row) and (upper is None or row <= int(upper.text))
