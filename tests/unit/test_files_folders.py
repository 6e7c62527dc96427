"""Columns in the names of folders."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from extract_jobs.errors import ConfigError, ExtractError, TypeNotRepresentable
from extract_jobs.sources.files.source import FilesSource
from extract_jobs.spec.globs import glob_pattern
from tests.support.files import before, files_spec, read_all


def put(folder: Path, name: str, n: int) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".csv"):
        path.write_text(f"n\n{n}\n")
    elif name.endswith(".jsonl"):
        path.write_text(f'{{"n": {n}}}\n')
    else:
        pq.write_table(pa.table({"n": [n]}), path)


def rows(folder: Path, glob: str = "**", **given: Any) -> list[dict[str, Any]]:
    found = read_all(files_spec(folder, glob, **given)).to_pylist()
    return sorted(found, key=lambda row: int(row["n"]))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_folders_name_columns(tmp_path: Path, form: str) -> None:
    put(tmp_path, f"y=2023/m=01/a.{form}", 1)
    put(tmp_path, f"y=2023/plain/m=__HIVE_DEFAULT_PARTITION__/a.{form}", 2)
    put(tmp_path, f"y=a%2Fb%3D%25/m=%C3%A9/a.{form}", 3)
    put(tmp_path, f"y=2024/a=b.{form}", 4)
    expected = [
        {"n": 1, "y": "2023", "m": "01"},
        {"n": 2, "y": "2023", "m": None},
        {"n": 3, "y": "a/b=%", "m": "é"},
        {"n": 4, "y": "2024", "m": None},
    ]
    assert rows(tmp_path, f"**/*.{form}") == expected
    assert list(rows(tmp_path, f"**/*.{form}")[0]) == ["n", "y", "m"]
    assert rows(tmp_path, f"**/*.{form}", partitions="ignore") == [{"n": n} for n in (1, 2, 3, 4)]


def test_folders_that_the_glob_spells_out_count_and_those_of_the_source_do_not(
    tmp_path: Path,
) -> None:
    put(tmp_path, "z=0/y=1/a.csv", 1)
    assert rows(tmp_path / "z=0", "y=1/*.csv") == [{"n": 1, "y": "1"}]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_folders_have_the_type_that_is_declared(tmp_path: Path, form: str) -> None:
    put(tmp_path, f"y=2023/d=2026-01-31/a.{form}", 1)
    put(tmp_path, f"y=-7/d=__HIVE_DEFAULT_PARTITION__/a.{form}", 2)
    types = {"y": "int16", "n": "int64", "d": "date"}
    assert rows(tmp_path, types=types) == [
        {"y": 2023, "n": 1, "d": date(2026, 1, 31)},
        {"y": -7, "n": 2, "d": None},
    ]
    assert rows(tmp_path, types={"n": "int64"})[0] == {"n": 1, "y": "2023", "d": "2026-01-31"}
    put(tmp_path, f"y=0x10/a.{form}", 3)
    with pytest.raises(TypeNotRepresentable, match=r"y=0x10/a.*folder's 'y' is not a valid int16"):
        rows(tmp_path, types=types)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_column_of_both_is_refused(tmp_path: Path, form: str) -> None:
    put(tmp_path, f"n=1/a.{form}", 2)
    with pytest.raises(ConfigError, match="column 'n' is in the file and in the name"):
        rows(tmp_path)
    assert rows(tmp_path, partitions="ignore") == [{"n": 2}]
    if form != "parquet":
        with pytest.raises(ExtractError, match="column 'n' is in the file and in the name"):
            rows(tmp_path, types={"n": "int64"})


def test_folders_are_remembered_beside_new_files(tmp_path: Path) -> None:
    put(tmp_path, "y=1/a.csv", 1)
    spec = files_spec(tmp_path, "**/*.csv", mode="incremental")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    first = FilesSource.open(spec).choose(None, now)
    put(tmp_path, "b.csv", 2)
    second = FilesSource.open(spec).choose(before(first), now)
    columns = FilesSource.open(spec).at(second).describe().columns
    assert [column.name for column in columns] == ["n", "y"]


def test_folders_that_are_ignored_from_now_on_are_no_columns(tmp_path: Path) -> None:
    put(tmp_path, "y=1/a.csv", 1)
    spec = files_spec(tmp_path, "**/*.csv", mode="incremental")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    first = FilesSource.open(spec).choose(None, now)
    put(tmp_path, "y=2/b.csv", 2)
    source = FilesSource.open(
        files_spec(tmp_path, "**/*.csv", mode="incremental", partitions="ignore")
    )
    columns = source.at(source.choose(before(first), now)).describe().columns
    assert [column.name for column in columns] == ["n"]


@pytest.mark.parametrize("name", ["y=1/y=2/a.csv", "y=%ff/a.csv"])
def test_folders_that_say_nothing_clear_are_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, 1)
    with pytest.raises(ConfigError, match=r"y=.*files\.partitions"):
        rows(tmp_path)


def test_what_pyarrow_writes_as_hive_folders_comes_back(tmp_path: Path) -> None:
    texts = ["plain", "a/b", "a=b", "50%", "%2F", "x y", "é", "日本", "q\"'q", "+", None]
    table = pa.table({"n": list(range(len(texts))), "k": texts})
    part = ds.partitioning(pa.schema([("k", pa.string())]), flavor="hive")
    ds.write_dataset(table, tmp_path, format="parquet", partitioning=part)
    assert [row["k"] for row in rows(tmp_path, "**/*.parquet")] == texts


def test_a_glob_goes_across_folders_without_a_name(tmp_path: Path) -> None:
    """In S3 ``k//b.csv`` is a key like any other."""
    assert glob_pattern("**/*.csv").fullmatch("k//b.csv")
    assert glob_pattern("k/**/b.csv").fullmatch("k//b.csv")
    assert glob_pattern("k/**/b.csv").fullmatch("k/b.csv")
    assert not glob_pattern("k/**/b.csv").fullmatch("kb.csv")


_PLAIN = {"**/": "(?:[^/]*/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@given(
    st.lists(st.sampled_from(["a", "b", "/", "*", "**", "**/", "?", "[", "."]), max_size=8),
    st.lists(st.text("ab/[.", max_size=10), min_size=1, max_size=20),
)
def test_a_glob_matches_what_its_plain_translation_does(
    pieces: list[str], paths: list[str]
) -> None:
    glob = "".join(pieces)
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    plain = re.compile("".join(_PLAIN.get(part) or re.escape(part) for part in parts), re.DOTALL)
    try:
        pattern = glob_pattern(glob)
    except ConfigError:
        assume(False)
    for path in paths:
        assert bool(pattern.fullmatch(path)) == bool(plain.fullmatch(path)), (glob, path)


@pytest.mark.parametrize("piece", ["**/a/", "**a", "*a", "**/*a/", "**/?/", "/**/*?"])
def test_a_glob_of_many_wildcards_comes_to_an_end(piece: str) -> None:
    begun = time.process_time()
    for path in ("a/" * 500 + "b", "a" * 1000 + "b", "ab/" * 300):
        assert not glob_pattern(piece * 40 + "x").fullmatch(path)
    assert time.process_time() - begun < 10


def test_a_glob_that_could_take_for_ever_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"follow something other than a slash"):
        glob_pattern("**/a" * 12 + "x")
