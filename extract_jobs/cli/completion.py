"""``completion``: prints the script with which a shell completes commands and options."""

from __future__ import annotations

import argparse

from extract_jobs.cli.arguments import argument_parser
from extract_jobs.errors import EXIT_DONE, ConfigError


def command(arguments: argparse.Namespace) -> int:
    """Print the script for a shell.

    Raises:
        ConfigError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise ConfigError(
            "completion needs shtab: pip install 'extract-jobs[completion]', or [laptop]"
        ) from error
    print(shtab.complete(argument_parser(), shell=arguments.shell), end="")
    return EXIT_DONE
