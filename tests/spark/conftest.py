"""Both engines that run splits of an Arrow source, and a bucket to extract into."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from infra.local.emulator import Emulator
from tests.support.crash import Lake, bucket_of
from tests.support.emulators import set_environment
from tests.support.postgres import Server

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


@pytest.fixture
def bucket_lake(pg_database: Server, ministack: Emulator, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake in a bucket of its own, which this process and its children reach."""
    environment = ministack.environment()
    set_environment({**environment, "CRASH_PASSWORD": pg_database.password}, monkeypatch)
    return Lake(bucket_of(ministack, f"spark-{uuid4().hex[:8]}") + "/x", environment)
