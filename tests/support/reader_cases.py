"""How each reader reads files that are written here: cases, and the page generated from them.

``python -m tests.support.reader_cases`` writes ``docs/readers.md``. The tests compare every cell
with the readers themselves.
"""

# ruff: noqa: DTZ001  naive timestamps are a type of their own here

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from extract_jobs.parquet.file import ParquetFile
from extract_jobs.parquet.writer import PartitionedWriter
from extract_jobs.storage.local import LocalStorage
from extract_jobs.transform.transform import Transform, choose_columns
from tests.support.specs import make_description, make_spec

PAGE = Path(__file__).parents[2] / "docs" / "readers.md"
READERS = ("pyarrow 25", "DuckDB 1.5", "polars 2.1", "Spark 3.5", "Spark 4.1")
NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)


@dataclass(frozen=True)
class Values:
    """Values of one type, each in a row group of its own.

    Attributes:
        name: The row's name in the page.
        arrow_type: The column's type.
        values: Each is found with ``=``, and read back unchanged.
        missed: Positions of values that a reader's filter does not find.
        note: What the page says of these.
        nested: Whether they are lists, structs or maps, for which no reader is asked by ``=``.
    """

    name: str
    arrow_type: pa.DataType
    values: tuple[Any, ...]
    missed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    note: str = ""
    nested: bool = False


def _spark(value: Any) -> dict[str, Any]:
    return {"Spark 3.5": value, "Spark 4.1": value}


def _decimals(*texts: str) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, texts))


NAN = math.nan
VALUES = (
    Values("float64: NaN, infinities, −0.0", pa.float64(), (1.0, -2.5, NAN, math.inf, -0.0)),
    Values("float32: NaN, infinities, −0.0", pa.float32(), (1.0, -2.5, NAN, -math.inf, -0.0)),
    Values("integers at their ends", pa.int64(), (-(2**63), 2**63 - 1, 0, -1)),
    Values(
        "text by code point: empty, é, 日, 😀, 5,000 letters",
        pa.string(),
        ("", "a", "é", "日", "\U0001f600", "\x7f", "w" * 5000, "w" * 4999 + "x"),
    ),
    Values("binary", pa.binary(), (b"", b"\x00", b"\x7f", b"\x80", b"\xff" * 70)),
    Values("decimal(9,2)", pa.decimal128(9, 2), _decimals("-9999999.99", "0.00", "0.01")),
    Values("decimal(18,4)", pa.decimal128(18, 4), _decimals("-1.0000", "12345678901234.5678")),
    Values(
        "decimal(38,10): 38 digits",
        pa.decimal128(38, 10),
        _decimals(f"-{'9' * 28}.{'9' * 10}", "1E-10", f"{'9' * 28}.5000000000"),
    ),
    Values(
        "dates from 0001 to 9999",
        pa.date32(),
        (
            date(1, 1, 1), date(1500, 3, 1), date(1582, 10, 10), date(1969, 12, 31),
            date(9999, 12, 31),
        ),
        _spark((2,)),
        "as written, but a filter on a date from 1582-10-05 to 1582-10-14 finds no row",
    ),
    Values(
        "timestamps from 0001 to 9999",
        pa.timestamp("us"),
        (
            datetime(1, 1, 1), datetime(1582, 10, 10, 1),
            datetime(1899, 12, 31, 23, 59, 59, 999999),
            datetime(2026, 3, 29, 2, 30), datetime(9999, 12, 31, 23, 59, 59, 999999),
        ),
    ),
    Values("boolean", pa.bool_(), (True, False)),
    Values(
        "lists of integers: NULL, empty, with NULL inside", pa.list_(pa.int64()),
        ([1, 2**63 - 1], None, [], [None], [3, None]), nested=True,
    ),
    Values(
        "lists of floats: NaN, infinities, −0.0", pa.list_(pa.float64()),
        ([NAN, -0.0, math.inf], [-math.inf]), nested=True,
    ),
    Values(
        "lists of text, dates, decimals, times", pa.struct({
            "t": pa.list_(pa.string()), "d": pa.list_(pa.date32()),
            "n": pa.list_(pa.decimal128(38, 10)), "m": pa.list_(pa.timestamp("us")),
        }),
        ({
            "t": ["", "日"], "d": [date(1, 1, 1), date(1582, 10, 10), date(9999, 12, 31)],
            "n": list(_decimals("1E-10", f"{'9' * 28}.5000000000")),
            "m": [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)],
        },),
        nested=True,
    ),
    Values(
        "structs: NULL, and NULL in every field", pa.struct({"a": pa.int32(), "b": pa.string()}),
        ({"a": 1, "b": "x"}, None, {"a": None, "b": None}), nested=True,
    ),
    Values(
        "maps: NULL, empty, with NULL values", pa.map_(pa.string(), pa.int64()),
        ({"a": 1, "": 2}, None, {}, {"a": None}), nested=True,
    ),
    Values(
        "lists of lists and of structs",
        pa.list_(pa.struct({"k": pa.string(), "v": pa.list_(pa.list_(pa.int64()))})),
        ([{"k": "a", "v": [[1], [], None]}, None], []), nested=True,
    ),
    Values(
        "maps of structs of maps, with dates, decimals and times", pa.map_(
            pa.string(), pa.struct({
                "m": pa.map_(pa.int32(), pa.list_(pa.struct({
                    "d": pa.date32(), "n": pa.decimal128(38, 10),
                }))),
                "t": pa.timestamp("us"),
            }),
        ),
        (
            {
                "a": {
                    "m": {1: [{"d": date(1582, 10, 10), "n": Decimal("-0.0000000001")}, None],
                          2: None},
                    "t": datetime(9999, 12, 31, 23, 59, 59, 999999),
                },
                "b": None,
            },
            {"": {"m": {}, "t": None}},
            None,
        ),
        nested=True,
    ),
)  # fmt: skip

GREATER = {
    "pyarrow 25": (3, 5),
    "DuckDB 1.5": (2, 3, 5),
    "polars 2.1": (2, 3, 5),
    "Spark 3.5": (2, 3, 5),
    "Spark 4.1": (2, 3, 5),
}
"""Rows of `FLOATS` above 100. For pyarrow NaN is not above 100, as in IEEE 754."""
FLOATS = (1.0, -2.5, NAN, math.inf, -0.0, 101.0)


@dataclass(frozen=True)
class Folder:
    """A value of a partition of text.

    Attributes:
        value: The text.
        guessed: What readers infer without a given type, by reader; as written
            for the others.
    """

    value: str
    guessed: Mapping[str, Any] = field(default_factory=dict)


FOLDERS = (
    Folder("plain é 日本"),
    Folder("a/b=c%20?"),
    Folder("NULL"),
    Folder("null"),
    Folder("007", {"pyarrow 25": 7, "polars 2.1": 7, **_spark(7)}),
    Folder("1.0", {"polars 2.1": 1.0, **_spark(1.0)}),
    Folder("1e3", {"polars 2.1": 1000.0, **_spark(1000.0)}),
    Folder("0x10", {"pyarrow 25": 16, "DuckDB 1.5": 16}),
    Folder("1d", _spark(1.0)),
    Folder("1f", _spark(1.0)),
    Folder("NaN", {"polars 2.1": NAN, **_spark(NAN)}),
    Folder(
        "inf", {"DuckDB 1.5": date(9999, 12, 31), "polars 2.1": math.inf}
    ),
    Folder("epoch", {"DuckDB 1.5": date(1970, 1, 1)}),
    Folder("true", {"polars 2.1": True}),
    Folder(
        "2026-01-31",
        {
            "DuckDB 1.5": date(2026, 1, 31), "polars 2.1": date(2026, 1, 31),
            **_spark(date(2026, 1, 31)),
        },
    ),
)  # fmt: skip


def write_groups(folder: Path, arrow_type: pa.DataType, values: tuple[Any, ...]) -> str:
    """Write rows ``n``, ``v``, one row group each, and return the file."""
    schema = pa.schema([("n", pa.int64()), ("v", arrow_type)])
    spec = make_spec(folder)
    storage = LocalStorage()
    uri = f"{spec.target.uri}/a.parquet"
    file = ParquetFile.begin(
        storage.stage(uri, spec.target.uri, "0" * 32), uri, schema, spec.target,
        dictionaries=frozenset(), wide=frozenset(), metadata={},
    )  # fmt: skip
    for n, value in enumerate(values):
        file.add(pa.table([pa.array([n]), pa.array([value], arrow_type)], schema=schema))
    assert storage.complete(file.finish())
    return uri


def write_folders(folder: Path, values: tuple[str | None, ...]) -> str:
    """Write rows ``n`` partitioned by a text ``k``, and return the target."""
    batch = pa.record_batch({"n": list(range(len(values))), "k": pa.array(values, pa.string())})
    spec = make_spec(folder, target={"partition_by": ["k"]})
    columns = choose_columns(make_description(batch.schema), spec)
    transform = Transform.build(
        columns, spec, run_id=spec.run_id, extracted_at=NOW, extract_date=NOW.date()
    )
    storage = LocalStorage()
    writer = PartitionedWriter(storage, spec.target, transform, file_prefix="r-1-0", metadata={})
    writer.write(batch)
    for one in writer.close():
        assert storage.complete(one.staged)
    return spec.target.uri


def same(found: Any, expected: Any) -> bool:
    """Return whether two values are identical: −0.0 is not 0.0, and NaN is NaN.

    A reader may return a struct or a map in any form that Python has for it.
    """
    if isinstance(expected, dict) and found is not None:
        pairs = found.asDict() if hasattr(found, "asDict") else found
        if isinstance(pairs, list):
            pairs = [tuple(p.values()) if isinstance(p, dict) else p for p in pairs]
        pairs = dict(pairs)
        return pairs.keys() == expected.keys() and all(
            same(pairs[key], value) for key, value in expected.items()
        )
    if isinstance(expected, list) and found is not None:
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(found, float) and isinstance(expected, float):
        return repr(found) == repr(expected)
    if isinstance(found, bytearray):
        found = bytes(found)
    return bool(found == expected) and isinstance(found, bool) == isinstance(expected, bool)


def page() -> str:
    """Return the page."""
    values = [
        (c.name, {r: c.note if r in c.missed else "as written" for r in READERS}) for c in VALUES
    ]
    folders = [(f"`{c.value}`", _guesses(c)) for c in FOLDERS]
    return _PAGE.format(values=_table("values", values), folders=_table("folder's value", folders))


_PAGE = """\
# What readers make of our files

<!-- Made by python -m tests.support.reader_cases: change that, not this page. -->

Every cell is a test: the files are written as an extract writes them, each value in a row group of
its own, and read by the reader that heads the column. *As written* means that each value comes back
as it is, and that a filter on it finds its row; of lists, structs and maps, that they come back.

## Values

{values}

Columns of floats carry no least and greatest value: Parquet leaves NaN out of them, and readers
that skip row groups by them lose NaN. `x > 100` finds NaN in DuckDB, polars and Spark, to which NaN
is the greatest number; to pyarrow it is not. Pages carry checksums. Dates are proleptic Gregorian,
and the files say so to Spark.

## Partitions of text

The name of a folder has no type. The catalog's type decides where there is a catalog, and every
reader uses a type that it is given. Then all of these come back as written:

- DuckDB: `read_parquet(…, hive_types = {{'k': VARCHAR}})`
- Spark: `spark.read.schema(…)`, or `spark.sql.sources.partitionColumnTypeInference.enabled` off
- polars: `scan_parquet(…, hive_schema={{"k": pl.String}})`
- pyarrow: `dataset(…, partitioning=partitioning(pa.schema([("k", pa.string())]), flavor="hive"))`

Without that a reader guesses:

{folders}

`NULL` in any case is written as `%4EULL`: DuckDB takes the plain letters for NULL whatever type it
is given, and every reader decodes these. No folder name can spell the empty text, or the text
`__HIVE_DEFAULT_PARTITION__`, which is NULL: both are refused, or become NULL with
`lossy_types: null`.
"""


def _guesses(case: Folder) -> dict[str, str]:
    return {
        reader: f"{type(value).__name__} {value}" if value != case.value else "as written"
        for reader in READERS
        for value in [case.guessed.get(reader, case.value)]
    }


def _table(head: str, rows: list[tuple[str, dict[str, str]]]) -> str:
    lines = [f"| {head} | {' | '.join(READERS)} |", "| --- |" + " --- |" * len(READERS)]
    lines += [f"| {name} | {' | '.join(cells[r] for r in READERS)} |" for name, cells in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
