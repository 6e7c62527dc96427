"""What is given broken input: each kind of input, valid examples of it, and what reads it.

A target either takes an input or refuses it with an `ExtractError` of a class of its own, whose
message is short, holds no row and calls nothing a defect. Everything else is a find.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from extract_jobs.commit.live_segments import Segment, SegmentWriter, Span, live_of, table_of
from extract_jobs.commit.reads import RangeRead, Reads
from extract_jobs.commit.record import Commit, LiveFiles
from extract_jobs.commit.staged_ranges import StagedRange
from extract_jobs.config import SourceConfig, load_config, resolve_tables, specs_for
from extract_jobs.config.event_overrides import check_event_overrides
from extract_jobs.errors import ConfigError, ExtractError
from extract_jobs.sources.files.inspection import Columns
from extract_jobs.sources.files.objects import Listed, ObjectList
from extract_jobs.sources.files.type_inference import TypeProfile
from extract_jobs.storage import ObjectInfo, StagedFile, WrittenFile, open_storage
from extract_jobs.tracking.event import read_selection
from tests.fuzz.mutations import mutated_bytes, mutated_json
from tests.support.files import batches_of, files_spec

SECRET = "Zq7ROWzz"
"""A value in rows, which no message may hold."""
_LONGEST_MESSAGE = 20_000

Outcome = Literal["taken", "refused"]
Mutate = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Attributes:
        examples: Valid ones.
        mutate: Changes one.
        read: Reads one, in an empty folder; raises `ExtractError` for what it refuses.
        quick: How many `make test` tries: a second's worth at most.
    """

    examples: tuple[bytes, ...]
    mutate: Mutate
    read: Callable[[bytes, Path], None]
    quick: int = 60

    def try_one(self, data: bytes, folder: Path) -> Outcome:
        """Read one input.

        Raises:
            AssertionError: It was refused in a way that it should not be.
            Exception: A find.
        """
        refused: ExtractError | None = None
        try:
            self.read(data, folder)
        except ExtractError as error:
            refused = error
        if refused is None:
            return "taken"
        said = str(refused)
        assert type(refused) is not ExtractError, said[:300]
        assert "defect" not in said, said[:300]
        assert SECRET not in said, "the message holds a row"
        assert len(said) <= _LONGEST_MESSAGE, f"a message of {len(said)} characters"
        return "refused"

    def inputs(self, seed: int, count: int) -> list[bytes]:
        """Return changed examples; the same for the same seed."""
        chance = random.Random(seed)
        return [
            self.mutate(chance.choice(self.examples), chance, self.examples) for _ in range(count)
        ]


# --- documents ------------------------------------------------------------------------------------

_CONFIG = b"""\
version: 1
source:
  name: sales
  type: postgres
  connection: {secret_id: lake/sales, sslmode: verify-full, connect_timeout_seconds: 5}
  max_connections: 40
  event_overrides: [mode, watermark.lower, watermark.upper, split.max_connections, glue.worker_type]
defaults: &d
  job_type: glue
  target: {uri: "s3://lake/raw/{source_name}/{schema}/{table}", partition_by: [extract_date]}
tables:
  public.customers: {columns: {exclude: [note], mask: {email: redact}}}
  public.orders:
    job_type: ecs
    mode: incremental
    watermark: {column: updated_at, delay: 1m, lag: 90s, initial: 2026-01-01}
    split: {target_bytes: 64MiB, strategy: auto, max_connections: 4}
    columns: {key: [id], cast: {id: int64}, rename: {id: order_id}}
    target: {partition_by: ["day(updated_at)"], write_mode: append, file_bytes: 128MiB}
  open_invoices:
    query: "select * from invoices where state = 'open'"
    where: "amount > 10 and created_at < now()"
"""
_FILES_CONFIG = b"""\
version: 1
source: {name: drop, type: files, connection: {uri: "s3://partner/exports"}}
tables:
  orders:
    files: {glob: "orders/**/*.csv.gz", delimiter: ";", types: {id: int64, since: date}}
    target: {uri: "s3://lake/raw/drop/orders"}
"""
_EVENTS = tuple(
    json.dumps(event).encode()
    for event in (
        {"source_name": "sales", "extract_tables": "*"},
        {"source_name": "sales", "extract_tables": ["public.orders"],
         "overrides": {"mode": "incremental", "watermark": {"lower": "2026-01-01", "upper": None},
                       "split": {"max_connections": 2}}},
        {"source_name": "sales", "extract_tables": ["public.*"], "overrides": {"mode": "full"}},
    )
)  # fmt: skip


def _read_config(data: bytes, _: Path) -> None:
    config = load_config(data, "sales.yml")
    specs_for(config, resolve_tables(config, "*"), run_id_for=lambda _: "r-1")


def _read_event(data: bytes, _: Path) -> None:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        return  # the state machine hands over JSON
    selection = read_selection(event, _NoTracking(), open_storage)  # type: ignore[arg-type]
    config = _config()
    check_event_overrides(
        selection.overrides,
        where=config.where,
        by_config=config.source.event_overrides,
        by_deployment=None,
    )
    tables = resolve_tables(config, selection.extract_tables)
    specs_for(config, tables, run_id_for=lambda _: "r-1", overrides=selection.overrides)


@cache
def _config() -> SourceConfig:
    return load_config(_CONFIG, "sales.yml")


class _NoTracking:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"an event of tables asked the tracking table: {name}")


def _record() -> bytes:
    uri = "s3://lake/raw/t"
    staged = StagedFile(uri=f"{uri}/day=1/r-1-00000-0.parquet", size=10, token="0" * 32, upload={
        "kind": "s3", "upload_id": "u", "parts": [{"n": 1, "etag": '"e"', "crc": "AAAA"}],
    })  # fmt: skip
    return Commit(
        commit_id="c", seq=3, parent=2, live_since=1, run_id="r-1", attempt=1, table_id="s/t",
        target_uri=uri, fingerprint={"system": "1"},
        interval={"lower": None, "upper": {"type": "integer", "text": "5"}},
        watermark={"type": "integer", "text": "5"},
        schema=[{"name": "id", "type": "int64", "nullable": False}],
        files=(WrittenFile(staged, 3, {"day": "1"}),), retire=(f"{uri}/day=0/r-0.parquet",),
        report={"rows": 3}, watermark_column="id",
        covered=({"lower": None, "upper": {"type": "integer", "text": "5"}},), increments=True,
        partition_by=("day",), columns={"id": "int64"}, position={"timeline": "1", "lsn": "0/1"},
        source_columns=[{"name": "id", "type": "int64", "nullable": False, "mask": "hash"}],
    ).to_bytes()  # fmt: skip


def _read_record(data: bytes, _: Path) -> None:
    Commit.from_bytes(_resealed(data), "s3://lake/state/commits/3.json", 3)


def _resealed(record: bytes) -> bytes:
    """Give a mutated record the checksum that it would have, so that the rest is checked."""
    start = record.rpartition(b', "checksum"')[0] or record[:-1]
    return start + b', "checksum": "%08x"}' % zlib.crc32(start)


def _segment() -> bytes:
    uri = "s3://lake/raw/t"
    files = tuple(
        WrittenFile(StagedFile(f"{uri}/day={n}/r.parquet", "0" * 32, 10, {}), 3, {"day": str(n)})
        for n in range(3)
    )
    interval = {"lower": None, "upper": {"type": "integer", "text": "5"}}
    writer = SegmentWriter()
    writer.add(table_of([LiveFiles(2, interval, files)]))
    return writer.close(Span(1, 64, 0, (interval,)), [f"{uri}/day=0/gone.parquet"])


def _read_segment(data: bytes, _: Path) -> None:
    with _other_refusals():
        segment = Segment.open(io.BytesIO(data), "s3://lake/raw/t")
        segment.retired()
        for table in segment.tables(lambda _: True):
            list(live_of(table))


def _objects() -> bytes:
    now = datetime(2026, 11, 29, tzinfo=UTC)
    listed = [
        Listed(ObjectInfo(f"s3://drop/{n}.csv", 100, etag=str(n), modified_at=now), 3, (40, 70))
        for n in range(5)
    ]
    columns = Columns({"id": TypeProfile()}, {"n": (pa.int64(), "s3://drop/1.csv")}, ("day",))
    return ObjectList.of(listed, {"format": "csv", **columns.to_json()}, now).to_bytes()


def _read_objects(data: bytes, _: Path) -> None:
    found = ObjectList.from_bytes(data)
    Columns.from_json(found.about)
    found.etags(read=True)
    list(found.to_read())


def _kept() -> tuple[bytes, bytes]:
    uri = "s3://lake/raw/t/r-1-00000-0.parquet"
    moment: dict[str, dict[str, Any]] = {
        "key": {"a": 1},
        "parts": {"t": {"b": 2}},
        "snapshot": {"a": "7"},
    }
    one = RangeRead("t", 0, 100, 3, (uri,), {"a": 1})
    file = WrittenFile(StagedFile(uri, "0" * 32, 10, {"kind": "s3"}), 3, {"day": "1"})
    return (
        Reads(2, moment, {"types": "x"}, (one,)).to_bytes(),
        StagedRange(2, moment, {"types": "x"}, one, (file,)).to_bytes(),
    )


def _read_kept(data: bytes, _: Path) -> None:
    data = _resealed(data)
    with _other_refusals():
        if b'"ranges"' in data:
            Reads.from_bytes(data)
        else:
            StagedRange.from_bytes(data, "s3://lake/raw/t")


@contextmanager
def _other_refusals() -> Iterator[None]:
    """Turn what readers of such a record expect besides `ExtractError` into one."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise ConfigError("it is damaged") from error


# --- files ----------------------------------------------------------------------------------------

_CSV = (
    f'id,note,at,amount\n1,{SECRET},2026-01-02 03:04:05,1.50\n2,"a ""b"", c\nd",,-3\n'
    f"3,é日\U0001f600,2026-01-02T03:04:05Z,1e3\n4,,2026-01-02,{'9' * 30}\n"
).encode()
_JSONL = (
    f'{{"id": 1, "note": "{SECRET}", "tags": ["a", null], "o": {{"x": [1, 2.5]}}}}\n'
    '{"id": 2.0, "note": "\\u00e9\\ud83d\\ude00", "tags": []}\n\n{"id": null, "t": true}{"id": 3}\n'
).encode()
_JSON = (
    f' [{{"id": 1, "note": "{SECRET}", "tags": ["a", null], "o": {{"x": [1, 2.5]}}}},\n'
    '{"id": 2.0, "note": "\\u00e9\\ud83d\\ude00", "tags": []}, {}, {"id": null, "t": true}]\n'
).encode()


def _parquet(**given: Any) -> bytes:
    table = pa.table(
        {
            "id": pa.array([1, None, 3], pa.int64()),
            "note": pa.array([SECRET, "b", None]),
            "d": pa.array([date(2026, 1, 1), None, date(1, 1, 1)], pa.date32()),
            "n": pa.array([1, 2, None], pa.decimal128(20, 3)),
            "l": pa.array([[1, 2], None, []], pa.list_(pa.int32())),
            "t": pa.array([1, 2, None], pa.timestamp("us", "UTC")),
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=2, **given)
    return out.getvalue()


def _compressed(codec: str, data: bytes) -> bytes:
    return bytes(pa.compress(data, codec, asbytes=True))


def _zip(*members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        for number, data in enumerate(members):
            opened.writestr(f"{number}.csv", data)
    return packed.getvalue()


def _read_file(suffix: str, data: bytes, folder: Path) -> None:
    (folder / f"in{suffix}").write_bytes(data)
    more = {"format": "json"} if suffix == ".json" else {}
    for _ in batches_of(files_spec(folder, f"in{suffix}", **more)):
        pass


_VARIANT_NAMES = b"\x11\x04\x00\x01\x02\x03\x04abdx"
_VARIANT = (
    bytes([len(_VARIANT_NAMES)])
    + _VARIANT_NAMES
    + bytes.fromhex(
        "0204000102030005161b211401000000030300050a0b1401000000140200000000 2c294d0000 200296000000"
    )
)  # {"a": 1, "b": [1, 2, null], "d": "2024-01-31", "x": 1.50}
_VARIANT_COLUMN = {"type": "struct", "fields": [{"name": "v", "type": "variant"}]}


def _read_variant(data: bytes, folder: Path) -> None:
    """Read one value: a byte of length, so many bytes of names, and the rest."""
    end = 1 + (data[0] if data else 0)
    kind = pa.struct([("metadata", pa.binary()), ("value", pa.binary())])
    row = {"metadata": data[1:end], "value": data[end:]}
    key = "org.apache.spark.sql.parquet.row.metadata"
    table = pa.table({"v": pa.array([row], kind)})
    table = table.replace_schema_metadata({key: json.dumps(_VARIANT_COLUMN)})
    pq.write_table(table, folder / "in.parquet")
    for batch in batches_of(files_spec(folder, "in.parquet", columns={"cast": {"v": "json"}})):
        for text in batch.column("v").to_pylist():
            json.loads(text)


def _files(suffix: str, *examples: bytes, quick: int = 20) -> Target:
    return Target(examples, mutated_bytes, partial(_read_file, suffix), quick)


@cache
def targets() -> dict[str, Target]:
    """Return every target by its name."""
    return {
        "config": Target((_CONFIG, _FILES_CONFIG), mutated_bytes, _read_config),
        "event": Target(_EVENTS, mutated_json, _read_event),
        "record": Target((_record(),), mutated_json, _read_record),
        "segment": Target((_segment(),), mutated_bytes, _read_segment, 40),
        "objects": Target((_objects(),), mutated_bytes, _read_objects, 40),
        "kept": Target(_kept(), mutated_json, _read_kept),
        "csv": _files(".csv", _CSV, _CSV.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + _CSV),
        "jsonl": _files(".jsonl", _JSONL, quick=6),
        "json": _files(".json", _JSON, quick=6),
        "parquet": _files(
            ".parquet", _parquet(), _parquet(compression="zstd", write_page_checksum=True),
            _parquet(use_dictionary=False, data_page_version="2.0", store_schema=False),
        ),
        "gzip": _files(".csv.gz", gzip.compress(_CSV), gzip.compress(_CSV * 50) + bytes(512)),
        "variant": Target((_VARIANT,), mutated_bytes, _read_variant, 40),
        "zstd": _files(
            ".jsonl.zst", _compressed("zstd", _JSONL), _compressed("zstd", _JSONL * 50), quick=6
        ),
        "bzip2": _files(".csv.bz2", bz2.compress(_CSV), bz2.compress(_CSV * 50) * 2),
        "xz": _files(".csv.xz", lzma.compress(_CSV), lzma.compress(_CSV * 50) * 2),
        "lz4": _files(".csv.lz4", _compressed("lz4", _CSV), _compressed("lz4", _CSV * 50)),
        "zip": _files(".csv.zip", _zip(_CSV), _zip(_CSV * 50)),
    }  # fmt: skip
