"""The tables of a SQLite file."""

from __future__ import annotations

import contextlib

from extract_jobs.sources.sql.names import spelled
from extract_jobs.sources.sqlite.session import Rows, SqliteConnection, begin, connect, execute
from extract_jobs.spec.listed_table import ListedTable
from extract_jobs.spec.source import ConnectionSpec


def list_tables(spec: ConnectionSpec) -> list[ListedTable]:
    """Return all tables and views of the file. See `extract_jobs.sources.ListingSource`."""
    connection, what = SqliteConnection.of(spec), "listing its tables"
    with contextlib.closing(connect(connection)) as opened:
        begin(opened, connection, what)

        def rows(statement: str) -> Rows:
            return execute(opened, statement, what=what, path=connection.path)

        tables = rows(
            "select name, type from pragma_table_list where schema = 'main' and type in"
            " ('table', 'view') and name not like 'sqlite\\_%' escape '\\' order by name"
        )
        leading = rows(
            "select t.name, c.name from pragma_table_list t, pragma_index_list(t.name) i,"
            " pragma_index_info(i.name) c where t.schema = 'main' and not i.partial"
            " and c.seqno = 0 and c.name is not null"
        )
    return [
        ListedTable(
            # SQLite takes a name with dots as it is.
            spelled(None, name) if any(c in name for c in "*?") else name,
            kind == "view",
            frozenset(column for table, column in leading if table == name),
            table=name,
        )
        for name, kind in tables
    ]
