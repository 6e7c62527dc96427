"""Reads the splits of a MySQL table as Arrow record batches bounded by bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.schema import Column
from extract_jobs.sources.mysql.cut_values import check_nothing_cut
from extract_jobs.sources.mysql.driver import Connection
from extract_jobs.sources.mysql.lending import borrowed
from extract_jobs.sources.mysql.session import session
from extract_jobs.sources.mysql.sql import quote_name
from extract_jobs.sources.mysql.types import largest_value
from extract_jobs.sources.mysql.values import parse
from extract_jobs.sources.mysql.wire import stream
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.statements import Relation, select

BATCH_BYTES = 4 * 2**20
_BATCH_ROWS = 131_072


@dataclass(frozen=True)
class MysqlReader:
    """Reads splits, each in one read transaction. Picklable; one connection per split.

    A split sees one moment of its InnoDB tables. All splits see the same moment if there are
    sessions to borrow. Otherwise each has its own transaction, and a row whose key changes between
    two of them may be in both or in neither.

    Attributes:
        connection: The server, pinned to the node that the table was split on.
        relation: What is read, with the spec's own condition.
        interval: The interval's condition; None reads all rows.
        columns: What is read of each row, in the order of the batches.
        null_what_fails: Columns whose values without a faithful form become NULL.
        what: What is being done, for messages.
        most_bytes: The largest value that is fetched; a larger one fails the read.
        sessions: Where this machine lends sessions of one moment; None opens one per split.
        nulled: See `extract_jobs.sources.Reader.nulled`.
    """

    connection: DatabaseConnection
    relation: Relation
    interval: str | None
    columns: tuple[Column, ...]
    null_what_fails: frozenset[str]
    what: str
    most_bytes: int
    sessions: str | None = None
    nulled: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Drop the counts: they belong to this copy's last read."""
        return self.__dict__ | {"nulled": {}}

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch."""
        return pa.schema([pa.field(c.name, c.arrow_type, c.nullable) for c in self.columns])

    def only(self, columns: Sequence[str]) -> MysqlReader:
        """Read some columns only. See `extract_jobs.sources.Reader.only`."""
        chosen = tuple(column for column in self.columns if column.name in columns)
        return replace(self, columns=chosen, nulled={})

    def read(self, split: Split) -> Iterator[pa.RecordBatch]:
        """Yield the split's rows. See `extract_jobs.sources.Reader.read`."""
        self.nulled.clear()
        [statement] = self.statements(split)
        with self.transaction(self.what) as opened:
            for arrays in self._checked(opened, statement):
                if self._large():
                    self._refuse_too_large(arrays.pop())
                yield self._finished(arrays)

    def statements(self, split: Split) -> list[str]:
        """Return the statement that reads a split. See `extract_jobs.sources.SqlReader`."""
        expressions = [column.expression for column in self.columns]
        cases = []
        for position, size in self._large().items():
            is_too_large = f"{size} > {self.most_bytes}"
            expressions[position] = f"if({is_too_large}, null, {expressions[position]})"
            cases.append(f"when {is_too_large} then concat({position}, ' ', {size})")
        if cases:
            expressions.append(f"case {' '.join(cases)} end")
        return [select(expressions, self.relation, self.interval, split.predicate)]

    def transaction(self, what: str) -> AbstractContextManager[Connection]:
        """Return a session in a transaction that sees the moment that is read.

        Args:
            what: What is being done, for the error message.
        """
        if self.sessions is not None:
            return borrowed(self.sessions, what, self.connection.stall_seconds)
        return session(self.connection, what)

    def _checked(self, opened: Connection, statement: str) -> Iterator[list[pa.Array]]:
        """Yield a statement's rows, and fail after them if the server cut any of them."""
        warned = yield from stream(
            opened, statement, batch_bytes=BATCH_BYTES, batch_rows=_BATCH_ROWS
        )
        check_nothing_cut(
            opened,
            warned,
            self.what,
            accounted=sum(
                self.nulled.get(column.name, 0)
                for column in self.columns
                if pa.types.is_string(column.arrow_type)
            ),
            is_own=self.relation.kind in ("table", "partitioned"),
        )

    def _large(self) -> dict[int, str]:
        """Return SQL for the bytes of the columns whose values may be too large, by position."""
        return {
            position: f"octet_length({quote_name(column.name)})"
            for position, column in enumerate(self.columns)
            if largest_value(column.source_type) > self.most_bytes
        }

    def _refuse_too_large(self, found: pa.Array) -> None:
        """Refuse rows of which the server has left a value out because of its size."""
        if found.null_count == len(found):
            return
        position, size = map(int, found.drop_null()[0].as_py().split())
        raise TypeNotRepresentable(
            f"{self.what}: column {self.columns[position].name!r} has a value of {size:,} bytes, "
            f"and max_value_bytes allows {self.most_bytes:,}. Leave the column out with "
            "columns.exclude, or raise max_value_bytes"
        )

    def _finished(self, arrays: list[pa.Array]) -> pa.RecordBatch:
        parsed = []
        for column, values in zip(self.columns, arrays, strict=True):
            to_null = column.name in self.null_what_fails
            made, lost = parse(values, column, null_what_fails=to_null)
            if lost:
                self.nulled[column.name] = self.nulled.get(column.name, 0) + lost
            parsed.append(made)
        return pa.RecordBatch.from_arrays(parsed, schema=self.schema)
