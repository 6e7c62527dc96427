"""How much a test run tries: `make test` a sample, `make test-exhaustive` everything.

Every test of a module that imports from here is marked ``exhaustive`` (tests/support/schedule.py),
which is what ``make test-exhaustive`` selects.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

EXHAUSTIVE = os.environ.get("EXHAUSTIVE", "0") != "0"
"""Whether this run tries everything."""
MORE = 10
"""How many times as many examples a property gets in an exhaustive run."""


def sample(cases: Iterable[T], each: int, by: Callable[[T], Hashable] = lambda _: None) -> list[T]:
    """Return all cases in an exhaustive run, else a few of every kind.

    Args:
        cases: What an exhaustive run tries.
        each: Maximum of one kind; the first and the last are preferred.
        by: A case's kind.

    Returns:
        Cases in the order given, the same in every run.
    """
    listed = list(cases)
    if EXHAUSTIVE:
        return listed
    kinds: dict[Hashable, list[int]] = {}
    for index, case in enumerate(listed):
        kinds.setdefault(by(case), []).append(index)
    chosen = itertools.chain.from_iterable(_spread(found, each) for found in kinds.values())
    return [listed[index] for index in sorted(chosen)]


def _spread(indexes: Sequence[int], count: int) -> set[int]:
    if count == 1:
        return {indexes[len(indexes) // 2]}
    last = len(indexes) - 1
    return {indexes[round(last * n / (count - 1))] for n in range(count)}


def pairs(left: Sequence[T], right: Sequence[U]) -> list[tuple[T, U]]:
    """Return all pairs in an exhaustive run, else enough to use each value once.

    The values of the shorter list take turns.
    """
    if EXHAUSTIVE:
        return list(itertools.product(left, right))
    longer = max(len(left), len(right))
    return [(left[n % len(left)], right[n % len(right)]) for n in range(longer)]


def examples(count: int) -> int:
    """Return how many examples Hypothesis tries, if `make test` tries ``count``."""
    return count * MORE if EXHAUSTIVE else count
