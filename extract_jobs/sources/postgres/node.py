"""Which node of a PostgreSQL cluster answers, and how far in its history it has got.

A standby replays what its primary has committed, some time later. What was planned on one node may
not have arrived on another, so a plan keeps the position of the node that it was made on, and no
node that has replayed less is read.

On a primary the position is where the next WAL record is inserted, on a standby what was replayed
last. The timeline, which a promotion raises, is that of the WAL file that a primary writes;
``pg_control_checkpoint()`` returns the old one until the next checkpoint, and on a standby there is
nothing better.

https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-RECOVERY-CONTROL
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from extract_jobs.errors import ConfigError, SourceMoved, SourceUnavailable
from extract_jobs.sources.postgres.session import Connection, execute
from extract_jobs.sources.postgres.sql import operator

REPLAY_WAIT_SECONDS = 60.0
"""How long to wait for a lagging node."""
FLUSH_WAIT_SECONDS = 60.0
"""Once woken, the WAL writer takes less than a second."""
_POLL_SECONDS = 0.2
_PAGE_BYTES = 8192
_PAGE_HEADERS = (24, 40)
"""Bytes of a WAL page's header; the longer one is at the start of a file."""

POSITION = (
    "select pg_catalog.pg_is_in_recovery(), (case when pg_catalog.pg_is_in_recovery()"
    " then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_insert_lsn() end)"
    "::pg_catalog.text,"
    " (select timeline_id from pg_catalog.pg_control_checkpoint()),"
    " case when not pg_catalog.pg_is_in_recovery()"
    " then pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) end"
)
_CLOCK = (
    "select pg_catalog.pg_is_in_recovery(), pg_catalog.clock_timestamp(),"
    " case when pg_catalog.pg_is_in_recovery() then greatest("
    "pg_catalog.pg_last_xact_replay_timestamp(),"
    # All that the primary had sent at its last message has been replayed. Readers without
    # pg_read_all_stats see NULL.
    " (select last_msg_send_time from pg_catalog.pg_stat_wal_receiver"
    f" where pg_catalog.pg_last_wal_replay_lsn() {operator('>=')} latest_end_lsn)) end"
)


@dataclass(frozen=True)
class Position:
    """A node's position in the cluster's history.

    Attributes:
        lsn: WAL position in bytes.
        timeline: Raised by each promotion.
    """

    lsn: int
    timeline: int

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> Position | None:
        """Read a row of `POSITION`; None if the node does not report one."""
        _, lsn, timeline, file = row
        if lsn is None or timeline is None:
            return None
        return cls(_normal(_bytes(lsn)), int(file[:8], 16) if file else int(timeline))

    @classmethod
    def from_json(cls, data: Mapping[str, str] | None) -> Position | None:
        """Read what `to_json` wrote; None stays None.

        Raises:
            ConfigError: It is damaged.
        """
        if data is None:
            return None
        try:
            return cls(_bytes(data["lsn"]), int(data["timeline"]))
        except (ValueError, KeyError) as error:
            raise ConfigError(
                "a plan or commit record is damaged: its position is not a PostgreSQL position"
            ) from error

    def later(self, other: Position) -> Position:
        """Return the position that covers what either of two nodes was seen to have."""
        return Position(max(self.lsn, other.lsn), max(self.timeline, other.timeline))

    def to_json(self) -> dict[str, str]:
        """Return the JSON form, the position as PostgreSQL prints it."""
        lsn = f"{self.lsn >> 32:X}/{self.lsn & 0xFFFFFFFF:X}"
        return {"lsn": lsn, "timeline": str(self.timeline)}


def _bytes(lsn: str) -> int:
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def _normal(lsn: int) -> int:
    """Return the end of the last record, which is where the next begins after a page's header."""
    offset = lsn % _PAGE_BYTES
    return lsn - offset if offset in _PAGE_HEADERS else lsn


def position(opened: Connection) -> Position | None:
    """Return the node's current position; None if it reports none, as some services do."""
    try:
        with opened.transaction():
            return Position.of(execute(opened, POSITION)[0])
    except psycopg.OperationalError:
        raise
    except psycopg.DatabaseError:
        return None


def wait_until_reached(ask: Callable[[], tuple[Any, ...]], wanted: Position, what: str) -> None:
    """Wait until a node has reached a position.

    Args:
        ask: Returns the current row of `POSITION`.
        wanted: The position.
        what: What is being done, for messages.

    Raises:
        SourceUnavailable: It has not reached it after `REPLAY_WAIT_SECONDS`.
        SourceMoved: A standby was promoted since, which may never have received that position.
    """
    deadline = time.monotonic() + REPLAY_WAIT_SECONDS
    while True:
        row = ask()
        found = Position.of(row)
        if found is None:
            return
        if found.timeline > wanted.timeline:
            raise SourceMoved(
                f"{what} failed: a standby was promoted since the run was planned (timeline "
                f"{wanted.timeline} then, {found.timeline} now), and it may not have received all "
                "that was planned for; run again"
            )
        if found.lsn >= wanted.lsn:
            return
        if time.monotonic() > deadline:
            node = "the standby" if row[0] else "the server"
            raise SourceUnavailable(
                f"{what} failed: {node} lags behind the plan by {wanted.lsn - found.lsn} bytes of "
                f"WAL, after {REPLAY_WAIT_SECONDS:.0f} s of waiting (the run was planned on "
                "another node, or on this one before it was restored); run again once it has "
                "caught up, or connect to the primary"
            )
        time.sleep(_POLL_SECONDS)


def wait_until_flushed(
    opened: Connection,
    wanted: Position,
    what: str,
    wake: Callable[[], None],
    *,
    seconds: float | None = None,
) -> None:
    """Wait until the server has flushed all WAL up to a position to disk.

    After a crash before that, the server assigns the numbers of transactions that had rolled back,
    or committed asynchronously, a second time. An idle server leaves a partly filled WAL page
    unflushed for some 15 s, or forever if wal_level is minimal.

    Args:
        opened: A connection to the server.
        wanted: The position.
        what: What is being done, for messages.
        wake: Called once if the position is not flushed yet; see `wake_wal_writer`.
        seconds: How long to wait; None is `FLUSH_WAIT_SECONDS`.

    Raises:
        SourceUnavailable: It has not after so long.
    """
    seconds = FLUSH_WAIT_SECONDS if seconds is None else seconds
    deadline = time.monotonic() + seconds
    question = "select pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text"
    woken = False
    while (flushed := _normal(_bytes(execute(opened, question)[0][0]))) < wanted.lsn:
        if not woken:
            wake()
            woken = True
        if time.monotonic() > deadline:
            raise SourceUnavailable(
                f"{what} failed: after {seconds:.0f} s the server has still not written "
                f"the last {wanted.lsn - flushed} bytes of WAL to its disk; after a crash it would "
                "assign the snapshot's transaction numbers again; run again later"
            )
        time.sleep(_POLL_SECONDS)


def wake_wal_writer(opened: Connection) -> None:
    """Commit an empty transaction asynchronously: the WAL writer then flushes everything before it.

    It takes one transaction number and changes no data, so readers are allowed to.
    """
    with opened.transaction():
        execute(opened, "set local synchronous_commit = off")
        execute(opened, "select pg_catalog.txid_current()")


@dataclass(frozen=True)
class Recovery:
    """Whether a node is a standby, and how current it is.

    Attributes:
        in_recovery: Whether it is a standby.
        complete_to: Time up to which it has replayed everything that its primary committed; None on
            a primary, and if it is unknown.
        lag: How long ago that was; None in the same cases.
    """

    in_recovery: bool
    complete_to: datetime | None
    lag: timedelta | None

    def to_json(self) -> dict[str, Any]:
        """Return what plan and report say."""
        if not self.in_recovery:
            return {"in_recovery": False}
        return {"in_recovery": True, "lag_seconds": self.lag and round(self.lag.total_seconds(), 1)}


def recovery(opened: Connection) -> Recovery:
    """Return the node's state. While its primary is idle, a standby may seem to lag.

    ``pg_last_xact_replay_timestamp()`` is the time of the last transaction. Only a role with
    pg_read_all_stats (pg_monitor) sees when the primary last reported that there is nothing newer.
    """
    in_recovery, now, complete_to = execute(opened, _CLOCK)[0]
    if not in_recovery or complete_to is None:
        return Recovery(in_recovery, None, None)
    return Recovery(True, complete_to, max(now - complete_to, timedelta(0)))


def check_lag(found: Recovery, most: timedelta | None, what: str) -> None:
    """Refuse a standby that lags more than allowed.

    Raises:
        SourceUnavailable: It does, or its lag is unknown.
    """
    if most is None or not found.in_recovery or (found.lag is not None and found.lag <= most):
        return
    lag = "an unknown time" if found.lag is None else f"{found.lag.total_seconds():.1f} s"
    raise SourceUnavailable(
        f"{what} failed: the standby lags by {lag}, and source.max_lag is "
        f"{most.total_seconds():.0f} s; run again once it has caught up, connect to the primary, "
        "or raise max_lag. While the primary is idle the lag is visible only to a user with "
        "pg_read_all_stats (pg_monitor)"
    )


def check_history(found: Position | None, before: Position | None, name: str) -> None:
    """Refuse transaction numbers from another history than those that were committed.

    Args:
        found: Where the primary stands now.
        before: Where it stood at the last commit; None for none.
        name: The table, for messages.

    Raises:
        ConfigError: A standby was promoted, or an older copy of the server was restored.
    """
    if before is None or found is None:
        return
    start_over = (
        "so rows could be left out unnoticed. Start over with another state_uri and target, or "
        "name a watermark.column"
    )
    if found.timeline != before.timeline:
        raise ConfigError(
            f"{name}: the server was promoted or restored since the last commit (timeline "
            f"{before.timeline} then, {found.timeline} now). A promoted standby gives the numbers "
            f"of transactions that it never received to others, {start_over}"
        )
    if found.lsn < before.lsn:
        raise ConfigError(
            f"{name}: the server's WAL ends at {found.to_json()['lsn']}, below "
            f"{before.to_json()['lsn']} of the last commit: an older copy of it was restored, "
            f"which assigns the same transaction numbers to others, {start_over}"
        )
