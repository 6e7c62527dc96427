"""What a command line selects: a config, its tables, and overrides."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from extract_jobs.config import SourceConfig, load_config, resolve_tables, specs_for
from extract_jobs.config.file import parse_yaml
from extract_jobs.config.problems import nearest
from extract_jobs.config.resolve import overlaid
from extract_jobs.config.trials import check_scratch, sample_overrides, scratch_overrides
from extract_jobs.errors import ConfigError
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.uris import absolute


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
    return specs_of(read_config(arguments.config), arguments, run_id)


def specs_of(config: SourceConfig, arguments: argparse.Namespace, run_id: str) -> list[ExtractSpec]:
    """Return the specs of those tables of a config that the command line names.

    Raises:
        ConfigError: As `selected_specs`.
    """
    tables = resolve_tables(config, list(arguments.tables) or "*", as_event=False)
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
        check_scratch(config.tables, place)
        layers.append(scratch_overrides(place))
    try:
        return specs_for(
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


def read_config(where: str) -> SourceConfig:
    """Read a source config from a path or an ``s3://`` URI.

    Raises:
        ConfigError: It cannot be read, or anything in it is wrong.
    """
    text: bytes | None
    if "://" in where:
        from extract_jobs.storage import open_storage

        text = open_storage(where).read(where)
        if text is None:
            raise ConfigError(f"{where}: there is no such object")
        return load_config(text, where)
    path = Path(where)
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        beside = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise ConfigError(f"{where}: there is no such file{nearest(path.name, beside)}") from error
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror}") from error
    return load_config(text, where, str(path.absolute().parent))
