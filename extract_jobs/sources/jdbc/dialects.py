"""How databases differ in SQL: one `Dialect` each, without branches elsewhere.

Values whose JDBC classes depend on the JVM's time zone or hide invalid values are fetched as text
that the server formats, always in one form: dates and timestamps in ISO 8601, instants in UTC.
``{}`` stands for a column or expression, ``{text}`` for a literal's text.

https://learn.microsoft.com/sql/t-sql/functions/cast-and-convert-transact-sql
https://docs.oracle.com/en/database/oracle/oracle-database/23/sqlrf/Format-Models.html
https://docs.aws.amazon.com/redshift/latest/dg/c_SQL_functions.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from extract_jobs.sources.jdbc.rules import (
    EMBEDDED_RULES,
    MYSQL_RULES,
    ORACLE_RULES,
    PLAIN_RULES,
    POSTGRES_RULES,
    REDSHIFT_RULES,
    SQLSERVER_RULES,
    Kind,
    Rule,
)

_PLAIN_TEXT: dict[Kind, str] = {
    "date": "cast({} as varchar(10))",
    "timestamp": "cast({} as varchar(40))",
    "timestamptz": "cast({} at time zone 'UTC' as varchar(50))",
    "time": "cast({} as varchar(40))",
    "wide decimal": "cast({} as varchar(1000))",
}
_PLAIN_LITERALS: dict[Kind, str] = {
    "date": "cast('{text}' as date)",
    "timestamp": "timestamp '{text}'",
    "timestamptz": "timestamp with time zone '{text}+00:00'",
}
_POSTGRES_TEXT: dict[Kind, str] = {
    "date": "cast({} as varchar)",
    "timestamp": "cast({} as varchar)",
    "timestamptz": "cast({} at time zone 'UTC' as varchar)",
    "time": "cast({} as varchar)",
    "wide decimal": "cast({} as varchar)",
    "other": "cast({} as text)",
}
# Never negative, whatever sign the database gives the remainder of a negative number.
_MODULUS = "mod(mod({}, {count}) + {count}, {count})"


@dataclass(frozen=True)
class Dialect:
    """The SQL of one kind of database.

    Attributes:
        name: For messages and the docs.
        rules: Its types by name; other types use `PLAIN_RULES`.
        quotes: The start and end of a quoted name; the end is escaped by doubling it.
        text: SQL that converts values of a kind to text.
        literals: SQL of a value of a kind.
        quoted_text: SQL of a text with doubled quotation marks.
        backslashes: What backslashes do in quoted text.
        hash_integer: SQL of a number from 0 to ``{count} - 1`` for an integer column.
        hash_text: The same for a text column; None if the database has no hash.
        hash_row: The same for a row's address; None if there is none.
        quantiles: Whether it has ``ntile``.
        one_row: The end of a SELECT without a table.
        utc_clock: SQL of its clock's time in UTC, as text; None if not available.
        local_clock: SQL of the wall clock that its ``current_timestamp`` shows, as text.
        estimate: A query for a table's rows and bytes from its statistics.
        schemas_are_catalogs: Whether JDBC's catalogs are what users call schemas.
        system_schemas: Schemas whose tables are never suggested.
        made_schemas: A query for more of them, where their names depend on what is installed.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    quotes: tuple[str, str] = ('"', '"')
    text: Mapping[Kind, str] = field(default_factory=lambda: _PLAIN_TEXT)
    literals: Mapping[Kind, str] = field(default_factory=lambda: _PLAIN_LITERALS)
    quoted_text: str = "'{text}'"
    backslashes: Literal["stand", "escape", "unknown"] = "stand"
    hash_integer: str = _MODULUS
    hash_text: str | None = None
    hash_row: str | None = None
    quantiles: bool = False
    one_row: str = ""
    utc_clock: str | None = "cast(current_timestamp at time zone 'UTC' as varchar(50))"
    local_clock: str = "cast(localtimestamp as varchar(40))"
    estimate: str | None = None
    schemas_are_catalogs: bool = False
    system_schemas: tuple[str, ...] = ("INFORMATION_SCHEMA", "information_schema")
    made_schemas: str | None = None


PLAIN = Dialect("plain", PLAIN_RULES, backslashes="unknown")

DERBY = Dialect(
    "Derby",
    literals={"date": "date('{text}')", "timestamp": "timestamp('{text}')"},
    text={kind: _PLAIN_TEXT[kind] for kind in ("date", "timestamp", "time")},
    one_row=" from sysibm.sysdummy1",
    utc_clock=None,
    local_clock="cast(current_timestamp as varchar(40))",
    system_schemas=("SYS",),
)

H2 = Dialect(
    "H2",
    EMBEDDED_RULES,
    # A cast to a shorter text drops letters: years have up to ten digits, numbers 100,000.
    text={**_PLAIN_TEXT, **dict.fromkeys(("date", "wide decimal", "other"), "cast({} as varchar)")},
    hash_text="ora_hash({}, {count} - 1)",
    quantiles=True,
    estimate="select row_count_estimate, null from information_schema.tables"
    " where table_schema = {schema} and table_name = {table}",
)

HSQLDB = Dialect(
    "HSQLDB",
    EMBEDDED_RULES,
    text={
        **_PLAIN_TEXT,
        "timestamptz": "cast(({} at time zone interval '0:00' hour to minute) as varchar(50))",
    },
    literals={**_PLAIN_LITERALS, "timestamptz": "timestamp '{text}+00:00'"},
    one_row=" from (values(0))",
    utc_clock="cast((current_timestamp at time zone interval '0:00' hour to minute)"
    " as varchar(50))",
    estimate="select cardinality, null from information_schema.system_tablestats"
    " where table_schema = {schema} and table_name = {table}",
    system_schemas=("INFORMATION_SCHEMA", "SYSTEM_LOBS"),
)

POSTGRES = Dialect(
    "PostgreSQL",
    POSTGRES_RULES,
    text=_POSTGRES_TEXT,
    hash_text=_MODULUS.replace("{}", "hashtext(cast({} as text))"),
    quantiles=True,
    utc_clock="cast(clock_timestamp() at time zone 'UTC' as varchar)",
    estimate="select case when c.reltuples >= 0 then cast(c.reltuples as bigint) end,"
    " pg_table_size(c.oid) from pg_class c join pg_namespace n on n.oid = c.relnamespace"
    " where n.nspname = {schema} and c.relname = {table} and c.relkind in ('r', 'm')",
    system_schemas=("pg_catalog", "information_schema"),
)

MYSQL = Dialect(
    "MySQL",
    MYSQL_RULES,
    quotes=("`", "`"),
    text={
        # Not date_format, which turns invalid dates into NULL.
        "date": "cast({} as char)",
        "timestamp": "cast({} as char)",
        "timestamptz": "cast({} as char)",
        "time": "cast({} as char)",
        "wide decimal": "cast({} as char)",
        "other": "cast({} as char)",
    },
    literals={
        "date": "date '{text}'",
        "timestamp": "timestamp '{text}'",
        "timestamptz": "timestamp '{text}'",  # sessions are in UTC
    },
    backslashes="escape",
    hash_text="mod(crc32({}), {count})",
    quantiles=True,
    utc_clock="cast(utc_timestamp(6) as char)",
    # In the server's zone, not the session's.
    local_clock="cast(sysdate(6) as char)",
    estimate="select table_rows, data_length from information_schema.tables"
    " where table_schema = {schema} and table_name = {table}",
    schemas_are_catalogs=True,
    system_schemas=("information_schema", "mysql", "performance_schema", "sys"),
)

ORACLE = Dialect(
    "Oracle",
    ORACLE_RULES,
    text={
        "date": "to_char({}, 'SYYYY-MM-DD HH24:MI:SS')",
        "timestamp": "to_char({}, 'SYYYY-MM-DD HH24:MI:SS.FF9')",
        "timestamptz": "to_char({} at time zone 'UTC', 'SYYYY-MM-DD HH24:MI:SS.FF9')",
        "wide decimal": "to_char({}, 'TM9', 'NLS_NUMERIC_CHARACTERS=''.,''')",
        "other": "to_char({})",
    },
    literals={
        # A DATE compared with a TIMESTAMP would be converted, and its index not used.
        "date": "to_date('{seconds}', 'YYYY-MM-DD HH24:MI:SS')",
        "timestamp": "timestamp '{text}'",
        "timestamptz": "timestamp '{text} +00:00'",
    },
    hash_text="ora_hash({}, {count} - 1)",
    hash_row="ora_hash(rowid, {count} - 1)",
    quantiles=True,
    one_row=" from dual",
    utc_clock="to_char(systimestamp at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.FF6')",
    local_clock="to_char(systimestamp, 'YYYY-MM-DD HH24:MI:SS.FF6')",
    estimate="select num_rows, num_rows * avg_row_len from all_tables"
    " where owner = {schema} and table_name = {table}",
    system_schemas=("SYS", "SYSTEM", "XDB", "MDSYS", "CTXSYS", "INFORMATION_SCHEMA"),
    made_schemas="select username from all_users where oracle_maintained = 'Y'",
)

SQLSERVER = Dialect(
    "SQL Server",
    SQLSERVER_RULES,
    quotes=("[", "]"),
    text={
        "date": "cast({} as varchar(10))",
        "timestamp": "cast({} as varchar(33))",
        "timestamptz": "cast({} at time zone 'UTC' as varchar(40))",
        "time": "cast({} as varchar(16))",
        "wide decimal": "cast({} as varchar(50))",
        "other": "cast({} as nvarchar(max))",
    },
    literals={
        "date": "cast('{text}' as date)",
        "timestamp": "cast('{text}' as datetime2(7))",
        "timestamptz": "cast('{text} +00:00' as datetimeoffset(7))",
    },
    quoted_text="N'{text}'",
    hash_integer="((({} % {count}) + {count}) % {count})",
    hash_text="((cast(checksum({}) as bigint) % {count} + {count}) % {count})",
    quantiles=True,
    utc_clock="cast(sysutcdatetime() as varchar(33))",
    local_clock="cast(sysdatetime() as varchar(33))",
    estimate="select sum(p.row_count), sum(p.in_row_data_page_count + p.lob_used_page_count"
    " + p.row_overflow_used_page_count) * 8192 from sys.dm_db_partition_stats p"
    " join sys.objects o on o.object_id = p.object_id"
    " join sys.schemas s on s.schema_id = o.schema_id"
    " where s.name = {schema} and o.name = {table} and p.index_id in (0, 1)",
    system_schemas=("sys", "INFORMATION_SCHEMA"),
)

REDSHIFT = Dialect(
    "Redshift",
    REDSHIFT_RULES,
    text={
        **_POSTGRES_TEXT,
        "timestamptz": "cast({} at time zone 'UTC' as varchar)",
        "other": "json_serialize({})",
    },
    hash_text=_MODULUS.replace("{}", "fnv_hash({})"),
    hash_integer=_MODULUS,
    quantiles=True,
    utc_clock="cast(getdate() as varchar)",
    local_clock="cast(getdate() as varchar)",
    estimate="select cast(tbl_rows as bigint), size * 1048576 from svv_table_info"
    ' where "schema" = {schema} and "table" = {table}',
    system_schemas=("pg_catalog", "information_schema", "pg_internal"),
)

BY_SOURCE_TYPE = {"oracle": ORACLE, "sqlserver": SQLSERVER, "redshift": REDSHIFT}
"""Dialects that do not depend on the URL."""
