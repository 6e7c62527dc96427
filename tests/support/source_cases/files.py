"""Files in the behaviour suite: each format in a local folder, CSV in S3 too."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract_jobs.sources.files import reader
from extract_jobs.storage import open_storage
from tests.support.emulators import use
from tests.support.source_cases import Behaviour, Kind, SourceCase, SourceDatabase

Rows = Sequence[Sequence[int | str | None]]


class FilesDatabase(SourceDatabase):
    """A folder of its own, with a folder for each table. Every insert is one more file."""

    source_type = "files"

    def __init__(self, uri: str, suffix: str) -> None:
        self.connection = {"uri": uri}
        self.several = {"target_bytes": 65536}
        self.uri, self.suffix = uri, suffix
        self.columns: dict[str, Mapping[str, Kind]] = {}

    def create(
        self,
        table: str,
        columns: Mapping[str, Kind],
        rows: Iterable[Sequence[int | str | None]] = (),
        key: str | None = None,
    ) -> None:
        self.columns[table] = columns
        self._write(table, list(rows))

    def insert(self, table: str, rows: Iterable[Sequence[int | str | None]]) -> None:
        self._write(table, list(rows))

    def table(self, name: str) -> dict[str, Any]:
        return {"extract_table": name, "files": {"glob": f"{name}/*.{self.suffix}"}}

    def incremental(self, column: str) -> dict[str, Any]:
        return {"mode": "incremental"}

    @contextlib.contextmanager
    def breaking(self) -> Iterator[dict[str, Any]]:
        """A network file system that goes away once, in the middle of a file."""
        original, broken = reader.open_object, []

        def open_object(*arguments: Any) -> IO[bytes]:
            opened = original(*arguments)
            if not broken:
                broken.append(opened)
                opened.read = _fail  # type: ignore[method-assign]
            return opened

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(reader, "open_object", open_object)
            yield {}
        assert broken

    def unreachable(self) -> dict[str, Any]:
        return {"connection": {"uri": f"{self.uri}/nowhere"}}

    def _write(self, table: str, rows: Rows) -> None:
        names = list(self.columns[table])
        form, _, compression = self.suffix.partition(".")
        if form == "csv":
            data = _csv(names, rows)
        elif form == "jsonl":
            data = _jsonl(names, rows)
        else:
            kinds = {"integer": pa.int64(), "text": pa.string()}
            schema = pa.schema([(n, kinds[k]) for n, k in self.columns[table].items()])
            data = _parquet(schema, rows)
        if compression == "gz":
            data = gzip.compress(data)
        uri = f"{self.uri}/{table}/{uuid.uuid4().hex}.{self.suffix}"
        open_storage(uri).put(uri, data)


def _fail(size: int = -1) -> bytes:
    raise OSError(errno.ESTALE, "Stale file handle")


def _csv(names: Sequence[str], rows: Rows) -> bytes:
    # Python's own writer writes NULL and the empty text alike.
    return "".join(",".join(map(_field, row)) + "\r\n" for row in [names, *rows]).encode()


def _field(value: int | str | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else '"' + value.replace('"', '""') + '"'


def _jsonl(names: Sequence[str], rows: Rows) -> bytes:
    lines = [json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows]
    return "".join(lines).encode()


def _parquet(schema: pa.Schema, rows: Rows) -> bytes:
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    arrays = [pa.array(c, t) for c, t in zip(columns, schema.types, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, schema=schema), sink, row_group_size=250, compression="none")
    return bytes(sink.getvalue().to_pybytes())


@contextlib.contextmanager
def _open(suffix: str, request: pytest.FixtureRequest) -> Iterator[SourceDatabase]:
    folder: Path = request.getfixturevalue("tmp_path_factory").mktemp("files")
    yield FilesDatabase(str(folder / "the drop ?#%20"), suffix)


@contextlib.contextmanager
def _open_s3(request: pytest.FixtureRequest) -> Iterator[SourceDatabase]:
    emulator = request.getfixturevalue("ministack")
    with pytest.MonkeyPatch.context() as patched:
        use(emulator, patched)
        bucket = f"drop-{uuid.uuid4().hex[:12]}"
        boto3.session.Session().client("s3").create_bucket(Bucket=bucket)
        yield FilesDatabase(f"s3://{bucket}/the drop", "csv")


_LACKS: dict[Behaviour, str] = {
    "NULL keys": "files are cut at records, whatever is in them: there is no split column",
    "NULL watermarks": "increments are new and replaced files: there is no watermark",
    "wrong password": "credentials are those of the storage, which its own suite tests",
}
_NO_SCHEMA: dict[Behaviour, str] = {
    "empty table": "an empty file of JSON lines has no columns, and is refused with that reason"
}
CASES = (
    SourceCase("files-csv", partial(_open, "csv"), lacks=_LACKS),
    SourceCase("files-jsonl", partial(_open, "jsonl"), lacks=_LACKS | _NO_SCHEMA),
    SourceCase("files-parquet", partial(_open, "parquet"), lacks=_LACKS),
    SourceCase("files-s3", _open_s3, lacks=_LACKS),
)
"""Each format, and each storage."""
