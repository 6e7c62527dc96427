"""Arguments of the command line, and what they name: configs, tables, overrides."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, get_args

from extract_jobs.commit.log import ABANDON_AFTER
from extract_jobs.config import SourceConfig, load_config, resolve_tables, specs_for
from extract_jobs.config.file import parse_yaml
from extract_jobs.config.problems import nearest
from extract_jobs.config.resolve import overlaid
from extract_jobs.config.trials import check_scratch, sample_overrides, scratch_overrides
from extract_jobs.errors import ConfigError
from extract_jobs.spec.extract_spec import Engine, ExtractSpec
from extract_jobs.spec.uris import absolute
from extract_jobs.spec.values import parse_duration


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


class _Command(_Parser):
    """A command, whose tables may stand before, between and after its options."""

    # As in the standard library's stub, but for its overloads.
    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        # `parse_intermixed_args` does not go with subcommands: argparse gives TABLE… whatever
        # follow CONFIG, and leaves what follows a later option.
        found, left = super().parse_known_args(args, namespace)
        dashes = left.index("--") if "--" in left else len(left)
        options = [a for a in left[:dashes] if a.startswith("-")]
        if left and (options or not self.get_default("takes_tables")):
            self.error(f"unrecognized arguments: {' '.join(left)}")
        found.tables = [*found.tables, *left[:dashes], *left[dashes + 1 :]]
        return found, []


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser; ``command`` of what it parses is the command's name.

    It raises `ConfigError` for what it cannot parse.
    """
    parser = _Parser(prog="extract-jobs", description="Extract tables to partitioned Parquet.")
    parser.add_argument("--version", action="version", version=f"extract-jobs {_version()}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True, parser_class=_Command
    )
    run = _command(commands, "run", "extract tables, one after another")
    _config_arguments(run, tables="*")
    run.add_argument("--json", action="store_true", help="one report per line on standard output")
    run.add_argument(
        "--limit",
        type=_count,
        metavar="N",
        help="take at most N rows of each table, as a full extract; needs --target",
    )
    run.add_argument(
        "--yes",
        action="store_true",
        help="let overrides that narrow or alter what is read replace a table's own files",
    )
    run.add_argument(
        "--engine",
        choices=get_args(Engine),
        help="what reads the splits of a table; over the key engine of the config",
    )
    run.add_argument("--run-id", help="name the run; a committed run is not done again")
    _target_argument(run)
    plan = _command(commands, "plan", "show what a run of one table would do; read-only")
    _config_arguments(plan, tables="1")
    _target_argument(plan)
    spec = _command(
        commands, "spec", "print one table's spec, for a worker started by hand; offline"
    )
    _config_arguments(spec, tables="1")
    _target_argument(spec)
    _config_arguments(_command(commands, "validate", "find every error of a config; offline"))
    init = _command(commands, "init", "write an example config")
    init.add_argument("path", metavar="FILE", nargs="?", default="sales.yml", help="%(default)s")
    _command(commands, "schema", "print the JSON Schema of configs, for editors")
    status = _command(commands, "status", "show the last commits of tables")
    _config_arguments(status, tables="*")
    _target_argument(status)
    recover = _command(
        commands, "recover", "finish the last commits and drop abandoned staged files"
    )
    _config_arguments(recover, tables="*")
    _target_argument(recover)
    recover.add_argument(
        "--abandon-after",
        type=_duration,
        default=ABANDON_AFTER,
        metavar="AGE",
        help="age from which a staged file is abandoned, such as 30m or 2d; default 48h",
    )
    recover.add_argument("--dry-run", action="store_true", help="only print what would be done")
    return parser


def _version() -> str:
    try:
        return metadata.version("extract-jobs")
    except metadata.PackageNotFoundError:
        return "from its source tree"


def _command(commands: Any, name: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
    parser.set_defaults(tables=[], set=[], takes_tables=False)
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is being done")
    return parser


def _config_arguments(parser: argparse.ArgumentParser, tables: str | None = None) -> None:
    parser.add_argument("config", metavar="CONFIG", help="path or s3:// URI of a source config")
    if tables == "1":
        parser.add_argument("tables", metavar="TABLE", nargs=1, help="a table of the config")
    elif tables:
        about = "names or globs; default: all tables"
        # Without a default, argparse says that it is required.
        parser.add_argument("tables", metavar="TABLE", nargs="*", default=[], help=about)
        parser.set_defaults(takes_tables=True)
    parser.add_argument(
        "--set",
        metavar="KEY.PATH=VALUE",
        action="append",
        default=[],
        help="override a key of the tables, such as target.uri=/tmp/{table}; VALUE is YAML",
    )


def _target_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        metavar="FOLDER",
        help="a scratch place: the tables go below it, with a state of their own, and no catalog",
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _duration(text: str) -> timedelta:
    try:
        value = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    assert isinstance(value, timedelta)
    return value


def overrides_of(settings: Sequence[str]) -> dict[str, Any]:
    """Return the overrides that ``--set key.path=value`` options make; later ones win.

    Args:
        settings: The options' values. What is right of the first ``=`` is YAML; nothing at all
            takes the key's value away.

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
        ConfigError: The config, a table's name or an override is wrong; or a run would leave a
            part of a table in the place of all of it.
    """
    config = read_config(arguments.config)
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
        place = absolute(place, str(Path.cwd()))  # as a shell means it, not as the config does
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
    except ConfigError as error:  # a person has typed --set, and no overrides
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
