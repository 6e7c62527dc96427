"""A database's catalog through JDBC: names, columns, keys, sizes. No row is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from extract_jobs.errors import ConfigError
from extract_jobs.sources.jdbc.columns import JdbcColumn
from extract_jobs.sources.jdbc.dialects import Dialect
from extract_jobs.sources.jdbc.jvm import Opened
from extract_jobs.sources.jdbc.rules import JDBC_NAMES
from extract_jobs.sources.jdbc.sql import Relation, query_relation, quote_text
from extract_jobs.sources.jdbc.types import Typed, quote_name, typed
from extract_jobs.sources.sql.columns import no_such_column
from extract_jobs.sources.sql.names import nearest, readings, spelled
from extract_jobs.sources.sql.statements import where_clause
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.listed_table import ListedTable


@dataclass(frozen=True)
class Table:
    """A table or view from ``DatabaseMetaData.getTables``.

    Attributes:
        catalog: Its catalog; None if the database has none.
        schema: Its schema; None if the database has none.
        name: Its name.
        is_view: Whether it is a view.
        is_plain: Whether users made it and rows can be selected from it: neither the database's
            own, nor a synonym or a temporary table.
    """

    catalog: str | None
    schema: str | None
    name: str
    is_view: bool
    is_plain: bool = True


@dataclass(frozen=True)
class JdbcTable:
    """A spec's table or query, as the catalog describes it.

    Attributes:
        table: None for a query.
        relation: The table or query in a FROM clause.
        columns: In the source's order.
        key: Its primary key.
        rows: From the database's statistics; None if there are none.
        bytes: Likewise; if they have only rows, estimated from the columns' types.
    """

    table: Table | None
    relation: Relation
    columns: tuple[Typed, ...]
    key: tuple[str, ...] = ()
    rows: int | None = None
    bytes: int | None = None

    def row_bytes(self, columns: Sequence[str]) -> int:
        """Return the estimated size of a large row of some columns, in bytes.

        Estimated from the columns' types, and at most eight times the statistics' average.
        """
        most = sum(most_of(c) for c in self.columns if c.described.name in columns)
        if not self.rows or not self.bytes or self.table is None:
            return most
        return min(most, 8 * max(self.bytes // self.rows, 1))

    @property
    def dialect(self) -> Dialect:
        """The database's dialect."""
        return self.relation.dialect

    def column(self, name: str) -> JdbcColumn:
        """Return the column of that exact name, for conditions.

        Raises:
            ConfigError: There is no such column.
        """
        for column in self.columns:
            if column.described.name == name:
                return JdbcColumn.of(column, self.dialect)
        raise no_such_column(name, [column.described.name for column in self.columns])


def look_up(opened: Opened, spec: ExtractSpec, dialect: Dialect) -> JdbcTable:
    """Find a spec's table or query, and let the database describe its columns.

    Raises:
        ConfigError: There is no such table (the nearest are named), or several.
    """
    if spec.query is not None:
        relation = query_relation(spec.query, spec.where, dialect)
        return JdbcTable(None, relation, _columns(opened, relation))
    table = find_table(opened, spec.extract_table, dialect)
    kind: Literal["table", "view"] = "view" if table.is_view else "table"
    relation = Relation(qualified(table, dialect), kind, spec.where, dialect=dialect)
    columns = _columns(opened, relation)
    rows, size = _estimated(opened, table, dialect)
    if size is None and rows is not None:
        size = rows * sum(map(width_of, columns))
    key = () if table.is_view else opened.primary_key(table.catalog, table.schema, table.name)
    return JdbcTable(table, relation, columns, key, rows, size)


def _columns(opened: Opened, relation: Relation) -> tuple[Typed, ...]:
    # With the spec's condition, so that the database checks it before anything is read.
    none = where_clause(relation.where, "1 = 0")
    described = opened.columns(f"select * from {relation.source}{none}")
    return tuple(typed(column, relation.dialect) for column in described)


def find_table(opened: Opened, name: str, dialect: Dialect) -> Table:
    """Find the table that a spec names, spelt exactly; schema and table may hold dots."""
    current = opened.java.getCatalog()
    for schema, table in readings(name):
        hits = [found for found in _named(opened, table, dialect) if schema in (None, found.schema)]
        if schema is None and len(hits) > 1:
            hits = _preferred(opened, hits, current, dialect)
        if len(hits) > 1:
            raise ConfigError(
                f"table {name!r} is in several schemas: "
                f"{', '.join(sorted(f'{hit.schema}.{hit.name}' for hit in hits))}; name one of them"
            )
        if hits:
            return hits[0]
    raise ConfigError(
        f"there is no table {name!r} in the database{_nearest(opened, name, dialect)}"
    )


def list_tables(opened: Opened, dialect: Dialect) -> list[ListedTable]:
    """Return every table and view of a user. See `extract_jobs.sources.ListingSource`."""
    made = _made_schemas(opened, dialect)
    own = opened.java.getCatalog() if dialect.schemas_are_catalogs else opened.java.getSchema()
    return [
        ListedTable(
            spelled(found.schema, found.name),
            found.is_view,
            frozenset() if found.is_view else _leading(opened, found),
            bare=spelled(None, found.name) if found.schema == own else None,
            schema=found.schema,
            table=found.name,
        )
        for found in sorted(_all(opened, "%", dialect), key=lambda t: (t.schema or "", t.name))
        if found.is_plain and found.schema not in made
    ]


def _made_schemas(opened: Opened, dialect: Dialect) -> set[str | None]:
    """Return schemas that the database made itself; none if it fails to say."""
    try:
        statement = dialect.made_schemas
        return {row[0] for row in opened.rows(statement)} if statement else set()
    except Exception:  # noqa: BLE001 - a right that the user lacks, or an older version
        return set()


def _leading(opened: Opened, table: Table) -> frozenset[str]:
    """Return the columns that are first in an index; none if the driver fails to say."""
    try:
        return opened.leading_columns(table.catalog, table.schema, table.name)
    except Exception:  # noqa: BLE001 - a right that the user lacks costs the suggestion alone
        return frozenset()


def _preferred(
    opened: Opened, hits: list[Table], catalog: str | None, dialect: Dialect
) -> list[Table]:
    """Return the matches in the session's own schema, or all if there are none."""
    own = catalog if dialect.schemas_are_catalogs else opened.java.getSchema()
    return [hit for hit in hits if hit.schema == own] or hits


def _named(opened: Opened, name: str, dialect: Dialect) -> list[Table]:
    escape = str(opened.java.getMetaData().getSearchStringEscape() or "")
    # Names that cannot be escaped are compared below; so is case, which some drivers ignore.
    pattern = re.sub(r"([_%\\])", lambda m: escape + m[1] if m[1] in "_%" + escape else m[1], name)
    return [found for found in _all(opened, pattern, dialect) if found.name == name]


def _all(opened: Opened, pattern: str, dialect: Dialect) -> list[Table]:
    catalog = None if dialect.schemas_are_catalogs else opened.java.getCatalog()
    found = []
    for in_catalog, schema, name, kind in opened.tables(catalog, None, pattern):
        held_by = in_catalog if dialect.schemas_are_catalogs else schema
        what = str(kind or "").upper()
        if held_by in dialect.system_schemas or "INDEX" in what or "SEQUENCE" in what:
            continue
        is_plain = ("TABLE" in what or "VIEW" in what) and "SYSTEM" not in what
        found.append(Table(in_catalog, held_by, name, "VIEW" in what, is_plain))
    return found


def _nearest(opened: Opened, name: str, dialect: Dialect) -> str:
    tables = _all(opened, "%", dialect)
    known = {f"{t.schema}.{t.name}".lower(): f"{t.schema}.{t.name}" for t in tables}
    known |= {t.name.lower(): f"{t.schema}.{t.name}" for t in tables}
    wanted = [f"{schema}.{table}" if schema else table for schema, table in readings(name)]
    return nearest(wanted, known, len(tables))


def qualified(table: Table, dialect: Dialect) -> str:
    """Return a table's quoted name."""
    parts = [table.schema, table.name] if table.schema else [table.name]
    return ".".join(quote_name(part, dialect) for part in parts)


def _estimated(opened: Opened, table: Table, dialect: Dialect) -> tuple[int | None, int | None]:
    """Return rows and bytes from the database's statistics; None if it has none."""
    if dialect.estimate is None or table.is_view or table.schema is None:
        return None, None
    statement = dialect.estimate.replace("{schema}", quote_text(table.schema, dialect))
    try:
        rows = opened.rows(statement.replace("{table}", quote_text(table.name, dialect)))
    except Exception:  # noqa: BLE001 - a right that the user lacks costs the estimate alone
        return None, None
    count, size = (value and int(float(value)) for value in (rows or [(None, None)])[0])
    return (None if count is None else int(count)), (None if size is None else int(size))


_WIDTHS = {"bool": 1, "int16": 2, "int32": 4, "int64": 8, "float32": 4, "float64": 8, "date": 4}
_TYPICAL_TEXT, _TYPICAL_LOB = 32, 256
_WIDE_TEXT, _UNBOUNDED_TEXT, _WIDE_LOB = 1024, 8 * 1024, 64 * 1024
_LONGEST = 8_000
_LOBS = ("clob", "nclob", "blob")


def width_of(column: Typed) -> int:
    """Estimate a value's size in bytes from its column's type alone."""
    if column.kind not in ("string", "binary", "other", "wide decimal"):
        return _WIDTHS.get(column.kind, 12)
    if _is_unbounded(column):
        return _TYPICAL_LOB
    return min(max(column.described.precision, 1), _TYPICAL_TEXT)


def most_of(column: Typed) -> int:
    """Estimate the size of a large value in bytes, to plan memory."""
    if not _is_unbounded(column):
        is_text = column.kind in ("string", "binary")
        return min(column.described.precision, _WIDE_TEXT) if is_text else width_of(column)
    is_lob = JDBC_NAMES.get(column.described.code) in _LOBS
    return _WIDE_LOB if is_lob else _UNBOUNDED_TEXT


def _is_unbounded(column: Typed) -> bool:
    return column.kind in ("string", "binary") and not 0 < column.described.precision <= _LONGEST
