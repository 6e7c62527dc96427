"""What the values of a table depend on besides its rows: compared between two snapshots.

A range of pages whose row versions are those of an earlier snapshot (`pages`) gives the same values
only if nothing else has changed: the server has one history in which no transaction number is given
out twice, the table and its storage are the same, and so are the catalog rows that say how values
are printed. All of that is in the key. Types whose values depend on more, such as composites and
those of extensions, have no key, and neither do tables under row-level security.

Two equal keys are not enough: DDL may have been run and undone between an earlier snapshot and the
reading of its rows. So every catalog row must also be older than the earlier snapshot.

https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import psycopg

from extract_jobs.sources.postgres.catalog_entry import CatalogEntry
from extract_jobs.sources.postgres.node import Position, position
from extract_jobs.sources.postgres.reader import PostgresReader
from extract_jobs.sources.postgres.session import Connection, execute
from extract_jobs.sources.postgres.splits import TID_RANGE_SCANS_SINCE
from extract_jobs.sources.postgres.sql import EQUALS, operator
from extract_jobs.sources.splits import Split

PLAIN_TYPES = frozenset({
    "bool", "int2", "int4", "int8", "float4", "float8", "numeric", "text", "varchar", "bpchar",
    "name", "char", "bytea", "date", "timestamp", "timestamptz", "time", "timetz", "interval",
    "uuid", "json", "jsonb", "jsonpath", "xml", "bit", "varbit", "inet", "cidr", "macaddr",
    "macaddr8", "point", "line", "lseg", "box", "path", "polygon", "circle", "tsvector",
    "tsquery", "oid", "xid", "xid8", "cid", "tid", "pg_lsn", "int4range", "int8range",
    "numrange", "tsrange", "tstzrange", "daterange", "int4multirange", "int8multirange",
    "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange",
})  # fmt: skip
"""Built-in types whose values depend on nothing but their bytes and the settings of the key."""

_SETTINGS = [
    "DateStyle", "IntervalStyle", "TimeZone", "bytea_output", "client_encoding",
    "default_text_search_config", "extra_float_digits", "lc_monetary", "lc_numeric", "lc_time",
    "quote_all_identifiers", "row_security", "search_path", "server_encoding",
    "transform_null_equals", "xmlbinary",
]  # fmt: skip
_FIRST_NORMAL = 3
_OLDEST = 2**31 - 1
_FIRST_OF_USERS = 16384


@dataclass(frozen=True)
class ReadingKey:
    """The key of one snapshot.

    Attributes:
        topics: What must be equal, by what it is about. JSON.
        parts: Digest of what must be equal besides for the rows of each partition, by its oid; of
            a table without partitions, for its own.
        tables: SQL of each partition, by its oid; None for a table without partitions.
        xmin: ``pg_snapshot_xmin`` in 64 bits: everything below has ended.
        xmax: ``pg_snapshot_xmax``.
        youngest: Age in transactions of the youngest catalog row of the topics, for this snapshot.
        youngest_of: The same for each partition, by its oid.
        position: Where the server's WAL ended after the snapshot was taken.
    """

    topics: dict[str, Any]
    parts: dict[str, str]
    tables: dict[str, str | None]
    xmin: int
    xmax: int
    youngest: int
    youngest_of: dict[str, int]
    position: Position


def reading_key(
    opened: Connection, found: CatalogEntry, reader: PostgresReader
) -> ReadingKey | str:
    """Return the key of a snapshot, or why it has none.

    Args:
        opened: The connection that holds the snapshot and the table's lock.
        found: What is read.
        reader: How it is read.

    Raises:
        psycopg.Error: A statement failed.
    """
    reason = _incomparable(opened, found, reader)
    if reason:
        return reason
    assert found.table is not None
    oid = found.table.oid
    here, cluster = position(opened), _system_identifier(opened)
    if here is None or cluster is None:
        return "the server does not report its WAL position and its system identifier"
    rows = _Rows(opened)
    topics: dict[str, Any] = {
        "the server's history": [cluster, here.timeline, *_server(opened)],
        "the database": rows.of(
            "oid::pg_catalog.int8", "pg_catalog.pg_database",
            f"datname {EQUALS} pg_catalog.current_database()",
        ),
        **_tables(rows, [oid])[oid],
    }  # fmt: skip
    types = _types(rows, topics[_COLUMNS], {c.name for c in reader.columns})
    if isinstance(types, str):
        return types
    topics |= types
    topics["the session's settings"] = [
        list(row)
        for row in execute(
            opened,
            "select name, setting from pg_catalog.pg_settings"
            f" where name {EQUALS} any (%s::pg_catalog.text[]) order by name",
            _SETTINGS,
        )
    ]
    topics["how rows are read"] = [*reader.statements(Split(0)), str(reader.schema)]
    leaves = {leaf.oid: leaf for leaf in found.leaves}
    own = _Rows(opened)
    entries = _tables(own, leaves)
    xmin, xmax = execute(
        opened,
        "select pg_catalog.pg_snapshot_xmin(s)::pg_catalog.text::pg_catalog.int8,"
        " pg_catalog.pg_snapshot_xmax(s)::pg_catalog.text::pg_catalog.int8"
        " from pg_catalog.pg_current_snapshot() as s",
    )[0]
    return ReadingKey(
        topics,
        {str(leaf): _digest(entry) for leaf, entry in entries.items()},
        {
            str(leaf): None if leaf == oid and len(leaves) == 1 else one.alone
            for leaf, one in leaves.items()
        },
        xmin,
        xmax,
        rows.youngest,
        {str(leaf): own.youngest_of(leaf) for leaf in leaves},
        here,
    )


_COLUMNS = "the table's columns"
_TABLE_ROWS = {
    "the table": (
        "oid",
        (
            "oid::pg_catalog.int8, relfilenode::pg_catalog.int8, reltablespace::pg_catalog.int8,"
            " relam::pg_catalog.int8, reltoastrelid::pg_catalog.int8,"
            " relpersistence::pg_catalog.text"
        ),
        "pg_catalog.pg_class", "true",
    ),
    _COLUMNS: (
        "attrelid",
        (
            "attnum, attname, atttypid::pg_catalog.int8, atttypmod,"
            " attcollation::pg_catalog.int8, attgenerated::pg_catalog.text, attisdropped,"
            " atthasmissing"
        ),
        "pg_catalog.pg_attribute", f"attnum {operator('>')} 0",
    ),
    "the table's parents": (
        "inhrelid", "inhparent::pg_catalog.int8", "pg_catalog.pg_inherits", "true",
    ),
}  # fmt: skip
"""What the catalog says about a table: the column that names it, columns, catalog, condition."""


def _tables(rows: _Rows, oids: Collection[int]) -> dict[int, dict[str, list[list[Any]]]]:
    """Return the catalog rows of tables, by what they are about."""
    found: dict[int, dict[str, list[list[Any]]]] = {
        oid: {topic: [] for topic in _TABLE_ROWS} for oid in oids
    }
    for topic, (owner, columns, catalog, condition) in _TABLE_ROWS.items():
        listed = f"'{_listed(sorted(oids))}'::pg_catalog.oid[]"
        for xmin, oid, *row in rows.of(
            f"{owner}::pg_catalog.int8, {columns}",
            catalog,
            f"{owner} {EQUALS} any ({listed}) and {condition}",
            by_owner=True,
        ):
            found[oid][topic].append([xmin, *row])
    return found


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _incomparable(opened: Connection, found: CatalogEntry, reader: PostgresReader) -> str:
    """Return why the pages of what is read cannot be compared; empty if they can."""
    table = found.table
    if table is None:
        return "a query has no pages of its own"
    if table.relkind in ("v", "m", "f"):
        return "a view or foreign table has no pages that can be compared"
    if not found.leaves:
        return "the table has no partition"
    if reader.server_version < TID_RANGE_SCANS_SINCE or not all(
        leaf.is_heap for leaf in found.leaves
    ):
        return "only heap tables of PostgreSQL 14 and later can be read by page"
    if reader.snapshot_id is None:
        return "the server shares no snapshot, as behind a pooler"
    if reader.relation.where is not None or reader.interval is not None:
        return "a condition selects rows"
    recovering, clean = execute(
        opened,
        "select pg_catalog.pg_is_in_recovery(),"
        " pg_catalog.pg_current_xact_id_if_assigned() is null",
    )[0]
    if recovering:
        return "a standby's snapshots do not show which transactions are open"
    if not clean:
        return "the transaction has written"
    return _unreadable(opened, {table.oid, *(leaf.oid for leaf in found.leaves)})


def _unreadable(opened: Connection, oids: set[int]) -> str:
    """Return why one of some tables cannot be read by itself; empty if all can."""
    rows = execute(
        opened,
        "select c.oid::pg_catalog.regclass::pg_catalog.text,"
        " pg_catalog.has_table_privilege(c.oid, 'select')"
        " and pg_catalog.has_schema_privilege(c.relnamespace, 'usage'),"
        " pg_catalog.row_security_active(c.oid), c.relpersistence::pg_catalog.text"
        f" from pg_catalog.pg_class c where c.oid {EQUALS}"
        f" any ('{_listed(sorted(oids))}'::pg_catalog.oid[]) order by 1",
    )
    if len(rows) != len(oids):
        return "a partition is gone"
    for name, granted, hides, persistence in rows:
        if not granted:
            return (
                f"the user may not lock {name}, which needs SELECT on all of it, and USAGE on its "
                "schema"
            )
        if hides:
            return f"row-level security of {name} applies to the reader"
        if persistence != "p":
            return f"{name} is unlogged or temporary"
    return ""


def _server(opened: Connection) -> list[Any]:
    """Return what changes when the server is restarted or upgraded.

    After a restart nothing that a reader can see proves that no older copy was put back.
    """
    return list(
        execute(
            opened,
            "select pg_catalog.version(),"
            " extract(epoch from pg_catalog.pg_postmaster_start_time())::pg_catalog.text",
        )[0]
    )


def _system_identifier(opened: Connection) -> str | None:
    with contextlib.suppress(psycopg.DatabaseError), opened.transaction():
        statement = "select system_identifier::pg_catalog.text from pg_catalog.pg_control_system()"
        return str(execute(opened, statement)[0][0])
    return None


class _Rows:
    """Reads catalog rows for a key, and keeps the age of the youngest of them."""

    def __init__(self, opened: Connection) -> None:
        self._opened = opened
        self._youngest: dict[int | None, int] = {}

    @property
    def youngest(self) -> int:
        """Age of the youngest row."""
        return min(self._youngest.values(), default=_OLDEST)

    def youngest_of(self, owner: int) -> int:
        """Age of the youngest row of one owner."""
        return self._youngest.get(owner, _OLDEST)

    def of(
        self, columns: str, catalog: str, condition: str, *, by_owner: bool = False
    ) -> list[list[Any]]:
        """Return ``xmin`` and columns of catalog rows, in order; the first column may be an owner.

        No column is NULL.
        """
        rows = execute(
            self._opened,
            f"select pg_catalog.age(xmin), xmin::pg_catalog.text::pg_catalog.int8, {columns}"
            f" from {catalog} where {condition}",
        )
        for age, xmin, first, *_ in rows:
            # Rows that were there when the cluster was made have no transaction.
            if xmin >= _FIRST_NORMAL:
                owner = first if by_owner else None
                self._youngest[owner] = min(age, self._youngest.get(owner, _OLDEST))
        return sorted(([*row[1:]] for row in rows), key=lambda row: row[1:])


def _types(rows: _Rows, attributes: list[list[Any]], read: set[str]) -> dict[str, Any] | str:
    """Return the catalog rows of the types of the columns that are read, or why there are none.

    Domains and arrays are followed down to the types below them.
    """
    wanted: dict[int, str] = {}
    for _, _, name, type_oid, _, _, generated, is_dropped, _ in attributes:
        if is_dropped or name not in read:
            continue
        if generated == "v":  # in a partition too, then
            return f"column {name} is computed when it is read"
        wanted[type_oid] = name
    known: dict[int, list[Any]] = {}
    while missing := sorted(wanted.keys() - known.keys()):
        found = rows.of(
            "oid::pg_catalog.int8, typname, typtype::pg_catalog.text, typtypmod,"
            " typbasetype::pg_catalog.int8, typelem::pg_catalog.int8,"
            " typcategory::pg_catalog.text, typnamespace::pg_catalog.int8",
            "pg_catalog.pg_type", f"oid {EQUALS} any ('{_listed(missing)}'::pg_catalog.oid[])",
        )  # fmt: skip
        for row in found:
            _, oid, name, kind, _, base, element, category, _ = row
            known[oid] = row
            below = base if kind == "d" else element if category == "A" else 0
            if below:
                wanted.setdefault(below, wanted[oid])
            elif kind != "e" and not (oid < _FIRST_OF_USERS and name in PLAIN_TYPES):
                return (
                    f"values of column {wanted[oid]}, of type {name}, depend on more than its row"
                )
        if any(oid not in known for oid in missing):
            return "a type is gone"
    enums = [oid for oid, row in known.items() if row[3] == "e"]
    labels = rows.of(
        "enumtypid::pg_catalog.int8, enumsortorder, oid::pg_catalog.int8, enumlabel",
        "pg_catalog.pg_enum", f"enumtypid {EQUALS} any ('{_listed(enums)}'::pg_catalog.oid[])",
    )  # fmt: skip
    return {"the columns' types": [known[oid] for oid in sorted(known)], "enum labels": labels}


def _oid(number: int) -> str:
    return f"{number}::pg_catalog.int8::pg_catalog.oid"


def _listed(oids: list[int]) -> str:
    return "{" + ",".join(map(str, oids)) + "}"
