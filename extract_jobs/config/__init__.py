"""Source config × event → specs.

A config is layers: ``defaults``, over them a table's own values, over them an event's overrides.
Every problem of a config is reported at once, with its line.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import islice
from typing import Any

from pydantic import ValidationError

from extract_jobs.config.checks import check_defaults, check_frame, event_key_problems, trace
from extract_jobs.config.file import read_yaml
from extract_jobs.config.locations import collisions, segment
from extract_jobs.config.model import JobSettings, SourceSettings
from extract_jobs.config.patterns import (
    MOST_TABLES,
    Pattern,
    is_pattern,
    read_pattern,
    taken,
    unmatched,
)
from extract_jobs.config.problems import (
    DataProblem,
    Problem,
    dotted,
    exists,
    nearest,
    refusal,
)
from extract_jobs.config.resolve import (
    ResolvedTable,
    as_written,
    located,
    merge,
    normal,
    read_by_others,
    resolve_table,
    spec_of,
)
from extract_jobs.config.trials import replaced_by_less, shared_rows
from extract_jobs.config.variables import Unfilled, fill_in, may_vanish
from extract_jobs.errors import ConfigError
from extract_jobs.spec.attempt_names import report_name
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.extract_spec import problems as spec_problems
from extract_jobs.spec.globs import bracket_hint, is_glob, matches
from extract_jobs.spec.listed_table import ListedTable
from extract_jobs.storage import join

logger = logging.getLogger(__name__)

TAG = "tag:"
"""Begins what selects the tables that have a tag."""


@dataclass(frozen=True)
class SourceConfig:
    """One source and its tables, validated.

    Attributes:
        where: What messages call the config, such as its path or URI.
        source: The source.
        tables: Its tables by name, in the file's order.
        folder: Where its relative paths start; None leaves them to the working folder.
        defaults: What tables start from, as it is written.
        patterns: Entries that stand for tables of the source. `with_listed` adds those tables.
        listed: Names of all tables that the source has; empty until they are listed.
        taken: Those in ``tables`` that are there through a pattern.
    """

    where: str
    source: SourceSettings
    tables: Mapping[str, ResolvedTable]
    folder: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    patterns: tuple[Pattern, ...] = ()
    listed: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()

    @property
    def is_complete(self) -> bool:
        """Whether all tables are known: there is no pattern, or the source's tables are listed."""
        return not self.patterns or bool(self.listed)


def load_config(text: str | bytes, where: str, folder: str | None = None) -> SourceConfig:
    """Read and validate a source config. Offline: no source, no storage.

    Args:
        text: YAML; bytes must be UTF-8. ``${NAME}`` in a value is a variable of the environment.
        where: What messages call it, such as its path or URI.
        folder: Where relative paths in it start, and what ``~`` means; None leaves paths as they
            are.

    Returns:
        The config. Every table in it is complete without overrides. Tables that only a pattern
        names are not in it; see `with_listed`.

    Raises:
        ConfigError: Anything wrong. If the file is valid YAML, the message lists every problem,
            each on its own line with its dotted path and line.

    Example:
        >>> config = load_config('''
        ... version: 1
        ... source: {name: shop, type: postgres, connection: {url: "postgresql://me@db/shop"}}
        ... defaults: {target: {uri: "s3://lake/raw/{source_name}/{table}"}}
        ... tables: {public.orders: {}, public.customers: {mode: full}}
        ... ''', "shop.yml")
        >>> list(config.tables)
        ['public.orders', 'public.customers']
        >>> load_config("version: 1", "shop.yml")
        Traceback (most recent call last):
            ...
        extract_jobs.errors.ConfigError: shop.yml: ...
    """
    file, problems = read_yaml(text, where)
    if not isinstance(file.data, dict):
        found = "is empty" if file.data is None else "is not a mapping"
        raise ConfigError(f"{where}: {found}; expected version, source, defaults and tables")
    if "${" in (text if isinstance(text, str) else text.decode(errors="replace")):
        file.data, unfilled = fill_in(file, os.environ)
        problems += unfilled
    source, wrong = check_frame(file)
    problems += wrong
    if source is not None and folder is not None:
        source = located(source, folder)
    problems += event_key_problems(file, source)
    given = file.data.get("defaults")
    defaults = given if isinstance(given, dict) else {}
    problems += check_defaults(file, defaults)
    listed = file.data.get("tables")
    tables: dict[str, ResolvedTable] = {}
    patterns: list[Pattern] = []
    for name, own in (listed if isinstance(listed, dict) else {}).items():
        if not name:
            continue  # already reported
        line = file.line(("tables", name))
        if isinstance(own, Unfilled):
            continue  # already reported
        if own is not None and not isinstance(own, dict):
            problems.append(Problem(f"tables.{name}", "expected a mapping, or nothing", line))
            continue
        values = merge(normal(defaults), normal(own or {}))
        if is_pattern(name, own):
            pattern, founds = read_pattern(source, name, values, line, folder)
            patterns += [pattern] if pattern else []
        else:
            table, founds = resolve_table(source, name, values, line, folder)
            tables |= {name: table} if table else {}
        problems += [trace(file, name, one) for one in founds if not may_vanish(one, values, given)]
    problems += [
        Problem(f"tables.{name}", text_, tables[name].line)
        for name, text_ in [
            *collisions({n: t.location for n, t in tables.items()}),
            *read_by_others(source, tables),
        ]
    ]
    if problems or source is None:
        raise refusal(where, problems)
    return SourceConfig(where, source, tables, folder, defaults, tuple(patterns))


def with_listed(config: SourceConfig, listed: Sequence[ListedTable]) -> SourceConfig:
    """Return a config with the tables that its patterns take, after those that it names.

    Args:
        config: May have patterns.
        listed: All tables of the source.

    Raises:
        ConfigError: A pattern matches no table, or excludes all that it matches; a table that it
            takes would be written where another one is; there are more than `MOST_TABLES`. Every
            problem at once.
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
    tables = dict(config.tables)
    for pattern, name, _ in found:
        table, wrong = resolve_table(
            config.source, name, pattern.values, pattern.line, config.folder
        )
        problems += [
            Problem(
                dotted(("tables", pattern.name, *one.path)), f"{name}: {one.text}", pattern.line
            )
            for one in wrong
        ]
        if table:
            tables[name] = table
    problems += [
        Problem(f"tables.{name}", f"{text}; exclude one of them", tables[name].line)
        for name, text in collisions({n: t.location for n, t in tables.items()})
    ]
    if problems:
        raise refusal(config.where, problems)
    return replace(
        config,
        tables=tables,
        listed=frozenset(name for table in listed for name in (table.name, table.plain)),
        taken=frozenset(name for _, name, _ in found),
    )


def _bare_pattern(pattern: Pattern, listed: Sequence[ListedTable]) -> str:
    """Return a hint if a pattern lacks the schema."""
    example = next((t.name for t in listed if matches(t.table, pattern.name)), None)
    return f"; their names have a schema, as {example}" if example else ""


def with_table(config: SourceConfig, name: str, values: Mapping[str, Any]) -> SourceConfig:
    """Return a config of the same source and defaults that has one table alone.

    Args:
        config: Has source, defaults and folder.
        name: The table's.
        values: Its own keys, as in a file.

    Raises:
        ConfigError: The table is wrong; every problem at once.
    """
    merged = merge(normal(config.defaults), normal(values))
    table, problems = resolve_table(config.source, name, merged, 0, config.folder)
    if table is None:
        found = [Problem(dotted(("tables", name, *one.path)), one.text) for one in problems]
        raise refusal(config.where, found)
    return replace(config, tables={name: table}, patterns=())


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
    return {name for name in config.tables if matches(name, entry)}


def with_tags(config: SourceConfig, tags: Sequence[str]) -> list[str]:
    """Return the tables that have at least one of some tags, in the config's order."""
    return [name for name, table in config.tables.items() if {*tags} & {*table.config.tags}]


def _bare_names(entry: str, tables: Iterable[str]) -> str:
    """Return a hint if a name lacks its schema, or nearly matches the name within one."""
    bare = {table.rpartition(".")[2]: table for table in tables}
    found = get_close_matches(entry, bare, n=1, cutoff=0.8)
    return f"; did you mean {bare[found[0]]}?" if found else ""


def specs_for(
    config: SourceConfig,
    tables: Sequence[str],
    *,
    run_id_for: Callable[[str], str],
    attempt: int = 1,
    overrides: Mapping[str, Any] | None = None,
    limit: int | None = None,
    confirmed: bool = False,
    report_base: str | None = None,
    tracking_table: str | None = None,
) -> list[ExtractSpec]:
    """Make the specs of some tables.

    Args:
        config: The config.
        tables: Names that the config has, without globs.
        run_id_for: Returns a table's ``run_id``.
        attempt: From 1.
        overrides: Table keys that override those of every table.
        limit: Maximum rows of each table, for a sample; None takes all.
        confirmed: Whether overrides that narrow or alter what is read may write to a table's own
            target.
        report_base: Folder for reports, as ``<source_name>/<table>/<run_id>/attempt-<n>.json``;
            the default is the table's state folder, as ``reports/<run_id>/attempt-<n>.json``.
        tracking_table: Name of the tracking table, if there is one.

    Returns:
        One spec per table, in the order of ``tables``.

    Raises:
        ConfigError: The config has no such table, or the overrides, or a table with them, are
            wrong; lists every problem.

    Example:
        >>> config = load_config('''
        ... version: 1
        ... source: {name: shop, type: postgres, connection: {url: "postgresql://me@db/shop"}}
        ... defaults: {target: {uri: "s3://lake/raw/{source_name}/{table}"}}
        ... tables: {public.orders: {}}
        ... ''', "shop.yml")
        >>> [spec] = specs_for(config, ["public.orders"], run_id_for=lambda table: "run-1")
        >>> spec.target.uri
        's3://lake/raw/shop/orders'
    """
    specs = []
    tables = [tables] if isinstance(tables, str) else tables
    if unknown := [name for name in tables if name not in config.tables]:
        raise refusal(
            config.where,
            [Problem("tables", f"there is no {name!r}{nearest(name, config.tables)}")
             for name in unknown],
        )  # fmt: skip
    resolved = _overridden(config, tables, overrides)
    if not confirmed:
        replaced = [p for t in resolved for p in replaced_by_less(config.tables[t.name], t)]
        if replaced:
            raise refusal(config.where, replaced)
    for table in resolved:
        run_id = run_id_for(table.name)
        if report_base:
            name = segment(config.source.name), segment(table.name)
            report = join(report_base, *name, run_id, report_name(attempt))
        else:
            report = join(table.location.state_uri, "reports", run_id, report_name(attempt))
        try:
            spec = spec_of(
                config.source,
                table,
                run_id=run_id,
                attempt=attempt,
                report_uri=report,
                tracking_table=tracking_table,
                limit=limit,
            )
        except ValidationError as error:  # only the run_id and the attempt are new here
            raise ConfigError(f"{table.name}: {'; '.join(spec_problems(error))}") from error
        specs.append(spec)
    return specs


def job_settings(
    config: SourceConfig, tables: Sequence[str], overrides: Mapping[str, Any] | None = None
) -> list[JobSettings]:
    """Return where and how each table's job runs, in the order of ``tables``.

    Fields that neither the config nor the overrides set are missing from each section's
    ``model_fields_set``, so that a deployment's own defaults can fill them.

    Raises:
        ConfigError: The overrides are wrong.
    """
    return [
        JobSettings(
            job_type=table.config.job_type,
            glue=table.config.glue,
            emr=table.config.emr,
            ecs=table.config.ecs,
            retry=table.config.retry,
            batch=table.config.batch,
        )
        for table in _overridden(config, tables, overrides)
    ]


def map_concurrency(
    config: SourceConfig, tables: Sequence[str], overrides: Mapping[str, Any] | None = None
) -> int:
    """Return how many of ``tables`` may run at a time within the source's connections, at least 1.

    A table uses one connection more than it reads splits at a time, to hold the snapshot.
    """
    chosen = _overridden(config, tables, overrides)
    return tables_at_a_time(config, [t.config.split.max_connections for t in chosen])


def tables_at_a_time(config: SourceConfig, connections: Sequence[int]) -> int:
    """Return how many tables of a source may run at a time, at least 1.

    Args:
        config: Has the budget of all of them.
        connections: Each table's ``split.max_connections``.
    """
    return max(1, config.source.max_connections // (max(connections, default=0) + 1))


def _overridden(
    config: SourceConfig, tables: Sequence[str], overrides: Mapping[str, Any] | None
) -> list[ResolvedTable]:
    """Apply overrides to tables and validate again; report every problem at once."""
    chosen = [config.tables[name] for name in tables]
    if not overrides:
        return chosen
    if not isinstance(overrides, Mapping):
        raise ConfigError(f"overrides: expected a mapping of table keys, found {overrides!r}")
    above = normal(overrides)
    problems = list(shared_rows(overrides, tables))
    resolved: dict[str, ResolvedTable] = {}
    for old in chosen:
        new, found = resolve_table(
            config.source, old.name, merge(old.values, above), old.line, config.folder
        )
        if new:
            resolved[old.name] = new
        problems += _overridden_problems(overrides, old, found)
    everywhere = {**config.tables, **resolved}
    problems += [
        Problem("", f"with the overrides, {name} {text}")
        for name, text in [
            *collisions({n: t.location for n, t in everywhere.items()}),
            *read_by_others(config.source, everywhere),
        ]
    ]
    if problems:
        raise refusal(config.where, problems)
    return [resolved[name] for name in tables]


def _overridden_problems(
    overrides: Mapping[str, Any], table: ResolvedTable, found: list[DataProblem]
) -> Iterator[Problem]:
    for one in found:
        path = as_written(overrides, one.path)
        if path and not one.partial and exists(overrides, path):
            yield Problem(dotted(("overrides", *path)), one.text)
        else:
            full = ("tables", table.name, *one.path)
            yield Problem(dotted(full), f"with the overrides, {one.text}", table.line)
