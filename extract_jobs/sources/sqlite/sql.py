"""The SQL that the SQLite source sends: quoting, literals, relations, predicates. Text in and out.

Columns are always qualified with their table: otherwise SQLite reads a double-quoted name that
matches no column as a string (https://sqlite.org/quirks.html, section 8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from extract_jobs.sources.sql import statements

Value = int | float | str | bytes
"""What a column can hold besides NULL."""

QUERY = '"extracted"'
"""The alias of a query in a FROM clause."""


@dataclass(frozen=True, kw_only=True)
class Relation(statements.Relation):
    """A table or query as written in a FROM clause.

    Attributes:
        name: What qualifies its columns, quoted.
    """

    name: str

    def column(self, name: str) -> str:
        """Return a column's qualified name."""
        return f"{self.name}.{quote_name(name)}"

    def unindexed(self) -> Relation:
        """Return this table, to be read in the order of its rowids."""
        hint = " not indexed"
        return self if self.source.endswith(hint) else replace(self, source=self.source + hint)


def quote_name(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: Value) -> str:
    """Return a literal that SQLite reads back as the very value, storage class included."""
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if isinstance(value, str):
        plain = "\0" not in value and value.isprintable()
        # Text ends at a zero byte in the parser, and may hold bytes that are no UTF-8.
        raw = value.encode("utf-8", "surrogateescape")
        return "'" + value.replace("'", "''") + "'" if plain else f"cast(x'{raw.hex()}' as text)"
    if isinstance(value, float) and math.isinf(value):
        return "9e999" if value > 0 else "-9e999"
    return _exactly(value) if isinstance(value, float) else repr(value)


def _exactly(value: float) -> str:
    """Return a number of binary digits times powers of two.

    SQLite does not round every decimal text to the nearest number, as 3.679342836677278e-305 shows.
    Whole numbers below 2**63 it does read exactly, and powers of two lose nothing in a product.
    """
    if value == 0:
        return repr(value)
    fraction, exponent = math.frexp(value)
    digits, exponent = int(fraction * 2**53), exponent - 53
    while digits % 2 == 0:
        digits, exponent = digits // 2, exponent + 1
    sign = "*" if exponent > 0 else "/"
    steps = [62] * (abs(exponent) // 62) + [abs(exponent) % 62]
    return f"({digits}.0" + "".join(f" {sign} {2**step}.0" for step in steps if step) + ")"


def byte_lengths(expressions: Sequence[str]) -> str:
    """Return SQL of the bytes that values take together; empty for none of them.

    Long values are not read for it. The sum is a balanced tree: SQLite's parser knows a greatest
    depth, and tables have up to 2,000 columns.
    """
    if len(expressions) <= 1:
        return "".join(f"coalesce(length(cast({text} as blob)), 0)" for text in expressions)
    half = len(expressions) // 2
    return f"({byte_lengths(expressions[:half])} + {byte_lengths(expressions[half:])})"
