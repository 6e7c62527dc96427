"""Opens sessions that all see one moment of a table, whoever writes to it.

MySQL cannot pass a snapshot from one session to another. But while one session holds
``LOCK TABLES … READ``, no transaction that wrote to the table is open and none can begin to write,
so all snapshots taken meanwhile show the same rows. The sessions log in first, so writers wait only
for the two round trips in which the snapshots are taken.

https://dev.mysql.com/doc/refman/8.4/en/lock-tables.html
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from uuid import uuid4

import pymysql

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import ExtractError
from extract_jobs.sources.mysql.driver import Connection, hang_up, release, server_version
from extract_jobs.sources.mysql.errors import number
from extract_jobs.sources.mysql.session import START, connect, execute, mapped_errors

LOCK_SECONDS = 1
"""How long to wait for a lock. New writers queue behind the wait, so it is short."""
LOCK_TRIES = 3
_PAUSE_SECONDS = 1.0
"""Wait between two tries, for the writers that queued."""
HOLD_SECONDS = 5.0
"""Maximum time for taking the snapshots; if it is not enough, there are none."""
_IDLE_SECONDS = 10
"""The server ends a lock whose holder has been silent for this long, cut off or stopped."""
_MOST_THREADS = 16

_LOCK_WAIT = 1205
_NOT_LOCKED = 1100
_REFUSALS = {
    1044: "the user may not lock it (grant LOCK TABLES on its database)",
    1142: "the user may not lock it (grant LOCK TABLES and SELECT on it)",
    1143: "the user may not lock it (grant LOCK TABLES and SELECT on it)",
    1227: "the user may not lock it (grant LOCK TABLES on its database)",
}


class NoCommonSnapshot(Exception):
    """Sessions cannot share one moment; the message says why.

    Attributes:
        passes: Whether trying again may help.
    """

    def __init__(self, why: str, *, passes: bool) -> None:
        """Store the reason, which follows a colon in messages."""
        super().__init__(why)
        self.passes = passes


def open_together(connection: DatabaseConnection, table: str, count: int) -> list[Connection]:
    """Open sessions whose snapshots show the same moment; each is in its transaction.

    Writers to the table wait for up to `LOCK_SECONDS` plus the time of two statements, at most
    `LOCK_TRIES` times.

    Args:
        connection: The server, pinned to one node.
        table: The table's quoted name. Its engine must be InnoDB.
        count: How many.

    Raises:
        NoCommonSnapshot: They cannot share one. No session is left open.
    """
    with contextlib.ExitStack() as undo:
        try:
            coordinator = connect(connection)
            undo.callback(release, coordinator)
            mark = _prepare(coordinator)
            sessions = _opened(connection, count, undo)
            _check_one_server(sessions, mark)
            _lock(coordinator, table)
            _check_lock(coordinator, table)
            started = _in_time(sessions, lambda one: execute(one, START))
            # Fails if the lock was lost meanwhile.
            execute(coordinator, "unlock tables")
            if started:
                # A proxy such as MaxScale sends read-only transactions to a replica, and statements
                # before them to the primary.
                _check_one_server(sessions, mark)
        except (pymysql.Error, OSError) as error:
            why = f"the connections failed (error {number(error) or type(error).__name__})"
            raise NoCommonSnapshot(why, passes=True) from None
        except ExtractError as error:
            raise NoCommonSnapshot(str(error), passes=True) from None
        if not started:
            raise NoCommonSnapshot(
                f"{count} sessions did not take their snapshots within {HOLD_SECONDS:.0f} s",
                passes=True,
            )
        undo.pop_all()
        release(coordinator)
        return sessions
    raise AssertionError("unreachable")


def open_one(connection: DatabaseConnection, what: str) -> Connection:
    """Open a session in its transaction, whose snapshot stays that of its first moment.

    Args:
        connection: The server.
        what: What is being done, for the error message.

    Raises:
        ExtractError: What PyMySQL raised, mapped.
    """
    opened = connect(connection)
    try:
        with mapped_errors(what):
            execute(opened, START)
    except BaseException:
        hang_up(opened)
        raise
    return opened


def _prepare(coordinator: Connection) -> str:
    """Prepare a session to lock; return a condition that is true on its server only."""
    read_only, wsrep = _server_facts(coordinator)
    if read_only:
        raise NoCommonSnapshot(
            "the server shows what another server writes to shared storage (innodb_read_only), "
            "which no lock on this one holds back",
            passes=False,
        )
    if wsrep:
        raise NoCommonSnapshot(
            "the server is a node of a Galera cluster, and a lock does not hold back what other "
            "nodes write",
            passes=False,
        )
    name = f"extract-{uuid4().hex}"
    [[_, own]] = execute(coordinator, f"select get_lock('{name}', 0), connection_id()")
    execute(
        coordinator,
        # Without autocommit, InnoDB locks the table too, and so waits for every open transaction
        # that has written to it, in whatever way.
        f"set session autocommit = 0, lock_wait_timeout = {LOCK_SECONDS},"
        f" innodb_lock_wait_timeout = {LOCK_SECONDS}, wait_timeout = {_IDLE_SECONDS}",
    )
    return f"is_used_lock('{name}') = {int(own)}"


def _server_facts(coordinator: Connection) -> tuple[bool, bool]:
    rows = execute(
        coordinator,
        "show global variables where variable_name in"
        " ('innodb_read_only', 'wsrep_on', 'wsrep_provider')",
    )
    known = {str(name).lower(): str(value).lower() for name, value in rows}
    galera = known.get("wsrep_on") == "on" and known.get("wsrep_provider", "none") != "none"
    return known.get("innodb_read_only") in ("on", "1"), galera


def _opened(
    connection: DatabaseConnection, count: int, undo: contextlib.ExitStack
) -> list[Connection]:
    def open_one(_: int) -> Connection:
        opened = connect(connection)
        undo.callback(hang_up, opened)
        return opened

    with ThreadPoolExecutor(min(count, _MOST_THREADS)) as pool:
        return list(pool.map(open_one, range(count)))


def _check_one_server(sessions: Sequence[Connection], mark: str) -> None:
    """Check that all sessions are on the server where the condition is true."""

    def is_there(opened: Connection) -> bool:
        [[same]] = execute(opened, f"select {mark}")
        return bool(same)

    with ThreadPoolExecutor(min(len(sessions), _MOST_THREADS)) as pool:
        found = list(pool.map(is_there, sessions))
    if not all(found):
        raise NoCommonSnapshot(
            "the connections lead to different servers, so one of them cannot lock for all",
            passes=False,
        )


def _lock(coordinator: Connection, table: str) -> None:
    for tried in range(LOCK_TRIES):
        try:
            execute(coordinator, f"lock tables {table} read")
            return
        except pymysql.Error as error:
            found = number(error)
            if found in _REFUSALS:
                raise NoCommonSnapshot(_REFUSALS[found], passes=False) from None
            if found != _LOCK_WAIT:
                raise
        if tried + 1 < LOCK_TRIES:
            time.sleep(_PAUSE_SECONDS)
    raise NoCommonSnapshot(
        f"{LOCK_TRIES} times a transaction that has written to the table, or somebody else's lock, "
        f"did not end within {LOCK_SECONDS} s",
        passes=True,
    )


def _check_lock(coordinator: Connection, table: str) -> None:
    """Check that the server enforces the lock.

    Some servers with MySQL's protocol accept ``LOCK TABLES`` and do nothing: TiDB by default,
    Vitess. One that enforces it refuses the same table under a name that was not locked.

    Raises:
        NoCommonSnapshot: It does not.
    """
    try:
        execute(coordinator, f"select 1 from {table} as `not locked` limit 0")
    except pymysql.Error as error:
        if number(error) == _NOT_LOCKED:
            return
        raise
    raise NoCommonSnapshot(
        f"the server ({server_version(coordinator)}) accepts LOCK TABLES but does not enforce it, "
        "as TiDB and Vitess do",
        passes=False,
    )


def _in_time(sessions: Sequence[Connection], run: Callable[[Connection], object]) -> bool:
    """Run a function on every session in parallel; return whether all finished in time."""
    pool = ThreadPoolExecutor(min(len(sessions), _MOST_THREADS))
    futures = [pool.submit(run, one) for one in sessions]
    try:
        _, late = wait(futures, timeout=HOLD_SECONDS)
        for future in futures:
            if future not in late:
                future.result()
        return not late
    finally:
        # Not waited for: late ones fail as soon as the caller hangs up.
        pool.shutdown(wait=False, cancel_futures=True)
