"""Small files that are parsed as one give what each gives alone, or the same error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ExtractError
from extract_jobs.sources.files import alike, csv_rows, inspection, reader
from extract_jobs.sources.files.alike import JOINED_BYTES, runs
from extract_jobs.sources.splits import ObjectRange
from extract_jobs.storage.local import LocalStorage
from tests.support.files import batches_of, files_spec, read_all
from tests.support.sampling import examples

PIECES = ("1", "22", "-7", "x", "", "2026-01-01", "1.50", '"q"', '"a,b"', '"x\n1"', 'a"b', '"', "é",
          "z\\", "\0y")  # fmt: skip
ENDS = ("\n", "\n", "\n", "\n", "\r\n", "\r", "", "\n\n", "\n \n", "\n\0\n")
HEADERS = ("a,b\n",) * 4 + ("a,b\r\n", "\ufeffa,b\n", "b,a\n", "a\n", "sep=,\na,b\n", "")

SETTINGS: tuple[dict[str, Any], ...] = (
    {}, {"bad_rows": "reject"}, {"header": False}, {"delimiter": ";"}, {"partitions": "columns"},
    {"escape": "\\"}, {"quote": "none", "header": False, "bad_rows": "reject"},
    {"quote": "none", "footer_rows": 1},
)  # fmt: skip


def one_file() -> st.SearchStrategy[str]:
    row = st.lists(st.sampled_from(PIECES), min_size=2, max_size=2).map(",".join)
    odd = st.lists(st.sampled_from(PIECES), max_size=4).map(",".join)
    rows = st.tuples(row | row | row | odd, st.sampled_from(ENDS)).map("".join)
    return st.tuples(st.sampled_from(HEADERS), st.lists(rows, max_size=4).map("".join)).map("".join)


def result(read: Callable[[], pa.Table]) -> Any:
    try:
        return read()
    except ExtractError as error:
        return type(error), str(error)


@example(
    texts=["1,x,\n\0,y,\n", "2,z,b,\n3,c,\n"],
    given_files={"quote": "none", "header": False, "bad_rows": "reject"},
)
@example(texts=["a,b\n1,2,\n1,2,\n1,2,\n", 'a,b\n7,x,""\n'], given_files={"bad_rows": "reject"})
@example(texts=["a,b\n1,x\n", "a,b\n1,y\\"], given_files={"escape": "\\"})
@example(texts=["a,b\n", "sep=,\na,b\n"], given_files={"header": False})
@example(
    texts=['a,b\n1,"2\n', 'a,b\n3"\n5,6\n'], given_files={}
)  # a quote that only the next file closes
@example(
    texts=['a,b\n1,"2\n', 'a,b\n3"\r5,6\n'], given_files={}
)  # and as many rows as lines all the same
@example(texts=['"a\nb",c\n1,2\n', '"a\nb",c\n3,4\n'], given_files={})
@settings(max_examples=examples(60), deadline=None)
@given(texts=st.lists(one_file(), min_size=2, max_size=5), given_files=st.sampled_from(SETTINGS))
def test_joined_or_alone_files_give_the_same(
    texts: list[str], given_files: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("drop")
    for number, text in enumerate(texts):
        place = folder / f"day={number // 3}"
        place.mkdir(exist_ok=True)
        (place / f"{number}.csv").write_bytes(text.encode())
    spec = files_spec(folder, "*/*.csv", **given_files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "_handful", lambda *_: 50)
        together = result(lambda: read_all(spec))
        patch.setattr(alike, "_SMALL_BYTES", -1)
        alone = result(lambda: read_all(spec))
    assert together == alone


def files(folder: Path, count: int, text: str) -> Path:
    for number in range(count):
        (folder / f"{number:04d}.csv").write_text(text.replace("N", str(number)))
    return folder


def test_files_of_one_header_are_parsed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []

    def counted(data: bytes, *more: Any, **named: Any) -> pa.Table:
        parsed.append(len(data))
        return read_csv(data, *more, **named)

    read_csv = csv_rows._read_csv
    monkeypatch.setattr(csv_rows, "_read_csv", counted)
    table = read_all(files_spec(files(tmp_path, 400, "id,v\nN,a\nN,b"), "*.csv"))
    assert table.num_rows == 800
    assert table["id"].to_pylist() == [number for number in range(400) for _ in "ab"]
    assert len(parsed) < 100, "while they are inspected; reading them parses into types"


@pytest.mark.parametrize("odd", ['7,"a', "7", "7,a,b", "seven,a"])
def test_the_file_in_which_something_is_odd_is_named(tmp_path: Path, odd: str) -> None:
    files(tmp_path, 40, "id,v\nN,a\n")
    (tmp_path / "0020.csv").write_text(f"id,v\n1,a\n{odd}\n")
    spec = files_spec(tmp_path, "*.csv", types={"id": "int64", "v": "string"})
    with pytest.raises(ExtractError, match=r"0020\.csv, line 3"):
        read_all(spec)


def test_a_file_that_changes_after_it_was_listed_is_named(tmp_path: Path) -> None:
    files(tmp_path, 3, "id,v\nN,a\n")
    storage = LocalStorage()
    listed = list(storage.list(f"{tmp_path}/"))
    parts = [ObjectRange(one.uri, one.etag or "", one.size) for one in listed]
    assert alike.joined(storage, parts, files_spec(tmp_path, "*.csv").files) is not None
    (tmp_path / "0001.csv").write_text("id,v\n2,b\n9,c\n")
    with pytest.raises(ExtractError, match=r"0001\.csv.*changed|0001\.csv.*replaced"):
        alike.joined(storage, parts, files_spec(tmp_path, "*.csv").files)


def test_columns_that_files_lack_make_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, 40, "c0\n" + "N\n" * 500)
    (tmp_path / "wide.csv").write_text(
        f"{','.join(f'c{i}' for i in range(100))}\n{','.join('1' * 100)}\n"
    )
    monkeypatch.setattr(reader, "_ABSENT_BYTES", 2**20)
    batches = list(batches_of(files_spec(tmp_path, "*.csv")))
    assert sum(batch.num_rows for batch in batches) == 20_001
    assert max(batch.nbytes for batch in batches) < 3 * 2**20


def test_runs_are_bounded_and_of_one_key() -> None:
    sizes = [JOINED_BYTES // 3] * 7
    found = list(runs(range(7), lambda i: sizes[i], lambda i: None if i == 5 else i // 4))
    assert found == [[0, 1, 2], [3], [4], [5], [6]]
