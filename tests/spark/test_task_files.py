"""What Spark leaves on disk of tasks too large to be sent with a message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.java import QUICK_JAVA_ENVIRONMENT

pytestmark = pytest.mark.spark

CHILD = """
import sys, threading
from dataclasses import replace
from pathlib import Path
from extract_jobs.engine.arrow_splits import run_on_spark
from extract_jobs.spark.session import spark_context
from extract_jobs.sources.splits import Split
from tests.support.scattered import ScatteredReader, scattered_task

folder, canary = Path(sys.argv[1]), "-".join(["canary", "in", "the", "task"])
reader = ScatteredReader(rows=5, partitions=1, nulled={canary: 0})
task = replace(scattered_task(folder), metadata={"wide": "".join(map(str, range(400_000)))})
context = spark_context(None, 1)
[result] = run_on_spark(task, reader, (Split(0),), context, threading.Event())
files = [p for p in Path(context._temp_dir).rglob("*") if p.is_file()]
found = [p.name for p in files if canary.encode() in p.read_bytes()]
print(result.rows, max(p.stat().st_size for p in files) > 2**20, found)
context.stop()
"""


def test_a_task_that_becomes_a_file_is_not_readable_there(tmp_path: Path) -> None:
    """It holds the source's password and the key of masks, and outlives a worker that is killed."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2],
        env=os.environ | QUICK_JAVA_ENVIRONMENT,
    )  # fmt: skip
    assert child.stdout.split("\n")[-2] == "5 True []"
