"""Runs a query for each of many tables, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from extract_jobs.errors import WORST_FIRST, ExtractError, Interrupted
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
