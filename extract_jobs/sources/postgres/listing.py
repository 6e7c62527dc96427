"""The tables of a PostgreSQL database. Imports neither Arrow nor DuckDB, for Lambda."""

from __future__ import annotations

from extract_jobs.connections import resolve_connection
from extract_jobs.sources.postgres.session import execute, session
from extract_jobs.sources.postgres.sql import EQUALS, operator
from extract_jobs.sources.sql.names import spelled
from extract_jobs.spec.listed_table import ListedTable
from extract_jobs.spec.source import ConnectionSpec

READABLE = {"r": "table", "m": "table", "p": "partitioned", "v": "view", "f": "view"}
RELATIONS = f"pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid {EQUALS} c.relnamespace"
IS_READABLE = f"c.relkind {EQUALS} any ('{{{','.join(READABLE)}}}'::pg_catalog.\"char\"[])"


def list_tables(spec: ConnectionSpec) -> list[ListedTable]:
    """Return what the user may read. See `extract_jobs.sources.ListingSource`."""
    with session(resolve_connection(spec), "listing the tables of the database") as opened:
        rows = execute(
            opened,
            "select n.nspname, c.relname, pg_catalog.pg_table_is_visible(c.oid),"
            " c.relkind::pg_catalog.text, array("
            "select a.attname::pg_catalog.text from pg_catalog.pg_index i"
            f" join pg_catalog.pg_attribute a on a.attrelid {EQUALS} i.indrelid"
            f" and a.attnum {EQUALS} (i.indkey::pg_catalog.int2[])[0]"
            f" where i.indrelid {EQUALS} c.oid and i.indisvalid and i.indpred is null)"
            f" from {RELATIONS} where {IS_READABLE} and not c.relispartition"
            f" and n.nspname {operator('!~')} '^pg_'"
            f" and n.nspname {operator('<>')} 'information_schema'"
            " and pg_catalog.has_schema_privilege(n.oid, 'usage')"
            " and pg_catalog.has_any_column_privilege(c.oid, 'select')"
            " and not exists (select from pg_catalog.pg_depend d"
            f" where d.classid {EQUALS} 'pg_catalog.pg_class'::pg_catalog.regclass"
            f" and d.objid {EQUALS} c.oid and d.deptype {EQUALS} 'e')"
            ' order by n.nspname collate "C", c.relname collate "C"',
        )
    return [
        ListedTable(
            spelled(schema, name),
            relkind == "v",
            frozenset(indexed),
            bare=spelled(None, name) if is_visible else None,
            schema=schema,
            table=name,
        )
        for schema, name, is_visible, relkind, indexed in rows
    ]
