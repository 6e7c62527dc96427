"""Sources: where tables come from. Each is a package with a class that meets `Source`.

`open_source` picks it by the spec's ``source_type``, out of our own and those that other packages
register (`extract_jobs.spec.source_types`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from extract_jobs.errors import ExtractError
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources.splits import Split
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.listed_table import ListedTable
from extract_jobs.spec.source_types import registration
from extract_jobs.watermark import Interval, WatermarkValue

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession


READING_VERSION = "1"
"""Raised with every change of ours that gives other values, or types, for the same rows: tests of
the values of all types fail until it is. What another version has read is read again."""


@dataclass(frozen=True)
class ReadRequest:
    """Which columns and rows of the described table an attempt reads.

    Attributes:
        columns: Chosen columns, in the order of the batches.
        interval: Bounds on ``watermark_column``; None reads all rows. Of an ``empty`` interval,
            only NULL watermarks are read, and only if they are included.
        watermark_column: Column of ``interval``; None without an interval.
        include_null_watermarks: Whether rows with NULL in ``watermark_column`` are included.
    """

    columns: tuple[Column, ...]
    interval: Interval | None = None
    watermark_column: str | None = None
    include_null_watermarks: bool = False


class Reader(Protocol):
    """Reads splits. Opens one connection per split; see `SessionReader`.

    Picklable, and made of importable classes: it is sent to worker processes and Spark executors.

    One reader is used by one thread at a time; threads read through copies of their own.
    """

    @property
    def nulled(self) -> Mapping[str, int]:
        """Values that became NULL under ``lossy_types: null``, by column.

        Counts the last read that this copy of the reader began: a new read, of another split or of
        the same one again, starts from zero. Complete once its iterator is exhausted.
        """

    def only(self, columns: Sequence[str]) -> Reader:
        """Return a reader of the same rows and splits that reads some columns only."""

    def read(self, split: Split) -> Iterator[pa.RecordBatch]:
        """Yield the split's rows, in the request's columns, in batches bounded by bytes.

        Closing the iterator early closes the connection.

        Raises:
            SourceUnavailable: The connection broke, or the snapshot is gone.
            SourceQueryFailed: The source failed the statement.
            TypeNotRepresentable: A value has no faithful form and ``lossy_types`` is ``refuse``.
        """


@runtime_checkable
class SessionReader(Protocol):
    """A reader that can read several splits over one connection."""

    def one_session(self) -> AbstractContextManager[None]:
        """Keep the connection open between reads inside, and close it at the end.

        A read that fails or is closed early closes it; the next read opens another.
        """


@runtime_checkable
class SqlReader(Protocol):
    """A reader whose splits are statements that a person can read."""

    def statements(self, split: Split) -> list[str]:
        """Return the SQL that reads a split's rows, in order: one statement, or a few."""


Conform: TypeAlias = "Callable[[pa.RecordBatch], tuple[pa.RecordBatch, Mapping[str, int]]]"
"""Converts a batch from Spark to the request's columns; also returns the values that became NULL
under ``lossy_types: null``, by column. Raises TypeNotRepresentable as `Reader.read` does."""


@runtime_checkable
class DataFrameReader(Protocol):
    """Reads splits through Spark. Stays on the driver; several threads use one at a time."""

    @property
    def conform(self) -> Conform:
        """What executors do with each batch. Picklable, without credentials."""

    def dataframe(self, spark: SparkSession, splits: Sequence[Split]) -> DataFrame:
        """Return the rows of some splits, one Spark partition each, without reading them yet.

        May connect to the source, on the driver, for as long as the call takes.

        Raises:
            SourceUnavailable: The source cannot be reached.
        """

    def error(self, error: Exception) -> ExtractError | None:
        """Return what an exception of Spark means, if the source raised it; else None.

        The message never holds a credential or row data.
        """


class Snapshot(Protocol):
    """One consistent view of the source that all splits of an attempt share."""

    @property
    def shared(self) -> bool:
        """Whether the splits and `count` see exactly this snapshot.

        False if the source cannot share one: then `count` sees the current state. It is taken
        before and after the splits, and only fewer rows than both are an error.
        """

    @property
    def reader(self) -> Reader | DataFrameReader:
        """The reader that joins this snapshot."""

    def splits(self, spec: ExtractSpec) -> Sequence[Split]:
        """Divide the request into splits: disjoint, exhaustive, at least one, indexes from 0."""

    def count(self) -> int | None:
        """Count the request's rows in this snapshot, with exactly the same predicate.

        None if the source can only count rows by reading them.
        """

    def check(self) -> None:
        """Raise SourceUnavailable if the snapshot can no longer be joined."""


@runtime_checkable
class VerifiedSnapshot(Snapshot, Protocol):
    """A snapshot that does not freeze the whole table, but can check whether it changed."""

    def verify(self) -> None:
        """Check, after the last split, that all of them have read one state of the source.

        Raises:
            SourceMoved: The table gained or lost parts that splits may have read.
            SourceUnavailable: The source cannot confirm yet that what was read is durable.
        """


@runtime_checkable
class CourteousSnapshot(Snapshot, Protocol):
    """A snapshot whose locks somebody may wait for."""

    def give_way(self) -> None:
        """Stop the run where somebody waits and the spec says to yield. Called all the time.

        Raises:
            Interrupted: Somebody waits.
        """

    def read_from(self) -> dict[str, list[str]]:
        """Return who has waited so far, as a part of the report's ``read_from``."""


@runtime_checkable
class JointSnapshot(Snapshot, Protocol):
    """A snapshot whose sessions are opened together, once their number is known."""

    def take(self, splits: int, connections_here: int, *, keyed: bool = False) -> dict[str, Any]:
        """Take the snapshot before the first split is read, if that is possible and wanted.

        Afterwards `reader` and `shared` do not change.

        Args:
            splits: How many there are.
            connections_here: Maximum splits that processes of this machine read at a time; 0 if
                other machines read them.
            keyed: Whether `KeyedSnapshot.every_row` is going to be read, so that splits and keys
                have to share a snapshot even if that takes longer.

        Returns:
            What the report says about it, as a part of ``read_from``.

        Raises:
            ConfigError: It is required and cannot be taken.
            SourceUnavailable: It is required and cannot be taken now.
        """


@runtime_checkable
class KeyedSnapshot(Snapshot, Protocol):
    """A snapshot in which some columns of all rows can be read besides the request."""

    def every_row(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some of the request's columns of all rows, whatever its interval is.

        In one statement, on one connection.

        Raises:
            ExtractError: As `Reader.read`.
        """


@dataclass(frozen=True, order=True)
class PageSpan:
    """A range of pages.

    Attributes:
        part: The `PagedPart` that has them, by name.
        start: First page.
        end: The page after the last; None for all pages that follow.
    """

    part: str
    start: int
    end: int | None


@dataclass(frozen=True)
class PagedPart:
    """A table with pages of its own: a whole table, or one partition of it.

    Attributes:
        name: Identifies it within the table, also for later snapshots.
        count: Number of its pages. Every row that the snapshot sees in it is in one of them.
        page_bytes: Estimated bytes of a page, at least 1.
    """

    name: str
    count: int
    page_bytes: int


@dataclass(frozen=True)
class Moment:
    """A snapshot as a later one recognizes it. JSON; only the source knows what is in it.

    Attributes:
        key: All that values depend on besides the rows, by what it is about.
        parts: The same for the rows of one part only, by the part's name.
        snapshot: The snapshot's place in the source's history.
    """

    key: Mapping[str, Any]
    parts: Mapping[str, Any]
    snapshot: Mapping[str, str]

    def change_since(self, before: Moment) -> str:
        """Return what of an earlier snapshot's key has changed, as a sentence; empty if nothing."""
        changed = (topic for topic, value in self.key.items() if before.key.get(topic) != value)
        topic = next(changed, None)
        return "" if topic is None else f"{topic} changed"


class ComparablePages(Protocol):
    """The pages of a table in a snapshot, which recognizes rows that an earlier snapshot saw."""

    @property
    def parts(self) -> Sequence[PagedPart]:
        """The tables that have the rows, at least one, the same for every call."""

    @property
    def keeps_order(self) -> bool:
        """Whether the rows of a part of a range are read in the order of the whole range."""

    @property
    def moment(self) -> Moment:
        """This snapshot, for later ones."""

    def split(self, index: int, span: PageSpan) -> Split:
        """Return the split that reads a range of pages."""

    def unchanged(
        self,
        before: Moment,
        rows: Mapping[PageSpan, int],
        *,
        connections: int,
        check: Callable[[], None],
    ) -> frozenset[PageSpan] | str:
        """Return the ranges that hold exactly the values that an earlier snapshot saw.

        A range that does not is never returned; one that does may be missing.

        Args:
            before: The earlier snapshot.
            rows: How many rows it saw in each range.
            connections: Maximum connections.
            check: Called all the time; what it raises ends the comparison.

        Returns:
            The ranges; or why nothing can be compared.

        Raises:
            SourceUnavailable: The connection broke.
            SourceQueryFailed: The source failed a statement.
        """

    def rows_in(
        self, spans: Sequence[PageSpan], *, connections: int, check: Callable[[], None]
    ) -> int | None:
        """Count the rows of some ranges in this snapshot. Arguments and errors as `unchanged`.

        None if the source can only count them by reading them; never where `keeps_order`.
        """

    def is_durable(self) -> bool:
        """Wait for a few seconds until no crash of the source can undo what the snapshot saw.

        Returns:
            False if that is not certain yet: then later snapshots must not be compared with this.
        """


@runtime_checkable
class ComparableSnapshot(Snapshot, Protocol):
    """A snapshot that may recognize rows that an earlier run has read."""

    def pages(self) -> ComparablePages | str:
        """Return the table's pages, or why they cannot be compared."""


@dataclass(frozen=True)
class Features:
    """What a source supports: a row of the table of sources in the docs.

    Attributes:
        reads_by: What fetches the rows.
        shared_snapshot: Whether all splits of an attempt see one moment; a text says when.
        strategies: Supported values of ``split.strategy``.
        incremental: How it finds new rows, for example ``watermark column``.
        queries: Whether a ``query`` can be extracted instead of a table.
        where: Whether it supports ``where``.
        run_live: Servers and versions that the tests run it against.
        unverified: What is supported by its documentation only.
    """

    reads_by: str
    shared_snapshot: bool | str
    strategies: tuple[str, ...]
    incremental: tuple[str, ...]
    queries: bool
    where: bool
    run_live: tuple[str, ...]
    unverified: tuple[str, ...] = ()


class Source(Protocol):
    """One table of a source, with credentials resolved."""

    def describe(self) -> TableDescription:
        """Read the catalogue: columns, key, size. Read-only, no scan.

        Raises:
            ConfigError: No such table (the message names the nearest), no right to read it,
                wrong credentials, or a query that the source refuses.
            SourceUnavailable: Unreachable within the connection's timeout.
            TypeNotRepresentable: Columns without a faithful form, all named at once.
        """

    def highest(
        self,
        column: str,
        *,
        lower: WatermarkValue | None = None,
        upper: WatermarkValue | None = None,
        delay: timedelta | None = None,
    ) -> WatermarkValue | None:
        """Return the greatest non-NULL value of a column among the spec's rows; None without any.

        Args:
            column: A column with a `Column.watermark`.
            lower: Only values above it count, in the source's order.
            upper: Only values up to it count.
            delay: Only values up to the source's own clock minus this count; for dates, only days
                that were over by then.

        Raises:
            ConfigError: A bound is not a value of the column's type.
            TypeNotRepresentable: The value is infinite, or has no year from 1 to 9999.
        """

    def precedes(self, column: str, left: WatermarkValue, right: WatermarkValue) -> bool:
        """Return whether one value comes before another in the column's own order (collation)."""

    def null_watermarks(self, column: str) -> int:
        """Count the spec's rows whose value in a column is NULL, now."""

    def snapshot(self, request: ReadRequest) -> AbstractContextManager[Snapshot]:
        """Take a snapshot and hold it until the context ends."""


@runtime_checkable
class ListingSource(Source, Protocol):
    """A source that can list its tables."""

    def tables(self) -> list[ListedTable]:
        """Return every table and view that the user may read, by name; the spec's own is ignored.

        Read-only. System tables, partitions of other tables and tables of extensions are left out.

        Raises:
            ConfigError: Wrong credentials, or nothing there.
            SourceUnavailable: Unreachable within the connection's timeout.
        """


@dataclass(frozen=True)
class ObjectsBefore:
    """The stored lists of objects that commits have read.

    Attributes:
        name: Name of the last commit's list.
        last: That list.
        whole: The list that it adds to; None if it is whole.
    """

    name: str
    last: bytes
    whole: bytes | None = None


@runtime_checkable
class ObjectSource(Source, Protocol):
    """A source whose tables are objects, and whose increments are objects not read before.

    What it reads is a list of objects, which the plan pins and the commit names. Only the source
    knows what is in a list; all other code just stores its bytes.
    """

    def has_nothing_new(self) -> bool:
        """Return whether there is no object to read."""

    def rests_on(self, chosen: bytes) -> str | None:
        """Return the name of the list that a list adds to; None if it is whole.

        Raises:
            ConfigError: The list is damaged.
        """

    def choose(self, before: ObjectsBefore | None, now: datetime) -> bytes:
        """List the objects, and return those to read and those that were read before.

        Args:
            before: What the last commit has read, if that still counts; None if the run reads all.
                A run that replaces what the commit wrote, and may keep some of it (`reuse`), gets
                it too; it reads all.
            now: The present, UTC.

        Raises:
            ConfigError: There is no object at all.
        """

    def is_current(self, chosen: bytes) -> bool:
        """Return whether every object that a list has to be read still exists, unchanged."""

    def at(self, chosen: bytes) -> ObjectSource:
        """Return the source of exactly the objects of a list."""


@runtime_checkable
class ReplicatedSource(Source, Protocol):
    """A source that several nodes serve, some of which lag behind others.

    A *position* is a node's place in the source's history. Only the source knows what is in one;
    all other code just stores it.
    """

    def position(self) -> dict[str, str] | None:
        """Return a position that covers all that `highest` last saw; None if it is not known."""

    def having_reached(self, position: Mapping[str, str]) -> ReplicatedSource:
        """Return the same source, which is known to have reached a position before.

        Its `snapshot` does not read a node that has not reached it yet.
        """


def known_at(source: Source, position: Mapping[str, str] | None) -> Source:
    """Return a source that is known to have been at a position; None changes nothing."""
    if position is None or not isinstance(source, ReplicatedSource):
        return source
    return source.having_reached(position)


def open_source(spec: ExtractSpec, spark: SparkSession | None = None) -> Source:
    """Return the source of a spec, its credentials resolved once, on the caller.

    Args:
        spec: Its ``source_type`` selects the source.
        spark: The caller's session, for sources that read through Spark; None lets them start one.

    Raises:
        ConfigError: Credentials cannot be resolved, or the source does not support what the spec
            requests.
    """
    kind = registration(spec.source_type)
    found: Source = kind.opener()(spec, spark) if kind.on_spark else kind.opener()(spec)
    return found
