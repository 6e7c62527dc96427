"""Reads the splits of a PostgreSQL snapshot as Arrow record batches bounded by bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.schema import Column
from extract_jobs.sources.postgres.duckdb_reader import ReadSession
from extract_jobs.sources.postgres.node import Position
from extract_jobs.sources.postgres.rows import stream_rows
from extract_jobs.sources.postgres.sql import operator, quote_name
from extract_jobs.sources.postgres.values import (
    conform,
    failure_condition,
    hidden_by_duckdb,
)
from extract_jobs.sources.pump import Sockets, pumped
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.statements import Relation, select
from extract_jobs.transform.date_range import out_of_range
from extract_jobs.transform.utf8 import damaged_rows

Width = Literal["narrow", "mixed", "wide"]

WIDE_ROW_BYTES = 16 * 1024
"""DuckDB fills vectors of 2,048 rows whatever their size: 32 MiB for rows just below this limit. It
was seen to hold about six times a vector on the way to Arrow."""
_SIZES = 2**32
"""More than any size: an int8 holds a column's position times this, and a size."""
_FLAGS_PER_COLUMN = 60
"""Bits of one int8 that mark unfaithful values; the sign bit is not used."""


@dataclass(frozen=True)
class PostgresReader:
    """Reads splits of one snapshot. Picklable; one connection at a time, for a split or several.

    Attributes:
        connection: The database, pinned to the address that the snapshot is on.
        server_version: Such as 160002.
        snapshot_id: The exported snapshot; None if splits cannot share one.
        relation: What is read, with the spec's own condition.
        interval: The interval's condition; None reads all rows.
        columns: What is read of each row, in the order of the batches.
        width: ``narrow`` if no row can be large; ``mixed`` if rows above `WIDE_ROW_BYTES` are read
            one by one after the others; ``wide`` if every row is.
        size: SQL that estimates a row's variable bytes without fetching its out-of-line values.
        batch_rows: Rows in a batch of narrow rows.
        batch_bytes: Size at which a batch of them ends, for a view or query, whose rows alone show
            how large they are.
        null_what_fails: Columns whose values without a faithful form become NULL.
        what: What is read, for messages.
        reached: Position that a split's node must have reached; None if it is known to have.
        most_bytes: Size of the largest value; of wide rows, the server does not send larger ones.
        reads_foreign_tables: Whether some rows come from other servers, which no snapshot holds.
        nulled: Values that became NULL because they had no faithful form, by column, in the last
            read that this copy of the reader began. Not pickled.
    """

    connection: DatabaseConnection
    server_version: int
    snapshot_id: str | None
    relation: Relation
    interval: str | None
    columns: tuple[Column, ...]
    width: Width
    size: str
    batch_rows: int
    null_what_fails: frozenset[str]
    what: str
    reached: Position | None = None
    batch_bytes: int | None = None
    most_bytes: int = 2**30
    reads_foreign_tables: bool = False
    nulled: dict[str, int] = field(default_factory=dict, compare=False, repr=False)
    _kept: list[ReadSession] = field(default_factory=list, init=False, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Drop the counts and the session: they belong to this copy."""
        return self.__dict__ | {"nulled": {}, "_kept": []}

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch."""
        return pa.schema([pa.field(c.name, c.arrow_type, c.nullable) for c in self.columns])

    def only(self, columns: Sequence[str]) -> PostgresReader:
        """Read some columns only. See `extract_jobs.sources.Reader.only`."""
        chosen = tuple(column for column in self.columns if column.name in columns)
        return replace(self, columns=chosen, nulled={})

    @contextlib.contextmanager
    def one_session(self) -> Iterator[None]:
        """Read with one session inside. See `extract_jobs.sources.SessionReader`.

        Not where reads have snapshots of their own, or need another connection for wide rows.
        """
        if self.snapshot_id is None or self.width != "narrow" or self._kept:
            yield
            return
        self._kept.append(self._session())
        try:
            yield
        finally:
            self._kept.pop().close()

    def _session(self) -> ReadSession:
        return ReadSession(
            self.connection,
            server_version=self.server_version,
            snapshot_id=self.snapshot_id,
            what=self.what,
            reached=self.reached,
        )

    def read(self, split: Split) -> Iterator[pa.RecordBatch]:
        """Yield the split's rows. See `extract_jobs.sources.Reader.read`."""
        self.nulled.clear()
        schema, done = self.schema, 0
        if self.width != "wide":
            session = self._kept[-1] if self._kept else self._session()
            narrow = partial(
                session.stream,
                self._narrow_rows(split),
                rows_per_batch=self.batch_rows,
                bytes_per_batch=self.batch_bytes,
                keep=bool(self._kept),
            )
            try:
                with contextlib.closing(self._pumped(narrow, session.sockets)) as batches:
                    for batch in batches:
                        yield self._finished(batch, schema, split, done)
                        done += batch.num_rows
            except BaseException:
                if self._kept:  # the thread of a read that stalled may still be using this one
                    self._kept[-1] = self._session()
                raise
        if self.width != "narrow":
            statement = self._wide_rows(split)
            types = [column.arrow_type for column in self.columns]
            types += [pa.int64()] * (len(self._flags()) + 1)
            wide = partial(
                stream_rows,
                self.connection,
                statement,
                snapshot_id=self.snapshot_id,
                types=types,
                columns=self.columns,
                what=self.what,
                sockets=(sockets := Sockets(self.connection.port)),
                reached=self.reached,
            )
            with contextlib.closing(self._pumped(wide, sockets)) as batches:
                for batch in batches:
                    self._refuse_too_large(batch.column(batch.num_columns - 1))
                    yield self._finished(batch, schema, split, done)
                    done += batch.num_rows

    def _pumped(
        self, make: Callable[[], Generator[pa.RecordBatch]], sockets: Sockets
    ) -> Generator[pa.RecordBatch]:
        seconds = self.connection.stall_seconds
        return pumped(make, sockets, stall_seconds=seconds, what=self.what)

    def statements(self, split: Split) -> list[str]:
        """Return one statement, or one each for narrow and wide rows.

        See `extract_jobs.sources.SqlReader`.
        """
        narrow = [self._narrow_rows(split)] if self.width != "wide" else []
        return narrow + ([self._wide_rows(split)] if self.width != "narrow" else [])

    def _narrow_rows(self, split: Split) -> str:
        narrow = f"{self.size} {operator('<=')} {WIDE_ROW_BYTES}"
        only = narrow if self.width == "mixed" else None
        return self._statement(split, only)

    def _wide_rows(self, split: Split) -> str:
        wide = f"{self.size} {operator('>')} {WIDE_ROW_BYTES}"
        only = wide if self.width == "mixed" else None
        return self._statement(split, only, checks_size=True)

    def _statement(self, split: Split, only: str | None, checks_size: bool = False) -> str:
        expressions = [column.expression for column in self.columns]
        flags = [_flag_expression(group) for group in self._flags()]
        if checks_size:
            sizes = {n: size for n, c in enumerate(self.columns) if (size := exact_size(c))}
            for n, size in sizes.items():
                expressions[n] = (
                    f"case when {self._is_too_large(size)} then null else {expressions[n]} end"
                )
            flags.append(self._too_large(sizes))
        relation = self.relation_of(split.table)
        return select([*expressions, *flags], relation, self.interval, split.predicate, only)

    def relation_of(self, table: str | None) -> Relation:
        """Return what is read, or one partition of it (`Split.table`)."""
        return self.relation if table is None else replace(self.relation, source=table)

    def _is_too_large(self, size: str) -> str:
        return f"{size} {operator('>')} {self.most_bytes}"

    def _too_large(self, sizes: Mapping[int, str]) -> str:
        """Return SQL for the position and the size of a row's value that is too large, or NULL."""
        cases = [
            f"when {self._is_too_large(size)} then {n}::pg_catalog.int8 {operator('*')} {_SIZES}"
            f" {operator('+')} {size}"
            for n, size in sizes.items()
        ]
        return f"case {' '.join(cases)} end" if cases else "null::pg_catalog.int8"

    def _refuse_too_large(self, found: pa.Array) -> None:
        """Refuse rows of which the server has left a value out because of its size."""
        if found.null_count == len(found):
            return
        position, size = divmod(found.drop_null()[0].as_py(), _SIZES)
        raise TypeNotRepresentable(
            f"{self.what}: column {self.columns[position].name!r} has a value of {size:,} bytes, "
            f"and max_value_bytes allows {self.most_bytes:,}. Leave the column out with "
            "columns.exclude, or raise max_value_bytes"
        )

    def _flags(self) -> list[list[tuple[Column, str]]]:
        """Columns whose unfaithful values the server must mark, with the SQL that finds them."""
        found = []
        for column in self.columns:
            condition = failure_condition(quote_name(column.name), column.arrow_type)
            if condition and (
                column.name in self.null_what_fails or hidden_by_duckdb(column.arrow_type)
            ):
                found.append((column, condition))
        return [found[i : i + _FLAGS_PER_COLUMN] for i in range(0, len(found), _FLAGS_PER_COLUMN)]

    def _finished(
        self, batch: pa.RecordBatch, schema: pa.Schema, split: Split, done: int
    ) -> pa.RecordBatch:
        """Bring a batch to the schema; ``done`` rows of the split came before it."""
        for position, group in enumerate(self._flags(), start=len(self.columns)):
            flags = batch.column(position)
            if flags.null_count != len(flags):
                self._count(flags, [column for column, _ in group])
        arrays = []
        for index, column in enumerate(self.columns):
            found = batch.column(index)
            if damaged := damaged_rows(found):
                found = self._without(found, damaged, column, split, done)
            values = conform(found, column)
            if out_of_range(values):
                raise _refused(column, "a value that is infinite or outside years 1 to 9999")
            arrays.append(values)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _without(
        self, values: pa.Array, damaged: list[int], column: Column, split: Split, done: int
    ) -> pa.Array:
        """Return text with NULL for values that are not UTF-8, if ``lossy_types`` allows it."""
        if column.name not in self.null_what_fails or not column.nullable:
            raise TypeNotRepresentable(
                f"column {column.name} ({column.source_type}) holds text that is not valid UTF-8, "
                f"in {len(damaged)} of the rows that were read last; the first is row "
                f"{done + damaged[0] + 1} of split {split.index} in the order of reading. The "
                "database's encoding is SQL_ASCII, or invalid text was stored in it: correct the "
                "text, convert it in a query, for example with convert_from(…), exclude the "
                "column, or set lossy_types: null to write NULL for it, if the column admits NULL"
            )
        self.nulled[column.name] = self.nulled.get(column.name, 0) + len(damaged)
        bad = set(damaged)
        mask = pa.array([row in bad for row in range(len(values))])
        return pc.if_else(mask, pa.scalar(None, values.type), values)

    def _count(self, flags: pa.Array, columns: list[Column]) -> None:
        for bit, column in enumerate(columns):
            marked = pc.not_equal(pc.bit_wise_and(flags, pa.scalar(1 << bit, pa.int64())), 0)
            count = pc.sum(marked).as_py() or 0
            if count and column.name not in self.null_what_fails:
                kind = (
                    "an array of several dimensions, or one that does not start at 1, or that has "
                    "an element without a faithful form"
                    if pa.types.is_list(column.arrow_type)
                    else "NaN"
                )
                raise _refused(column, kind)
            if count:
                self.nulled[column.name] = self.nulled.get(column.name, 0) + count


def exact_size(column: Column) -> str | None:
    """Return SQL for the bytes of a column's value, which fetches none; None for no such SQL.

    Of text and bytea the server knows them from the pointer to what is stored elsewhere.
    """
    kind = column.arrow_type
    variable = pa.types.is_string(kind) or pa.types.is_binary(kind)
    if column.fidelity != "lossless" or not variable:
        return None
    return f"pg_catalog.octet_length({quote_name(column.name)})"


def _flag_expression(group: list[tuple[Column, str]]) -> str:
    bits = [
        f"case when {condition} then {1 << bit}::pg_catalog.int8 else 0 end"
        for bit, (_, condition) in enumerate(group)
    ]
    anyone = " or ".join(condition for _, condition in group)
    joined = f" {operator('|')} ".join(f"({bit})" for bit in bits)
    return f"case when {anyone} then {joined} end"


def _refused(column: Column, value: str) -> TypeNotRepresentable:
    return TypeNotRepresentable(
        f"column {column.name} ({column.source_type}) holds {value}: {column.rule}. Set "
        f"lossy_types: null to write NULL for it, set columns: {{cast: {{{column.name}: string}}}} "
        "or lossy_types: string to take the server's text, or leave such rows out with where"
    )
