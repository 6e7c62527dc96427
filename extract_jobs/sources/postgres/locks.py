"""Locks that keep a snapshot true: TRUNCATE and rewriting ALTER TABLE are not MVCC-safe.

A transaction whose snapshot is older than such a command sees the table empty once the command has
committed. So a snapshot must be younger than the lock that keeps them out. ``LOCK TABLE`` is the
one statement that locks and takes no snapshot. What it cannot lock (materialized views, foreign
tables, what a query reads) is locked by planning, after the snapshot; then the storage is compared
with what the snapshot knows.

https://www.postgresql.org/docs/current/mvcc-caveats.html
https://www.postgresql.org/docs/current/sql-lock.html
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import psycopg

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import SourceUnavailable
from extract_jobs.sources.postgres.catalog import Table
from extract_jobs.sources.postgres.session import Connection, begin, execute
from extract_jobs.sources.postgres.sql import EQUALS, LOCK_TIMEOUT_SECONDS

_LOCKABLE = ("r", "p", "v")


def export_snapshot(
    opened: Connection, connection: DatabaseConnection, table: Table | None
) -> str | None:
    """Begin the transaction, lock the table, then export the transaction's snapshot.

    The lock covers children and partitions, and what a view reads. It is ACCESS SHARE, which
    conflicts only with ACCESS EXCLUSIVE, and is held until the transaction ends.

    Args:
        opened: A connection outside a transaction.
        connection: What it was opened from.
        table: What will be read; None for a query, which is not locked here.

    Returns:
        The snapshot's identifier; None if it cannot be exported.

    Raises:
        psycopg.Error: `psycopg.errors.LockNotAvailable` if somebody else holds a lock for longer
            than `LOCK_TIMEOUT_SECONDS`.
    """
    _begin_locked(opened, connection, table)
    if connection.pooled:
        return None
    try:
        return str(execute(opened, "select pg_catalog.pg_export_snapshot()")[0][0])
    except psycopg.OperationalError:
        raise
    except psycopg.DatabaseError:
        # Some replicas and forks of PostgreSQL cannot export one.
        execute(opened, "rollback")
        _begin_locked(opened, connection, table)
        return None


def _begin_locked(opened: Connection, connection: DatabaseConnection, table: Table | None) -> None:
    begin(opened, connection, None)
    if table is None or table.relkind not in _LOCKABLE:
        return
    try:
        execute(opened, f"lock table {table.quoted} in access share mode")
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.WrongObjectType):
        # It needs SELECT on the whole table, and for views PostgreSQL 11. Without the lock,
        # `rewritten` notices what it would have prevented.
        execute(opened, "rollback")
        begin(opened, connection, None)


def locked_relations(opened: Connection) -> list[int]:
    """Return the identifiers of this database's tables and indexes that the transaction locks."""
    rows = execute(
        opened,
        "select distinct l.relation::pg_catalog.int8 from pg_catalog.pg_locks l"
        " where l.locktype operator(pg_catalog.=) 'relation' and l.granted"
        " and l.pid operator(pg_catalog.=) pg_catalog.pg_backend_pid()"
        " and l.database operator(pg_catalog.=) (select d.oid from pg_catalog.pg_database d"
        " where d.datname operator(pg_catalog.=) pg_catalog.current_database())",
    )
    return sorted(row[0] for row in rows)


def rewritten(opened: Connection) -> list[str]:
    """Return the tables whose storage was replaced between the snapshot and their locks.

    Checks all tables that the transaction has locked so far, so everything to be read must have
    been planned. Once it returns none, none can be replaced until the transaction ends.
    """
    rows = execute(
        opened,
        # A query sees pg_class in its snapshot, the function sees its current state.
        "select coalesce(c.oid::pg_catalog.regclass::pg_catalog.text, 'a new table')"
        " from pg_catalog.pg_locks l left join pg_catalog.pg_class c"
        " on c.oid operator(pg_catalog.=) l.relation"
        " where l.locktype operator(pg_catalog.=) 'relation' and l.granted"
        " and l.pid operator(pg_catalog.=) pg_catalog.pg_backend_pid()"
        " and l.database operator(pg_catalog.=) (select d.oid from pg_catalog.pg_database d"
        " where d.datname operator(pg_catalog.=) pg_catalog.current_database())"
        " and (c.oid is null or (c.relfilenode operator(pg_catalog.<>) 0::pg_catalog.oid"
        " and c.relkind operator(pg_catalog.=) any ('{r,m}'::pg_catalog.\"char\"[])"
        # No filenode: the table is gone.
        " and (c.relfilenode operator(pg_catalog.=) pg_catalog.pg_relation_filenode(c.oid))"
        " is not true))",
    )
    return [row[0] for row in rows]


def waited_too_long(opened: Connection, what: str) -> SourceUnavailable:
    """Return the error for a lock that was not granted in time, naming who holds one.

    Args:
        opened: The connection that waited; its transaction has failed.
        what: What was being done.
    """
    holders: list[str] = []
    with contextlib.suppress(psycopg.Error):
        execute(opened, "rollback")
        rows = execute(
            opened,
            "select l.pid, l.relation::pg_catalog.regclass::pg_catalog.text, l.mode"
            " from pg_catalog.pg_locks l join pg_catalog.pg_database d"
            " on d.oid operator(pg_catalog.=) l.database"
            " where l.locktype operator(pg_catalog.=) 'relation' and l.granted"
            " and d.datname operator(pg_catalog.=) pg_catalog.current_database()"
            " and l.mode operator(pg_catalog.=) 'AccessExclusiveLock'"
            " order by l.pid limit 3",
        )
        holders = [f"server process {pid} holds {mode} on {name}" for pid, name, mode in rows]
    return SourceUnavailable(
        f"{what} failed: lock timeout, a table was locked for more than {LOCK_TIMEOUT_SECONDS} s "
        f"({'; '.join(holders) or 'nobody holds it any more'}); end the processes that hold it, or "
        "run again later"
    )


@dataclass(frozen=True)
class Waiting:
    """A session that waits for a lock which a transaction of ours keeps from it: DDL, for a reader.

    Attributes:
        pid: Its server process.
        user: Its role.
        mode: The lock it wants.
        relation: On what.
    """

    pid: int
    user: str
    mode: str
    relation: str

    def __str__(self) -> str:
        """Name the session and what it waits for, not its statement, which may hold values."""
        return (
            f"server process {self.pid} (user {self.user!r}) waits for {self.mode} on "
            f"{self.relation}"
        )


def waiting_behind(opened: Connection) -> list[Waiting]:
    """Return who waits behind the locks of a connection's transaction, by process.

    ``pg_blocking_pids`` stops the lock manager for a moment, so it is asked only of sessions that
    wait for a table which the transaction has locked.
    """
    # Within a transaction, pg_stat_activity goes on to show the sessions of its first look.
    execute(opened, "select pg_catalog.pg_stat_clear_snapshot()")
    rows = execute(
        opened,
        "select w.pid, a.usename::pg_catalog.text, w.mode,"
        " w.relation::pg_catalog.regclass::pg_catalog.text"
        " from pg_catalog.pg_locks w join pg_catalog.pg_locks l"
        f" on l.relation {EQUALS} w.relation and l.database {EQUALS} w.database"
        f" left join pg_catalog.pg_stat_activity a on a.pid {EQUALS} w.pid"
        f" where w.locktype {EQUALS} 'relation' and not w.granted and l.granted"
        f" and l.locktype {EQUALS} 'relation' and l.pid {EQUALS} pg_catalog.pg_backend_pid()"
        f" and l.pid {EQUALS} any (pg_catalog.pg_blocking_pids(w.pid)) order by w.pid",
    )
    found = [Waiting(pid, user or "?", mode, name) for pid, user, mode, name in rows]
    return list(dict.fromkeys(found))
