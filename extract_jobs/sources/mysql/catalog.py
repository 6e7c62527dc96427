"""What the catalogue says: names, columns, types, keys, sizes. No row is ever read here."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any, Literal

import pymysql

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import ConfigError
from extract_jobs.sources.mysql.columns import MysqlColumn
from extract_jobs.sources.mysql.driver import Connection
from extract_jobs.sources.mysql.errors import message, number
from extract_jobs.sources.mysql.results import result_types
from extract_jobs.sources.mysql.session import execute
from extract_jobs.sources.mysql.sql import quote_name, quote_text
from extract_jobs.sources.mysql.types import MysqlType, parse_type
from extract_jobs.sources.sql.columns import no_such_column
from extract_jobs.sources.sql.statements import Relation, in_parentheses, trim_statement
from extract_jobs.spec.predicates import check_where

_SYSTEM = ("information_schema", "mysql", "performance_schema", "sys")
_REFUSED = {1054, 1060, 1064, 1146, 1222, 1241, 1248, 1305, 1582, 1235, 1295, 3065}
"""Numbers of errors that are about a person's text."""


@dataclass(frozen=True)
class Table:
    """A table or view found in ``information_schema.tables``.

    Attributes:
        schema: Its database.
        name: Its name.
        is_view: Whether nothing is stored under that name.
        is_partitioned: Whether it has partitions.
        engine: Its storage engine; None for a view.
        rows: InnoDB's estimate, which may be far off; None if unknown.
        data_bytes: Size of the rows, which are stored in the primary key's index; off-page values
            included.
    """

    schema: str
    name: str
    is_view: bool
    is_partitioned: bool
    engine: str | None
    rows: int | None
    data_bytes: int | None

    @property
    def quoted(self) -> str:
        """```schema`.`name```."""
        return f"{quote_name(self.schema)}.{quote_name(self.name)}"

    @property
    def kind(self) -> Literal["table", "partitioned", "view"]:
        """What it is."""
        if self.is_view:
            return "view"
        return "partitioned" if self.is_partitioned else "table"


@dataclass(frozen=True)
class Index:
    """An index whose order can be read as ranges.

    Attributes:
        name: Its name, ``PRIMARY`` for the primary key.
        columns: Its columns, in order.
        unique: Whether a value occurs once; NULL may occur any number of times.
    """

    name: str
    columns: tuple[str, ...]
    unique: bool


@dataclass(frozen=True)
class Found:
    """A spec's table or query as the catalogue has it.

    Attributes:
        table: None for a query.
        relation: How it stands in a FROM clause.
        types: Name, nullability and type of each column.
        indexes: Of a table, the primary key first.
    """

    table: Table | None
    relation: Relation
    types: tuple[tuple[str, bool, MysqlType], ...]
    indexes: tuple[Index, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The primary key's columns; empty without one."""
        return next((index.columns for index in self.indexes if index.name == "PRIMARY"), ())

    def type_of(self, column: str) -> MysqlType:
        """Return a column's type.

        Raises:
            ConfigError: There is no such column.
        """
        for name, _, found in self.types:
            if name == column:
                return found
        raise no_such_column(column, [name for name, _, _ in self.types])

    def column(self, name: str) -> MysqlColumn:
        """Return a column as conditions compare it. Raises as `type_of` does."""
        return MysqlColumn.of(name, self.type_of(name))


def readings(name: str, database: str) -> list[tuple[str, str]]:
    """Return every way to read a table's name as (database, table), the likeliest first."""
    part = r"`((?:[^`]|``)+)`"
    found: list[tuple[str, str]] = []
    if quoted := re.fullmatch(rf"(?:{part}\.)?{part}", name):
        schema, table = (value and value.replace("``", "`") for value in quoted.groups())
        found.append((schema or database, table or ""))
    dots = [match.start() for match in re.finditer(r"\.", name)]
    found += [(name[:dot], name[dot + 1 :]) for dot in dots if name[:dot] and name[dot + 1 :]]
    return [*found, (database, name)]


def find_table(opened: Connection, name: str, database: str) -> Table:
    """Find the table that a spec names.

    Args:
        opened: A connection.
        name: ``database.table`` or ``table``, spelt exactly, where either may hold dots; or both
            quoted in backticks. Case counts unless ``lower_case_table_names`` says otherwise.
        database: The connection's, where a bare table is looked for.

    Raises:
        ConfigError: There is none, or none that the user may see; the nearest names are given.
    """
    candidates = readings(name, database)
    folds = int(execute(opened, "select @@lower_case_table_names")[0][0]) != 0
    listed = ", ".join(
        f"({quote_text(schema)}, {quote_text(table)})"
        for schema, table in dict.fromkeys(candidates)
    )
    rows = execute(
        opened,
        "select table_schema, table_name, table_type, engine, table_rows, data_length,"
        " coalesce(create_options, '') like '%partitioned%' from information_schema.tables"
        f" where (table_schema, table_name) in ({listed})",
    )

    def same(left: str, right: str) -> bool:
        return left == right or (folds and left.lower() == right.lower())

    for schema, table in candidates:
        for row in rows:
            if same(row[0], schema) and same(row[1], table):
                stored = row[2] in ("BASE TABLE", "SYSTEM VERSIONED")
                return Table(
                    schema=row[0],
                    name=row[1],
                    is_view=not stored,
                    is_partitioned=bool(row[6]),
                    engine=row[3],
                    rows=None if row[4] is None else int(row[4]),
                    data_bytes=None if row[5] is None else int(row[5]),
                )
    raise ConfigError(
        f"there is no table {name!r} in the database, or none that the user may see"
        f"{_nearest(opened, candidates)}"
    )


def _nearest(opened: Connection, candidates: list[tuple[str, str]]) -> str:
    hidden = ", ".join(f"'{name}'" for name in _SYSTEM)
    rows = execute(
        opened,
        "select table_schema, table_name from information_schema.tables"
        f" where table_schema not in ({hidden}) limit 20000",
    )
    known = {f"{schema}.{table}".lower(): f"{schema}.{table}" for schema, table in rows}
    close: dict[str, None] = {}
    for schema, table in candidates:
        wanted = f"{schema}.{table}".lower()
        close |= dict.fromkeys(difflib.get_close_matches(wanted, known, n=3, cutoff=0.6))
    names = [known[text] for text in close][:3]
    return f"; the nearest are {', '.join(names)}" if names else f" ({len(rows)} can be seen)"


def find(
    opened: Connection,
    *,
    table_name: str,
    query: str | None,
    where: str | None,
    database: str,
) -> Found:
    """Find what a spec reads.

    Args:
        opened: A connection.
        table_name: The spec's table, which stands for a query too.
        query: The spec's query, if it has one.
        where: The spec's condition, if it has one.
        database: The connection's.

    Raises:
        ConfigError: No such table, or the server refuses query or condition.
    """
    where = where and trim_statement(where)
    if query is not None:
        relation = Relation(f"{in_parentheses(trim_statement(query))} as extracted", "query", where)
        check_texts(opened, relation, query)
        statement = f"select * from {relation.source} limit 0"
        return Found(None, relation, tuple(result_types(opened, statement)), ())
    table = find_table(opened, table_name, database)
    relation = Relation(table.quoted, table.kind, where)
    check_texts(opened, relation, None)
    return Found(table, relation, tuple(_columns(opened, table)), tuple(_indexes(opened, table)))


def check_texts(opened: Connection, relation: Relation, query: str | None) -> None:
    """Check that a person's query and condition are each one SELECT or expression.

    Each must parse both inside parentheses and alone, so none can close a parenthesis that it did
    not open. Nothing is run.

    Raises:
        ConfigError: One is not.
    """
    if query is not None:
        for form in (f"select * from {relation.source}", trim_statement(query)):
            _prepare(opened, form, "query")
    if relation.where is not None:
        check_where(relation.where, "mysql")
        for form in (in_parentheses(relation.where), relation.where):
            _prepare(opened, f"select 1 from {relation.source} where {form}", "where")


def _prepare(opened: Connection, statement: str, what: str) -> None:
    try:
        execute(opened, f"prepare checked from {quote_text(statement)}")
        execute(opened, "deallocate prepare checked")
        return
    except pymysql.Error as error:
        if number(error) not in _REFUSED:
            raise
        said = message(error)
    raise ConfigError(f"{what} is refused by the server: {said}")


def _columns(opened: Connection, table: Table) -> list[tuple[str, bool, MysqlType]]:
    rows = execute(
        opened,
        "select column_name, is_nullable, data_type, column_type, character_set_name"
        f" from information_schema.columns where table_schema = {quote_text(table.schema)}"
        f" and table_name = {quote_text(table.name)} order by ordinal_position",
    )
    return [
        (name, nullable == "YES", parse_type(_text(data_type), _text(printed), charset))
        for name, nullable, data_type, printed, charset in rows
    ]


def _text(value: Any) -> str:
    # MySQL 8 gives these columns as binary when results are not converted.
    return value.decode() if isinstance(value, bytes) else str(value)


def _indexes(opened: Connection, table: Table) -> list[Index]:
    """Return a table's ordered indexes that hold whole columns, the primary key first."""
    rows = execute(
        opened,
        "select index_name, column_name, non_unique, sub_part, index_type, collation"
        f" from information_schema.statistics where table_schema = {quote_text(table.schema)}"
        f" and table_name = {quote_text(table.name)}"
        " order by index_name <> 'PRIMARY', non_unique, index_name, seq_in_index",
    )
    found: dict[str, Index] = {}
    cut: set[str] = set()
    for name, column, non_unique, sub_part, kind, order in rows:
        if sub_part is not None or kind != "BTREE" or order != "A" or column is None:
            cut.add(name)  # what comes after a prefix is in no order
        if name not in cut:
            columns = (*(found[name].columns if name in found else ()), column)
            found[name] = Index(name, columns, not non_unique)
        elif name in found:
            found[name] = Index(name, found[name].columns, unique=False)
    return list(found.values())


def fingerprint(opened: Connection, connection: DatabaseConnection) -> dict[str, str]:
    """Return what tells this database from others.

    MySQL's ``server_uuid`` differs between a primary and its replicas, and a failover changes it:
    host and port say which service it is, as they do in the config.
    """
    del opened
    return {
        "system_identifier": f"{connection.host}:{connection.port}",
        "database": connection.database,
    }
