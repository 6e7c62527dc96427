"""A table of a source, as a listing names it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ListedTable:
    """One table of a source, as a config names it.

    Attributes:
        name: ``schema.table``, parts quoted where a config needs it.
        is_view: Whether its rows are stored elsewhere.
        indexed: Columns that are first in an index, whole and usable.
        glob: For files, the glob that makes the table; None for databases.
        format: Of its files, if their names do not say it.
        delimiter: For CSV, what separates its columns; None is a comma.
        problem: Why it cannot be extracted as listed; None if it can.
        bare: Its name without the schema, if that finds it too.
        schema: Its schema, unquoted; None if the source has no schemas.
        table: Its name without the schema, unquoted.
    """

    name: str
    is_view: bool = False
    indexed: frozenset[str] = frozenset()
    glob: str | None = None
    format: str | None = None
    delimiter: str | None = None
    problem: str | None = None
    bare: str | None = None
    schema: str | None = None
    table: str = ""

    @property
    def plain(self) -> str:
        """``schema.table`` without quotes, which patterns are compared with."""
        return self.table if self.schema is None else f"{self.schema}.{self.table}"
