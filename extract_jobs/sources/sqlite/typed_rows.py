"""Rows of a table as Arrow, without a Python object for each value, as long as all are uniform.

ADBC's SQLite driver takes the type of a column from its first value. So a row of the wanted types
goes first, and the statement itself fails at the first value of another storage class, or the first
row that is large. The caller reads on from there in the exact way, value by value.

The driver brings a SQLite of its own. When a process closes a file, POSIX drops all its locks on it
(see `session`), so nothing here may run in a process in which Python's SQLite has the file open.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.schema import Column
from extract_jobs.sources.sql.statements import select
from extract_jobs.sources.sqlite.session import SqliteConnection, Version, check_version
from extract_jobs.sources.sqlite.sql import Relation, byte_lengths
from extract_jobs.sources.sqlite.types import Kind, kind_of
from extract_jobs.transform.exact_cast import exact_cast

_ROWS = 4_096
_ROW_BYTES = 8_192
"""A batch of such rows, none of which is larger, takes 32 MiB at most."""
_VALUES = 500_000
_EXACT_DOUBLE = 2**53
_FAILS = "abs(-9223372036854775807 - ({0} = {0}))"
"""SQL that SQLite fails with "integer overflow", and cannot evaluate in advance."""


@dataclass(frozen=True)
class _Way:
    """How values of a kind are read.

    Attributes:
        first: Literal of the type that the driver is to use.
        type: The Arrow type that it then gives.
        odd: SQL that is true for values that would not arrive as they are. SQLite sorts numbers
            before texts, and texts before blobs.
    """

    first: str
    type: pa.DataType
    odd: str | None


_LARGE_INTEGER = (
    f"(typeof({{0}}) = 'integer' and ({{0}} > {_EXACT_DOUBLE} or {{0}} < -{_EXACT_DOUBLE}))"
)
# The driver itself fails at a value that is not a number in a column of numbers.
_WAYS: dict[Kind, _Way] = {
    "integer": _Way("0", pa.int64(), None),
    "boolean": _Way("0", pa.int64(), "{0} not in (0, 1)"),
    "text": _Way("''", pa.string(), "({0} >= x'' or {0} < '')"),
    "any": _Way("''", pa.string(), "({0} >= x'' or typeof({0}) = 'real')"),
    "binary": _Way("x''", pa.binary(), "{0} < x''"),
    "real": _Way("0.5", pa.float64(), _LARGE_INTEGER),
    "decimal": _Way("0.5", pa.float64(), _LARGE_INTEGER),
}


def can_be_typed(columns: Sequence[Column]) -> bool:
    """Return whether the driver is installed, and columns have kinds that it can read."""
    known = all(kind_of(column) in _WAYS for column in columns)
    return known and find_spec("adbc_driver_sqlite") is not None


@dataclass
class TypedRows:
    """One read of some rows of a table with rowids, in their order.

    Attributes:
        connection: The database's file.
        version: The version that must be seen.
        relation: The table.
        rowid: SQL of its rowid.
        conditions: SQL of the rows that are read; None are left out.
        columns: What is read of each, of kinds for which `can_be_typed`.
        what: What is read, for messages.
        rows: How many have been yielded.
        complete: Whether these were all.
    """

    connection: SqliteConnection
    version: Version
    relation: Relation
    rowid: str
    conditions: tuple[str | None, ...]
    columns: tuple[Column, ...]
    what: str
    rows: int = field(default=0, init=False)
    complete: bool = field(default=False, init=False)

    def batches(self, schema: pa.Schema) -> Generator[pa.RecordBatch]:
        """Yield the rows up to the first batch with a value that only the exact way can judge.

        Raises:
            SourceUnavailable: The database has moved on, or its file was replaced.
        """
        with contextlib.suppress(pa.ArrowException, OSError), _opened(self.connection) as query:
            check_version(self.connection, self.version, self.what)
            for batch in self._read(query):
                yield pa.RecordBatch.from_arrays(self._converted(batch), schema=schema)
                self.rows += batch.num_rows
            self.complete = True

    def statement(self) -> str:
        """Return SQL of a row of the wanted types and, behind it, the rows in their order."""
        first = ", ".join(self._way(column).first for column in self.columns)
        expressions = [column.expression for column in self.columns]
        odd = [
            way.odd.format(column.expression)
            for column in self.columns
            if (way := self._way(column)).odd
        ]
        sized = [c.expression for c in self.columns if kind_of(c) in ("text", "any", "binary")]
        if sized:
            odd.append(f"{byte_lengths(sized)} > {_ROW_BYTES}")
        checked = None
        if odd:
            checked = f"case when {' or '.join(odd)} then {_FAILS.format(self.rowid)} else 1 end"
        # Without an index, rows come in the order of their rowids.
        scanned = self.relation.unindexed()
        return f"select {first} union all {select(expressions, scanned, *self.conditions, checked)}"

    def _read(self, query: _Query) -> Iterator[pa.RecordBatch]:
        rows = max(1, min(_ROWS, _VALUES // len(self.columns)))
        with query(self.statement(), rows) as reader:
            if reader.schema.types != [self._way(column).type for column in self.columns]:
                raise pa.ArrowInvalid("the first rows have values of other types")
            behind_first = 1
            for batch in reader:
                yield batch.slice(behind_first)
                behind_first = 0

    def _converted(self, batch: pa.RecordBatch) -> list[pa.Array]:
        return [
            _converted(values, kind_of(column), column.arrow_type)
            for column, values in zip(self.columns, batch.columns, strict=True)
        ]

    def _way(self, column: Column) -> _Way:
        return _WAYS[kind_of(column)]


_Query = Callable[[str, int], AbstractContextManager[pa.RecordBatchReader]]
"""Runs a statement, and reads so many rows at a time."""


@contextlib.contextmanager
def _opened(connection: SqliteConnection) -> Iterator[_Query]:
    """Open the database through the driver, in a transaction that has its snapshot.

    Raises:
        ArrowInvalid: The driver failed, or the database's text is not UTF-8: versions of SQLite
            differ in how they translate damaged UTF-16.
    """
    import adbc_driver_manager
    import adbc_driver_sqlite

    uri = f"{Path(connection.path).as_uri()}?mode=ro"
    try:
        with (
            adbc_driver_sqlite.connect(uri) as database,
            adbc_driver_manager.AdbcConnection(database) as opened,
        ):

            @contextlib.contextmanager
            def query(text: str, rows: int = 1) -> Iterator[pa.RecordBatchReader]:
                with adbc_driver_manager.AdbcStatement(opened) as statement:
                    statement.set_options(**{"adbc.sqlite.query.batch_rows": str(rows)})
                    statement.set_sql_query(text)
                    stream, _ = statement.execute_query()
                    with pa.RecordBatchReader.from_stream(stream) as reader:
                        yield reader

            with query(f"pragma busy_timeout = {connection.timeout_seconds * 1000}") as reader:
                reader.read_all()
            opened.set_autocommit(False)
            with query("select 1 from sqlite_schema limit 1") as reader:
                reader.read_all()
            with query("pragma encoding") as reader:
                if reader.read_all().to_pylist() != [{"encoding": "UTF-8"}]:
                    raise pa.ArrowInvalid("not UTF-8")
            yield query
    except adbc_driver_manager.Error as error:
        raise pa.ArrowInvalid(str(error)) from None


def _converted(values: pa.Array, kind: Kind, arrow: pa.DataType) -> pa.Array:
    """Return the driver's values in their column's type.

    Raises:
        ArrowInvalid: One has no faithful form, as far as can be told here.
    """
    convert = _CONVERT.get(kind)
    return convert(values, arrow) if convert else values


def _utf8(values: pa.Array, _: pa.DataType) -> pa.Array:
    values.validate(full=True)
    return values


def _decimals(values: pa.Array, arrow: pa.DataType) -> pa.Array:
    # Arrow prints a double as the shortest text that reads back, as Python does.
    return exact_cast(values.cast(pa.string()), arrow)


_CONVERT: dict[Kind, Callable[[pa.Array, pa.DataType], pa.Array]] = {
    "text": _utf8,
    "any": _utf8,
    "boolean": lambda values, _: pc.equal(values, 1),
    "decimal": _decimals,
}
