"""What a Parquet footer says about its column chunks, read without asking Arrow about them."""

from __future__ import annotations

import io
import random
import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract_jobs import parquet_footer
from extract_jobs.parquet_footer import Chunk, Footer, read_footer
from extract_jobs.sources.files.parquet_rows import group_bytes

ROOT = Path(__file__).parents[2]
ENCODINGS = {
    "PLAIN": 0, "PLAIN_DICTIONARY": 2, "RLE": 3, "BIT_PACKED": 4, "DELTA_BINARY_PACKED": 5,
    "DELTA_LENGTH_BYTE_ARRAY": 6, "DELTA_BYTE_ARRAY": 7, "RLE_DICTIONARY": 8,
    "BYTE_STREAM_SPLIT": 9,
}  # fmt: skip
TABLE = pa.table({
    "id": pa.array([1, 2]),
    "raw": pa.array([b"\x5c\x2c\x19\x18", bytes(300)]),
    "deep": pa.array([{"a": [1, 2], "b": {"c": "x"}}, None]),
    "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
    "price": pa.array([Decimal("1.10"), None], pa.decimal128(9, 2)),
    "day": pa.array([date(2026, 1, 1), None]),
    "yes": pa.array([True, None]),
    "none": pa.nulls(2),
    "ratio": pa.array([1.5, float("nan")]),
})  # fmt: skip
WRITTEN: dict[str, dict[str, Any]] = {
    "usual": {},
    "plain": {"use_dictionary": False, "compression": "none", "write_statistics": False},
    "indexed": {"write_page_index": True, "compression": "zstd", "data_page_version": "2.0"},
    "blooms": {"store_schema": False, "sorting_columns": [pq.SortingColumn(0)]},
    "old": {"version": "1.0", "use_dictionary": ["id"]},
    "split": {"use_dictionary": False, "column_encoding": {"ratio": "BYTE_STREAM_SPLIT"}},
}


def written(table: pa.Table, groups: int = 3, **given: Any) -> io.BytesIO:
    out = io.BytesIO()
    with pq.ParquetWriter(out, table.schema, **given) as writer:
        for _ in range(groups):
            writer.write_table(table)
    return out


def as_arrow_says(metadata: pq.FileMetaData) -> tuple[tuple[Chunk, ...], ...]:
    def chunk(column: pq.ColumnChunkMetaData) -> Chunk:
        encodings = tuple(ENCODINGS[name] for name in column.encodings)
        return Chunk(
            column.num_values, column.total_compressed_size, column.total_uncompressed_size,
            encodings, column.has_dictionary_page,
        )  # fmt: skip

    groups = map(metadata.row_group, range(metadata.num_row_groups))
    return tuple(tuple(chunk(g.column(n)) for n in range(g.num_columns)) for g in groups)


@pytest.mark.parametrize("given", WRITTEN.values(), ids=WRITTEN)
def test_chunks_are_what_arrow_says_they_are(given: dict[str, Any]) -> None:
    footer = read_footer(written(TABLE, **given))
    assert footer.groups == as_arrow_says(footer.metadata)
    assert footer.encrypted == frozenset()
    groups = map(footer.metadata.row_group, range(footer.metadata.num_row_groups))
    assert group_bytes(footer) == tuple(
        sum(g.column(n).total_compressed_size for n in range(g.num_columns)) for g in groups
    )


def test_chunks_of_a_wide_table_whose_footer_takes_a_second_read() -> None:
    dice = random.Random(7)
    wide = pa.table({f"c{n}": pa.array([dice.getrandbits(62), None]) for n in range(3000)})
    footer = read_footer(written(wide, groups=1))
    assert footer.groups == as_arrow_says(footer.metadata)


def test_bytes_of_encrypted_columns_do_not_count() -> None:
    metadata = pq.read_metadata(written(TABLE))
    groups = ((Chunk(compressed=1), Chunk(compressed=2, encrypted=True), Chunk(compressed=4)),)
    assert group_bytes(Footer(metadata, groups)) == (5,)


def test_a_damaged_footer_is_read_or_refused() -> None:
    whole = written(TABLE).getvalue()
    length = int.from_bytes(whole[-8:-4], "little")
    outcomes = set()
    for at in range(len(whole) - 8 - length, len(whole) - 8, 3):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        try:
            footer = read_footer(io.BytesIO(damaged))
        except (OSError, pa.ArrowException):
            outcomes.add("refused")
        else:
            outcomes.add("read")
            assert {len(group) for group in footer.groups} <= {footer.metadata.num_columns}
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("number", [-1, 2**50])
def test_figures_that_no_file_has_are_refused(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = Chunk(1, 10, number)
    footer = read_footer(written(TABLE))
    groups = tuple((chunk,) * len(group) for group in footer.groups)
    monkeypatch.setattr(parquet_footer, "_row_groups", lambda _: groups)
    with pytest.raises(pa.ArrowInvalid, match="damaged"):
        read_footer(written(TABLE))


def test_nobody_asks_arrow_about_chunks_of_files_that_others_wrote() -> None:
    """`RowGroupMetaData.column` ends the process where a footer is damaged."""
    asks = re.compile(r"row_group\([^)]*\)\.column|\b(?:g|group|about)\.column\b")
    checked = [
        ROOT / "extract_jobs/commit/live_segments.py",
        ROOT / "extract_jobs/parquet_footer.py",
        *(ROOT / "extract_jobs/sources/files").glob("*.py"),
    ]
    assert len(checked) > 20
    assert [path.name for path in checked if asks.search(path.read_text())] == []
