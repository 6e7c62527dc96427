"""Both engines that run splits of an Arrow source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(
    params=[
        pytest.param(False, id="processes"),
        pytest.param(True, id="spark", marks=pytest.mark.spark),
    ]
)
def spark_or_none(request: pytest.FixtureRequest) -> SparkSession | None:
    """A session to run splits on, or none, for worker processes."""
    return request.getfixturevalue("spark") if request.param else None
