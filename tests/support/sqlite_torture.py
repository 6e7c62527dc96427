"""One SQLite table with every declared type at its extremes, and what readers must find in it."""

from __future__ import annotations

import contextlib
import sqlite3
from decimal import Decimal
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa

_INFINITE = float("inf")
_COLUMNS: dict[str, tuple[str, pa.DataType, list[Any], list[Any] | None]] = {
    # name: declared type, Arrow type, values stored, values found where those differ
    "small": ("tinyint", pa.int64(), [-128, 0, 127, 2**31], None),
    "whole": ("INTEGER", pa.int64(), [-(2**63), -1, 0, 1, 2**63 - 1, 2**53 + 1], None),
    "truth": ("BOOLEAN", pa.bool_(), [0, 1, True, False], [False, True, True, False]),
    "words": (
        "TEXT", pa.string(),
        ["", " blanks ", "é☃😀\U0010ffff", "nul\0inside", "tab\tline\nfeed\r", "'\"\\", "NULL",
         "x" * 5000],
        None,
    ),
    "short": ("varchar(3)", pa.string(), ["longer than three", "12", "1.50"], None),
    "bytes": ("BLOB", pa.binary(), [b"", b"\x00\xff'", b"x" * 5000, "é".encode()], None),
    "double": (
        "REAL", pa.float64(),
        [5e-324, 1.7976931348623157e308, -0.0, 0.1, 1 / 3, _INFINITE, -_INFINITE, 2.0**53],
        [5e-324, 1.7976931348623157e308, 0.0, 0.1, 1 / 3, _INFINITE, -_INFINITE, 2.0**53],
    ),
    "price": (
        "DECIMAL(10,2)", pa.decimal128(10, 2), [12.34, "0.10", -99999999.99, 7, 1e2, 0.01],
        [Decimal("12.34"), Decimal("0.10"), Decimal("-99999999.99"), Decimal("7.00"),
         Decimal("100.00"), Decimal("0.01")],
    ),
    "wide": (
        "numeric(38,10)", pa.decimal128(38, 10), [2**63 - 1, 1e-10, -0.5, 1e20],
        [Decimal("9223372036854775807.0000000000"), Decimal("1E-10"),
         Decimal("-0.5000000000"), Decimal("100000000000000000000.0000000000")],
    ),
    "moment": (
        "DATETIME", pa.string(), ["2024-02-29 01:02:03.456", 2460369.5, 1709168523, "0000-00-00"],
        ["2024-02-29 01:02:03.456", "2460369.5", "1709168523", "0000-00-00"],
    ),
    "day": ("date", pa.string(), ["2024-02-29", "9999-12-31", "-4713-11-24"], None),
    "number": (
        "NUMERIC", pa.string(), [1, "2", 0.1, 1e300, "three", -(2**63)],
        ["1", "2", "0.1", "1e+300", "three", "-9223372036854775808"],
    ),
    "json": ("JSON", pa.string(), ['{"a": [1.10, null]}', "[]", 1], ['{"a": [1.10, null]}', "[]",
                                                                    "1"]),
    "anything": ("", pa.string(), ["text", 1, 1.5, _INFINITE, ""], ["text", "1", "1.5", "Inf", ""]),
}  # fmt: skip
_STRICT = ("INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY")

TORTURE: dict[str, tuple[str, pa.DataType]] = {
    "n": ("integer", pa.int64()),
    **{name: (declared, arrow) for name, (declared, arrow, _, _) in _COLUMNS.items()},
}
"""Declared type and Arrow type by column."""

_ROWS = list(zip_longest(*(stored for _, _, stored, _ in _COLUMNS.values())))
_ROWS.append((None,) * len(_COLUMNS))
PRINTED: dict[str, list[Any]] = {"n": list(range(len(_ROWS)))} | {
    name: [*(found or stored), *[None] * (len(_ROWS) - len(stored))]
    for name, (_, _, stored, found) in _COLUMNS.items()
}
"""What a reader of the files finds, by column, in the order of ``n``."""


def make_torture(path: Path, *, strict: bool = False) -> Path:
    """Create the table ``t``; a STRICT one only has columns whose types such tables allow."""
    names = [n for n, (kind, *_) in _COLUMNS.items() if not strict or kind.upper() in _STRICT]
    columns = "".join(f', "{name}" {_COLUMNS[name][0]}' for name in names)
    rows = [
        (n, *(value for name, value in zip(_COLUMNS, row, strict=True) if name in names))
        for n, row in enumerate(_ROWS)
    ]
    marks = ", ".join("?" * (len(names) + 1))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        suffix = " strict" if strict else ""
        connection.execute(f"create table t (n integer primary key{columns}){suffix}")
        connection.executemany(f"insert into t values ({marks})", rows)
    return path
