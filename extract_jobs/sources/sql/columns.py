"""A column that selects rows: what a dialect defines for it, and conditions on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from extract_jobs.errors import ConfigError
from extract_jobs.sources import ReadRequest
from extract_jobs.sources.sql.statements import Relation, select
from extract_jobs.watermark import WatermarkType, WatermarkValue


@dataclass(frozen=True)
class SqlColumn(ABC):
    """A column as conditions compare it. Each dialect has its own subclass.

    Attributes:
        name: Its name.
        sql: Its name as SQL.
        source_type: Its type as messages name it.
        kind: Its kind as a watermark; None if its type does not order rows.
    """

    name: str
    sql: str
    source_type: str
    kind: WatermarkType | None

    orderable: ClassVar[str] = "an integer, a decimal, a date, a timestamp or a text"
    """The types that order rows, for messages."""
    never: ClassVar[str] = "false"
    """A condition that is never true."""
    count: ClassVar[str] = "count(*)"

    @abstractmethod
    def literal(self, text: str) -> str:
        """Return SQL of a value in `WatermarkValue`'s form that compares with the column."""

    @abstractmethod
    def value(self, found: Any) -> WatermarkValue | str:
        """Return a value that `greatest` found, or the reason why it cannot be a watermark.

        The reason never holds the value, which is row data.
        """

    def compare(self, sign: str, literal: str) -> str:
        """Return a comparison of the column with SQL of a value."""
        return f"{self.sql} {sign} {literal}"

    @property
    def is_null(self) -> str:
        """A condition that is true if the column is NULL."""
        return f"{self.sql} is null"

    @property
    def is_not_null(self) -> str:
        """The opposite of `is_null`."""
        return f"{self.sql} is not null"

    def greatest(self, relation: Relation, conditions: Sequence[str]) -> str:
        """Return a SELECT of the greatest value, in one row; without any, no row or NULL."""
        return select([f"max({self.sql})"], relation, *conditions)

    def one_row(self, literal: str) -> str:
        """Return a SELECT of a literal."""
        return f"select {literal}"

    def check_orders(self, use: str) -> None:
        """Refuse a column whose type does not order rows.

        Args:
            use: What it is to be used for, for example ``be a watermark``.

        Raises:
            ConfigError: Its type does not order rows.
        """
        if self.kind is None:
            raise ConfigError(
                f"column {self.name} is {self.source_type}, which cannot {use}; use "
                f"{self.orderable}"
            )

    def check_bound(self, bound: WatermarkValue) -> None:
        """Refuse a bound whose kind is not the column's.

        Raises:
            ConfigError: The kinds differ.
        """
        if bound.type != self.kind:
            raise ConfigError(
                f"a bound of type {bound.type} does not fit watermark column {self.name}, which "
                f"is {self.source_type}"
            )

    def within(self, lower: WatermarkValue | None, upper: WatermarkValue | None) -> list[str]:
        """Return conditions for values in ``(lower, upper]``; None is unbounded."""
        sides = ((">", lower), ("<=", upper))
        return [
            self.compare(sign, self.literal(bound.text))
            for sign, bound in sides
            if bound is not None
        ]


def no_such_column(name: str, names: Sequence[str]) -> ConfigError:
    """Return the error for a column that a table lacks."""
    return ConfigError(f"there is no column {name!r}; the columns are {', '.join(names)}")


def interval_condition(request: ReadRequest, column: Callable[[str], SqlColumn]) -> str | None:
    """Return ``column > lower and column <= upper`` for a request; None if all rows belong.

    Args:
        request: What is read.
        column: Returns the watermark column by its name.

    Raises:
        ConfigError: The column is gone, or its kind is not that of the bounds.
    """
    interval = request.interval
    if interval is None or request.watermark_column is None:
        return None
    found = column(request.watermark_column)
    if interval.empty:
        return found.is_null if request.include_null_watermarks else found.never
    if interval.lower is None and interval.upper is None:
        return None if request.include_null_watermarks else found.is_not_null
    for bound in (interval.lower, interval.upper):
        if bound is not None and bound.type != found.kind:
            raise ConfigError(
                f"watermark column {found.name} is now {found.source_type}, but the watermark kept "
                f"for it is of type {bound.type}: extract the table in full, or give "
                "watermark.lower"
            )
    condition = " and ".join(found.within(interval.lower, interval.upper))
    return f"{condition} or {found.is_null}" if request.include_null_watermarks else condition
