"""Snapshot mode: rows by the transaction that wrote them, whenever it committed.

A run takes the rows whose ``xmin`` is in ``[previous pg_snapshot_xmin, current
pg_snapshot_xmin)``. Below ``pg_snapshot_xmin`` no transaction is open any more, neither a top-level
one nor one under a SAVEPOINT (which has a higher number than the transaction around it), so what is
not visible now was rolled back. Rows at or above it wait for the next run, even if they are
committed. The watermark is the last number below it, so that intervals are ``(lower, upper]`` here
as everywhere.

``xmin`` has 32 bits and is widened to the greatest number below the snapshot's ``xmax`` that ends
in them. VACUUM and COPY FREEZE mark rows frozen and leave the bits unchanged, so a row keeps its
number until the counter has wrapped around; then its number seems 2³² higher, and it is extracted
once more. It never seems lower than it is: no row is lost. Bits below 3 belong to no transaction:
those rows were frozen by servers before 9.4, and only the first run extracts them.

https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND
"""

from __future__ import annotations

from dataclasses import dataclass

from extract_jobs.errors import ConfigError
from extract_jobs.sources.postgres.catalog_entry import CatalogEntry
from extract_jobs.sources.postgres.session import Connection, execute
from extract_jobs.sources.postgres.sql import operator
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.watermark import Interval, WatermarkValue

_XID8_SINCE = 130000
_FIRST_NORMAL = 3
_MASK = 2**32 - 1


@dataclass(frozen=True)
class Counter:
    """The position of a snapshot among the cluster's transactions, in 64 bits.

    Attributes:
        oldest: ``pg_snapshot_xmin``: everything below has ended.
        next: ``pg_snapshot_xmax``: nothing from here on is visible.
    """

    oldest: int
    next: int


def is_snapshot_mode(spec: ExtractSpec) -> bool:
    """Return whether a spec's runs select rows by their transaction."""
    return spec.mode == "incremental" and bool(spec.watermark and spec.watermark.snapshot)


def check_table(found: CatalogEntry, name: str) -> None:
    """Refuse tables that do not keep the transaction that wrote a row.

    Raises:
        ConfigError: A view (also a materialized one), a foreign table, or a table that is neither a
            heap nor made of partitions that are heaps.
    """
    kind = found.table.relkind if found.table else ""
    what = {"": "query", "v": "view", "m": "materialized view", "f": "foreign table"}.get(kind)
    if what is None and not all(leaf.is_heap for leaf in found.leaves):
        what = "table with foreign partitions, or with storage other than heap"
    if what is not None:
        raise ConfigError(
            f"{name} is a {what}, and watermark.snapshot takes heap tables and their partitions "
            "only: others do not keep the transaction that wrote a row. Name a watermark.column"
        )


def check_identified(fingerprint: dict[str, str], name: str) -> None:
    """Refuse a server that does not report its identity, since transaction numbers are its own.

    Raises:
        ConfigError: The fingerprint has an address instead of the system identifier.
    """
    if not fingerprint["system_identifier"].isdecimal():
        raise ConfigError(
            f"{name}: watermark.snapshot needs the cluster's system identifier, to distinguish it "
            "from a restored copy: grant the user EXECUTE on pg_control_system()"
        )


def counter(opened: Connection, name: str) -> Counter:
    """Read the counters of the transaction's snapshot.

    Args:
        opened: A connection in a transaction with one snapshot.
        name: The table, for messages.

    Raises:
        ConfigError: The server is a standby, whose snapshots list no open transaction of its
            primary by number.
    """
    if execute(opened, "select pg_catalog.pg_is_in_recovery()")[0][0]:
        raise ConfigError(
            f"{name}: watermark.snapshot needs the primary, and the connection leads to a standby, "
            "whose snapshots do not show which transactions are open"
        )
    prefix = "pg" if opened.info.server_version >= _XID8_SINCE else "txid"
    current = "pg_current" if prefix == "pg" else "txid_current"
    rows = execute(
        opened,
        f"select pg_catalog.{prefix}_snapshot_xmin(s)::pg_catalog.text::pg_catalog.int8,"
        f" pg_catalog.{prefix}_snapshot_xmax(s)::pg_catalog.text::pg_catalog.int8"
        f" from pg_catalog.{current}_snapshot() as s",
    )
    return Counter(*rows[0])


def reached(found: Counter, lower: WatermarkValue | None, name: str) -> WatermarkValue | None:
    """Return the last transaction below which all have ended; None if it is no newer than before.

    Args:
        found: The source's current position.
        lower: The watermark.
        name: The table, for messages.

    Raises:
        ConfigError: The source's counter went back: it was restored from an older copy.
    """
    last = found.oldest - 1
    if lower is None or last > int(lower.text):
        return WatermarkValue("xid", str(last))
    _check_not_older(found, lower, name)
    return None


def _check_not_older(found: Counter, bound: WatermarkValue, name: str) -> None:
    if found.oldest - 1 < int(bound.text):
        raise ConfigError(
            f"{name}: rows up to transaction {bound.text} are extracted or planned, but the "
            f"source's counter stands at {found.oldest - 1}: it was restored from an older copy of "
            "itself, and assigns the same numbers to other rows. Start over with another state_uri "
            "and target"
        )


def xmin_condition(interval: Interval | None, found: Counter, name: str) -> str | None:
    """Return the condition for rows whose transaction is in an interval; None for all rows.

    Args:
        interval: An interval of transactions.
        found: The counters of the snapshot that rows are read in: with others, rows of later
            transactions would be taken for rows of 2³² transactions ago.
        name: The table, for messages.

    Raises:
        ConfigError: The source's counter is below the interval's end.
    """
    if interval is None:
        return None
    if interval.empty:
        return "false"
    for bound in (interval.lower, interval.upper):
        if bound is not None:
            _check_not_older(found, bound, name)
    bits, last = "xmin::pg_catalog.text::pg_catalog.int8", found.next - 1

    def below(bound: int) -> str:
        return f"(({bound} {operator('-')} {bits}) {operator('&')} {_MASK})"

    upper = int(interval.upper.text) if interval.upper else last
    # Widened, every row is in (last - 2³², last]. Its distance below a bound, in 32 bits, then
    # decides everything, and its bits are taken once: this runs over the whole table.
    if interval.lower is None:
        near = f"{below(last)} {operator('>=')} {last - upper}"
        return f"{near} or {bits} {operator('<')} {_FIRST_NORMAL}"
    lower = max(int(interval.lower.text), last - 2**32)
    near = f"{below(upper)} {operator('<')} {upper - lower}"
    return f"{near} and {bits} {operator('>=')} {_FIRST_NORMAL}"
