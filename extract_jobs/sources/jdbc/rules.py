"""How types arrive: one table per dialect, one row per type.

`extract_jobs.sources.jdbc.types` uses these tables; the tables in the docs are generated from them.
A type that is not in a dialect's table uses the rule for its JDBC type (`PLAIN_RULES`). SQL Server,
Oracle and Redshift follow their documentation, not a server.

https://docs.oracle.com/en/java/javase/17/docs/api/java.sql/java/sql/Types.html
https://learn.microsoft.com/sql/connect/jdbc/using-basic-data-types
https://docs.oracle.com/en/database/oracle/oracle-database/23/jjdbc/accessing-and-manipulating-Oracle-data.html
https://docs.aws.amazon.com/redshift/latest/dg/c_Supported_data_types.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from extract_jobs.schema import TypeRule

Kind = Literal[
    "bool", "int16", "int32", "int64", "uint64", "decimal", "wide decimal", "float32", "float64",
    "string", "binary", "date", "timestamp", "timestamptz", "time", "other", "refused",
]  # fmt: skip
"""Kinds of values, whatever a database calls them. Dates and all times are fetched as text."""

_ARRIVES: dict[Kind, str] = {
    "bool": "boolean", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint64": "decimal(20,0)", "decimal": "decimal(p,s)", "wide decimal": "string",
    "float32": "float32", "float64": "float64", "string": "string", "binary": "binary",
    "date": "date", "timestamp": "timestamp", "timestamptz": "timestamptz", "time": "string",
    "other": "string", "refused": "-",
}  # fmt: skip
_AS_TEXT = ("wide decimal", "time", "other")

_AS_IT_IS = "Arrives as it is."
_DIGITS = (
    "Keeps precision and scale; without a precision, above 38 digits, or with a scale that is "
    "negative or above the precision it arrives as text."
)
_DAY = "Years 1 to 9999."
_MICROSECONDS = "Years 1 to 9999, to the microsecond."
_INSTANT = "As UTC; years 1 to 9999, to the microsecond."
_TEXT = "Arrives as the database's own text."
_NO_TEXT = "Has no text that every server prints alike; cast it in a query, or exclude it."


@dataclass(frozen=True)
class Rule:
    """How one type arrives.

    Attributes:
        names: The driver's names in lower case; the first one is for the docs.
        kind: The kind of its values.
        reason: One sentence: why it arrives this way.
        expression: SQL that reads it, ``{}`` for the column; None uses the dialect's for the kind.
        literal: SQL of a value, ``{text}`` for the text; None uses the dialect's.
        permitted: Whether it is read only if ``columns.cast`` names it.
        jdbc: The JDBC type that it must also have; empty for any.
    """

    names: tuple[str, ...]
    kind: Kind
    reason: str
    expression: str | None = None
    literal: str | None = None
    permitted: bool = False
    jdbc: tuple[str, ...] = ()

    @property
    def row(self) -> TypeRule:
        """The row of the docs."""
        fidelity: Literal["lossless", "as_text", "by_permission", "refused"] = "lossless"
        if self.kind == "refused":
            fidelity = "refused"
        elif self.permitted:
            fidelity = "by_permission"
        elif self.kind in _AS_TEXT:
            fidelity = "as_text"
        return TypeRule(", ".join(self.names), _ARRIVES[self.kind], fidelity, self.reason)


JDBC_NAMES = {
    -16: "longnvarchar", -15: "nchar", -9: "nvarchar", -8: "rowid", -7: "bit", -6: "tinyint",
    -5: "bigint", -4: "longvarbinary", -3: "varbinary", -2: "binary", -1: "longvarchar",
    1: "char", 2: "numeric", 3: "decimal", 4: "integer", 5: "smallint", 6: "float", 7: "real",
    8: "double", 12: "varchar", 16: "boolean", 91: "date", 92: "time", 93: "timestamp",
    2002: "struct", 2003: "array", 2004: "blob", 2005: "clob", 2009: "sqlxml", 2011: "nclob",
    2013: "time_with_timezone", 2014: "timestamp_with_timezone",
}  # fmt: skip
"""``java.sql.Types`` by number; any other is ``other``."""

PLAIN_RULES = (
    Rule(("boolean", "bit"), "bool", _AS_IT_IS),
    Rule(("tinyint",), "int16", "Widened: some databases have it without a sign."),
    Rule(("smallint",), "int16", "As it is; without a sign widened to int32."),
    Rule(("integer",), "int32", "As it is; without a sign widened to int64."),
    Rule(("bigint",), "int64", "As it is; without a sign decimal(20,0)."),
    Rule(("numeric", "decimal"), "decimal", _DIGITS),
    Rule(("real",), "float32", "As it is, with NaN and infinities."),
    Rule(("double", "float"), "float64", "As it is, with NaN and infinities."),
    Rule(("varchar", "char", "nvarchar", "nchar", "longvarchar", "longnvarchar", "clob", "nclob"),
         "string", "As it is; char(n) with the blanks that the driver gives."),
    Rule(("varbinary", "binary", "longvarbinary", "blob"), "binary", _AS_IT_IS),
    Rule(("date",), "date", _DAY),
    Rule(("timestamp",), "timestamp", _MICROSECONDS),
    Rule(("timestamp_with_timezone",), "timestamptz", _INSTANT),
    Rule(("time", "time_with_timezone"), "time", _TEXT),
    Rule(("other", "sqlxml", "rowid"), "other",
         "Arrives as text where the dialect can make it; refused where it cannot."),
    Rule(("array", "struct"), "other",
         "Arrives as text where the dialect can make it; refused where it cannot."),
)  # fmt: skip
"""By JDBC's own names, for databases without their own table."""

EMBEDDED_RULES = (
    Rule(
        ("uuid",), "string", "As its text, for which JDBC has no type.", "cast({} as varchar(36))"
    ),
    # Its JDBC type is a float, which would cost digits.
    Rule(("decfloat",), "wide decimal", "All digits of a number whose point floats."),
)
"""H2 and HSQLDB."""

POSTGRES_RULES = (
    Rule(("timestamptz",), "timestamptz", _INSTANT),
    Rule(("timetz",), "time", _TEXT),
    Rule(("money",), "other", "Its text depends on the server's locale, so it is read as a number.",
         "cast(cast({} as numeric) as varchar)", permitted=True),
    Rule(("bit",), "other", _TEXT),
)  # fmt: skip
"""PostgreSQL through its JDBC driver. The source ``postgres`` is faster and knows more types."""

MYSQL_RULES = (
    Rule(("timestamp",), "timestamptz", _INSTANT),
    # MySQL 5.7 and MariaDB read 64 as 2064 when comparing with a year. There are no years from 1 to
    # 1900, so 0 selects the same rows.
    Rule(("year",), "int16", _AS_IT_IS, "cast({} as signed)",
         literal="if({text} between 1 and 1900, 0, {text})"),
    # The server prints six digits of a float, and all of a double.
    Rule(("float", "float unsigned"), "float32", "Its exact value, not the 6 digits that are "
         "printed.", "({} * 1e0)"),
    Rule(("bit",), "refused", "The driver gives a number or bytes by its width; cast it in a "
         "query, or use the source mysql."),
    Rule(("geometry", "point", "linestring", "polygon"), "refused", _NO_TEXT),
)  # fmt: skip
"""MySQL and MariaDB through a JDBC driver. The source ``mysql`` is faster and knows more types."""

SQLSERVER_RULES = (
    Rule(("bigint",), "int64", _AS_IT_IS),
    Rule(("int", "int identity"), "int32", _AS_IT_IS),
    Rule(("smallint",), "int16", _AS_IT_IS),
    Rule(("tinyint",), "int16", "0 to 255, widened."),
    Rule(("bit",), "bool", _AS_IT_IS),
    Rule(("decimal", "numeric"), "decimal", _DIGITS),
    Rule(("money", "smallmoney"), "decimal", "A decimal with four digits; no locale is involved.",
         "cast({} as decimal(19,4))"),
    Rule(("float",), "float64", _AS_IT_IS),
    Rule(("real",), "float32", _AS_IT_IS),
    Rule(("char", "varchar", "text", "nchar", "nvarchar", "ntext"), "string", _AS_IT_IS),
    Rule(("date",), "date", _AS_IT_IS),
    Rule(("datetime", "smalldatetime"), "timestamp",
         "Steps of 1/300 s arrive as the three digits that the server prints.",
         "cast(cast({} as datetime2(3)) as varchar(33))",
         # Compared with a datetime2 it would be widened, and so be above itself.
         "cast(cast('{text}' as datetime2(3)) as datetime)"),
    Rule(("datetime2",), "timestamp", "To the microsecond; a value with a seventh digit has no "
         "faithful form."),
    Rule(("datetimeoffset",), "timestamptz", "As UTC, its offset is lost; a value with a seventh "
         "digit has no faithful form."),
    Rule(("time",), "time", _TEXT),
    Rule(("uniqueidentifier",), "string", "As the server prints it, in upper case.",
         "cast({} as varchar(36))"),
    Rule(("binary", "varbinary", "image"), "binary", _AS_IT_IS),
    Rule(("timestamp", "rowversion"), "int64",
         "Its eight bytes as a number: ordered, and so a watermark.",
         "cast({} as bigint)", "cast(cast({text} as bigint) as binary(8))",
         jdbc=("binary", "varbinary")),
    Rule(("xml", "json", "hierarchyid"), "other", _TEXT),
    Rule(("sql_variant", "geography", "geometry", "vector", "udt"), "refused", _NO_TEXT),
)  # fmt: skip
"""SQL Server, by its documentation."""

ORACLE_RULES = (
    Rule(("number",), "decimal", _DIGITS),
    Rule(("float",), "wide decimal", "A NUMBER of up to 126 binary digits, so it arrives as text."),
    Rule(("binary_float",), "float32", _AS_IT_IS),
    Rule(("binary_double",), "float64", _AS_IT_IS),
    Rule(("varchar2", "nvarchar2", "char", "nchar", "clob", "nclob"), "string",
         "As it is; an empty text is NULL in Oracle."),
    Rule(("long", "long raw", "bfile"), "refused",
         "Not allowed in a subquery; convert it with to_lob, or exclude it."),
    Rule(("raw", "blob"), "binary", _AS_IT_IS),
    Rule(("date",), "timestamp", "Oracle's DATE has a time of day. Years 1 to 9999.",
         "to_char({}, 'SYYYY-MM-DD HH24:MI:SS')", "to_date('{seconds}', 'YYYY-MM-DD HH24:MI:SS')"),
    Rule(("timestamp",), "timestamp", _MICROSECONDS),
    Rule(("timestamp with time zone", "timestamp with local time zone"), "timestamptz", _INSTANT),
    Rule(("intervalym", "intervalds", "interval year to month", "interval day to second"), "other",
         _TEXT),
    Rule(("rowid", "urowid"), "other", _TEXT, "rowidtochar({})"),
    Rule(("xmltype", "sys.xmltype"), "other", _TEXT, "xmlserialize(content {} as clob)"),
    Rule(("json",), "other", _TEXT, "json_serialize({} returning clob)"),
    Rule(("boolean",), "bool", _AS_IT_IS),
)  # fmt: skip
"""Oracle, by its documentation."""

REDSHIFT_RULES = (
    Rule(("int2", "smallint"), "int16", _AS_IT_IS),
    Rule(("int4", "integer"), "int32", _AS_IT_IS),
    Rule(("int8", "bigint"), "int64", _AS_IT_IS),
    Rule(("numeric", "decimal"), "decimal", _DIGITS),
    Rule(("float4", "real"), "float32", _AS_IT_IS),
    Rule(("float8", "double precision"), "float64", _AS_IT_IS),
    Rule(("bool", "boolean"), "bool", _AS_IT_IS),
    Rule(("varchar", "bpchar", "char", "text"), "string", _AS_IT_IS),
    Rule(("date",), "date", _DAY),
    Rule(("timestamp",), "timestamp", _MICROSECONDS),
    Rule(("timestamptz",), "timestamptz", _INSTANT),
    Rule(("time", "timetz"), "time", _TEXT),
    Rule(("super",), "other", "As JSON text.", "json_serialize({})"),
    Rule(("varbyte",), "other", "As hexadecimal text.", "to_hex({})"),
    Rule(("geometry", "geography", "hllsketch", "intervaly2m", "intervald2s"), "refused", _NO_TEXT),
)  # fmt: skip
"""Redshift, by its documentation."""

TYPE_RULES = {
    "jdbc": tuple(rule.row for rule in PLAIN_RULES),
    "sqlserver": tuple(rule.row for rule in SQLSERVER_RULES),
    "oracle": tuple(rule.row for rule in ORACLE_RULES),
    "redshift": tuple(rule.row for rule in REDSHIFT_RULES),
}
"""The tables of the docs by ``source_type``."""
