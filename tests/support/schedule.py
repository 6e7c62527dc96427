"""Which tests run in one process, and in which order: a pytest plugin.

Workers of pytest-xdist share no servers. So all tests of a server that is slow to start run in one
worker, and the longest start first, so that no worker is left with them at the end. Everything else
is distributed by file, because some fixtures last for a module.
"""

from __future__ import annotations

from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support import sampling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

GROUPS = {
    # Two halves, which take as long as each other on Spark 4, where little else runs beside them.
    "spark": ("tests/spark/test_[a-i]*.py", "tests/spark/test_jdbc.py"),
    "more spark": ("tests/spark/test_[j-z]*.py", "tests/contract/test_sources.py"),
    "mariadb": ("tests/service/test_mysql*.py",),
}
"""Patterns of files that run in one worker."""
FIRST = (
    "tests/spark/*", "tests/contract/test_sources.py", "tests/e2e/*", "tests/crash/*",
    "tests/contract/*", "tests/artifacts/*", "tests/service/*",
)  # fmt: skip
"""Patterns of files in the order of their start; the others come last."""
ON_SPARK_4 = ("tests/spark/*", "tests/contract/test_entrypoints.py")
"""Patterns of the only files that `make test-spark4` looks at."""


@cache
def group_of(path: str) -> str:
    """Return the unit that a test file is distributed in: its group's name, or its own path."""
    names = (name for name, patterns in GROUPS.items() if _matches(path, *patterns))
    return next(names, path)


def _matches(path: str, *patterns: str) -> bool:
    return any(PurePath(path).match(pattern) for pattern in patterns)


@cache
def _rank(path: str) -> int:
    ranks = (n for n, pattern in enumerate(FIRST) if _matches(path, pattern))
    return next(ranks, len(FIRST))


class ByServer(LoadScopeScheduling):  # type: ignore[misc]
    """Distributes groups of files."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid.partition("::")[0])

    def remove_node(self, node: WorkerController) -> str | None:
        """Distribute again what a worker that crashed has left, and nothing that it had finished.

        A worker that is given a unit without tests waits for ever, and the run with it.
        """
        units = self.assigned_work[node]
        self.assigned_work[node] = {
            scope: unit for scope, unit in units.items() if not all(unit.values())
        }
        found: str | None = super().remove_node(node)
        return found


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(
    config: pytest.Config, log: Any
) -> LoadScopeScheduling[WorkerController]:
    """Distribute by server, in the order collected."""
    config.option.loadscopereorder = False
    return ByServer(config, log)


# First, so that selecting by mark comes after it.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files, and mark tests that try more in an exhaustive run."""
    items.sort(key=lambda item: _rank(item.nodeid.partition("::")[0]))
    samples = cache(lambda module: _uses_sampling(vars(module.obj)))
    for item in items:
        _refuse_out_of_place(item)
        module = item.getparent(pytest.Module)
        if module is not None and samples(module):
            item.add_marker(pytest.mark.exhaustive)


def _refuse_out_of_place(item: pytest.Item) -> None:
    marks = {mark.name for mark in item.iter_markers()}
    if "spark" in marks and not marks & {"any_spark", "bench", "image"}:
        path = item.nodeid.partition("::")[0]
        if not _matches(path, *ON_SPARK_4):
            raise pytest.UsageError(
                f"{item.nodeid}: `make test-spark4` looks at {' and '.join(ON_SPARK_4)} only: "
                "move the test there, or mark it any_spark"
            )


def _uses_sampling(names: dict[str, Any]) -> bool:
    ours = (sampling.sample, sampling.pairs, sampling.examples)
    return any(value is one for value in names.values() for one in ours)
