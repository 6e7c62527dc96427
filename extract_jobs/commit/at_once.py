"""Calls to storage, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_CONCURRENT_CALLS = 16
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def each(call: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Call for each item, several at a time, and return the results in order.

    Every call is made, even after one has failed; then the first error is raised.
    """
    items = list(items)
    if len(items) <= 1:
        return [call(item) for item in items]
    with ThreadPoolExecutor(min(_CONCURRENT_CALLS, len(items))) as pool:
        futures = [pool.submit(call, item) for item in items]
    return [future.result() for future in futures]
