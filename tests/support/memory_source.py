"""A source in memory: rows of one integer column, in as many splits as asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import ReadRequest
from extract_jobs.spec import ExtractSpec
from extract_jobs.splits import Split
from extract_jobs.watermark import WatermarkValue

ID = Column("id", "bigint", pa.int64(), False, "lossless", "64-bit integer", '"id"')


@dataclass(frozen=True)
class MemoryReader:
    rows: tuple[int, ...]
    nulled: dict[str, int] = field(default_factory=dict)

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
    """The table as it is when a snapshot is taken."""

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

    def highest(self, column: str, upper: str | int | None) -> WatermarkValue | None:
        rows = [r for r in self.rows if upper is None or r <= int(upper)]
        return WatermarkValue("integer", str(max(rows))) if rows else None

    @contextmanager
    def snapshot(self, request: ReadRequest) -> Iterator[MemorySnapshot]:
        yield MemorySnapshot(MemoryReader(tuple(self.rows)))
