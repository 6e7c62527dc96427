"""The catalog of a SQLite database: names, columns, keys. No row is read here."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from extract_jobs.errors import ConfigError, StopRequested
from extract_jobs.schema import Column
from extract_jobs.sources.sql.columns import no_such_column
from extract_jobs.sources.sql.names import nearest
from extract_jobs.sources.sql.statements import in_parentheses, trim_statement
from extract_jobs.sources.sqlite.columns import SqliteColumn
from extract_jobs.sources.sqlite.errors import RAISED, refused_text
from extract_jobs.sources.sqlite.session import Rows, SqliteConnection, execute
from extract_jobs.sources.sqlite.sql import QUERY, Relation, quote_name
from extract_jobs.sources.sqlite.types import make_column, rule_of
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.predicates import check_where

_ROWIDS = ("rowid", "_rowid_", "oid")
_SCHEMA_TABLES = ("sqlite_master", "sqlite_temp_master")
_READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_DENIED_FUNCTIONS = {"load_extension", "fts3_tokenizer"}
_TOKEN = re.compile(r"""--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\[[^\]]*\]|`[^`]*`|"((?:[^"]|"")*)\"""",
                    re.DOTALL)  # fmt: skip

_QUOTED_DEFAULT = re.compile(r"'(?:[^']|'')*'")
_PLAIN_DEFAULT = re.compile(
    r"-?\d{1,15}|null|current_(?:timestamp|date|time)", re.IGNORECASE | re.ASCII
)
_TRUTH = ("true", "false")
"""As the default of a text column, 1 or '1', 0 or '0': versions of SQLite differ."""


@dataclass(frozen=True)
class SqliteTable:
    """A spec's table or query, as described by the database.

    Attributes:
        relation: The table or query in a FROM clause.
        columns: In order.
        key: Primary key columns in the key's order; empty without one.
        rowid: SQL of its rowid; None if it has none, or columns hide its names.
        is_plain: Whether each value is in the file as it is read. Otherwise some are computed:
            those of generated columns, and some defaults of columns added later. Versions of SQLite
            do not read all decimal text as the same double, nor ``true`` as the same value.
    """

    relation: Relation
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    rowid: str | None = None
    is_plain: bool = False

    def column(self, name: str) -> SqliteColumn:
        """Return a column for conditions.

        Raises:
            ConfigError: There is no such column.
        """
        for column in self.columns:
            if column.name == name:
                return SqliteColumn.of(column)
        raise no_such_column(name, [column.name for column in self.columns])


def find(
    opened: sqlite3.Connection, connection: SqliteConnection, spec: ExtractSpec
) -> SqliteTable:
    """Find a spec's table or query, and check query and condition.

    Raises:
        ConfigError: No such table (the nearest are named), or a query or condition that is refused.
    """
    where = spec.where and trim_statement(spec.where)
    if spec.query is not None:
        found = _query(opened, connection, spec, where)
    else:
        found = _table(opened, connection, spec, where)
    if where:
        _check_where(opened, found, where)
    return found


def _table(
    opened: sqlite3.Connection, connection: SqliteConnection, spec: ExtractSpec, where: str | None
) -> SqliteTable:
    wanted = spec.extract_table
    rows = execute(
        opened,
        "select name, type, wr, strict from pragma_table_list where schema = 'main'",
        what=f"looking for {wanted}",
        path=connection.path,
    )
    known = {row[0]: row for row in rows}
    name = next((text for text in _readings(wanted) if text in known), None)
    if name is None:
        raise ConfigError(
            f"there is no table {wanted!r} in {connection.path}{_nearest(wanted, list(known))}"
        )
    _, kind, without_rowid, strict = known[name]
    details = _columns(opened, connection, name)
    names = [row[1] for row in details]
    key = tuple(row[1] for row in sorted(details, key=lambda row: row[5]) if row[5])
    relation = Relation(
        f"main.{quote_name(name)}",
        "view" if kind == "view" else "table",
        where,
        name=quote_name(name),
    )
    alias = rowid = None
    if kind in ("table", "shadow") and not without_rowid:
        alias = _rowid_alias(opened, connection, name, key)
        hidden = {text.lower() for text in names}
        own = next((text for text in _ROWIDS if text not in hidden), None)
        rowid = f"{relation.name}.{own}" if own else alias and relation.column(alias)
    columns = tuple(
        make_column(
            row[1],
            row[2],
            expression=relation.column(row[1]),
            # SQLite allows NULL in primary keys, for compatibility with old versions.
            nullable=not (row[3] or row[1] == alias or (without_rowid and row[5])),
            exact=bool(strict) or row[1] == alias,
            cast=spec.columns.cast.get(row[1]),
            lossy_types=spec.lossy_type(row[1]),
        )
        for row in details
    )
    plain = all(_is_plain(row[2], row[4], row[6]) for row in details)
    return SqliteTable(relation, columns, key, rowid, is_plain=plain)


def _is_plain(declared: str, default: str | None, hidden: int) -> bool:
    if hidden or default is None:
        return not hidden
    if rule_of(declared).kind == "text":
        return bool(_QUOTED_DEFAULT.fullmatch(default) or _PLAIN_DEFAULT.fullmatch(default))
    return bool(default.lower() in _TRUTH or _PLAIN_DEFAULT.fullmatch(default))


def _readings(wanted: str) -> Iterator[str]:
    """Yield every way to read a table's name, the likeliest first."""
    yield wanted
    bare = wanted.removeprefix("main.")
    yield bare
    quoted = re.fullmatch(r'"((?:[^"]|"")+)"', bare.removeprefix('"main".'))
    if quoted:
        yield quoted[1].replace('""', '"')


def _nearest(wanted: str, known: list[str]) -> str:
    folded = {name.lower(): name for name in known if not name.startswith("sqlite_")}
    text = wanted.removeprefix("main.")
    return nearest([text], folded, len(folded))


def _columns(opened: sqlite3.Connection, connection: SqliteConnection, name: str) -> Rows:
    rows = execute(
        opened,
        'select cid, name, type, "notnull", dflt_value, pk, hidden from pragma_table_xinfo(?)'
        # 1: hidden columns of virtual tables; 2 and 3: generated columns, which are read like
        # others.
        " where hidden <> 1 order by cid",
        name,
        what=f"describing {name}",
        path=connection.path,
    )
    if not rows:
        raise ConfigError(f"{name} has no columns")
    return rows


def _rowid_alias(
    opened: sqlite3.Connection, connection: SqliteConnection, name: str, key: tuple[str, ...]
) -> str | None:
    """Return the column that is the rowid: a primary key that needs no index of its own."""
    if len(key) != 1:
        return None
    rows = execute(
        opened,
        "select 1 from pragma_index_list(?) where origin = 'pk'",
        name,
        what=f"describing {name}",
        path=connection.path,
    )
    return None if rows else key[0]


def _query(
    opened: sqlite3.Connection, connection: SqliteConnection, spec: ExtractSpec, where: str | None
) -> SqliteTable:
    query = trim_statement(spec.query or "")
    source = f"{in_parentheses(query)} as {QUERY}"
    # Parsed alone too, so that it cannot close a parenthesis that it did not open.
    for text in (f"select * from {source}", query):
        _check_text(opened, text, "query")
    names = _names(opened, source)
    doubled = sorted(set(_doubled(names)))
    if doubled:
        raise ConfigError(f"query gives several columns named {', '.join(doubled)}: alias them")
    # Only views report types. A view in this connection's temporary schema writes nothing.
    execute(
        opened,
        f"create temp view described as select * from {source}",
        what="describing the query",
        path=connection.path,
    )
    try:
        details = _columns(opened, connection, "described")
    finally:
        opened.execute("drop view temp.described")
    relation = Relation(source, "query", where, name=QUERY)
    columns = tuple(
        make_column(
            name,
            row[2],
            expression=relation.column(name),
            nullable=True,
            exact=False,
            cast=spec.columns.cast.get(name),
            lossy_types=spec.lossy_type(name),
        )
        for name, row in zip(names, details, strict=True)
    )
    return SqliteTable(relation, columns)


def _doubled(names: list[str]) -> Iterator[str]:
    """Yield names that SQLite had to disambiguate: of ``a`` and ``A`` it renames one to ``A:1``."""
    folded = {name.lower() for name in names}
    for name in names:
        base, colon, number = name.rpartition(":")
        if colon and number.isdigit() and base.lower() in folded:
            yield base


def _names(opened: sqlite3.Connection, source: str) -> list[str]:
    try:
        cursor = opened.execute(f"select * from {source} limit 0")
    except RAISED as error:
        reason = refused_text(error)
    else:
        names = [column[0] for column in cursor.description]
        cursor.close()
        return names
    raise ConfigError(f"query is refused by SQLite: {reason}")


def _check_where(opened: sqlite3.Connection, found: SqliteTable, where: str) -> None:
    check_where(where, "sqlite")
    names = {column.name.lower() for column in found.columns} | {
        found.relation.name[1:-1].replace('""', '"').lower(), "extracted", "main",
    }  # fmt: skip
    for token in _TOKEN.finditer(where):
        quoted = token[1]
        if quoted is not None and quoted.replace('""', '"').lower() not in names:
            raise ConfigError(
                f'where: "{quoted}" is not a column, and SQLite would read it as text: put text '
                "in single quotes"
            )
    relation = found.relation
    for form in (in_parentheses(where), where):
        _check_text(opened, f"select 1 from {relation.source} where {form}", "where")


def _check_text(opened: sqlite3.Connection, text: str, what: str) -> None:
    """Let SQLite parse one statement that only reads; it is not run.

    Raises:
        ConfigError: The statement is refused.
    """
    try:
        with _reading_only(opened):
            opened.execute(f"explain {text}").close()
    except RAISED as error:
        if isinstance(error, MemoryError):
            raise
        reason = refused_text(error)
    else:
        return
    raise ConfigError(f"{what} is refused by SQLite: {reason}")


@contextlib.contextmanager
def _reading_only(opened: sqlite3.Connection) -> Iterator[None]:
    """Allow only statements that read tables and call functions."""

    def judge(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            allowed = second not in _DENIED_FUNCTIONS
        elif action in (sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_INSERT):
            # A virtual table writes these when first used; nobody else can write there.
            allowed = first in _SCHEMA_TABLES
        else:
            allowed = action in _READS or action == sqlite3.SQLITE_PRAGMA
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    opened.set_authorizer(judge)
    try:
        with _heard():
            yield
    finally:
        opened.set_authorizer(None)


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Raise what SQLite's callbacks raise in here: SQLite itself drops it, and refuses."""
    raised: list[BaseException] = []
    before = sys.unraisablehook

    def keep(found: sys.UnraisableHookArgs) -> None:
        if isinstance(found.exc_value, StopRequested | KeyboardInterrupt | MemoryError):
            raised.append(found.exc_value)
        else:
            before(found)

    sys.unraisablehook = keep
    sqlite3.enable_callback_tracebacks(True)
    try:
        yield
    except BaseException as error:
        if raised:
            raise raised[0] from error
        raise
    finally:
        sqlite3.enable_callback_tracebacks(False)
        sys.unraisablehook = before
    if raised:
        raise raised[0]
