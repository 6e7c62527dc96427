"""Works on the blocks of one file with several threads while the next ones are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    pool: Executor,
    ahead: int,
    alone: Callable[[Item], bool],
) -> Iterator[Result]:
    """Yield the result of each item, in their order, as a loop over them would.

    An exception, of the items or the work, is raised after the results of all items before it.

    Args:
        work: Called once for each item, several at a time.
        items: Read by the calling thread.
        pool: Runs the work. Not used if nothing is ahead.
        ahead: Maximum items whose results are awaited; 1 works like a loop.
        alone: Whether no item after this one may be read before its result was taken.
    """
    if ahead <= 1:
        yield from map(work, items)
        return
    pending: deque[Future[Result]] = deque()
    found, failure = iter(items), None
    try:
        while True:
            try:
                item = next(found)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - raised below, in its turn
                failure = error
                break
            pending.append(pool.submit(work, item))
            most = 0 if alone(item) else ahead - 1
            del item
            while len(pending) > most:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
    if failure is not None:
        raise failure
