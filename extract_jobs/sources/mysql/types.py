"""How MySQL and MariaDB types become Arrow types.

The server sends text, and Arrow parses it: text that it cannot parse is noticed, never mangled. A
type that has no Arrow equivalent arrives as that text. `TYPE_RULES` has one row per type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from extract_jobs.schema import Column, TypeRule
from extract_jobs.sources.mysql.sql import KINDS, quote_name
from extract_jobs.spec.parts import LossyTypes

MAX_PRECISION = 38
"""Maximum digits of Arrow's decimal128, and of decimals in Athena and Spark."""


_INTEGERS: dict[str, tuple[pa.DataType, pa.DataType]] = {
    "tinyint": (pa.int8(), pa.int16()),
    "smallint": (pa.int16(), pa.int32()),
    "mediumint": (pa.int32(), pa.int32()),
    "int": (pa.int32(), pa.int64()),
    "bigint": (pa.int64(), pa.decimal128(20, 0)),
}
"""Signed and unsigned: Athena and Spark do not support Parquet's unsigned types."""

_TEXTS = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set")
_BINARIES = ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector")
_PRINTED = ("time", "json", "uuid", "inet4", "inet6")
_TEMPORALS: dict[str, pa.DataType] = {
    "date": pa.date32(),
    "datetime": pa.timestamp("us"),
    "timestamp": pa.timestamp("us", "UTC"),
}
GEOMETRIES = (
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
    "geometrycollection", "geomcollection",
)  # fmt: skip
_SAME_BYTES = (None, "utf8mb4", "utf8mb3", "utf8", "ascii", "binary")
"""Character sets whose bytes are UTF-8 already; Arrow finds invalid ones."""
ONE_BYTE = (
    "latin1", "latin2", "latin5", "latin7", "cp1250", "cp1251", "cp1256", "cp1257", "cp850",
    "cp852", "cp866", "dec8", "greek", "hebrew", "hp8", "keybcs2", "koi8r", "koi8u", "macce",
    "macroman", "swe7", "armscii8", "geostd8", "tis620",
)  # fmt: skip

_COMPLETE = (
    "latin1", "latin2", "latin5", "latin7", "cp850", "cp852", "cp866", "keybcs2", "koi8r", "koi8u",
    "macce", "macroman",
)  # fmt: skip
"""Character sets with one letter for each of the 256 bytes."""
_ONE_LETTER = {"sjis": "x'815f', x'5c'", "ujis": "x'a1c0', x'5c'"}
"""Character sets with two encodings of one letter, the backslash; either may be stored."""
_TWICE = ("cp932", "eucjpms", "armscii8")
"""Character sets in which many letters have two encodings of the same length."""

_ZERO = "zero dates and impossible dates (30 February) are refused, become NULL or arrive as text"
_TEXT = "bytes that are not valid in the column's character set are refused, or become NULL"

TYPE_RULES: tuple[TypeRule, ...] = (
    TypeRule("tinyint", "int8", "lossless", "tinyint(1) too: it holds more than 0 and 1"),
    TypeRule("tinyint unsigned", "int16", "lossless", "the next wider signed type"),
    TypeRule("smallint", "int16", "lossless", "as it is"),
    TypeRule("smallint unsigned", "int32", "lossless", "the next wider signed type"),
    TypeRule("mediumint", "int32", "lossless", "unsigned too"),
    TypeRule("int", "int32", "lossless", "as it is"),
    TypeRule("int unsigned", "int64", "lossless", "the next wider signed type"),
    TypeRule("bigint", "int64", "lossless", "as it is"),
    TypeRule("bigint unsigned", "decimal(20,0)", "lossless", "no signed type is wide enough"),
    TypeRule("decimal(p,s)", "decimal(p,s)", "lossless", "up to 38 digits; unsigned too"),
    TypeRule("decimal(39..65,s)", "string", "as_text", "more digits than a decimal holds"),
    TypeRule("float", "float32", "lossless", "its exact value, not the 6 digits that are printed"),
    TypeRule("double", "float64", "lossless", "the server prints enough digits to read it back"),
    TypeRule("bit(1)", "boolean", "lossless", "it has the values 0 and 1 only"),
    TypeRule("bit(2..63)", "int64", "lossless", "by its number"),
    TypeRule("bit(64)", "decimal(20,0)", "lossless", "as a number, which may need 64 bits"),
    TypeRule("year", "int16", "lossless", "year 0000 is 0"),
    TypeRule("date", "date", "lossless", _ZERO),
    TypeRule("datetime(f)", "timestamp", "lossless", f"without a zone; {_ZERO}"),
    TypeRule("timestamp(f)", "timestamptz", "lossless", f"in UTC; {_ZERO}"),
    TypeRule("time(f)", "string", "as_text", "-838:59:59 to 838:59:59, so not a time of day"),
    TypeRule("char(n)", "string", "lossless", f"without trailing blanks, as MySQL has it; {_TEXT}"),
    TypeRule("varchar(n)", "string", "lossless", _TEXT),
    TypeRule("tinytext, text, mediumtext, longtext", "string", "lossless", _TEXT),
    TypeRule("enum", "string", "as_text", "its label"),
    TypeRule("set", "string", "as_text", "its labels, separated by commas"),
    TypeRule("json", "string", "as_text", "as the server prints it; in MariaDB it is longtext"),
    TypeRule("binary(n), varbinary(n)", "binary", "lossless", "as it is"),
    TypeRule("tinyblob, blob, mediumblob, longblob", "binary", "lossless", "as it is"),
    TypeRule("uuid, inet4, inet6", "string", "as_text", "as MariaDB prints them"),
    TypeRule("vector", "binary", "lossless", "its 32-bit floats as they are stored"),
    TypeRule(
        "geometry, point, …",
        "-",
        "refused",
        "columns.cast to string takes ST_AsText, without its SRID; to binary its stored bytes",
    ),
)
"""What `make_column` does: one row per type."""


@dataclass(frozen=True)
class MysqlType:
    """A column's type.

    Attributes:
        printed: As ``SHOW COLUMNS`` prints it, for example ``int(10) unsigned``.
        base: Its ``DATA_TYPE``, for example ``int``.
        precision: Digits of a decimal, bits of a bit; 0 for others.
        scale: Digits after the point of a decimal.
        unsigned: Whether a number is unsigned.
        zerofill: Whether a number is printed with leading zeros.
        charset: Character set of a text; None for other types.
    """

    printed: str
    base: str
    precision: int = 0
    scale: int = 0
    unsigned: bool = False
    zerofill: bool = False
    charset: str | None = None


def make_column(
    name: str, found: MysqlType, *, nullable: bool, cast: str | None, lossy: LossyTypes
) -> Column | str:
    """Decide how a column is read.

    Args:
        name: The column's name.
        found: Its type.
        nullable: Whether it admits NULL.
        cast: What the spec casts it to, if anything: ``string`` takes dates and timestamps as the
            server's text, so any value passes, and permits geometries.
        lossy: What happens to values that have no faithful form.

    Returns:
        The column, or a sentence why it cannot be read.
    """
    watermark = KINDS.get(found.base)
    as_text = cast in ("string", "text")
    if found.base in GEOMETRIES:
        return _geometry(name, found, nullable, cast, lossy)
    arrow, expression = _reading(found, quote_name(name))
    if arrow is None and as_text:
        return Column(
            name, found.printed, pa.string(), nullable, "by_permission",
            "becomes text, as columns.cast allows", f"cast({quote_name(name)} as char)",
        )  # fmt: skip
    if arrow is None:
        return f"{name} is of type {found.printed}, which is not supported: cast it in a query"
    if found.base in _TEMPORALS and (as_text or lossy == "string"):
        permitted: Literal["as_text", "by_permission"] = "as_text" if as_text else "by_permission"
        return Column(
            name, found.printed, pa.string(), nullable, permitted,
            "arrives as the server's own text, in UTC where it has a zone", expression, watermark,
        )  # fmt: skip
    fidelity: Literal["lossless", "as_text"] = "lossless"
    if pa.types.is_string(arrow) and found.base not in _TEXTS[:-2]:
        fidelity = "as_text"
    nulled = lossy == "null" and can_fail(arrow)
    return Column(
        name, found.printed, arrow, nullable or nulled, fidelity, _rule(found, arrow, lossy),
        expression, watermark, nulled,
    )  # fmt: skip


_LARGEST = {
    **dict.fromkeys(("varchar", "varbinary", "text", "blob"), 2**16 - 1),
    **dict.fromkeys(("mediumtext", "mediumblob"), 2**24 - 1),
    **dict.fromkeys(("longtext", "longblob"), 2**32 - 1),
}


def largest_value(printed: str) -> int:
    """Return the most bytes that a value of a type can have; 0 where the server cannot tell.

    It cannot for MySQL's JSON, whose length it only knows once it has printed the value. MariaDB's
    is a longtext.
    """
    return _LARGEST.get(re.split(r"\W", printed, maxsplit=1)[0], 0)


def can_fail(arrow: pa.DataType) -> bool:
    """Return whether a type has values without a faithful form: odd dates, invalid text."""
    return bool(pa.types.is_temporal(arrow) or pa.types.is_string(arrow))


def _reading(found: MysqlType, quoted: str) -> tuple[pa.DataType | None, str]:
    """Return the Arrow type for a type, and SQL of its text; no type if it is unknown."""
    base = found.base
    if base in _INTEGERS:
        return _INTEGERS[base][found.unsigned], f"{quoted} + 0" if found.zerofill else quoted
    if base == "decimal":
        fits = found.precision <= MAX_PRECISION
        kind = pa.decimal128(found.precision, found.scale) if fits else pa.string()
        # Leading zeros are not part of the number; a cast keeps its digits where a sum might not.
        plain = f"cast({quoted} as decimal({found.precision},{found.scale}))"
        return kind, plain if found.zerofill else quoted
    if base in ("float", "double"):
        # As a product it is a double, printed with all its digits and not with those of
        # ``double(10,2)``; a sum would turn -0 into 0.
        formatted = "(" in found.printed or found.zerofill or base == "float"
        kind = pa.float32() if base == "float" else pa.float64()
        return kind, f"{quoted} * 1e0" if formatted else quoted
    if base == "bit":
        if found.precision == 1:
            return pa.bool_(), f"{quoted} + 0"
        return pa.int64() if found.precision < 64 else pa.decimal128(20, 0), f"{quoted} + 0"
    if base == "year":
        return pa.int16(), f"{quoted} + 0"
    if base in _TEMPORALS:
        return _TEMPORALS[base], quoted
    if base in _BINARIES:
        return pa.binary(), quoted
    if base in _PRINTED:
        return pa.string(), quoted
    if base in _TEXTS:
        return pa.string(), as_utf8(quoted, found.charset)
    return None, quoted


def as_utf8(quoted: str, charset: str | None) -> str:
    """Return SQL for a text's UTF-8 bytes, or for bytes that are not UTF-8.

    The server puts ``?`` for a letter that its table lacks, omits a last letter that is cut, and
    returns NULL for what is above its ``max_allowed_packet``. So the text is converted back and
    compared with what was stored; if they differ, it becomes the byte FF, which the parser then
    finds.

    Args:
        quoted: The text, which may be evaluated several times.
        charset: Its character set.
    """
    if charset in _SAME_BYTES:
        return quoted
    converted, stored = f"convert({quoted} using utf8mb4)", f"cast({quoted} as binary)"
    if charset in _COMPLETE:  # only a value that is too large can go wrong
        too_large = f"case when {quoted} <=> null then null else x'ff' end"
        return f"coalesce(cast({converted} as binary), {too_large})"
    back = f"cast(convert({converted} using {charset}) as binary)"
    alike = f"{back} = {stored}"
    if charset in _ONE_LETTER:
        alike = " = ".join(f"replace({side}, {_ONE_LETTER[charset]})" for side in (back, stored))
    elif charset in _TWICE:
        # As many question marks as were stored; nothing omitted, nothing unknown.
        marks = [f"length({t}) - length(replace({t}, '?', ''))" for t in (converted, stored)]
        alike = (
            f"({alike} or length({back}) = length({stored}) and {marks[0]} = {marks[1]}"
            f" and not locate(_utf8mb4 x'efbfbd', {converted}))"
        )
    return (
        f"case when {quoted} <=> null then null when {alike} then cast({converted} as binary)"
        " else x'ff' end"
    )


def _geometry(
    name: str, found: MysqlType, nullable: bool, cast: str | None, lossy: LossyTypes
) -> Column | str:
    quoted = quote_name(name)
    if cast == "binary":
        return Column(
            name, found.printed, pa.binary(), nullable, "by_permission",
            "the server's own bytes: 4 of the SRID, then WKB, as columns.cast allows", quoted,
        )  # fmt: skip
    if cast in ("string", "text") or lossy == "string":
        return Column(
            name, found.printed, pa.string(), nullable, "by_permission",
            "becomes well-known text, without its SRID, as the spec allows", f"st_astext({quoted})",
        )  # fmt: skip
    return (
        f"{name} is of type {found.printed}, which has no form that all readers support: cast it, "
        f"columns: {{cast: {{{name}: string}}}} for its text, binary instead of string "
        "for its bytes, or exclude it"
    )


def _rule(found: MysqlType, arrow: pa.DataType, lossy: LossyTypes) -> str:
    outcome = "become NULL and are counted" if lossy == "null" else "are refused"
    if pa.types.is_temporal(arrow):
        zone = ", in UTC" if found.base == "timestamp" else ""
        return f"arrives as it is{zone}; zero dates and impossible dates (30 February) {outcome}"
    if pa.types.is_string(arrow) and found.base in _TEXTS:
        return f"arrives in UTF-8; bytes that are not valid text {outcome}"
    if pa.types.is_string(arrow):
        return "arrives as the server's own text"
    if pa.types.is_boolean(arrow):
        return "one bit arrives as true or false"
    if found.unsigned or found.base == "bit":
        return f"arrives as a number, {arrow}"
    return "arrives as it is"


def parse_type(data_type: str, printed: str, charset: str | None) -> MysqlType:
    """Parse a type as ``information_schema.columns`` spells it.

    Args:
        data_type: ``DATA_TYPE``.
        printed: ``COLUMN_TYPE``.
        charset: ``CHARACTER_SET_NAME``.
    """
    base = data_type.lower()
    numbers = re.match(r"\w+\((\d+)(?:,(\d+))?\)", printed)
    precision, scale = 0, 0
    if numbers and base in ("decimal", "bit"):
        precision, scale = int(numbers[1]), int(numbers[2] or 0)
    # Only after the parenthesis: an enum's label may contain any text.
    attributes = "" if base in ("enum", "set") else printed
    return MysqlType(
        printed,
        base,
        precision,
        scale,
        unsigned="unsigned" in attributes,
        zerofill="zerofill" in attributes,
        charset=charset,
    )
