"""One source and its tables, validated, and how text becomes that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from extract_jobs.config.checks import check_defaults, check_frame, event_key_problems, trace
from extract_jobs.config.file import read_yaml
from extract_jobs.config.locations import collisions
from extract_jobs.config.model import SourceSettings
from extract_jobs.config.patterns import Pattern, is_pattern, read_pattern
from extract_jobs.config.problems import DataProblem, Problem, dotted, refusal
from extract_jobs.config.resolve import (
    ResolvedTable,
    located,
    merge,
    normal,
    read_by_others,
    resolve_table,
)
from extract_jobs.config.variables import Unfilled, fill_in, may_vanish
from extract_jobs.errors import ConfigError


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
        founds = list(founds) or _without_mode(own or {}, values)
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


def _without_mode(own: Mapping[str, Any], values: Mapping[str, Any]) -> list[DataProblem]:
    """Return what is wrong if a table has a watermark of its own that its mode does not use."""
    if own.get("watermark") is None or "mode" in values:
        return []
    text = (
        "the default mode, full, extracts all rows every time: add mode: incremental, or mode: full"
    )
    return [DataProblem(("watermark",), text)]


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
