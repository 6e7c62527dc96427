"""The SQL that the MySQL source sends: quoting, relations, predicates.

Everything here is text in, text out. Names stand in backticks, which every ``sql_mode`` reads
alike. Values stand as numbers, typed dates or hexadecimal bytes, so none of them can end its
literal. A person's own text (``query``, ``where``) is only ever put between parentheses that were
checked to be its own (see `check_texts` in `extract_jobs.sources.mysql.catalog`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from extract_jobs.sources import ReadRequest
from extract_jobs.sources.sql.statements import bounds_condition, watermark_changed, where_clause
from extract_jobs.watermark import WatermarkType, WatermarkValue

LOCK_TIMEOUT_SECONDS = 60
"""How long any statement waits for a lock, such as an ALTER TABLE has."""


def quote_name(name: str) -> str:
    """Quote an identifier."""
    return "`" + name.replace("`", "``") + "`"


def quote_text(text: str) -> str:
    """Write a string literal whose bytes no setting reads in another way."""
    return f"_utf8mb4 x'{text.encode().hex()}'"


def quote_bytes(value: bytes) -> str:
    """Write a binary literal."""
    return f"x'{value.hex()}'"


@dataclass(frozen=True)
class Relation:
    """What is read, as it stands in a FROM clause.

    Attributes:
        source: A quoted name, or a query in parentheses with its alias.
        kind: What it is.
        where: The spec's own condition; None reads all rows.
    """

    source: str
    kind: Literal["table", "partitioned", "view", "query"]
    where: str | None = None


KINDS: dict[str, WatermarkType] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "year"), "integer"),
    "decimal": "decimal",
    "date": "date",
    "datetime": "timestamp",
    "timestamp": "timestamptz",
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"), "string"),
}
"""Types that order rows, by ``DATA_TYPE``: their watermark type."""


def literal(text: str, data_type: str) -> str:
    """Return a literal that compares with a column of a data type of `KINDS`, without rounding."""
    kind = KINDS[data_type]
    if kind in ("integer", "decimal"):
        return text
    if kind == "date":
        return f"date'{text}'"
    if kind == "string":
        return quote_text(text)
    # TIMESTAMP literals are DATETIME; a TIMESTAMP column compares with it in the session's UTC.
    plain = re.sub(r"(\+00(:00)?|Z)$", "", text).replace("T", " ")
    return f"timestamp'{plain}'"


def interval_condition(request: ReadRequest, data_type: str | None) -> str | None:
    """Return ``column > lower and column <= upper`` for a request; None if all rows belong.

    Args:
        request: What is read.
        data_type: The watermark column's data type.

    Raises:
        ConfigError: The bounds are of another kind than the column.
    """
    name = request.watermark_column or ""
    column = quote_name(name)
    # Not IS NULL: of a date that is NOT NULL it finds the zero dates.
    null = f"{column} <=> null"

    def compare(sign: str, bound: WatermarkValue) -> str:
        return f"{column} {sign} {literal(bound.text, _checked(bound, name, data_type))}"

    return bounds_condition(
        request, compare, is_null=null, not_null=f"not ({null})", nothing="false"
    )


def _checked(bound: WatermarkValue, name: str, data_type: str | None) -> str:
    kind = KINDS.get(data_type or "")
    if data_type is None or kind != bound.type:
        raise watermark_changed(name, data_type, bound)
    return data_type


def select(expressions: Sequence[str], relation: Relation, *conditions: str | None) -> str:
    """Return the SELECT of expressions under conditions and the spec's own."""
    listed = ", ".join(expressions) or "1"
    return f"select {listed} from {relation.source}{where_clause(relation.where, *conditions)}"
