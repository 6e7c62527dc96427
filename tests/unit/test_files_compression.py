"""Compressed files: each kind, whole, cut short, and of another kind than the name says."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from extract_jobs.errors import ConfigError, SourceQueryFailed
from tests.support.files import files_spec, read_all

TEXT = b"id,text\n" + b"".join(b"%d,text %d\n" % (n, n * n) for n in range(5000))


def zipped(data: bytes, *names: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("folder/", "folder/x.csv"):
            archive.writestr(name, b"" if name.endswith("/") else data)
    return sink.getvalue()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
    "lz4": lambda data: pa.compress(data, codec="lz4", asbytes=True),
    "zip": zipped,
}


def ids(folder: Path, name: str, data: bytes) -> list[int]:
    (folder / name).write_bytes(data)
    return list(read_all(files_spec(folder, name)).column("id").to_pylist())


@pytest.mark.parametrize("suffix", COMPRESS)
def test_each_kind_is_read(tmp_path: Path, suffix: str) -> None:
    assert ids(tmp_path, f"a.csv.{suffix}", COMPRESS[suffix](TEXT)) == list(range(5000))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    data = COMPRESS[suffix](TEXT)
    with pytest.raises(SourceQueryFailed, match="cannot be read"):
        ids(tmp_path, f"a.csv.{suffix}", data[: len(data) * 2 // 3])


@pytest.mark.parametrize("suffix", COMPRESS)
def test_what_is_not_compressed_so_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(SourceQueryFailed, match="cannot be read"):
        ids(tmp_path, f"a.csv.{suffix}", TEXT)


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_several_members_are_one_stream(tmp_path: Path, suffix: str) -> None:
    compress = COMPRESS[suffix]
    half = TEXT.index(b"\n2500,") + 1
    data = compress(TEXT[:half]) + compress(TEXT[half:])
    assert ids(tmp_path, f"a.csv.{suffix}", data) == list(range(5000))


def test_zeros_behind_a_gzip_are_padding_and_anything_else_is_damage(tmp_path: Path) -> None:
    assert ids(tmp_path, "a.csv.gz", gzip.compress(TEXT) + bytes(512)) == list(range(5000))
    with pytest.raises(SourceQueryFailed, match="cannot be read"):
        ids(tmp_path, "b.csv.gz", gzip.compress(TEXT) + b"x")


def test_a_zip_is_as_many_files_as_are_in_it(tmp_path: Path) -> None:
    more = b"text,id,more\nx,5000,1.5\n"
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", TEXT)
        archive.writestr("folder/b.csv", more)
        archive.writestr("empty.csv", b"")
        archive.writestr("__MACOSX/._a.csv", b"\0")
        archive.writestr("folder/.DS_Store", b"\0")
    (tmp_path / "a.csv.zip").write_bytes(sink.getvalue())
    for given in ({}, {"types": {"id": "int64", "text": "string", "more": "float64"}}):
        found = read_all(files_spec(tmp_path, "a.csv.zip", **given))
        assert found.column("id").to_pylist() == list(range(5001)), given
        assert found.column("more").to_pylist() == [None] * 5000 + [1.5]
    lines = b'{"id": 1}\n{"id": 2}\n'
    (tmp_path / "a.jsonl.zip").write_bytes(zipped(lines, "a.jsonl", "b.jsonl"))
    assert read_all(files_spec(tmp_path, "a.jsonl.zip")).column("id").to_pylist() == [1, 2, 1, 2]


def test_a_fault_in_a_zip_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv.zip").write_bytes(zipped(b"id\n1\n2,3\n", "a.csv", "b.csv"))
    with pytest.raises(SourceQueryFailed, match=r"a\.csv\.zip, a\.csv, line 3"):
        read_all(files_spec(tmp_path, "a.csv.zip"))


def test_what_a_zip_holds_besides_the_tables_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.csv\.zip, readme\.txt: its name does not say"):
        ids(tmp_path, "a.csv.zip", zipped(TEXT, "a.csv", "readme.txt"))
    spec = files_spec(tmp_path, "a.csv.zip", format="csv")
    assert read_all(spec).column("id").to_pylist() == 2 * list(range(5000))
    with pytest.raises(ConfigError, match=r"b\.csv\.gz: it is compressed within the zip"):
        ids(tmp_path, "b.csv.zip", zipped(TEXT, "a.csv", "b.csv.gz"))
    with pytest.raises(ConfigError, match="there is no file in this zip"):
        ids(tmp_path, "b.csv.zip", zipped(TEXT, "folder/"))
