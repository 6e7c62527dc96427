"""What a command line selects: a config, its tables, and overrides."""

from __future__ import annotations

import argparse
import gc
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from extract_jobs.config import (
    SourceConfig,
    load_config,
    open_config,
    resolve_tables,
    specs_for,
    with_tags,
)
from extract_jobs.config.file import parse_yaml
from extract_jobs.config.problems import nearest
from extract_jobs.config.resolve import overlaid
from extract_jobs.config.trials import check_scratch, sample_overrides, scratch_overrides
from extract_jobs.errors import ConfigError
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.uris import absolute

_ENDINGS = (".yml", ".yaml")
_OF_THE_PAST = ("status", "history", "report", "verify", "recover", "rollback", "expire")


def overrides_of(settings: Sequence[str]) -> dict[str, Any]:
    """Return the overrides of ``--set key.path=value`` options; later ones win.

    Args:
        settings: The options' values. Text after the first ``=`` is YAML; nothing there removes the
            key's value.

    Raises:
        ConfigError: One is not ``key.path=value``, or its value is not YAML.
    """
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        parts = key.split(".")
        if not equals or not all(parts):
            raise ConfigError(f"--set {setting}: expected key.path=value, such as mode=full")
        here = overrides
        for part in parts[:-1]:
            inner = here.get(part)
            here[part] = here = dict(inner) if isinstance(inner, Mapping) else {}
        value = parse_yaml(text, f"--set {key}").data
        here[parts[-1]] = value
    return overrides


def selected_specs(arguments: argparse.Namespace, run_id: str = "none") -> list[ExtractSpec]:
    """Return the specs of the tables that the command line names.

    Raises:
        ConfigError: The config, a table's name or an override is wrong; or a run would replace a
            whole table with a part of it.
    """
    return specs_of(selected_config(arguments), arguments, run_id)


def selected_config(arguments: argparse.Namespace, where: str | None = None) -> SourceConfig:
    """Return the config of a command line, with all tables that it may select.

    The tables of patterns are looked up in the source, unless only tables with an entry of their
    own are named. Commands that look at what was done see tables that have gone from it too.

    Args:
        arguments: The command line's.
        where: Path or URI of the config, if it is not the first one.

    Raises:
        ConfigError: The config is wrong, or does not fit the source's tables.
        SourceUnavailable: The source cannot be reached.
    """
    checks_all = arguments.command == "validate"
    config = read_config(arguments.config if where is None else where, checks_all=checks_all)
    gc.freeze()  # the config stays until the end: no search for cycles need look at it again
    named = [name for name in arguments.tables if not name.endswith(_ENDINGS)]
    own = bool(named) and all(name in config.tables for name in named)
    if not config.patterns or own or arguments.command == "validate":
        return config
    from extract_jobs.cli.pattern_tables import complete, complete_with_past

    return complete_with_past(config) if arguments.command in _OF_THE_PAST else complete(config)


def selected_spec(arguments: argparse.Namespace, run_id: str = "none") -> ExtractSpec:
    """Return the spec of the one table that the command line names.

    Raises:
        ConfigError: As `selected_specs`; or the name is a glob or tag of several tables.
    """
    specs = selected_specs(arguments, run_id)
    if len(specs) != 1:
        raise ConfigError(
            f"{arguments.tables[0]} matches {len(specs)} tables, and {arguments.command} shows "
            "one: name it"
        )
    return specs[0]


def specs_by_config(
    arguments: argparse.Namespace, run_id: str
) -> list[tuple[SourceConfig, list[ExtractSpec]]]:
    """Return each config that the command line names with the specs of its selected tables.

    What stands among the tables and ends in ``.yml`` or ``.yaml`` is a config too. With several, a
    table's name, glob or tag may be in any of them; those that have nothing selected are left out.

    Raises:
        ConfigError: As `selected_specs`; or two configs are of the same source.
    """
    more = [name for name in arguments.tables if name.endswith(_ENDINGS)]
    tables = [name for name in arguments.tables if name not in more]
    configs = [selected_config(arguments, where) for where in (arguments.config, *more)]
    if len(configs) == 1:
        return [(configs[0], specs_of(configs[0], arguments, run_id))]
    by_source: dict[str, SourceConfig] = {}
    for config in configs:
        other = by_source.setdefault(config.source.name, config)
        if other is not config:
            raise ConfigError(
                f"{other.where} and {config.where} are both of source {config.source.name}; put "
                "their tables into one config, so that its max_connections counts for all of them"
            )
    found = []
    for config in configs:
        mine = [name for name in tables if _is_in(config, name)]
        tags = [tag for tag in arguments.tag if with_tags(config, [tag])]
        nothing = (tables and not mine) or (arguments.tag and not tags)
        if nothing or not _selected(config, mine, tags):
            continue
        own = argparse.Namespace(**{**vars(arguments), "tables": mine, "tag": tags})
        found.append((config, specs_of(config, own, run_id)))
    _check_tags(configs, arguments.tag)
    for name in tables:
        if not any(_is_in(config, name) for config in configs):
            resolve_tables(configs[0], [name], as_event=False)  # says what is wrong
    if not found:
        raise ConfigError(f"no table of {', '.join(c.where for c in configs)} is selected")
    return found


def _is_in(config: SourceConfig, name: str) -> bool:
    try:
        return bool(resolve_tables(config, [name], as_event=False))
    except ConfigError:
        return False


def _selected(config: SourceConfig, names: Sequence[str], tags: Sequence[str]) -> list[str]:
    """Return the tables that some names select, or all, of those that have one of some tags."""
    tables = resolve_tables(config, list(names) or "*", as_event=False)
    tagged = with_tags(config, tags) if tags else tables
    return [name for name in tables if name in tagged]


def _check_tags(configs: Sequence[SourceConfig], tags: Sequence[str]) -> None:
    """Refuse a tag that no table has: it is probably misspelled, and its tables would not run."""
    if not tags:
        return
    entries = (entry for config in configs for entry in config.tables.entries.values())
    known = {tag for entry in entries for tag in entry.tags or ()}
    known.update(tag for config in configs for p in config.patterns for tag in p.tags)
    for tag in tags:
        if tag not in known:
            where = ", ".join(config.where for config in configs)
            raise ConfigError(f"{where}: no table has the tag {tag}{nearest(tag, sorted(known))}")


def specs_of(config: SourceConfig, arguments: argparse.Namespace, run_id: str) -> list[ExtractSpec]:
    """Return the specs of those tables of a config that the command line names.

    Raises:
        ConfigError: As `selected_specs`.
    """
    _check_tags([config], arguments.tag)
    tables = _selected(config, arguments.tables, arguments.tag)
    if arguments.tag and not tables and config.is_complete:
        raise ConfigError(
            f"{config.where}: no selected table has the tag {' or '.join(arguments.tag)}"
        )
    given = vars(arguments)
    place, limit = given.get("target"), given.get("limit")
    layers = [overrides_of(arguments.set)]
    if engine := given.get("engine"):
        layers.append({"engine": engine})
    if limit is not None:
        if place is None:
            raise ConfigError(
                "--limit needs --target FOLDER: a sample never goes to a table's own target"
            )
        layers.append(sample_overrides())
    if place is not None:
        place = absolute(place, str(Path.cwd()))  # relative to the shell's folder
        check_scratch(config.tables.places, place)
        layers.append(scratch_overrides(place))
    try:
        specs = specs_for(
            config,
            tables,
            run_id_for=lambda _table: run_id,
            overrides=overlaid(layers),
            limit=limit,
            confirmed=given.get("yes", True),  # the other commands write no rows
        )
    except ConfigError as error:  # the user has typed --set, not overrides
        message = re.sub(r"(?m)^(.*?: )overrides\.", r"\1--set ", str(error))
        raise ConfigError(message) from error
    return [reread(spec) for spec in specs] if given.get("reread") else specs


def reread(spec: ExtractSpec) -> ExtractSpec:
    """Return a spec that keeps nothing of the last commit, if it would keep what is unchanged."""
    return spec.model_copy(update={"reuse": "reread"}) if spec.reuse == "auto" else spec


def read_config(where: str, *, checks_all: bool = True) -> SourceConfig:
    """Read a source config from a path or an ``s3://`` URI.

    Args:
        where: The path or URI.
        checks_all: Whether all tables are checked, or each when it is asked for.

    Raises:
        ConfigError: It cannot be read, or anything in it is wrong.
    """
    load = load_config if checks_all else open_config
    text: bytes | None
    if "://" in where:
        from extract_jobs.storage import open_storage

        text = open_storage(where).read(where)
        if text is None:
            raise ConfigError(f"{where}: there is no such object")
        return load(text, where)
    path = Path(where)
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        beside = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise ConfigError(f"{where}: there is no such file{nearest(path.name, beside)}") from error
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror}") from error
    return load(text, where, str(path.absolute().parent))
