"""The tables of a config, each of which is checked when it is first asked for.

A config may have thousands, of which a command needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from extract_jobs.config.model import SourceSettings
from extract_jobs.config.places import KEYS, Clash, Place, clashes, place_in
from extract_jobs.config.problems import Problem, refusal
from extract_jobs.config.resolve import ResolvedTable, merge

Checked = tuple[ResolvedTable | None, list[Problem]]


@dataclass(frozen=True)
class Entry:
    """A table as a config has it, which may be wrong.

    Attributes:
        own: Its own values.
        defaults: What they go over.
        check: Returns the table, and every problem of it; with a problem it cannot be used.
        of_pattern: Whether it is there through a pattern.
    """

    own: Mapping[str, Any]
    defaults: Mapping[str, Any]
    check: Callable[[], Checked]
    of_pattern: bool = False

    def values(self, *keys: str) -> dict[str, Any]:
        """Return some of its values, merged."""
        below, above = (
            {key: layer[key] for key in keys if key in layer} for layer in (self.defaults, self.own)
        )
        return merge(below, above)

    @property
    def tags(self) -> tuple[str, ...] | None:
        """Its tags; None if they are so wrong that they cannot be read."""
        found = self.values("tags").get("tags", [])
        is_list = isinstance(found, list) and all(isinstance(one, str) for one in found)
        return tuple(found) if is_list else None


class Tables(Mapping[str, ResolvedTable]):
    """Tables by name, in the config's order.

    To ask for a table that is wrong raises ConfigError. `check` lists the problems of several.

    Attributes:
        entries: The tables as they are written.
        where: What messages call the config.
    """

    def __init__(
        self,
        where: str,
        source: SourceSettings | None,
        folder: str | None,
        entries: Mapping[str, Entry],
    ) -> None:
        self.where = where
        self.entries = entries
        self._source, self._folder = source, folder
        self._checked: dict[str, Checked] = {}
        self._fit: set[str] = set()

    def __getitem__(self, name: str) -> ResolvedTable:
        """Return a table.

        Raises:
            KeyError: There is none of that name.
            ConfigError: It is wrong.
        """
        table, problems = self._check(name)
        if table is None or problems:
            raise refusal(self.where, problems)
        return table

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def _check(self, name: str) -> Checked:
        if name not in self._checked:
            self._checked[name] = self.entries[name].check()
        return self._checked[name]

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where tables go, of those that have a place; not all of them need be valid."""
        found = {name: self._place(name, entry) for name, entry in self.entries.items()}
        return {name: place for name, place in found.items() if place is not None}

    def _place(self, name: str, entry: Entry) -> Place | None:
        if self._source is None:
            return None
        return place_in(self._source, name, entry.values(*KEYS), self._folder)

    def problems(self, names: Iterable[str]) -> list[Problem]:
        """Return what is wrong with some tables, also in how they and the others go together.

        What is wrong with another table alone is not a problem.
        """
        fresh = [name for name in names if name not in self._fit]
        found = [problem for name in fresh for problem in self._check(name)[1]]
        valid = {name: place_of(t) for name in fresh if (t := self._check(name)[0]) is not None}
        for one in self.clashes(valid):
            table = self._check(one.name)[0]
            either = self.entries[one.name].of_pattern or self.entries[one.other].of_pattern
            text = f"{one.text}; exclude one of them" if either else one.text
            found.append(Problem(f"tables.{one.name}", text, table.line if table else None))
        if not found:
            self._fit.update(fresh)
        return found

    def check(self, names: Iterable[str]) -> None:
        """Refuse tables that cannot run.

        Raises:
            ConfigError: Lists every problem of `problems`.
        """
        if found := self.problems(names):
            raise refusal(self.where, found)

    def clashes(self, tables: Mapping[str, Place]) -> list[Clash]:
        """Return in how far some tables would get into the way of each other, and of others.

        Args:
            tables: Their places, which need not be those that the config gives them.
        """
        if not tables or self._source is None:
            return []
        wrong = {name for name, (table, _) in self._checked.items() if table is None}
        while True:
            places = {n: at for n, at in {**self.places, **tables}.items()
                      if n in tables or n not in wrong}  # fmt: skip
            found = list(clashes(places, tables, self._source.connection.uri))
            others = {name for one in found for name in (one.name, one.other)} - tables.keys()
            more = {name for name in others if self._check(name)[0] is None}
            if not more:
                return found
            wrong |= more


def place_of(table: ResolvedTable) -> Place:
    """Return the place of a table that is valid."""
    files = table.config.files
    return Place.of(table.location, files.glob if files else None)
