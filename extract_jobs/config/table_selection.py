"""Which tables an event or a command line selects: by name, glob or tag."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from extract_jobs.config.problems import Problem, nearest, refusal
from extract_jobs.config.source_config import SourceConfig
from extract_jobs.errors import ConfigError
from extract_jobs.spec.globs import bracket_hint, is_glob, matches

_QUOTED = re.compile(r'"((?:[^"]|"")+)"')
TAG = "tag:"
"""Begins what selects the tables that have a tag."""


def resolve_tables(
    config: SourceConfig, extract_tables: Any, *, as_event: bool = True
) -> list[str]:
    """Return the tables that an event or a command line selects, in the config's order.

    Args:
        config: The config.
        extract_tables: ``"*"``, or a list of names and globs (``*``, ``?``; case matters).
            An entry that is exactly a table's name selects that table, even if it looks like a
            glob. ``tag:NAME`` selects the tables with a tag.
        as_event: Whether messages name the list's entries; a command line has no list to refer to.

    Raises:
        ConfigError: Neither form; nothing selected; an entry given twice; a name that is not in the
            config (the message names the nearest one), or a glob that no table matches.
    """
    if extract_tables == "*":
        return list(config.tables)
    if not isinstance(extract_tables, Sequence) or isinstance(extract_tables, str | bytes):
        raise ConfigError(
            f'extract_tables is {extract_tables!r}; expected "*" or a list of names and globs'
        )
    if not extract_tables:
        raise ConfigError('extract_tables is an empty list; name tables, or give "*" for all')
    problems: list[Problem] = []
    selected: set[str] = set()
    for index, entry in enumerate(extract_tables):
        path = f"extract_tables[{index}]" if as_event else ""
        if not isinstance(entry, str):
            problems.append(Problem(path, f"{entry!r} is not the name of a table"))
        elif entry in extract_tables[:index]:
            problems.append(Problem(path, f"{entry} is given twice"))
        elif entry in config.tables:
            selected.add(entry)
        elif entry.startswith(TAG) or is_glob(entry):
            matched = _matched(config, entry)
            if not matched:
                problems.append(Problem(path, f"no table matches {entry}{bracket_hint(entry)}"))
            selected |= matched
        else:
            hint = nearest(entry, config.tables) or _bare_names(entry, config.tables)
            hint = hint or bracket_hint(entry)
            problems.append(Problem(path, f"the config has no table {entry}{hint}"))
    if problems:
        raise refusal(config.where, problems)
    return [name for name in config.tables if name in selected]


def _matched(config: SourceConfig, entry: str) -> set[str]:
    """Return the tables that a tag or a glob selects."""
    if entry.startswith(TAG):
        return set(with_tags(config, [entry.removeprefix(TAG)]))
    return {
        name
        for name, table in config.tables.entries.items()
        if matches(name, entry)
        or matches(_plain(name, is_query=bool(table.own.get("query"))), entry)
    }


def _plain(name: str, *, is_query: bool) -> str:
    """Return an entry's name without the quotes of its parts, as patterns compare it."""
    return name if is_query else _QUOTED.sub(lambda part: part[1].replace('""', '"'), name)


def with_tags(config: SourceConfig, tags: Sequence[str]) -> list[str]:
    """Return the tables that have at least one of some tags, in the config's order."""
    wanted = {*tags}
    return [
        name
        for name, table in config.tables.entries.items()
        if not wanted.isdisjoint(table.tags or ())
    ]


def _bare_names(entry: str, tables: Iterable[str]) -> str:
    """Return a hint if a name lacks its schema, or nearly matches the name within one."""
    bare = {table.rpartition(".")[2]: table for table in tables}
    found = get_close_matches(entry, bare, n=1, cutoff=0.8)
    return f"; did you mean {bare[found[0]]}?" if found else ""
