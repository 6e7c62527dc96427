"""Reads the splits of a SQLite snapshot as Arrow record batches bounded by bytes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from extract_jobs.errors import ExtractError
from extract_jobs.schema import Column
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.statements import select
from extract_jobs.sources.sqlite.errors import RAISED, not_faithful, sqlite_error, undecodable
from extract_jobs.sources.sqlite.session import Rows, SqliteConnection, Version, any_text, join
from extract_jobs.sources.sqlite.sql import Relation, byte_lengths
from extract_jobs.sources.sqlite.typed_rows import TypedRows, can_be_typed
from extract_jobs.sources.sqlite.types import kind_of
from extract_jobs.sources.sqlite.values import Unfaithful, convert

BATCH_BYTES = 16 * 2**20
LARGE_ROW_BYTES = 2_048
BATCH_ROWS = BATCH_BYTES // LARGE_ROW_BYTES
"""Rows per batch; rows that are not large stay below the batch's bytes."""
_BATCH_VALUES = 500_000
"""Python's overhead per value, about 50 bytes."""
_MAX_RESULT_COLUMNS = 2_000
"""SQLite's own limit, on tables too."""


@dataclass(frozen=True)
class SqliteReader:
    """Reads splits of one snapshot. Picklable; a copy opens one connection per split.

    Attributes:
        connection: The database's file.
        version: The version that a new connection must see; None if that cannot be ensured.
        relation: What is read, with the spec's condition.
        interval: The interval's condition; None reads all rows.
        columns: What is read of each row, in the order of the batches.
        null_what_fails: Columns whose values without a faithful form become NULL.
        what: What is read, for messages.
        rowid: SQL of the rowid, if rows may be read by `typed_rows`.
        holder: Process that holds the snapshot.
        held: The snapshot's own connection, used in its process. Not pickled.
        nulled: Values that became NULL because they had no faithful form, by column, in this copy's
            latest read. Not pickled.
    """

    connection: SqliteConnection
    version: Version | None
    relation: Relation
    interval: str | None
    columns: tuple[Column, ...]
    null_what_fails: frozenset[str]
    what: str
    rowid: str | None = None
    holder: int = field(default_factory=os.getpid, compare=False)
    held: sqlite3.Connection | None = field(default=None, compare=False, repr=False)
    nulled: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Drop what belongs to this process: the connection and its last read's counts."""
        return self.__dict__ | {"held": None, "nulled": {}}

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch."""
        return pa.schema([pa.field(c.name, c.arrow_type, c.nullable) for c in self.columns])

    def only(self, columns: Sequence[str]) -> SqliteReader:
        """Read some columns only. See `extract_jobs.sources.Reader.only`."""
        chosen = tuple(column for column in self.columns if column.name in columns)
        return replace(self, columns=chosen, nulled={})

    def read(self, split: Split) -> Iterator[pa.RecordBatch]:
        """Yield the split's rows. See `extract_jobs.sources.Reader.read`.

        Uses the snapshot's own connection if this reader has it, else a new one that is checked to
        see the same version.
        """
        self.nulled.clear()
        if self.held is not None:
            yield from self._batches(self.held, self.statements(split))
            return
        statements = self.statements(split)
        if (typed := self._typed(split)) is not None:
            yield from typed.batches(self.schema)
            if typed.complete:
                return
            statements = self._rest(split, typed.rows)
        with contextlib.closing(join(self.connection, self.version, self.what)) as opened:
            yield from self._batches(opened, statements)

    def _typed(self, split: Split) -> TypedRows | None:
        """Return what reads the split without looking at each value, if that can be."""
        if self.rowid is None or self.version is None or os.getpid() == self.holder:
            return None
        if not can_be_typed(self.columns):
            return None
        conditions = self.interval, split.predicate
        return TypedRows(
            self.connection, self.version, self.relation, self.rowid, conditions, self.columns,
            self.what,
        )  # fmt: skip

    def _rest(self, split: Split, done: int) -> list[str]:
        """Return the statement that reads a split's rows behind the first ones, by rowid."""
        assert self.rowid is not None
        [statement] = replace(self, relation=self.relation.unindexed()).statements(split)
        return [f"{statement} order by {self.rowid} limit -1 offset {done}"]

    def statements(self, split: Split) -> list[str]:
        """Return the statement that reads a split. See `extract_jobs.sources.SqlReader`."""
        expressions = [column.expression for column in self.columns]
        if self._flags_large_rows:
            expressions.append(self._large())
        return [select(expressions, self.relation, self.interval, split.predicate)]

    @property
    def _flags_large_rows(self) -> bool:
        return len(self.columns) < _MAX_RESULT_COLUMNS

    def _batches(
        self, opened: sqlite3.Connection, statements: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        [statement] = statements
        schema, flagged = self.schema, self._flags_large_rows
        with contextlib.closing(self._rows(opened, statement, flagged=flagged)) as batches:
            for rows in batches:
                yield self._batch(rows, schema)

    def _large(self) -> str:
        """Return SQL that flags large rows without reading long values."""
        texts = ("text", "binary", "any", "all")
        sizes = byte_lengths([c.expression for c in self.columns if kind_of(c) in texts])
        return f"{sizes} > {LARGE_ROW_BYTES}" if sizes else "0"

    def _rows(
        self, opened: sqlite3.Connection, statement: str, *, flagged: bool
    ) -> Generator[Rows]:
        """Yield the rows of a batch; if flagged, the last item marks a large row."""
        failure: ExtractError | None = None
        most = min(BATCH_ROWS, max(1, _BATCH_VALUES // len(self.columns)))
        cursor = opened.cursor()
        try:
            # Strict decoding is faster, and refuses text that is not UTF-8.
            opened.text_factory = str if self._is_strict() else any_text
            rows: Rows = []
            size = 0
            for row in cursor.execute(statement):
                rows.append(row)
                if not flagged or row[-1]:
                    size += sum(len(value) for value in row if isinstance(value, str | bytes))
                if size >= BATCH_BYTES or len(rows) >= most:
                    yield rows
                    rows, size = [], 0
            if rows:
                yield rows
        except RAISED as error:
            failure = self._failure(error)
        finally:
            cursor.close()
            opened.text_factory = any_text
        # Raised outside the handler: the original may quote rows.
        if failure is not None:
            raise failure

    def _is_strict(self) -> bool:
        """Return whether text that is not UTF-8 is refused in every column."""
        takes_any = any(kind_of(column) == "all" for column in self.columns)
        return not self.null_what_fails and not takes_any

    def _failure(self, error: BaseException) -> ExtractError:
        position = undecodable(error)
        if position is None:
            return sqlite_error(error, self.what, self.connection.path)
        column = self.columns[position]
        return not_faithful(column.name, column.source_type, column.rule, "text that is not UTF-8")

    def _batch(self, rows: Rows, schema: pa.Schema) -> pa.RecordBatch:
        arrays = []
        by_column = list(zip(*rows, strict=True))[: len(self.columns)]
        for column, values in zip(self.columns, by_column, strict=True):
            reason = None
            try:
                to_null = column.name in self.null_what_fails
                array, failed = convert(values, column, null_what_fails=to_null)
            except Unfaithful as error:
                reason = str(error)
            if reason is not None:
                raise not_faithful(column.name, column.source_type, column.rule, reason)
            if failed:
                self.nulled[column.name] = self.nulled.get(column.name, 0) + failed
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)
