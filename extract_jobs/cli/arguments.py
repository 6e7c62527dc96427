"""Arguments of the command line. Imports nothing else, so that help appears at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NoReturn, get_args

from extract_jobs.errors import ConfigError
from extract_jobs.spec.engines import Engine


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


class _Version(argparse.Action):
    """Prints the version; looks it up only when needed."""

    def __init__(self, **given: Any) -> None:
        super().__init__(nargs=0, **given)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"extract-jobs {_version()}")
        parser.exit()


class _Command(_Parser):
    """A command whose tables may come before, between and after its options."""

    # As in the standard library's stub, without its overloads.
    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        # `parse_intermixed_args` does not work with subcommands: argparse assigns to TABLE… only
        # what directly follows CONFIG, and leaves what follows a later option.
        found, left = super().parse_known_args(args, namespace)
        dashes = left.index("--") if "--" in left else len(left)
        options = [a for a in left[:dashes] if a.startswith("-")]
        if left and (options or not self.get_default("takes_tables")):
            self.error(f"unrecognized arguments: {' '.join(left)}")
        found.tables = [*found.tables, *left[:dashes], *left[dashes + 1 :]]
        return found, []


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser; the result's ``command`` is the command's name, None without one.

    It raises `ConfigError` for arguments that it cannot parse.
    """
    parser = _Parser(
        prog="extract-jobs",
        description="Extract tables to partitioned Parquet.",
        epilog="extract-jobs COMMAND --help has examples.",
    )
    parser.add_argument("--version", action=_Version, help="show program's version number and exit")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", parser_class=_Command
    )
    run = _command(commands, "run", "extract tables, several at a time")
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
        help="allow overrides that change which rows or values are read to replace a table's files",
    )
    run.add_argument(
        "--engine",
        choices=get_args(Engine),
        help="what reads the splits of a table; overrides the config's engine",
    )
    run.add_argument(
        "--jobs",
        type=_count,
        metavar="N",
        help="tables to run at a time; default: 4, or fewer if the source's max_connections allows "
        "no more. Tables that Spark reads run one at a time",
    )
    run.add_argument(
        "--reread",
        action="store_true",
        help="read tables with reuse: auto completely, and keep none of their files",
    )
    run.add_argument("--run-id", help="name the run; a committed run is not repeated")
    _target_argument(run)
    plan = _command(commands, "plan", "show what a run would do; read-only")
    _config_arguments(plan, tables="*")
    plan.add_argument("--sql", action="store_true", help="print the statements that would be sent")
    _target_argument(plan)
    preview = _command(
        commands, "preview", "show a table's first rows as its files would hold them"
    )
    _config_arguments(preview, tables="1")
    preview.add_argument(
        "--rows",
        type=_count,
        default=10,
        metavar="N",
        help="maximum number of rows; default: %(default)s",
    )
    _target_argument(preview)
    spec = _command(commands, "spec", "print one table's spec, to start a worker by hand; offline")
    _config_arguments(spec, tables="1")
    _target_argument(spec)
    _config_arguments(_command(commands, "validate", "find every error of a config; offline"))
    _init_command(commands)
    _command(commands, "schema", "print the JSON Schema of configs, for editors")
    _commands_on_commits(commands)
    _recover_command(commands)
    completion = _command(commands, "completion", "print a completion script for a shell")
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return parser


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overdue",
        type=_duration,
        metavar="AGE",
        help="a table is overdue if its last success is older than this, such as 26h; default: "
        "twice the usual time between its last commits",
    )
    parser.add_argument(
        "--tracking-table",
        metavar="NAME",
        help="the deployment's tracking table in DynamoDB; default: the variable TRACKING_TABLE. "
        "Without one, runs are inferred from reports and staged files",
    )


def _recover_command(commands: Any) -> None:
    recover = _command(
        commands, "recover", "finish last commits, drop abandoned files, update the catalog"
    )
    _config_arguments(recover, tables="*")
    _target_argument(recover)
    recover.add_argument(
        "--abandon-after",
        type=_duration,
        metavar="AGE",
        help="staged files older than this are abandoned, such as 30m or 2d; default: 48h",
    )
    recover.add_argument("--dry-run", action="store_true", help="only print what would be done")
    expire = _command(commands, "expire", "delete old snapshots of Iceberg tables and their files")
    _config_arguments(expire, tables="*")
    expire.add_argument(
        "--older-than",
        type=_duration,
        metavar="AGE",
        help="expire snapshots replaced longer ago than this, such as 7d; default: keep_retired",
    )
    expire.add_argument("--dry-run", action="store_true", help="only print what would be done")


def _init_command(commands: Any) -> None:
    init = _command(commands, "init", "write a config: an example, or for a given source")
    init.add_argument("path", metavar="FILE", nargs="?", default="sales.yml", help="%(default)s")
    init.add_argument(
        "--from",
        dest="source",
        metavar="PLACE",
        help="the source to write a config for: a database URL without a password, a SQLite file, "
        "a folder or s3:// URI, or secret:NAME, ssm:NAME, env:NAME; for other databases a URL "
        "or jdbc:…, with --driver",
    )
    init.add_argument(
        "--update",
        action="store_true",
        help="add tables that the config lacks, except those commented out as `# NAME:`",
    )
    init.add_argument(
        "--password-env", metavar="VAR", help="environment variable with the password"
    )
    init.add_argument("--user", metavar="NAME", help="database user, if the URL has none")
    init.add_argument(
        "--driver",
        metavar="PLACE",
        help="the JDBC driver: its jar, a folder with it, or its Maven coordinate",
    )
    init.add_argument(
        "--select", action="append", default=[], metavar="GLOB", help="only matching tables"
    )
    init.add_argument(
        "--exclude", action="append", default=[], metavar="GLOB", help="leave out matching tables"
    )
    init.add_argument(
        "--target", metavar="BASE", help="folder or s3:// URI to write below; default: lake"
    )


def _commands_on_commits(commands: Any) -> None:
    status = _command(commands, "status", "show the state of tables, problems first")
    _config_arguments(status, tables="*")
    status.add_argument(
        "--json", action="store_true", help="one JSON object per line for each table"
    )
    status.add_argument(
        "--watch",
        nargs="?",
        type=_count,
        const=10,
        metavar="SECONDS",
        help="repeat every SECONDS until Ctrl-C; default: 10",
    )
    _status_arguments(status)
    _target_argument(status)
    history = _command(commands, "history", "show the commits of a table, newest first")
    _config_arguments(history, tables="1")
    history.add_argument(
        "--commits",
        type=_count,
        default=20,
        metavar="N",
        help="maximum number of commits; default: %(default)s",
    )
    _target_argument(history)
    rollback = _command(commands, "rollback", "restore a table to an earlier commit")
    _config_arguments(rollback, tables="1")
    rollback.add_argument(
        "--to", type=_count, metavar="SEQ", required=True, help="number of the commit, from history"
    )
    _target_argument(rollback)
    report = _command(commands, "report", "write an HTML page about the newest runs of tables")
    _config_arguments(report, tables="*")
    report.add_argument("--html", metavar="FILE", required=True, help="where to write it")
    _status_arguments(report)
    _target_argument(report)
    verify = _command(
        commands, "verify", "compare a table's files with its commits; changes nothing"
    )
    _config_arguments(verify, tables="*")
    verify.add_argument(
        "--deep",
        action="store_true",
        help="read every page and its checksum too, and count the rows in the source",
    )
    _target_argument(verify)


def _version() -> str:
    from importlib import metadata  # reads files, and imports a parser of mail

    try:
        return metadata.version("extract-jobs")
    except metadata.PackageNotFoundError:
        return "from its source tree"


_EXIT_CODES = """\
exit codes:
  0  done
  1  failed; running it again will probably fail the same way
  73 published, but the catalog is not up to date
  75 failed; a retry may help
  78 something in the configuration must be changed first
"""
_EXAMPLES = {
    "run": (
        "run sales.yml                                   every table, several at a time",
        "run sales.yml public.orders 'hr.*'              one table, and all of a schema",
        "run sales.yml crm.yml --tag nightly             tables with a tag, of two sources",
        "run sales.yml --limit 100 --target /tmp/try     a sample, away from live data",
        "run sales.yml public.orders --set mode=full     with a key of the config overridden",
    ),
    "plan": (
        "plan sales.yml                                  a line for each table, and totals",
        "plan sales.yml public.orders                    columns, types and splits of one",
        "plan sales.yml public.orders --sql              the statements that would be sent",
    ),
    "preview": ("preview sales.yml public.orders --rows 5",),
    "status": (
        "status sales.yml --watch",
        "status sales.yml --tracking-table extract-jobs  runs of a deployment",
        "status sales.yml --json | jq -r 'select(.state == \"failed\").table'",
    ),
    "history": ("history sales.yml public.orders --commits 50",),
    "report": ("report sales.yml --html sales.html",),
    "rollback": ("rollback sales.yml public.customers --to 41",),
    "verify": (
        "verify sales.yml                                names, sizes and footers",
        "verify sales.yml public.orders --deep           every page, and the source's count",
    ),
    "recover": ("recover sales.yml --dry-run", "recover sales.yml --abandon-after 2d"),
    "expire": ("expire lake.yml --older-than 7d --dry-run",),
    "init": (
        "init sales.yml --from postgresql://reader@db/sales --password-env SALES_PASSWORD",
        "init drop.yml --from s3://drop/in --target s3://lake/raw",
        "init sales.yml --update                         adds tables that are new",
    ),
    "completion": (
        "completion bash > ~/.local/share/bash-completion/completions/extract-jobs",
        "completion zsh > ~/.zfunc/_extract-jobs",
    ),
}
"""Of each command, without the program's name."""


def _epilog(name: str) -> str:
    shown = "".join(f"  extract-jobs {line}\n" for line in _EXAMPLES.get(name, ()))
    return (f"examples:\n{shown}\n" if shown else "") + _EXIT_CODES


def _command(commands: Any, name: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=about,
        epilog=_epilog(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(tables=[], set=[], tag=[], takes_tables=False)
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="log what is being done")
    loudness.add_argument(
        "-q", "--quiet", action="store_true", help="no warnings; for run, print only failures"
    )
    return parser


def _config_arguments(parser: argparse.ArgumentParser, tables: str | None = None) -> None:
    parser.add_argument("config", metavar="CONFIG", help="path or s3:// URI of a source config")
    if tables == "1":
        parser.add_argument("tables", metavar="TABLE", nargs=1, help="a table of the config")
    elif tables:
        about = "names, globs or tag:NAME; default: all tables"
        # Without a default, argparse would require it.
        parser.add_argument("tables", metavar="TABLE", nargs="*", default=[], help=about)
        parser.set_defaults(takes_tables=True)
        parser.add_argument(
            "--tag", action="append", default=[], metavar="NAME", help="only tables with this tag"
        )
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
        help="a scratch folder: tables are written below it, with their own state and no catalog",
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _duration(text: str) -> timedelta:
    from extract_jobs.spec.values import parse_duration

    try:
        value = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    assert isinstance(value, timedelta)
    return value
