"""Parquet as a source: what other writers leave in their files, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract_jobs.errors import SourceQueryFailed
from tests.support.files import files_spec, read_all


def flipped(path: Path, text: bytes) -> None:
    """Change the first byte of a text that a file holds as it is."""
    data = path.read_bytes()
    at = data.index(text)
    path.write_bytes(data[:at] + b"x" + data[at + 1 :])


def test_a_damaged_page_is_refused_where_it_has_a_checksum(tmp_path: Path) -> None:
    table = pa.table({"s": [f"value {n:06}" for n in range(5000)]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    assert read_all(files_spec(tmp_path, "*.parquet")).equals(table)
    flipped(path, b"value 002500")
    with pytest.raises(SourceQueryFailed, match=r"a\.parquet.*its checksum does not match"):
        read_all(files_spec(tmp_path, "*.parquet"))
