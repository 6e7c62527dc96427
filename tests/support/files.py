"""Specs of files in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from extract_jobs.sources import ObjectsBefore, ReadRequest
from extract_jobs.sources.files.source import FilesSource
from extract_jobs.spec.extract_spec import ExtractSpec

# Keys of the spec itself; all others are keys of ``files``.
OUTER = (
    "run_id", "attempt", "mode", "split", "columns", "target", "state_uri", "connection", "where",
    "engine", "max_value_bytes",
)  # fmt: skip


def files_spec(folder: Path | str, glob: str, **given: Any) -> ExtractSpec:
    """Return a spec of the files in a folder; keys that are not the spec's go into ``files``."""
    outer = {name: given.pop(name) for name in OUTER if name in given}
    return ExtractSpec.model_validate(
        {
            "run_id": "r",
            "source_name": "drop",
            "source_type": "files",
            "connection": {"uri": str(folder)},
            "extract_table": "t",
            "files": {"glob": glob, **given},
            "target": {"uri": f"{folder}/_out/t"},
            "state_uri": f"{folder}/_out/state",
            "report_uri": f"{folder}/_out/report.json",
            **outer,
        }
    )


def batches_of(spec: ExtractSpec) -> Iterator[pa.RecordBatch]:
    """Yield the batches of all splits, in order, without keeping them."""
    source = FilesSource.open(spec)
    with source.snapshot(ReadRequest(source.describe().columns)) as snapshot:
        for split in snapshot.splits(spec):
            yield from snapshot.reader.read(split)


def read_all(spec: ExtractSpec) -> pa.Table:
    """Return the rows of all splits, in order."""
    source = FilesSource.open(spec)
    columns = source.describe().columns
    with source.snapshot(ReadRequest(columns)) as snapshot:
        reader = snapshot.reader
        batches = [batch for split in snapshot.splits(spec) for batch in reader.read(split)]
        table = pa.Table.from_batches(batches, reader.schema)
        count = snapshot.count()
        assert count is None or count == table.num_rows
        return table


def before(last: bytes, whole: bytes | None = None) -> ObjectsBefore:
    """Return stored lists of objects as a run finds them."""
    return ObjectsBefore("objects/r/0-0.parquet", last, whole)
