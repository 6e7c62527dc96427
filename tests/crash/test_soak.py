"""Writers and killed runs side by side: every row version arrives, and none arrives twice.

The long one is ``make soak``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.crash import Driver
from tests.support.postgres import Server
from tests.support.sampling import EXHAUSTIVE
from tests.support.soak import soak, two_drivers

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]

ROUNDS = 6


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Driver]]:
    with two_drivers(tmp_path_factory.mktemp("soak")) as both:
        yield both


@pytest.mark.parametrize("seed", range(6 if EXHAUSTIVE else 2))
def test_the_union_of_all_commits_holds_every_version_once(
    pg_database: Server, tmp_path: Path, drivers: list[Driver], seed: int
) -> None:
    mode = "column" if seed % 2 else "snapshot"
    print(f"seed {seed}, {mode} mode")
    figures = soak(pg_database, tmp_path, drivers, mode, seed, lambda rounds: rounds < ROUNDS)
    print(figures)
    assert figures.extracted > 0
