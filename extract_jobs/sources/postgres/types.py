"""How PostgreSQL types become Arrow types.

DuckDB's scanner is trusted with an allow-list, the rules in `RULES` that name an Arrow type. It
reads ``numeric`` without precision as double, ``NaN`` of ``numeric(p,s)`` as 0, ``24:00`` as
``00:00``, ``timetz`` without its zone, strips the padding of ``char(n)``, and drops lower bounds of
arrays. So the server casts every other type to text, and values of the listed types that would be
misread are searched for (`extract_jobs.sources.postgres.values`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from extract_jobs.schema import Column, Fidelity, TypeRule
from extract_jobs.sources.postgres.expressions import (
    MAX_PRECISION,
    PostgresType,
    as_it_is,
    guarded,
    precision_and_scale,
    printed,
    printed_items,
)
from extract_jobs.sources.postgres.sql import quote_name
from extract_jobs.sources.postgres.values import failure_condition
from extract_jobs.spec.parts import LossyTypes


@dataclass(frozen=True)
class Rule:
    """How some types arrive.

    Attributes:
        bases: Their names in ``pg_type``; empty if the rule is not chosen by name.
        arrow: What DuckDB reads them as, faithfully; None if the server casts them to text.
        row: The rule in the docs.
    """

    bases: tuple[str, ...]
    arrow: pa.DataType | None
    row: TypeRule


def _rule(
    bases: str,
    arrow: pa.DataType | None,
    source_type: str,
    arrives_as: str,
    reason: str,
    *,
    fidelity: Literal["lossless", "as_text", "refused"] = "lossless",
) -> Rule:
    return Rule(tuple(bases.split()), arrow, TypeRule(source_type, arrives_as, fidelity, reason))


def _text(bases: str, source_type: str, reason: str) -> Rule:
    return _rule(bases, None, source_type, "string", reason, fidelity="as_text")


_YEARS = "years 1 to 9999; infinite values, BC and later years have no faithful form"
_AS_PRINTED = "as the server prints it"

MONEY = _rule("money", None, "money", "-", "its text depends on the server's locale; columns.cast "
              "gives the digits of its numeric value", fidelity="refused")  # fmt: skip
DECIMAL = _rule("", None, "numeric(p,s), p up to 38, s from 0 to p", "decimal(p,s)",
                "keeps precision and scale; NaN has no faithful form")  # fmt: skip
NUMERIC = _text("", "numeric, and any other numeric(p,s)",
                "all digits, NaN and infinity; columns.cast makes it a decimal")  # fmt: skip
OTHER = _text("", "every other type: enum, composite, of an extension (hstore, citext, vector, …)",
              "as the type's own output function prints it")  # fmt: skip
RULES = (
    _rule("bool", pa.bool_(), "boolean", "boolean", "as it is"),
    _rule("int2", pa.int16(), "smallint", "int16", "as it is"),
    _rule("int4", pa.int32(), "integer", "int32", "as it is"),
    _rule("int8", pa.int64(), "bigint", "int64", "as it is"),
    _rule("float4", pa.float32(), "real", "float32", "with -0, NaN and infinities"),
    _rule("float8", pa.float64(), "double precision", "float64", "with -0, NaN and infinities"),
    DECIMAL,
    NUMERIC,
    MONEY,
    _rule("text varchar", pa.string(), "text, varchar(n)", "string", "as it is, in UTF-8"),
    _rule("bpchar", pa.string(), "char(n), bpchar", "string", "padded with blanks to n, as the "
          "server has it; bpchar without n keeps its own blanks"),
    _rule("bytea", pa.binary(), "bytea", "binary", "as it is"),
    _rule("date", pa.date32(), "date", "date", _YEARS),
    _rule("timestamp", pa.timestamp("us"), "timestamp", "timestamp", f"microseconds; {_YEARS}"),
    _rule("timestamptz", pa.timestamp("us", "UTC"), "timestamptz", "timestamptz",
          f"microseconds, as UTC; {_YEARS}"),
    _text("time timetz", "time, timetz", "with 24:00 and the zone, which Arrow's times lack"),
    _text("interval", "interval", "in the style postgres: months, days and time stay apart"),
    _text("uuid", "uuid", "36 characters, lower case"),
    _text("json jsonb xml", "json, jsonb, xml", "json and xml unchanged, jsonb as the "
          "server rewrites it"),
    _text("bit varbit", "bit(n), varbit(n)", "digits 0 and 1"),
    _text("inet cidr macaddr macaddr8", "inet, cidr, macaddr, macaddr8", _AS_PRINTED),
    _text("int4range int8range numrange tsrange tstzrange daterange int4multirange int8multirange "
          "nummultirange tsmultirange tstzmultirange datemultirange",
          "ranges and multiranges", "with their brackets; empty and infinite ones too; times in "
          "UTC"),
    _text("tsvector tsquery jsonpath", "tsvector, tsquery, jsonpath", _AS_PRINTED),
    _text("point line lseg box path polygon circle", "geometric types", "with all digits"),
    _text("oid regclass regproc regprocedure regoper regoperator regtype regrole regnamespace "
          "regconfig regdictionary regcollation", "oid, regclass and the like",
          "oid as digits up to 4294967295, the others as names"),
    _text("xid xid8 cid tid pg_lsn pg_snapshot txid_snapshot", "xid, xid8, cid, tid, pg_lsn, "
          "pg_snapshot", _AS_PRINTED),
    _text("name char", 'name, "char"', _AS_PRINTED),
    _text("int2vector oidvector", "int2vector, oidvector", "numbers with blanks between them"),
    OTHER,
)  # fmt: skip
_BY_BASE = {base: rule for rule in RULES for base in rule.bases}

TYPE_RULES = (
    *(rule.row for rule in RULES),
    TypeRule("T[] of a lossless T but bytea", "list of T", "lossless",
             "one dimension that starts at 1, elements may be NULL; other shapes, and elements "
             "without a faithful form, have none"),
    TypeRule("T[] of any other T", "list of string", "as_text",
             "each element as the server prints it; other shapes have no faithful form"),
    TypeRule("domain", "as the type below it", "lossless", "constraints are left to the server"),
)  # fmt: skip
"""The table of types in the docs. The mapping itself goes by `RULES`."""


def rule_of(found: PostgresType) -> Rule:
    """Return the rule for a type; for an array, its element's rule."""
    if not found.built_in:
        return OTHER
    if found.base == "numeric":
        return DECIMAL if _decimal(found) else NUMERIC
    return _BY_BASE.get(found.base, OTHER)


def _decimal(found: PostgresType) -> pa.DataType | None:
    precision, scale = precision_and_scale(found.modifier) or (0, 0)
    faithful = 1 <= precision <= MAX_PRECISION and 0 <= scale <= precision
    return pa.decimal128(precision, scale) if faithful else None


def _arrow_type(found: PostgresType) -> pa.DataType | None:
    """Return the Arrow type that DuckDB faithfully reads the scalar as; None if there is none."""
    rule = rule_of(found)
    if found.is_array and found.base == "bytea":
        return None  # DuckDB does not have its array type
    return _decimal(found) if rule is DECIMAL else rule.arrow


def make_column(
    name: str, found: PostgresType, *, nullable: bool, cast: str | None, lossy_types: LossyTypes
) -> Column | str:
    """Decide how a column is read.

    Args:
        name: The column's name.
        found: Its type.
        nullable: Whether it admits NULL.
        cast: What the spec casts it to, if anything: a cast permits ``money``, and a cast to
            ``string`` reads decimals, dates, timestamps and arrays as the server's text, so any
            value passes.
        lossy_types: What happens to values without a faithful form: ``null`` makes them NULL;
            ``string`` reads the whole column as the server's text if it may have some, unless it
            is cast.

    Returns:
        The column, or a sentence why it cannot be read.
    """
    quoted = quote_name(name)
    rule = rule_of(found)
    if rule is MONEY and cast is None:
        return (
            f"{name} is money, whose text depends on the server's locale: cast it, for "
            f"example columns: {{cast: {{{name}: 'decimal(18,2)'}}}}, or exclude it"
        )
    scalar = _arrow_type(found)
    arrow = scalar or pa.string()
    if found.is_array:
        arrow = pa.list_(arrow)
    may_fail = failure_condition("", arrow) is not None

    def column(
        expression: str, fidelity: Fidelity, rule: str, arrow: pa.DataType, *, nulled: bool = False
    ) -> Column:
        return Column(
            name, found.printed, arrow, nullable or nulled, fidelity, rule, expression,
            nulls_odd_values=nulled,
        )  # fmt: skip

    as_text = printed(quoted, found)
    if rule is MONEY:
        digits = as_text if found.is_array else f"{quoted}::pg_catalog.numeric::pg_catalog.text"
        reason = "money becomes the digits of its numeric value, as columns.cast allows"
        return column(digits, "by_permission", reason, pa.string())
    if may_fail and cast in ("string", "text"):
        return column(as_text, "as_text", _AS_TEXT, pa.string())
    if may_fail and cast is None and lossy_types == "string":
        reason = f"{_AS_TEXT}, any value of it, as lossy_types: string allows"
        return column(as_text, "by_permission", reason, pa.string())
    to_null = lossy_types == "null"
    if scalar is None:
        expression = printed_items(quoted, found) if found.is_array else as_text
        reason = f"{_AS_TEXT}; {_outcome(arrow, to_null)}" if found.is_array else _AS_TEXT
    else:
        expression = as_it_is(quoted, found)
        reason = _outcome(arrow, to_null)
    expression = guarded(quoted, expression, arrow, to_null)
    fidelity: Fidelity = "as_text" if scalar is None else "lossless"
    return column(expression, fidelity, reason, arrow, nulled=may_fail and to_null)


_AS_TEXT = "arrives as PostgreSQL's own text"


def _outcome(arrow: pa.DataType, to_null: bool) -> str:
    outcome = "become NULL and are counted" if to_null else "are refused"
    if pa.types.is_list(arrow):
        return (
            "arrays of one dimension starting at 1 arrive as lists; others, and elements without "
            f"a faithful form, {outcome}"
        )
    if pa.types.is_decimal(arrow):
        return f"keeps precision and scale; NaN values {outcome}"
    if pa.types.is_temporal(arrow):
        return f"years 1 to 9999 arrive as they are; infinite and other values {outcome}"
    return "arrives as it is"
