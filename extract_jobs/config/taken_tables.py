"""Adds the tables that a config's patterns take, once the source's tables are listed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from extract_jobs.config.patterns import MOST_TABLES, Pattern, taken, unmatched
from extract_jobs.config.problems import Problem, dotted, nearest, refusal
from extract_jobs.config.resolve import resolve_table
from extract_jobs.config.source_config import SourceConfig
from extract_jobs.config.tables import Checked, Entry, Tables
from extract_jobs.errors import ConfigError
from extract_jobs.spec.globs import bracket_hint, matches
from extract_jobs.spec.listed_table import ListedTable

logger = logging.getLogger(__name__)


def with_listed(config: SourceConfig, listed: Sequence[ListedTable]) -> SourceConfig:
    """Return a config with the tables that its patterns take, after those that it names.

    Args:
        config: May have patterns.
        listed: All tables of the source.

    Raises:
        ConfigError: A pattern matches no table, or excludes all that it matches; there are more
            than `MOST_TABLES`; a table that it takes would be written where another one is, unless
            tables are only checked when they are asked for. Every problem at once.
    """
    problems = [
        Problem(
            f"tables.{one.name}",
            f"matches none of the {len(listed)} tables and views that the user may read"
            f"{_bare_pattern(one, listed) or bracket_hint(one.name)}",
            one.line,
        )
        for one in unmatched(config.patterns, listed)
    ]
    for one in config.patterns:
        if (matching := list(filter(one.matches, listed))) and all(map(one.excludes, matching)):
            text = f"exclude leaves out all of the {len(matching)} tables and views that it matches"
            problems.append(Problem(f"tables.{one.name}", text, one.line))
        for name in one.exclude:
            if not any(replace(one, exclude=(name,)).excludes(table) for table in listed):
                text = f"{name} matches no table{nearest(name, (t.name for t in matching))}"
                if hint := bracket_hint(name):
                    path = f"tables.{one.name}.exclude"
                    problems.append(Problem(path, f"{text}{hint}", one.line))
                else:
                    logger.warning("tables.%s: exclude: %s", one.name, text)
    found = list(islice(taken(config.patterns, config.tables, listed), MOST_TABLES + 1))
    if len(found) > MOST_TABLES:
        raise ConfigError(
            f"{config.where}: its patterns take more than {MOST_TABLES:,} tables; exclude some, or "
            "split it into several sources"
        )
    entries = dict(config.tables.entries)
    for pattern, name, _ in found:
        entries[name] = Entry(
            pattern.values, {}, partial(_check_taken, config, pattern, name), of_pattern=True
        )
    tables = Tables(config.where, config.source, config.folder, entries)
    if config.checks_all:
        problems += tables.problems(tables)
    if problems:
        raise refusal(config.where, problems)
    return replace(
        config,
        tables=tables,
        listed=frozenset(name for table in listed for name in (table.name, table.plain)),
        taken=frozenset(name for _, name, _ in found),
    )


def _check_taken(config: SourceConfig, pattern: Pattern, name: str) -> Checked:
    """Check a table that a pattern takes."""
    table, wrong = resolve_table(config.source, name, pattern.values, pattern.line, config.folder)
    return table, [
        Problem(dotted(("tables", pattern.name, *one.path)), f"{name}: {one.text}", pattern.line)
        for one in wrong
    ]


def _bare_pattern(pattern: Pattern, listed: Sequence[ListedTable]) -> str:
    """Return a hint if a pattern lacks the schema."""
    example = next((t.name for t in listed if matches(t.table, pattern.name)), None)
    return f"; their names have a schema, as {example}" if example else ""
