"""Calls to storage, several at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_CONCURRENT_CALLS = 16
_AHEAD = 1024
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def each(call: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Call for each item, several at a time, and return the results in order.

    Every call is made, even after one has failed; then the first error is raised. At most `_AHEAD`
    calls are in memory at a time.
    """
    items = list(items)
    if len(items) <= 1:
        return [call(item) for item in items]
    results: list[_Result] = []
    errors: list[BaseException] = []

    def take(future: Future[_Result]) -> None:
        error = future.exception()
        if error is None:
            results.append(future.result())
        else:
            errors.append(error)

    with ThreadPoolExecutor(min(_CONCURRENT_CALLS, len(items))) as pool:
        begun: deque[Future[_Result]] = deque()
        for item in items:
            if len(begun) == _AHEAD:
                take(begun.popleft())
            begun.append(pool.submit(call, item))
        while begun:
            take(begun.popleft())
    if errors:
        raise errors[0]
    return results
