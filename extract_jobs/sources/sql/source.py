"""The parts of `Source` that all SQL sources share; subclasses send the queries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar

from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources.sql.columns import SqlColumn
from extract_jobs.sources.sql.statements import Relation, select
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.columns import is_chosen, refuse_doubled
from extract_jobs.watermark import TIME_TYPES, WatermarkValue, is_before

Rows = list[tuple[Any, ...]]


class SqlTable(Protocol):
    """A spec's table or query, described by the database's catalog."""

    @property
    def relation(self) -> Relation:
        """The table or query in a FROM clause."""

    def column(self, name: str) -> SqlColumn:
        """Return a column. Raises ConfigError if there is no such column."""


OpenedT = TypeVar("OpenedT")
TableT = TypeVar("TableT", bound=SqlTable)
TypeT = TypeVar("TypeT")


class SqlSource(ABC, Generic[OpenedT, TableT]):
    """One table, view or query of a SQL database: `extract_jobs.sources.Source` without `snapshot`.

    Attributes:
        spec: What is extracted.
    """

    spec: ExtractSpec

    @abstractmethod
    def _session(self, what: str) -> AbstractContextManager[tuple[OpenedT, TableT]]:
        """Connect and find the table; ``what`` names the action in messages."""

    @abstractmethod
    def _rows(self, opened: OpenedT, statement: str) -> Rows:
        """Run a statement."""

    @abstractmethod
    def _describe(self, opened: OpenedT, table: TableT) -> TableDescription:
        """Return what `describe` promises."""

    def _latest(self, opened: OpenedT, column: SqlColumn, delay: timedelta) -> str:
        """Return SQL of the latest time to extract: the server's clock less a delay.

        For dates it is the last day that was over by then, because more rows of an unfinished day
        may arrive. A wall clock without a zone counts as UTC or as the server's zone, whichever is
        earlier: writers use either, and too early loses nothing.
        """
        del opened, delay
        raise AssertionError(f"{column.name} is not a time; this source has no time columns")

    def _check_bound(self, opened: OpenedT, column: SqlColumn, bound: WatermarkValue) -> None:
        """Refuse a bound that is not a value of the column."""
        del opened
        column.check_bound(bound)

    def describe(self) -> TableDescription:
        """Describe the table. See `extract_jobs.sources.Source.describe`."""
        with self._session(f"describing {self.name}") as (opened, table):
            return self._describe(opened, table)

    def highest(
        self,
        column: str,
        *,
        lower: WatermarkValue | None = None,
        upper: WatermarkValue | None = None,
        delay: timedelta | None = None,
    ) -> WatermarkValue | None:
        """Return the greatest value. See `extract_jobs.sources.Source.highest`."""
        with self._session(f"reading the highest {column} of {self.name}") as (opened, table):
            found = self._watermark(opened, table, column, lower, upper)
            conditions = found.within(lower, upper)
            if delay is not None:
                if found.kind not in TIME_TYPES:
                    raise ConfigError(
                        f"watermark.delay needs a time, and column {column} is {found.source_type}"
                    )
                conditions.append(found.compare("<=", self._latest(opened, found, delay)))
            rows = self._rows(opened, found.greatest(table.relation, conditions))
        if not rows or rows[0][0] is None:
            return None
        value = found.value(rows[0][0])
        if isinstance(value, str):
            raise TypeNotRepresentable(
                f"the highest value of watermark column {column} ({found.source_type}) is {value}: "
                "as a watermark it would hide every later row; correct it, leave it out with "
                "where, or give watermark.upper"
            )
        # Truncated to microseconds it may equal the lower bound: then there is no new value to
        # name.
        return None if value == lower else value

    def precedes(self, column: str, left: WatermarkValue, right: WatermarkValue) -> bool:
        """Compare two values. See `extract_jobs.sources.Source.precedes`."""
        with self._session(f"comparing values of {column} of {self.name}") as (opened, table):
            found, relation = self._watermark(opened, table, column, left, right), table.relation
            if found.kind != "string":
                return is_before(left, right)
            # The column gives the literals its type and collation; no row is read.
            nothing = select([found.sql], relation, found.never)
            values = f"{nothing} union all {found.one_row(found.literal(left.text))}"
            condition = replace(found, sql=relation.alias("c0")).compare(
                "<", found.literal(right.text)
            )
            rows = self._rows(
                opened,
                f"select {found.count} from ({values}) {relation.alias('v')} where {condition}",
            )
            return int(rows[0][0]) == 1

    def null_watermarks(self, column: str) -> int:
        """Count the NULLs. See `extract_jobs.sources.Source.null_watermarks`."""
        with self._session(f"counting NULL in {column} of {self.name}") as (opened, table):
            found = table.column(column)
            statement = select([found.count], table.relation, found.is_null)
            return int(self._rows(opened, statement)[0][0])

    @property
    def name(self) -> str:
        """The table's name, for messages."""
        return self.spec.extract_table

    def _watermark(
        self, opened: OpenedT, table: TableT, name: str, *bounds: WatermarkValue | None
    ) -> SqlColumn:
        column = table.column(name)
        column.check_orders("be a watermark")
        for bound in bounds:
            if bound is not None:
                self._check_bound(opened, column, bound)
        return column

    def _columns(
        self,
        types: Sequence[tuple[str, bool, TypeT]],
        make: Callable[[str, bool, TypeT, str | None], Column | str],
    ) -> tuple[Column, ...]:
        """Return described columns.

        Args:
            types: Name, nullability and type of each, in their order.
            make: Builds a column from these and the spec's cast, or returns the reason why it
                cannot be read. A column that is not chosen is never read, so it is built as cast to
                string, which is refused least often.

        Raises:
            ConfigError: There are no columns, or two have the same name.
            TypeNotRepresentable: Some cannot be read; all of them are named.
        """
        names = [name for name, _, _ in types]
        refuse_doubled(names)
        if not names:
            raise ConfigError(f"{self.name} has no columns")
        cast = self.spec.columns.cast
        made = [
            make(
                name,
                nullable,
                kind,
                cast.get(name) or (None if is_chosen(name, self.spec, names) else "string"),
            )
            for name, nullable, kind in types
        ]
        if refused := [reason for reason in made if isinstance(reason, str)]:
            raise TypeNotRepresentable(f"{self.name}: {'; '.join(refused)}")
        return tuple(column for column in made if isinstance(column, Column))
