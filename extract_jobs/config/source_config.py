"""One source and its tables, validated, and how text becomes that."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from extract_jobs.config.checks import check_defaults, check_frame, event_key_problems, trace
from extract_jobs.config.file import YamlFile, read_yaml
from extract_jobs.config.model import SourceSettings
from extract_jobs.config.patterns import Pattern, is_pattern, read_pattern
from extract_jobs.config.problems import DataProblem, Problem, dotted, refusal
from extract_jobs.config.resolve import located, merge, normal, resolve_table
from extract_jobs.config.tables import Checked, Entry, Tables
from extract_jobs.config.variables import Unfilled, fill_in, may_vanish
from extract_jobs.errors import ConfigError


@dataclass(frozen=True)
class SourceConfig:
    """One source and its tables, validated.

    Attributes:
        where: What messages call the config, such as its path or URI.
        source: The source.
        tables: Its tables by name, in the file's order. To ask for one that is wrong raises
            ConfigError; `load_config` has checked all.
        folder: Where its relative paths start; None leaves them to the working folder.
        defaults: What tables start from, as it is written.
        patterns: Entries that stand for tables of the source. `with_listed` adds those tables.
        listed: Names of all tables that the source has; empty until they are listed.
        taken: Those in ``tables`` that are there through a pattern.
        checks_all: Whether all tables were checked, and not only those that are asked for.
    """

    where: str
    source: SourceSettings
    tables: Tables
    folder: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    patterns: tuple[Pattern, ...] = ()
    listed: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()
    checks_all: bool = True

    @property
    def is_complete(self) -> bool:
        """Whether all tables are known: there is no pattern, or the source's tables are listed."""
        return not self.patterns or bool(self.listed)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the search for cycles of objects: it would look at the whole file again and again.

    That is half of the time for 10,000 tables. Memory is bounded by `MAX_BYTES` and `MAX_VALUES`.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_collector()
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
    config = open_config(text, where, folder)
    config.tables.check(config.tables)
    return replace(config, checks_all=True)


@_without_collector()
def open_config(text: str | bytes, where: str, folder: str | None = None) -> SourceConfig:
    """Read a source config, but check only what all tables share: each is checked when asked for.

    Before a table is used, ``config.tables.check`` must have accepted it.

    Args:
        text: As `load_config`.
        where: As `load_config`.
        folder: As `load_config`.

    Raises:
        ConfigError: Anything wrong outside of ``tables``, in a pattern, in a table's tags, or in a
            variable of the environment. The message then lists what is wrong with all tables too.
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
    entries: dict[str, Entry] = {}
    patterns: list[Pattern] = []
    for name, own in (listed if isinstance(listed, dict) else {}).items():
        if not name or isinstance(own, Unfilled):
            continue  # already reported
        if is_pattern(name, own) and isinstance(own, dict | None):
            values = merge(normal(defaults), normal(own or {}))
            line = file.line(("tables", name))
            pattern, founds = read_pattern(source, name, values, line, folder)
            patterns += [pattern] if pattern else []
            founds = founds or _without_mode(own or {}, values)
            problems += _traced(file, name, founds, values)
        else:
            layer = own if isinstance(own, dict) else {}
            check = partial(_check_entry, file, name, source, folder)
            entries[name] = Entry(layer, defaults, check)
    tables = Tables(where, source, folder, entries)
    if problems or source is None:
        raise refusal(where, [*problems, *tables.problems(tables)])
    tables.check(name for name, entry in entries.items() if entry.tags is None)
    return SourceConfig(where, source, tables, folder, defaults, tuple(patterns), checks_all=False)


def _check_entry(
    file: YamlFile, name: str, source: SourceSettings | None, folder: str | None
) -> Checked:
    """Check a table of a file by itself."""
    line, own = file.line(("tables", name)), file.data["tables"][name]
    if own is not None and not isinstance(own, dict):
        return None, [Problem(f"tables.{name}", "expected a mapping, or nothing", line)]
    defaults = file.data.get("defaults")
    values = merge(normal(defaults if isinstance(defaults, dict) else {}), normal(own or {}))
    table, founds = resolve_table(source, name, values, line, folder)
    founds = founds or _without_mode(own or {}, values)
    return table, _traced(file, name, founds, values)


def _traced(
    file: YamlFile, name: str, founds: Iterable[DataProblem], values: Mapping[str, Any]
) -> list[Problem]:
    """Return problems with the lines of a file, without those that say nothing."""
    given = file.data.get("defaults")
    return [trace(file, name, one) for one in founds if not may_vanish(one, values, given)]


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
    entry = Entry(normal(values), config.defaults, lambda: (table, []))
    tables = Tables(config.where, config.source, config.folder, {name: entry})
    return replace(config, tables=tables, patterns=())
