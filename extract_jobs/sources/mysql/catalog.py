"""What the catalogue says: names, columns, types, keys, sizes. Reads no row."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import pymysql

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import ConfigError
from extract_jobs.sources.mysql.columns import MysqlColumn
from extract_jobs.sources.mysql.driver import Connection
from extract_jobs.sources.mysql.errors import message, number
from extract_jobs.sources.mysql.listing import STORED
from extract_jobs.sources.mysql.results import result_types
from extract_jobs.sources.mysql.session import execute
from extract_jobs.sources.mysql.sql import quote_name, quote_text
from extract_jobs.sources.mysql.types import MysqlType, parse_type
from extract_jobs.sources.sql import names
from extract_jobs.sources.sql.columns import no_such_column
from extract_jobs.sources.sql.statements import Relation, in_parentheses, trim_statement
from extract_jobs.spec.predicates import check_where

_SYSTEM = ("information_schema", "mysql", "performance_schema", "sys")
_REFUSED = {1054, 1060, 1064, 1146, 1222, 1241, 1248, 1305, 1582, 1235, 1295, 3065}
"""Numbers of errors that a person's text causes."""


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
        data_bytes: Size of the rows, which are stored in the primary key's index, including
            off-page values.
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
    """An index of a table.

    Attributes:
        name: Its name, ``PRIMARY`` for the primary key.
        parts: Its columns, in order, up to the first expression.
        columns: Columns whose order can be read from it: whole columns that the user may read, up
            to the first other part.
        unique: Whether a value of all its parts occurs once; NULL may occur any number of times.
        problem: Why no range of it can be read; None if one can.
    """

    name: str
    parts: tuple[str, ...]
    columns: tuple[str, ...]
    unique: bool
    problem: str | None = None


@dataclass(frozen=True)
class CatalogEntry:
    """What the catalogue says about a spec's table or query.

    Attributes:
        table: None for a query.
        relation: The table or query in a FROM clause.
        types: Name, nullability and type of each column.
        indexes: The table's, primary key first.
    """

    table: Table | None
    relation: Relation
    types: tuple[tuple[str, bool, MysqlType], ...]
    indexes: tuple[Index, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The primary key's columns; empty without one, or if the user may not read them all."""
        key = next((index.parts for index in self.indexes if index.name == "PRIMARY"), ())
        known = {name for name, _, _ in self.types}
        return key if known.issuperset(key) else ()

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
        """Return a column for use in conditions. Raises as `type_of` does."""
        return MysqlColumn.of(name, self.type_of(name))


def readings(name: str, database: str) -> list[tuple[str, str]]:
    """Return every reading of a table's name as (database, table), the likeliest first."""
    return [(schema or database, table) for schema, table in names.readings(name, "`")]


def find_table(opened: Connection, name: str, database: str) -> Table:
    """Find the table that a spec names.

    Args:
        opened: A connection.
        name: ``database.table`` or ``table``, spelt exactly, and either may contain dots; or both
            quoted in backticks. Case matters unless ``lower_case_table_names`` says otherwise.
        database: The connection's, in which a table without a database is looked for.

    Raises:
        ConfigError: There is none, or none that the user may see; the nearest names are listed.
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
                stored = row[2] in STORED
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
    wanted = [f"{schema}.{table}" for schema, table in candidates]
    return names.nearest(wanted, known, len(rows))


def find(
    opened: Connection,
    *,
    table_name: str,
    query: str | None,
    where: str | None,
    database: str,
) -> CatalogEntry:
    """Find what a spec reads.

    Args:
        opened: A connection.
        table_name: The spec's table, or the name of its query.
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
        return CatalogEntry(None, relation, tuple(result_types(opened, statement)), ())
    table = find_table(opened, table_name, database)
    relation = Relation(table.quoted, table.kind, where)
    check_texts(opened, relation, None)
    types = tuple(_columns(opened, table))
    return CatalogEntry(
        table, relation, types, tuple(_indexes(opened, table, {t[0] for t in types}))
    )


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
        # Through a variable: MySQL does not take a literal with an introducer here.
        execute(opened, f"set @extract_checked = {quote_text(statement)}")
        execute(opened, "prepare checked from @extract_checked")
        execute(opened, "deallocate prepare checked")
        return
    except pymysql.Error as error:
        if number(error) not in _REFUSED:
            raise
        said = message(error)
    raise ConfigError(f"the server refuses the {what}: {said}")


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
    # MySQL 8 returns these columns as binary when results are not converted.
    return value.decode() if isinstance(value, bytes) else str(value)


def _indexes(opened: Connection, table: Table, known: set[str]) -> list[Index]:
    """Return a table's indexes, the primary key first.

    Args:
        opened: A connection.
        table: The table.
        known: The columns that the user may read.
    """
    # All columns: the one that says whether an index is visible has different names in MySQL and
    # MariaDB and does not exist in older servers; only MySQL has expressions.
    with opened.cursor() as cursor:
        cursor.execute(
            "select * from information_schema.statistics"
            f" where table_schema = {quote_text(table.schema)}"
            f" and table_name = {quote_text(table.name)}"
            " order by index_name <> 'PRIMARY', non_unique, index_name, seq_in_index"
        )
        names = [column[0].lower() for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    grouped = itertools.groupby(rows, key=lambda row: str(row["index_name"]))
    return [_index(name, list(parts), known) for name, parts in grouped]


def _index(name: str, parts: list[dict[str, Any]], known: set[str]) -> Index:
    whole = list(itertools.takewhile(lambda row: row["column_name"] is not None, parts))
    usable: list[str] = []
    problem = None
    for row in parts:
        column = row["column_name"]
        if column is None:
            problem = "it begins with an expression"
        elif column not in known:
            problem = f"the user may not read its column {column}"
        elif row["sub_part"] is not None:
            problem = f"it holds only the start of column {column}"
        else:
            usable.append(column)
            continue
        break
    if _text(parts[0]["index_type"]) != "BTREE":
        usable, problem = [], "its values are not ordered"
    if _text(parts[0].get("is_visible", "YES")) == "NO":
        usable, problem = [], "it is invisible to the optimizer"
    if _text(parts[0].get("ignored", "NO")) == "YES":
        usable, problem = [], "the optimizer ignores it"
    return Index(
        name,
        tuple(row["column_name"] for row in whole),
        tuple(usable),
        unique=not int(parts[0]["non_unique"]),
        problem=None if usable else problem,
    )


def fingerprint(opened: Connection, connection: DatabaseConnection) -> dict[str, str]:
    """Return what identifies this database.

    MySQL's ``server_uuid`` differs between a primary and its replicas, and a failover changes it.
    So host and port identify the service, as they do in the config.
    """
    del opened
    return {
        "system_identifier": f"{connection.host}:{connection.port}",
        "database": connection.database,
    }
