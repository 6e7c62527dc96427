"""``extract-jobs``: the command line.

Results go to standard output, all else to standard error. The exit code is 0 for done, 75 if
a retry may help, 78 for configuration, 73 if the data is published but the catalog is not up to
date, 1 otherwise; on failure the last line of standard error is ``<Class>: <message>``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from extract_jobs.cli.arguments import argument_parser
from extract_jobs.cli.process import (
    internal_error,
    log_to_stderr,
    new_run_id,
    stop_requested,
    stoppable,
)
from extract_jobs.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    ConfigError,
    ExtractError,
    Interrupted,
    StopRequested,
    printable,
)

logger = logging.getLogger(__name__)

EXAMPLE_PATH = Path(__file__).with_name("example_config.yml")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; by default the process's own.

    Returns:
        The exit code.
    """
    log_to_stderr()
    arguments = None
    try:
        parser = argument_parser()
        arguments = parser.parse_args(argv)
        if arguments.command is None:
            parser.print_help()
            return EXIT_DONE
        level = logging.INFO if arguments.verbose else logging.WARNING
        logging.getLogger("extract_jobs").setLevel(logging.ERROR if arguments.quiet else level)
        from extract_jobs.storage.region import name_the_region

        name_the_region()
        with stoppable():
            code = _command(arguments.command)(arguments)
    except (ExtractError, StopRequested) as raised:
        # A signal that arrives after the command has ended is not mapped by `stoppable`.
        error = raised if isinstance(raised, ExtractError) else Interrupted(str(raised))
        _trace(arguments)
        heading, *details = str(error).splitlines() or [""]
        for detail in details:
            _say(detail)
        _say(f"{type(error).__name__}: {heading}")
        if stop_requested():
            _leave(error.exit_code)
        return error.exit_code
    except BrokenPipeError:
        # The reader of standard output is gone; nothing may be flushed to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - the last resort: a person never sees a traceback
        _trace(arguments)
        _say(internal_error(error))
        return EXIT_FAILED
    return code


# --- commands ------------------------------------------------------------------------------------


def _spec(arguments: argparse.Namespace) -> int:
    from extract_jobs.cli.selection import selected_spec

    # A committed run is never repeated: each spec is a run of its own.
    spec = selected_spec(arguments, run_id=new_run_id())
    print(spec.model_dump_json(indent=2))
    return EXIT_DONE


def _validate(arguments: argparse.Namespace) -> int:
    from extract_jobs.cli.selection import selected_config, specs_of

    config = selected_config(arguments)
    specs = specs_of(config, arguments, "none")
    found = f"{len(specs)} table{'' if len(specs) == 1 else 's'}"
    if config.patterns:
        patterns = ", ".join(pattern.name for pattern in config.patterns)
        found += f", and those that match {patterns} in the source when it is read"
    print(printable(f"{arguments.config}: valid, {found}"))
    return EXIT_DONE


def _init(arguments: argparse.Namespace) -> int:
    if arguments.source is not None or arguments.update:
        from extract_jobs.cli.init import update_config, write_config
        from extract_jobs.engine.pandas_free import skip_pandas

        skip_pandas()
        print(update_config(arguments) if arguments.update else write_config(arguments))
        return EXIT_DONE
    if arguments.password_env or arguments.select or arguments.exclude or arguments.target:
        raise ConfigError("--password-env, --select, --exclude and --target go with --from")
    text = EXAMPLE_PATH.read_text(encoding="utf-8")
    try:
        with Path(arguments.path).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{arguments.path} already exists and was not changed") from error
    except OSError as error:
        raise ConfigError(f"{arguments.path} cannot be written: {error.strerror}") from error
    print(f"{arguments.path} written; next: extract-jobs validate {arguments.path}")
    return EXIT_DONE


def _schema(_arguments: argparse.Namespace) -> int:
    from extract_jobs.config.model import SCHEMA_PATH

    print(SCHEMA_PATH.read_text(encoding="utf-8"), end="")
    return EXIT_DONE


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    """Return what runs a command: a function of this module, or of the module of its name."""
    if name in _COMMANDS:
        return _COMMANDS[name]
    from extract_jobs.engine.imports import without_collections

    with without_collections():
        found: Callable[[argparse.Namespace], int] = import_module(f"{__name__}.{name}").command
    return found


def _trace(arguments: argparse.Namespace | None) -> None:
    if arguments and arguments.traceback:
        traceback.print_exc()


def _leave(exit_code: int) -> NoReturn:
    """End the process at once: everything is printed and dropped, and the caller is waiting.

    An ordinary end waits for DuckDB, which reads what the server still sends of an open query.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(exit_code)


def _say(line: str) -> None:
    print("\n".join(map(printable, line.split("\n"))), file=sys.stderr, flush=True)


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "spec": _spec,
    "validate": _validate,
    "init": _init,
    "schema": _schema,
}
