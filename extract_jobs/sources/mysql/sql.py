"""The SQL that the MySQL source sends: quoting, relations, predicates.

Everything here is text in, text out. Names are in backticks, which every ``sql_mode`` reads the
same way. Values are numbers, typed dates or hexadecimal bytes, so none of them can end its literal.
A person's own text (``query``, ``where``) is only put between parentheses after a check that it
does not close them (see `check_texts` in `extract_jobs.sources.mysql.catalog`).
"""

from __future__ import annotations

import re

from extract_jobs.watermark import WatermarkType


def quote_name(name: str) -> str:
    """Quote an identifier."""
    return "`" + name.replace("`", "``") + "`"


def quote_text(text: str) -> str:
    """Return a string literal that every setting reads the same way."""
    return f"_utf8mb4 x'{text.encode().hex()}'"


def quote_bytes(value: bytes) -> str:
    """Return a binary literal."""
    return f"x'{value.hex()}'"


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
    if data_type == "year" and 0 < int(text) <= 1900:
        return "0"  # MariaDB reads 63 as 2063
    if kind in ("integer", "decimal"):
        return text
    if kind == "date":
        return f"date'{text}'"
    if kind == "string":
        return quote_text(text)
    # TIMESTAMP literals are DATETIME; a TIMESTAMP column compares with them in the session's UTC.
    plain = re.sub(r"(\+00(:00)?|Z)$", "", text).replace("T", " ")
    return f"timestamp'{plain}'"
