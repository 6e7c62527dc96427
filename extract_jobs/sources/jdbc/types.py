"""Decides how a JDBC column is read: SQL, Spark type, Arrow type."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from extract_jobs.schema import Column
from extract_jobs.sources.jdbc.dialects import Dialect
from extract_jobs.sources.jdbc.rules import JDBC_NAMES, PLAIN_RULES, Kind, Rule
from extract_jobs.watermark import WatermarkType

MAX_PRECISION = 38

_ARROW: dict[Kind, pa.DataType] = {
    "bool": pa.bool_(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint64": pa.decimal128(20, 0),
    "wide decimal": pa.string(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "time": pa.string(),
    "other": pa.string(),
}
_UNSIGNED: dict[Kind, Kind] = {"int16": "int32", "int32": "int64", "int64": "uint64"}
_WATERMARKS: dict[Kind, WatermarkType] = {
    "int16": "integer",
    "int32": "integer",
    "int64": "integer",
    "uint64": "integer",
    "decimal": "decimal",
    "wide decimal": "decimal",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
    "string": "string",
}
_TEMPORAL = ("date", "timestamp", "timestamptz")
_BY_SERVER = (*_TEMPORAL, "time", "wide decimal", "other")
"""Kinds that are fetched as text formatted by the server."""


@dataclass(frozen=True)
class Described:
    """A column of a result from its ``ResultSetMetaData``.

    Attributes:
        name: Its label.
        code: Its number in ``java.sql.Types``.
        type_name: The driver's name of its type.
        precision: Digits or characters; 0 if not applicable or unbounded.
        scale: Digits after the point.
        nullable: False only if the driver is sure.
        signed: Whether a number is signed.
    """

    name: str
    code: int
    type_name: str
    precision: int
    scale: int
    nullable: bool
    signed: bool

    @property
    def printed(self) -> str:
        """The type as users write it."""
        jdbc = JDBC_NAMES.get(self.code, "other")
        if jdbc in ("numeric", "decimal") and "(" not in self.type_name and self.precision > 0:
            return f"{self.type_name}({self.precision},{self.scale})"
        texts = ("char", "varchar", "nchar", "nvarchar", "binary", "varbinary")
        if jdbc in texts and "(" not in self.type_name and 0 < self.precision < 2**30:
            return f"{self.type_name}({self.precision})"
        return self.type_name


@dataclass(frozen=True)
class Typed:
    """A column and its rule.

    Attributes:
        described: The driver's description.
        rule: A rule of the dialect, or of JDBC.
        kind: The kind of its values, considering precision and sign.
    """

    described: Described
    rule: Rule
    kind: Kind

    @property
    def watermark(self) -> WatermarkType | None:
        """Its kind as a watermark; None if it does not order rows."""
        return _WATERMARKS.get(self.kind)


def typed(described: Described, dialect: Dialect) -> Typed:
    """Find a column's rule."""
    name = described.type_name.lower().partition("(")[0].strip()
    jdbc = JDBC_NAMES.get(described.code, "other")
    plain = next(rule for rule in PLAIN_RULES if jdbc in rule.names)
    known = () if dialect.rules is PLAIN_RULES else dialect.rules
    fitting = (r for r in known if name in r.names and (not r.jdbc or jdbc in r.jdbc))
    rule = next(fitting, plain)
    kind = rule.kind
    if kind == "decimal" and not rule.expression:
        precision, scale = described.precision, described.scale
        if not (1 <= precision <= MAX_PRECISION and 0 <= scale <= precision):
            kind = "wide decimal"
    if rule is plain and not described.signed and jdbc != "tinyint":
        kind = _UNSIGNED.get(kind, kind)
    if jdbc == "bit" and rule is plain and described.precision > 1:
        kind = "other"
    return Typed(described, rule, kind)


def make_column(found: Typed, dialect: Dialect, *, cast: str | None, lossy: str) -> Column | str:
    """Decide how a column is read.

    Args:
        found: The column.
        dialect: The database's.
        cast: Its ``columns.cast``, if any. It permits types that are read only with a cast, and
            ``string`` reads dates and times as the server's text, whatever they are.
        lossy: ``lossy_types``.

    Returns:
        The column, or a sentence that explains why it cannot be read.
    """
    described, rule, kind = found.described, found.rule, found.kind
    template = rule.expression
    if template is None and kind in _BY_SERVER:
        template = dialect.text.get(kind)
    if kind == "refused" or (template is None and kind in _BY_SERVER):
        reason = rule.reason if kind == "refused" else (
            "it cannot be converted to text on every database; cast it in a query, or exclude it"
        )  # fmt: skip
        return f"{described.name} is {described.printed}: {reason.rstrip('.')}"
    if rule.permitted and cast is None:
        return (
            f"{described.name} is {described.printed}: {rule.reason.rstrip('.')}; confirm that "
            "with columns.cast, or exclude it"
        )
    arrow = _arrow(found)
    as_text = kind in _BY_SERVER and kind not in _TEMPORAL
    nulled, sentence = False, rule.reason
    if kind in _TEMPORAL and (cast in ("string", "text") or lossy == "string"):
        arrow, as_text, sentence = pa.string(), True, "Arrives as the database's own text."
    elif kind in _TEMPORAL:
        outcome = "become NULL and are counted" if lossy == "null" else "are refused"
        sentence = f"{sentence.rstrip('.')}; other values {outcome}."
        nulled = lossy == "null"
    fidelity = "by_permission" if rule.permitted else "as_text" if as_text else "lossless"
    quoted = quote_name(described.name, dialect)
    return Column(
        described.name,
        described.printed,
        arrow,
        described.nullable or nulled,
        fidelity,  # type: ignore[arg-type]  # one of the three above
        sentence,
        (template or "{}").replace("{}", quoted),
        found.watermark,
        nulled,
    )


def unread_column(found: Typed, dialect: Dialect) -> Column:
    """Return a column that is left out: it is described but never read."""
    name = found.described.name
    return Column(
        name, found.described.printed, pa.string(), found.described.nullable, "as_text",
        "Left out.", quote_name(name, dialect), found.watermark,
    )  # fmt: skip


def _arrow(found: Typed) -> pa.DataType:
    if found.kind != "decimal":
        return _ARROW[found.kind]
    if found.rule.expression:
        return pa.decimal128(19, 4)  # SQL Server's money
    return pa.decimal128(found.described.precision, found.described.scale)


def spark_type(arrow: pa.DataType) -> str:
    """Return the Spark type that a column of an Arrow type is fetched as, in Spark's own DDL."""
    types = pa.types
    if types.is_decimal(arrow):
        return f"decimal({arrow.precision},{arrow.scale})"
    names = {
        pa.bool_(): "boolean",
        pa.int16(): "smallint",
        pa.int32(): "int",
        pa.int64(): "bigint",
        pa.float32(): "float",
        pa.float64(): "double",
        pa.binary(): "binary",
    }
    return names.get(arrow, "string")


def quote_name(name: str, dialect: Dialect) -> str:
    """Quote an identifier."""
    begin, end = dialect.quotes
    return begin + name.replace(end, end * 2) + end
