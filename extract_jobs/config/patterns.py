"""Entries of a config that stand for many tables: those whose name is a pattern, ``public.*``.

Which tables they take depends on the source, so a config is read without them and `with_listed`
adds them once somebody has listed the source's tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from extract_jobs.config.model import SourceSettings
from extract_jobs.config.problems import DataProblem
from extract_jobs.config.resolve import resolve_table
from extract_jobs.spec.globs import is_glob, matches
from extract_jobs.spec.listed_table import ListedTable
from extract_jobs.spec.source_types import registration

MOST_TABLES = 10_000
"""Maximum tables that the patterns of one config take."""
_QUOTED = re.compile(r'"[^"]*"|`[^`]*`')
_ROWS_OF_ITS_OWN = ("query", "files")


@dataclass(frozen=True)
class Pattern:
    """An entry of a config that stands for all tables whose name matches.

    Attributes:
        name: The entry's key: ``*`` stands for any text, ``?`` for one character.
        exclude: Names and globs of tables that it does not take.
        values: The values of each of its tables, defaults included, as plain data.
        line: Its line in the file, from 1.
    """

    name: str
    exclude: tuple[str, ...]
    values: Mapping[str, Any]
    line: int

    @property
    def tags(self) -> Sequence[str]:
        """The tags of each of its tables."""
        tags: Sequence[str] = self.values.get("tags", ())
        return tags

    def matches(self, table: ListedTable) -> bool:
        """Return whether a table's name matches, excluded or not."""
        return any(matches(name, self.name) for name in (table.name, table.plain))

    def excludes(self, table: ListedTable) -> bool:
        """Return whether a table is left out: by its whole name, or by its name in the schema."""
        names = (table.name, table.plain, table.table)
        return any(matches(name, glob) for name in names for glob in self.exclude)


def is_pattern(name: str, own: Any) -> bool:
    """Return whether an entry stands for many tables.

    Args:
        name: Its key. A ``*`` or ``?`` in quotes is a part of a table's name.
        own: Its own values. One that says itself which rows it has is one table, whatever its name.
    """
    if not is_glob(name):
        return False
    if isinstance(own, Mapping) and any(key in own for key in _ROWS_OF_ITS_OWN):
        return False
    return is_glob(_QUOTED.sub("", name))


def read_pattern(
    source: SourceSettings | None,
    name: str,
    values: Mapping[str, Any],
    line: int,
    folder: str | None,
) -> tuple[Pattern | None, list[DataProblem]]:
    """Check an entry as far as that is possible without its tables.

    Args:
        source: The source, if it is valid.
        name: The entry's key.
        values: Its values merged with the defaults.
        line: Its line.
        folder: Where relative paths start.
    """
    exclude = values.get("exclude", [])
    values = {key: value for key, value in values.items() if key != "exclude"}
    found: list[DataProblem] = []
    if not isinstance(exclude, list) or not all(isinstance(one, str) and one for one in exclude):
        found.append(DataProblem(("exclude",), "expected a list of names and globs"))
        exclude = []
    if source is not None and registration(source.type).lists is None:
        text = f"extract-jobs cannot list the tables of a source of type {source.type}"
        more = "; extract-jobs init FILE --update adds new ones" if source.type == "files" else ""
        found.append(DataProblem((), f"{text}: name each of them{more}"))
        return None, found
    # Two tables that it could take: what is wrong with both is wrong with the entry.
    one, problems = resolve_table(source, re.sub(r"[*?]+", "a", name), values, line, folder)
    two, _ = resolve_table(source, re.sub(r"[*?]+", "b", name), values, line, folder)
    found += problems
    if one and two:
        if one.location.target.uri == two.location.target.uri:
            text = f"all tables would go to {one.location.target.uri}: add {{table}} to it"
            found.append(DataProblem(("target", "uri"), text))
        catalog = one.location.target.catalog
        if catalog and catalog == two.location.target.catalog:
            text = "all tables would share this catalog table: add {table} to its name"
            found.append(DataProblem(("target", "catalog", "table"), text))
    return (None if found else Pattern(name, tuple(exclude), values, line)), found


def taken(
    patterns: Sequence[Pattern], named: Iterable[str], listed: Sequence[ListedTable]
) -> Iterator[tuple[Pattern, str, ListedTable]]:
    """Yield each table that a pattern takes, with its name: in order of patterns, then by name.

    A table with an entry of its own is left to that entry, however its name is spelled there. The
    first pattern that takes a table has it. Views are only extracted if an entry names them.
    """
    own = set(named)
    gone: set[str] = set()
    for pattern in patterns:
        # A name that only looks like a pattern, of one table.
        same = [table for table in listed if table.plain == pattern.name]
        for table in same or listed:
            if table.name in gone or not own.isdisjoint(_spellings(table)):
                continue
            if same or not (table.is_view or pattern.excludes(table) or not pattern.matches(table)):
                gone.add(table.name)
                yield pattern, pattern.name if same else table.name, table


def unmatched(patterns: Sequence[Pattern], listed: Sequence[ListedTable]) -> list[Pattern]:
    """Return the patterns that no table matches, views and excluded tables included."""
    return [one for one in patterns if not any(map(one.matches, listed))]


def _spellings(table: ListedTable) -> set[str]:
    """Return the names that a config may give a table."""

    def ways(name: str) -> tuple[str, ...]:
        return (name, *(q + name.replace(q, q * 2) + q for q in '"`'))

    found = {table.name, table.plain}
    if table.bare is not None or table.schema is None:
        found.update(ways(table.table))
    if table.schema is not None:
        found.update(".".join(parts) for parts in product(ways(table.schema), ways(table.table)))
    return found
