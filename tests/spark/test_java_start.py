"""Spark whose Java cannot start: the attempt is to be tried again, not a defect of this program."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from py4j.protocol import Py4JError

from extract_jobs.errors import Interrupted, WorkerOutOfMemory
from extract_jobs.spark.session import _start_error
from tests.support.java import QUICK_JAVA

ROOT = Path(__file__).parents[2]
START = """
from extract_jobs.errors import ExtractError
from extract_jobs.spark.session import spark_context
try:
    spark_context(None, 1, packages={packages})
except ExtractError as error:
    print(type(error).__name__, error.retryable, error)
"""


def started(packages=(), **environment):
    """Start Spark in a process of its own and return what it was mapped to."""
    ended = subprocess.run(
        [sys.executable, "-c", START.format(packages=packages)],
        cwd=ROOT, env={"PATH": os.defpath, "HOME": "/nonexistent", **environment},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()[-1]


@pytest.mark.spark
def test_a_java_without_room_for_its_memory_asks_for_a_bigger_worker():
    said = started(JAVA_TOOL_OPTIONS="-Xms9000g")
    assert said.startswith("WorkerOutOfMemory True Java ended before Spark was up")


def test_a_spark_with_too_little_memory_asks_for_a_bigger_worker():
    said = Py4JError("java.lang.IllegalArgumentException: System memory 1 must be at least 2")
    assert isinstance(_start_error(said, ()), WorkerOutOfMemory)


def test_a_host_name_that_is_not_resolved_yet_is_tried_again():
    said = Py4JError("java.net.UnknownHostException: worker-7: worker-7: Name or service not known")
    error = _start_error(said, ())
    assert isinstance(error, Interrupted)
    assert error.retryable
    assert "java.net.UnknownHostException" in str(error)


@pytest.mark.spark
@pytest.mark.any_spark
def test_a_network_on_which_spark_cannot_start_is_tried_again():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = f"{QUICK_JAVA} -Dspark.driver.port={port} -Dspark.port.maxRetries=0"
        said = started(JAVA_TOOL_OPTIONS=options)
    assert said.startswith("Interrupted True Spark could not be started")
    assert "java.net.BindException" in said


@pytest.mark.spark
def test_packages_that_cannot_be_fetched_are_tried_again_on_the_same_worker():
    said = started(("no.such:package:1",), JAVA_TOOL_OPTIONS="-Xms9000g")
    assert said.startswith("SourceUnavailable True connection.packages: no.such:package:1 could")
