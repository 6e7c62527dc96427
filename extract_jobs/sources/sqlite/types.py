"""How SQLite's declared types become Arrow types.

A declared type is only a preference (https://sqlite.org/datatype3.html): outside STRICT tables
every value has its own storage class. So the first of `RULES` that matches the declaration gives a
column's Arrow type, and `values` checks every value against it: a value of another storage class
has no faithful form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from extract_jobs.schema import Column, TypeRule
from extract_jobs.watermark import WatermarkType

Kind = Literal["integer", "boolean", "text", "binary", "real", "decimal", "any", "all"]
"""How a column is read: by storage class; ``any`` reads integers, reals and text as text, ``all``
also blobs and text that is not UTF-8."""

MAX_PRECISION = 38
"""Maximum digits of Arrow's decimal128, and of decimals in Athena and Spark."""

_OTHERS = "values of another storage class have no faithful form"


@dataclass(frozen=True)
class Rule:
    """One row of the mapping: a pattern of declared types, and how they arrive."""

    pattern: re.Pattern[str]
    kind: Kind
    row: TypeRule


def _rule(pattern: str, kind: Kind, *row: str) -> Rule:
    source_type, arrives_as, fidelity, reason = row
    return Rule(
        re.compile(pattern, re.IGNORECASE | re.ASCII | re.DOTALL),
        kind,
        TypeRule(source_type, arrives_as, fidelity, reason),  # type: ignore[arg-type]
    )


_DIGITS = r"\s*\(\s*(?P<precision>\d+)\s*(?:,\s*(?P<scale>\d+)\s*)?\)"
RULES = (
    _rule(r"\s*bool(ean)?\s*", "boolean", "BOOLEAN, BOOL", "boolean", "lossless",
          "SQLite keeps 0 and 1; other values have no faithful form"),
    # Affinities, in the order in which SQLite finds them.
    _rule(r".*int.*", "integer", "INTEGER, INT, BIGINT, … (any name with INT)", "int64", "lossless",
          f"64-bit integers; {_OTHERS}"),
    _rule(r".*(char|clob|text).*", "text", "TEXT, VARCHAR(n), CLOB, … (CHAR, CLOB or TEXT)",
          "string", "lossless", "text in UTF-8; blobs, and text that is not UTF-8, have no "
          "faithful form"),
    _rule(r".*blob.*", "binary", "BLOB, … (any name with BLOB)", "binary", "lossless",
          f"bytes; {_OTHERS}"),
    _rule(r".*(real|floa|doub).*", "real", "REAL, DOUBLE, FLOAT, … (REAL, FLOA or DOUB)",
          "float64", "lossless", f"64-bit floating point, infinities kept; {_OTHERS}"),
    _rule(rf"\s*(decimal|numeric|dec|number){_DIGITS}\s*", "decimal",
          "DECIMAL(p,s), NUMERIC(p,s) with p up to 38", "decimal(p,s)", "lossless",
          "SQLite keeps integers or doubles; a double arrives as the shortest decimal that "
          "reads back equal; one with more digits than declared has no faithful form"),
    _rule(r"\s*(date|datetime|time|timestamp).*", "any", "DATE, DATETIME, TIME, TIMESTAMP",
          "string", "as_text", "SQLite has no such type: text arrives as it is, numbers as their "
          "digits; columns.cast makes ISO text a date or timestamp; blobs have no faithful form"),
    _rule(r".*", "any", "no type, ANY, NUMERIC, DECIMAL, JSON, and every other name", "string",
          "as_text", "values may be of any storage class: text arrives as it is, numbers as their "
          "digits, blobs have no faithful form; columns.cast to an integer, float64, decimal, "
          "boolean or binary reads the column as of that type"),
)  # fmt: skip
TYPE_RULES = tuple(rule.row for rule in RULES)
"""The table of types in the docs; the mapping itself uses `RULES`."""

_ARROW: dict[Kind, pa.DataType] = {
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "text": pa.string(),
    "binary": pa.binary(),
    "real": pa.float64(),
    "any": pa.string(),
    "all": pa.string(),
}
_BY_CAST: dict[str, Kind] = {
    "int8": "integer", "int16": "integer", "int32": "integer", "int64": "integer",
    "float32": "real", "float64": "real", "boolean": "boolean", "binary": "binary",
}  # fmt: skip
_WATERMARKS: dict[Kind, WatermarkType] = {"integer": "integer", "decimal": "decimal"}


def rule_of(declared: str) -> Rule:
    """Return the first rule that matches a declared type."""
    for rule in RULES:
        found = rule.pattern.fullmatch(declared)
        if found and (rule.kind != "decimal" or _decimal_type(found)):
            return rule
    raise AssertionError("the last rule matches everything")


def _decimal_type(found: re.Match[str]) -> pa.DataType | None:
    precision, scale = int(found["precision"]), int(found["scale"] or 0)
    fits = 1 <= precision <= MAX_PRECISION and scale <= precision
    return pa.decimal128(precision, scale) if fits else None


def make_column(
    name: str,
    declared: str,
    *,
    expression: str,
    nullable: bool,
    exact: bool,
    cast: str | None,
    lossy_types: str,
) -> Column:
    """Decide how a column is read.

    Args:
        name: The column's name.
        declared: Its type as declared; empty for none.
        expression: SQL that reads it.
        nullable: Whether it is nullable.
        exact: Whether SQLite itself enforces the declared type: in STRICT tables, and for the alias
            of the rowid.
        cast: What the spec casts it to, if anything. ``string`` reads every value as text.
        lossy_types: The spec's.
    """
    rule = rule_of(declared)
    kind: Kind = rule.kind
    arrow = _ARROW.get(kind) or _decimal_type(_matched(rule, declared))
    fidelity, reason = rule.row.fidelity, rule.row.reason
    orders = kind
    if cast in ("string", "text"):
        kind, fidelity = "all", "by_permission"
        reason = "every value arrives as text, as columns.cast allows; blobs as X'…'"
    elif lossy_types == "string" and not (exact and kind in ("integer", "real")):
        kind, fidelity = "all", "by_permission"
        reason = "every value arrives as text, as lossy_types allows; blobs as X'…'"
    elif cast is not None and (kind == "any" or (kind == "decimal" and cast == "float64")):
        by_cast = _by_cast(cast)
        if by_cast is not None:
            kind, arrow = by_cast
            orders = kind if rule.kind == "any" else orders
            fidelity, reason = "lossless", f"read as {cast}, as set in columns.cast; {_OTHERS}"
    arrow = _ARROW.get(kind, arrow)
    may_fail = kind != "all" and not (exact and kind in ("integer", "real"))
    nulled = may_fail and lossy_types == "null"
    if nulled:
        reason = f"{reason}; such values become NULL and are counted"
    return Column(
        name, declared, arrow, nullable or nulled, fidelity,  # type: ignore[arg-type]
        reason, expression, _watermark(orders), nulled,
    )  # fmt: skip


def _matched(rule: Rule, declared: str) -> re.Match[str]:
    found = rule.pattern.fullmatch(declared)
    assert found is not None
    return found


def _by_cast(cast: str) -> tuple[Kind, pa.DataType] | None:
    found = re.fullmatch(rf"decimal{_DIGITS}", cast)
    if found:
        arrow = _decimal_type(found)
        return ("decimal", arrow) if arrow else None
    kind = _BY_CAST.get(cast)
    return (kind, _ARROW[kind]) if kind else None


def _watermark(kind: Kind) -> WatermarkType | None:
    if kind in ("text", "any"):
        return "string"
    return _WATERMARKS.get(kind)


def kind_of(column: Column) -> Kind:
    """Return how a column from `make_column` is read."""
    arrow = column.arrow_type
    if pa.types.is_decimal(arrow):
        return "decimal"
    if arrow == pa.string():
        kinds: dict[str, Kind] = {"lossless": "text", "as_text": "any", "by_permission": "all"}
        return kinds[column.fidelity]
    return next(kind for kind, known in _ARROW.items() if known == arrow)
