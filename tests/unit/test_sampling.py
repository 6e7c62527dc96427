"""What a quick run of the tests leaves out, and what it never does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import sampling
from tests.support.sampling import examples, pairs, sample
from tests.support.schedule import group_of

SPARK = Path(__file__).parents[1] / "spark"
CALLS = [(1, "put"), (2, "part"), (3, "part"), (4, "part"), (5, "part"), (6, "list"), (7, "put")]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "EXHAUSTIVE", False)


def test_of_each_kind_the_first_and_the_last_are_tried() -> None:
    chosen = sample(CALLS, 2, by=lambda call: call[1])
    assert chosen == [(1, "put"), (2, "part"), (5, "part"), (6, "list"), (7, "put")]


@pytest.mark.parametrize(
    ("count", "each", "expected"),
    [(9, 1, [4]), (9, 3, [0, 4, 8]), (2, 3, [0, 1]), (1, 2, [0]), (0, 2, [])],
)
def test_a_sample_is_spread_over_all(count: int, each: int, expected: list[int]) -> None:
    assert sample(range(count), each) == expected


@pytest.mark.parametrize(("left", "right"), [("abc", "xyz"), ("ab", "wxyz"), ("abcd", "x")])
def test_each_value_is_in_a_pair(left: str, right: str) -> None:
    found = pairs(left, right)
    assert {one for one, _ in found} == set(left)
    assert {other for _, other in found} == set(right)
    assert len(found) == max(len(left), len(right))


def test_an_exhaustive_run_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "EXHAUSTIVE", True)
    assert sample(CALLS, 1) == CALLS
    assert len(pairs("abc", "xy")) == 6
    assert examples(40) == 400


def test_files_of_a_slow_server_stay_together() -> None:
    assert group_of("tests/spark/test_read_back.py") == group_of("tests/contract/test_sources.py")
    found = {group_of(f"tests/spark/{path.name}") for path in SPARK.glob("test_*.py")}
    assert found == {"spark", "more spark"}
    assert group_of("tests/service/test_mysql_types.py") == "mariadb"
    assert group_of("tests/unit/test_casts.py") == "tests/unit/test_casts.py"
