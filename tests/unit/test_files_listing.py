"""Which objects a glob means; a hundred thousand of them; what a spec of files may say."""

from __future__ import annotations

import os
import socket
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from extract_jobs.errors import ConfigError
from extract_jobs.sources import ReadRequest, open_source
from extract_jobs.sources.files.listing import compression_of, folder_of, format_of, list_objects
from extract_jobs.sources.files.objects import ObjectList
from extract_jobs.sources.files.source import FilesSource
from extract_jobs.storage import ObjectInfo, Storage, open_storage
from tests.support.files import before, files_spec
from tests.support.memory_storage import Bucket, Process, ProcessStorage
from tests.support.sampling import EXHAUSTIVE

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NAMES = [
    "a.csv", "b.CSV", "x/a.csv", "x/y/a.csv", "x/y/b.json", "_hidden.csv", ".hidden.csv",
    "_old/a.csv", "x/_tmp/a.csv", "x/_p=1/a.csv", "x/a.csv._COPYING_", "x/", "x/[a].csv",
    "x/é?.csv",
]  # fmt: skip
GLOBS = {
    "*.csv": ["a.csv"],
    "*": ["a.csv", "b.CSV"],
    "**": ["a.csv", "b.CSV", "x/[a].csv", "x/_p=1/a.csv", "x/a.csv", "x/y/a.csv", "x/y/b.json",
           "x/é?.csv"],
    "**/a.csv": ["a.csv", "x/_p=1/a.csv", "x/a.csv", "x/y/a.csv"],
    "x/**/a.csv": ["x/_p=1/a.csv", "x/a.csv", "x/y/a.csv"],
    "x/*/a.csv": ["x/_p=1/a.csv", "x/y/a.csv"],
    "x/?.csv": ["x/a.csv"],
    "?.csv": ["a.csv"],
    "x/[a].csv": ["x/[a].csv"],
    "x/é?.*": ["x/é?.csv"],
    "_old/*.csv": ["_old/a.csv"],
    "_*.csv": [],
    "/a.csv": ["a.csv"],
    "a": [],
}  # fmt: skip


@pytest.mark.parametrize("glob", GLOBS)
def test_globs(glob: str) -> None:
    bucket = Bucket({f"s3://drop/in/{name}": (b"x", None) for name in NAMES})
    bucket.objects["s3://drop/in2/a.csv"] = (b"x", None)
    found = list_objects(ProcessStorage(bucket, Process("p")), "s3://drop/in/", glob)
    assert [info.uri.removeprefix("s3://drop/in/") for info in found] == GLOBS[glob]


def test_a_file_whose_name_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv")).touch()
    folder = f"{tmp_path}/"
    with pytest.raises(ConfigError, match=r"udcff\.csv: the name of this file is not UTF-8"):
        list(list_objects(open_storage(folder), folder, "**"))
    assert len(list(list_objects(open_storage(folder), folder, "a*.csv"))) == 1


def test_only_what_begins_like_the_glob_is_listed() -> None:
    process = Process("p")
    storage = ProcessStorage(Bucket(), process)
    list(list_objects(storage, "s3://drop/in/", "2026/06/ord*/**/*.csv"))
    assert process.calls == ["list s3://drop/in/2026/06/ord"]


def test_folders_are_spelled_as_their_objects_are() -> None:
    assert folder_of("s3://drop/my in") == "s3://drop/my in/"
    assert folder_of("file:///the%20drop/") == "/the drop/"
    assert folder_of("drop") == "drop/"


def test_names_give_format_and_compression() -> None:
    assert format_of("s3://b/x.CSV.GZ", None) == "csv"
    assert format_of("s3://b/x.ndjson", None) == "jsonl"
    assert format_of("s3://b/csv", "parquet") == "parquet"
    assert compression_of("s3://b/x.csv.zst", None) == "zstd"
    assert compression_of("s3://b/x.csv.zst", "none") == "none"
    for name in ("s3://b/csv", "s3://b/x.gz", "s3://b.csv/x"):
        with pytest.raises(ConfigError, match="indicates no format"):
            format_of(name, None)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x.orc", "ORC is not read; convert it to Parquet"),
        ("x.avro", "Avro is not read; convert it to Parquet"),
        ("x.XLSX", "Excel is not read; save the sheet as CSV"),
        ("x.xml.gz", "XML is not read"),
    ],
)
def test_a_format_that_is_not_read_is_named(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"^s3://b/{name}: {told}"):
        format_of(f"s3://b/{name}", None)


@dataclass
class Many:
    """A storage of so many files of declared columns, none of which is kept anywhere."""

    count: int
    replaced: int | None = None
    opened: list[str] = field(default_factory=list)

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        for n in range(self.count):
            etag = f"{n + (self.replaced == n):032x}"
            yield ObjectInfo(f"{prefix}{n:08}.jsonl", 1000, etag=etag, modified_at=NOW)

    def open(self, uri: str, listed: ObjectInfo | None = None) -> Any:
        self.opened.append(uri)
        raise AssertionError("no file is to be opened")


def test_a_hundred_thousand_objects_are_listed_and_split_without_trouble() -> None:
    """And their list, kept with the state, is a few megabytes.

    In a quick run, a tenth of them.
    """
    count = 100_000 if EXHAUSTIVE else 10_000
    storage = Many(count)
    spec = files_spec("s3://drop/in", "*.jsonl", types={"id": "int64"}, mode="incremental")

    def open_storage(uri: str) -> Storage:
        return storage  # type: ignore[return-value]

    source = FilesSource(spec, open_storage)
    some = list_objects(open_storage(""), "s3://drop/in/", "*.jsonl")
    tracemalloc.start()
    assert sum(1 for _ in islice(some, count // 5)) == count // 5
    assert tracemalloc.get_traced_memory()[1] < 10**5, "a listing is passed on, not held"
    tracemalloc.stop()
    first = source.choose(None, NOW)
    assert len(first) < 60 * count
    chosen = source.at(first)
    with chosen.snapshot(ReadRequest(chosen.describe().columns)) as snapshot:
        splits = snapshot.splits(spec)
    assert sum(len(split.objects) for split in splits) == count
    assert count // 1000 < len(splits) < count // 100
    assert source.is_current(first)
    storage.count, storage.replaced = count + 1, 5
    assert not source.is_current(first)
    new = source.at(source.choose(before(first), NOW))
    with new.snapshot(ReadRequest(new.describe().columns)) as snapshot:
        [split] = snapshot.splits(spec)
    names = [part.uri.removeprefix("s3://drop/in/") for part in split.objects]
    assert names == ["00000005.jsonl", f"{count:08}.jsonl"]
    assert not storage.opened


def test_a_damaged_list_is_refused() -> None:
    for raw in (b"", b"PAR1", b"{}"):
        with pytest.raises(ConfigError, match="list of objects read"):
            ObjectList.from_bytes(raw)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"watermark": {"column": "id"}}, "watermark is not for files"),
        ({"where": "id > 1"}, "query and where are not for files"),
        ({"query": "select 1"}, "query and where are not for files"),
        ({"files": None}, "needs files.glob"),
        ({"target": {"uri": "drop/out"}, "files": {"glob": "*/*.csv"}}, "written to target.uri"),
        ({"target": {"uri": "dro"}, "connection": {"uri": "dro/p"}}, "may match what is written"),
        ({"source_type": "sqlite", "connection": {"path": "x"}}, "files is for sources of type"),
        ({"mode": "incremental",
          "target": {"uri": "o/t", "write_mode": "overwrite_partitions", "partition_by": ["d"]}},
         "overwrite_partitions needs mode full for files"),
        ({"mode": "incremental", "target": {"uri": "o/t", "write_mode": "overwrite"}},
         "write_mode overwrite needs mode full"),
    ],
)  # fmt: skip
def test_what_files_cannot_do_is_refused(given: dict[str, Any], message: str) -> None:
    spec = files_spec("drop", "*.csv").model_dump(exclude_unset=True)
    with pytest.raises(ValidationError, match=message):
        type(files_spec("drop", "*.csv")).model_validate(spec | given)


@pytest.mark.parametrize("uri", ["drop/_out/t", "drop2/t", "dro/t", "drop/.out"])
def test_a_target_that_no_glob_finds_may_be_anywhere(uri: str) -> None:
    assert files_spec("drop", "**", target={"uri": uri}).target.uri == uri
    assert files_spec("drop", "in/**", target={"uri": "drop/out"}).target.uri == "drop/out"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"delimiter": "§"}, "must be ASCII"),
        ({"quote": "\n"}, "must be ASCII characters other than line ends"),
        ({"delimiter": '"'}, "must differ"),
        ({"escape": '"'}, "must differ"),
    ],
)
def test_delimiters_that_cannot_be_distinguished_are_refused(
    given: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_source(files_spec("drop", "*.csv", **given))


def test_a_strategy_of_databases_is_refused() -> None:
    spec = files_spec("drop", "*.csv", split={"strategy": "ctid"})
    with pytest.raises(ConfigError, match=r"files do not support split\.strategy ctid"):
        open_source(spec)


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to a device"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_what_is_no_file_does_not_pass_for_an_empty_one(
    tmp_path: Path, kind: str, scheme: str
) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "empty.csv").touch()
    place = tmp_path / "b.csv"
    with socket.socket(socket.AF_UNIX) as bound:
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "socket":
            bound.bind(str(place))
        else:
            place.symlink_to("/dev/null")
        spec = files_spec(f"{scheme}{tmp_path}", "*.csv")
        with pytest.raises(
            ConfigError,
            match=r"b\.csv (is a pipe, a socket or a device|.*a symbolic link to a place outside)",
        ):
            FilesSource.open(spec).describe()
        other = files_spec(f"{scheme}{tmp_path}", "a*.csv")
        if kind != "link to a device":
            assert FilesSource.open(other).describe() is not None
