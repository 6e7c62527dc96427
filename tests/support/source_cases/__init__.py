"""What the behaviour suite for all sources needs to know about each source.

A source is added with a module here, which has a `SourceDatabase` and a `SourceCase`, and a line in
`CASES`. The suite itself is ``tests/contract/test_sources.py``; its results are printed as a table
of source × behaviour at the end of every run that included it (`tests.support.source_matrix`).

The suite's tables have only 64-bit integers and text, which every source has: how a source's types
arrive is covered by its own tests.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa
import pytest

from extract_jobs.sources import Snapshot
from extract_jobs.sources.splits import Split
from extract_jobs.spec.extract_spec import ExtractSpec

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Behaviour = Literal[
    "describe",
    "plan",
    "splits",
    "full",
    "sample",
    "incremental",
    "empty table",
    "NULL keys",
    "NULL watermarks",
    "reconcile",
    "retry",
    "hostile names",
    "no such table",
    "wrong password",
    "unreachable",
]
BEHAVIOURS: tuple[Behaviour, ...] = get_args(Behaviour)

Kind = Literal["integer", "text"]
"""A column's kind: a 64-bit integer, or text of up to 300 characters. NULL is allowed."""

HOSTILE = (
    "we\"ird quo'te",
    "do.ts.in.it",
    "semi; drop table x; --",
    "new\nline",
    "Ünïcödé ☃ 😀",
    "UPPER",
    "select",
    "back\\slash `tick` [bracket]",
    "per%s cent=% $${brace}",
    "é" * 31,
)
"""Names that have broken a client or a path before; PostgreSQL accepts 62 bytes."""


class SourceDatabase(ABC):
    """One empty database (or folder) of a source, which a test fills and extracts from.

    Attributes:
        source_type: The spec's.
        connection: The spec's.
        several: ``split`` with which a table of 2,000 rows of 200 bytes has several splits.
        spark: The session if the source reads through Spark; None for all others.
    """

    source_type: str
    connection: dict[str, Any]
    several: dict[str, Any]
    spark: SparkSession | None = None

    @abstractmethod
    def create(
        self,
        table: str,
        columns: Mapping[str, Kind],
        rows: Iterable[Sequence[int | str | None]] = (),
        key: str | None = None,
    ) -> None:
        """Create a table with rows, in the columns' order; ``key`` is its primary key."""

    @abstractmethod
    def insert(self, table: str, rows: Iterable[Sequence[int | str | None]]) -> None:
        """Add rows, committed."""

    def table(self, name: str) -> dict[str, Any]:
        """Return the keys that name a table in a spec."""
        return {"extract_table": name}

    def incremental(self, column: str) -> dict[str, Any]:
        """Return the keys that make a spec incremental by a growing ``column``."""
        return {"mode": "incremental", "watermark": {"column": column}}

    def by_column(self, column: str) -> dict[str, Any]:
        """Return a ``split`` that divides the suite's 2,000 rows by a column's values."""
        return {**self.several, "strategy": "range", "column": column}

    def breaking(self) -> AbstractContextManager[dict[str, Any]]:
        """Return a context that yields changes to a spec: its first long read breaks, no later one.

        It breaks as in production: a connection cut while rows stream, a lock, a lost file.
        """
        raise NotImplementedError

    def wrong_password(self) -> dict[str, Any]:
        """Return changes to a spec that make the source refuse the login."""
        raise NotImplementedError

    def unreachable(self) -> dict[str, Any]:
        """Return changes to a spec that point to a server that does not exist."""
        raise NotImplementedError

    def read(self, snapshot: Snapshot, split: Split) -> pa.Table:
        """Read one split as an executor does: through a reader that has been pickled."""
        reader = pickle.loads(pickle.dumps(snapshot.reader))
        return pa.Table.from_batches(list(reader.read(split)), reader.schema)

    def spec(self, folder: Path, table: str = "t", **changes: Any) -> ExtractSpec:
        """Return a spec of a full extract of one table, in one split, into a folder."""
        given = {
            "run_id": "run-1",
            "source_name": "suite",
            "source_type": self.source_type,
            "connection": self.connection,
            "split": {"strategy": "none"},
            "target": {"uri": f"{folder}/target"},
            "state_uri": f"{folder}/state",
            "report_uri": f"{folder}/report.json",
        }
        return ExtractSpec.model_validate(given | self.table(table) | changes)


@dataclass(frozen=True)
class SourceCase:
    """One source, or one kind of server of it, in the behaviour suite.

    Attributes:
        name: Its name in the table of results.
        open: Yields an empty database until its context ends; takes the fixtures that it needs
            from the request.
        lacks: Behaviours that the source cannot have, and why: they are not tested, and the table
            of results says so.
        hostile: Names that a table and a column of the source can have.
        marks: Marks of every test of the case, such as ``pytest.mark.spark``.
    """

    name: str
    open: Callable[[pytest.FixtureRequest], AbstractContextManager[SourceDatabase]]
    lacks: Mapping[Behaviour, str] = field(default_factory=dict)
    hostile: tuple[str, ...] = HOSTILE
    marks: tuple[pytest.MarkDecorator, ...] = ()


def _cases() -> dict[str, SourceCase]:
    # Imported here: each of them imports this module.
    from tests.support.source_cases import files, jdbc, mysql, postgres, sqlite

    found = [postgres.CASE, *mysql.CASES, *sqlite.CASES, *jdbc.CASES, *files.CASES]
    return {case.name: case for case in found}


CASES = _cases()
"""Every source of the suite, in the order of the table of results."""
