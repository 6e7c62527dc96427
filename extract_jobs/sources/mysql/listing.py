"""The tables of a MySQL database. Does not import Arrow, for Lambda."""

from __future__ import annotations

from extract_jobs.connections import resolve_connection
from extract_jobs.sources.mysql.session import execute, session
from extract_jobs.sources.mysql.sql import quote_text
from extract_jobs.sources.sql.names import spelled
from extract_jobs.spec.listed_table import ListedTable
from extract_jobs.spec.source import ConnectionSpec

STORED = ("BASE TABLE", "SYSTEM VERSIONED")


def list_tables(spec: ConnectionSpec) -> list[ListedTable]:
    """Return what the user may see in the database. See `extract_jobs.sources.ListingSource`."""
    connection = resolve_connection(spec, engine="mysql")
    database = connection.database
    here = f" where table_schema = {quote_text(database)}"
    with session(connection, "listing the tables of the database") as opened:
        tables = execute(
            opened, f"select table_name, table_type from information_schema.tables{here} order by 1"
        )
        leading = execute(
            opened,
            f"select table_name, column_name from information_schema.statistics{here}"
            " and seq_in_index = 1 and sub_part is null and column_name is not null"
            " and index_type = 'BTREE'",
        )
    indexed: dict[str, set[str]] = {}
    for table, column in leading:
        indexed.setdefault(table, set()).add(column)
    return [
        ListedTable(
            spelled(database, table, "`"),
            kind not in STORED,
            frozenset(indexed.get(table, ())),
            bare=spelled(None, table, "`"),
            schema=database,
            table=table,
        )
        for table, kind in tables
        if kind != "SEQUENCE"
    ]
