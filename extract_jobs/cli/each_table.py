"""Runs a query for each of many tables, several at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from traceback import print_exc
from typing import TypeVar

from extract_jobs.errors import WORST_FIRST, ExtractError, Interrupted, error_line, printable
from extract_jobs.spec.extract_spec import ExtractSpec

Answer = TypeVar("Answer")


def each_table(
    specs: Sequence[ExtractSpec], ask: Callable[[ExtractSpec], Answer], *, at_once: int
) -> Iterator[tuple[ExtractSpec, Answer | ExtractError]]:
    """Yield each table with its answer, in order, or with the error that was raised instead.

    Args:
        specs: The tables.
        ask: Called in a thread.
        at_once: Maximum calls at a time.

    Raises:
        Interrupted: The command was stopped; calls that have begun end on their own.
    """

    def answer(spec: ExtractSpec) -> Answer | ExtractError:
        try:
            return ask(spec)
        except Interrupted:
            raise
        except ExtractError as error:
            return error

    if at_once == 1:
        yield from ((spec, answer(spec)) for spec in specs)
        return
    pool = ThreadPoolExecutor(at_once)
    try:
        yield from zip(specs, pool.map(answer, specs), strict=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def one_by_one(
    specs: Sequence[ExtractSpec], act: Callable[[ExtractSpec], None], *, traceback: bool
) -> None:
    """Do something with each table; one that fails does not stop the others.

    Args:
        specs: The tables.
        act: Prints what it did.
        traceback: Whether to show where an error came from.

    Raises:
        ExtractError: The worst failure of a table. Each was printed.
    """
    failures: list[ExtractError] = []
    for spec in specs:
        try:
            act(spec)
        except Interrupted:
            raise
        except ExtractError as error:
            if traceback:
                print_exc()
            print(printable(f"{spec.extract_table}: {error_line(error)}"), file=sys.stderr)
            failures.append(error)
    if failures:
        raise worst_of(failures)


def worst_of(errors: Sequence[ExtractError]) -> ExtractError:
    """Return the error to end with: configuration first, then what a retry may fix."""
    return min(errors, key=lambda error: WORST_FIRST.index(error.exit_code))


def error_of_all(errors: Sequence[ExtractError], tables: int) -> ExtractError:
    """Return the error of a command for which some tables failed, after their errors were printed.

    Args:
        errors: At least one.
        tables: How many there were in all.
    """
    worst = worst_of(errors)
    return type(worst)(f"{len(errors)} of {tables} tables failed") if tables > 1 else worst
