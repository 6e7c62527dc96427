"""What PostgreSQL's catalogue says: names, columns, types, sizes. Reads no row."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import psycopg

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import ConfigError
from extract_jobs.sources.postgres.expressions import PostgresType
from extract_jobs.sources.postgres.listing import IS_READABLE, READABLE, RELATIONS
from extract_jobs.sources.postgres.session import Connection, execute
from extract_jobs.sources.postgres.sql import (
    EQUALS,
    operator,
    quote_name,
)
from extract_jobs.sources.postgres.user_sql import check_statement
from extract_jobs.sources.sql.names import nearest, readings
from extract_jobs.sources.sql.statements import Relation


@dataclass(frozen=True)
class Table:
    """A relation found in ``pg_class``.

    Attributes:
        oid: Its identifier.
        schema: Its schema.
        name: Its name.
        relkind: ``pg_class.relkind``.
    """

    oid: int
    schema: str
    name: str
    relkind: str

    @property
    def quoted(self) -> str:
        """``"schema"."name"``."""
        return f"{quote_name(self.schema)}.{quote_name(self.name)}"


@dataclass(frozen=True)
class Leaf:
    """One table with storage: the table itself, a child or a partition.

    Attributes:
        oid: Its identifier.
        schema: Its schema.
        name: Its name.
        heap_bytes: Size of the main fork.
        toast_bytes: Size of its out-of-line values, in compressed form.
        rows: Planner's estimate; None if never analysed.
        is_heap: Whether ctid ranges of it can be scanned.
    """

    oid: int
    schema: str
    name: str
    heap_bytes: int
    toast_bytes: int
    rows: int | None
    is_heap: bool

    @property
    def alone(self) -> str:
        """``only "schema"."name"``: its own rows, without those of children."""
        return f"only {quote_name(self.schema)}.{quote_name(self.name)}"


def find_table(opened: Connection, name: str) -> Table:
    """Find the table that a spec names.

    Args:
        opened: A connection.
        name: ``schema.table`` or ``table``, spelt exactly, and either may contain dots; or both
            quoted as in SQL. A table without a schema is looked for in ``public`` first.

    Raises:
        ConfigError: It does not exist (close matches are listed), is ambiguous, or the user may
            not read it.
    """
    candidates = readings(name)
    rows = execute(
        opened,
        "select c.oid::pg_catalog.int8, n.nspname, c.relname, c.relkind::pg_catalog.text,"
        " pg_catalog.has_schema_privilege(n.oid, 'usage')"
        " and pg_catalog.has_any_column_privilege(c.oid, 'select')"
        f" from {RELATIONS} where {IS_READABLE}"
        f" and c.relname {EQUALS} any (%s::pg_catalog.text[])"
        # Another session's temporary table is visible, but cannot be read.
        f" and (c.relpersistence {operator('<>')} 't'"
        f" or c.relnamespace {EQUALS} pg_catalog.pg_my_temp_schema())"
        f" order by n.nspname {operator('<>')} 'public', n.nspname",
        [table for _, table in candidates],
    )
    for schema, table in candidates:
        hits = [row for row in rows if row[2] == table and schema in (None, row[1])]
        if schema is None and len(hits) > 1 and hits[0][1] != "public":
            raise ConfigError(
                f"table {name!r} is in several schemas: "
                f"{', '.join(f'{row[1]}.{row[2]}' for row in hits)}; name one of them"
            )
        if hits:
            oid, found_schema, found_name, relkind, readable = hits[0]
            if not readable:
                raise ConfigError(
                    f"the user may not read {found_schema}.{found_name}: grant it USAGE on the "
                    "schema and SELECT on the table"
                )
            return Table(oid, found_schema, found_name, relkind)
    raise ConfigError(f"there is no table {name!r} in the database{_nearest(opened, name)}")


def _nearest(opened: Connection, name: str) -> str:
    rows = execute(
        opened,
        "select n.nspname, c.relname"
        f" from {RELATIONS} where {IS_READABLE} and n.nspname {operator('!~')} '^pg_'"
        f" and n.nspname {operator('<>')} 'information_schema'"
        " and pg_catalog.has_schema_privilege(n.oid, 'usage') limit 20000",
    )
    known = {f"{schema}.{table}".lower(): f"{schema}.{table}" for schema, table in rows}
    wanted = [f"{schema or 'public'}.{table}" for schema, table in readings(name)]
    return nearest(wanted, known, len(rows))


def relation_of(table: Table, where: str | None) -> Relation:
    """Return a table as a relation for a FROM clause."""
    return Relation(table.quoted, cast(Any, READABLE[table.relkind]), where)


def column_types(
    opened: Connection, table: Table | None, relation: Relation
) -> list[tuple[str, bool, PostgresType]]:
    """Return name, nullability and type of each column of a table or query, in order."""
    if table is not None:
        rows = execute(
            opened,
            "select attname, atttypid::pg_catalog.int8, atttypmod, not attnotnull"
            f" from pg_catalog.pg_attribute where attrelid {EQUALS}"
            f" %s::pg_catalog.int8::pg_catalog.oid and attnum {operator('>')} 0"
            " and not attisdropped order by attnum",
            table.oid,
        )
    else:
        described = check_statement(opened, f"select * from {relation.source}", "query")
        rows = [(name, oid, modifier, True) for name, oid, modifier in described]
    types = _types(opened, [(oid, modifier) for _, oid, modifier, _ in rows])
    return [(row[0], row[3], found) for row, found in zip(rows, types, strict=True)]


def _types(opened: Connection, wanted: Sequence[tuple[int, int]]) -> list[PostgresType]:
    printed = execute(
        opened,
        "select pg_catalog.format_type(o::pg_catalog.oid, m) from"
        # With several arguments it means pg_catalog's unnest, and only without the schema.
        " unnest(%s::pg_catalog.int8[], %s::pg_catalog.int4[])"
        " with ordinality as t(o, m, i) order by i",
        [oid for oid, _ in wanted],
        [modifier for _, modifier in wanted],
    )
    known: dict[int, tuple[Any, ...]] = {}
    missing = {oid for oid, _ in wanted}
    while missing:
        for row in execute(
            opened,
            "select t.oid::pg_catalog.int8, t.typname, t.typtype::pg_catalog.text,"
            " t.typbasetype::pg_catalog.int8, t.typtypmod,"
            f" e.oid::pg_catalog.int8, n.nspname {EQUALS} 'pg_catalog'"
            " from pg_catalog.pg_type t"
            f" join pg_catalog.pg_namespace n on n.oid {EQUALS} t.typnamespace"
            f" left join pg_catalog.pg_type e on e.oid {EQUALS} t.typelem"
            f" and e.typarray {EQUALS} t.oid"
            f" where t.oid {EQUALS} any (%s::pg_catalog.int8[]::pg_catalog.oid[])",
            sorted(missing),
        ):
            known[row[0]] = row
        below = {row[3] for row in known.values() if row[3]} | {
            r[5] for r in known.values() if r[5]
        }
        missing = below - set(known)
    return [
        _resolve(known, oid, modifier, text[0])
        for (oid, modifier), text in zip(wanted, printed, strict=True)
    ]


def _resolve(known: dict[int, tuple[Any, ...]], oid: int, modifier: int, text: str) -> PostgresType:
    is_array = is_domain = False
    while True:
        _, name, typtype, base, base_modifier, element, built_in = known[oid]
        if typtype == "d":
            is_domain, oid = True, base
            modifier = base_modifier if modifier == -1 else modifier
        elif element and not is_array:
            is_array, oid = True, element
        else:
            return PostgresType(text, name, modifier, is_array, is_domain, built_in)


def leaves(opened: Connection, table: Table) -> list[Leaf]:
    """Return the tables with storage under a table, itself included; none for a view."""
    rows = execute(
        opened,
        "with recursive tree(oid) as (select %s::pg_catalog.int8::pg_catalog.oid union"
        " select i.inhrelid"
        f" from pg_catalog.pg_inherits i join tree on i.inhparent {EQUALS} tree.oid)"
        " select c.oid::pg_catalog.int8, n.nspname, c.relname,"
        " c.relkind::pg_catalog.text, c.reltuples, c.relpages, coalesce(a.amname, 'heap'),"
        " coalesce(pg_catalog.pg_relation_size(c.oid), 0),"
        # It is NULL if there is no such relation.
        " coalesce(pg_catalog.pg_relation_size(c.reltoastrelid), 0)"
        f" from pg_catalog.pg_class c join tree on c.oid {EQUALS} tree.oid"
        f" join pg_catalog.pg_namespace n on n.oid {EQUALS} c.relnamespace"
        f" left join pg_catalog.pg_am a on a.oid {EQUALS} c.relam"
        f" where c.relkind {EQUALS} any ('{{r,m,f}}'::pg_catalog.\"char\"[])",
        table.oid,
    )
    return [
        Leaf(
            oid=oid,
            schema=schema,
            name=name,
            heap_bytes=heap,
            toast_bytes=toast,
            # Never analysed: -1 since PostgreSQL 14, before that 0 with 0 pages.
            rows=None if tuples < 0 or (not tuples and not pages and heap) else int(tuples),
            is_heap=kind in ("r", "m") and method == "heap",
        )
        for oid, schema, name, kind, tuples, pages, method, heap, toast in rows
    ]


def explain(opened: Connection, statement: str) -> dict[str, Any]:
    """Return the planner's tree for a statement, without running it."""
    found = execute(opened, f"explain (verbose, format json) {statement}")
    value = found[0][0]
    plan = (json.loads(value) if isinstance(value, str) else value)[0]["Plan"]
    return cast(dict[str, Any], plan)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Walk a plan's nodes."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def toast_below(opened: Connection, plan: dict[str, Any]) -> int:
    """Return the size of out-of-line values of all tables that a plan reads, in bytes."""
    names = sorted(
        {
            (node["Schema"], node["Relation Name"])
            for node in nodes(plan)
            if "Relation Name" in node and "Schema" in node
        }
    )
    rows = execute(
        opened,
        "select coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(c.reltoastrelid)), 0)"
        "::pg_catalog.int8 from pg_catalog.pg_class c"
        f" join pg_catalog.pg_namespace n on n.oid {EQUALS} c.relnamespace"
        # Not by regclass, which needs USAGE on the schema of what a view or parent reads.
        " join unnest(%s::pg_catalog.text[], %s::pg_catalog.text[]) as t(s, r)"
        f" on n.nspname {EQUALS} t.s and c.relname {EQUALS} t.r",
        [schema for schema, _ in names],
        [name for _, name in names],
    )
    return int(rows[0][0])


def fingerprint(opened: Connection, connection: DatabaseConnection) -> dict[str, str]:
    """Return what identifies this database: the cluster's identifier and its name.

    If the identifier is not available, host and port replace it.
    """
    identifier = f"{connection.host}:{connection.port}"
    with contextlib.suppress(psycopg.DatabaseError), opened.transaction():
        rows = execute(
            opened, "select system_identifier::pg_catalog.text from pg_catalog.pg_control_system()"
        )
        identifier = str(rows[0][0])
    return {"system_identifier": identifier, "database": connection.database}
