"""What PostgreSQL's catalog says about a spec's table or query, at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from extract_jobs.sources.postgres.catalog import Leaf, Table
from extract_jobs.sources.postgres.columns import PostgresColumn
from extract_jobs.sources.postgres.expressions import PostgresType
from extract_jobs.sources.sql.columns import no_such_column
from extract_jobs.sources.sql.statements import Relation


@dataclass(frozen=True)
class CatalogEntry:
    """What PostgreSQL's catalog says about a spec's table or query.

    Attributes:
        table: None for a query.
        relation: The table or query in a FROM clause.
        leaves: Tables with storage below it; none for views and queries.
        types: Name, nullability and type of each column.
    """

    table: Table | None
    relation: Relation
    leaves: tuple[Leaf, ...]
    types: tuple[tuple[str, bool, PostgresType], ...]

    def base_type(self, column: str) -> str:
        """Return the type below a column's domains.

        Raises:
            ConfigError: There is no such column.
        """
        for name, _, found in self.types:
            if name == column:
                return found.printed if found.is_array or not found.built_in else found.base
        raise no_such_column(column, [name for name, _, _ in self.types])

    def column(self, name: str) -> PostgresColumn:
        """Return a column for use in conditions. Raises as `base_type` does."""
        return PostgresColumn.of(name, self.base_type(name))
