"""What spark-submit says of the Spark to run on is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from extract_jobs.spark.java import bundled_java_home
from extract_jobs.spark.session import spark_is_set_up
from tests.support.java import QUICK_JAVA_ENVIRONMENT

pytestmark = pytest.mark.spark

ROOT = Path(__file__).parents[2]
PROGRAM = """
from extract_jobs.spark.session import spark_context, spark_is_set_up
print("set up", spark_is_set_up())
context = spark_context(None, 2)
print("master", context.master, context.getConf().get("spark.app.name"))
context.stop()
"""


def test_the_master_and_name_of_spark_submit_are_kept(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    ended = subprocess.run(
        [Path(sys.executable).with_name("spark-submit"), "--master", "local[1,3]", "--name", "mine",
         tmp_path / "program.py"],
        env={**os.environ, "JAVA_HOME": str(bundled_java_home()), "PYSPARK_PYTHON": sys.executable,
             "PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1", **QUICK_JAVA_ENVIRONMENT},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout.splitlines() == ["set up True", "master local[1,3] mine"]


@pytest.mark.parametrize(
    ("variables", "text", "expected"),
    [
        ({}, None, False),
        ({"PYSPARK_GATEWAY_PORT": "1"}, None, True),
        ({"MASTER": "yarn"}, None, True),
        ({"PYSPARK_SUBMIT_ARGS": "--master yarn pyspark-shell"}, None, True),
        ({"PYSPARK_SUBMIT_ARGS": "--driver-memory 1g pyspark-shell"}, None, False),
        ({}, "# spark.master yarn\nspark.ui.enabled false", False),
        ({}, "spark.master   yarn", True),
    ],
)
def test_where_a_spark_is_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables, text, expected
) -> None:
    monkeypatch.setattr("extract_jobs.spark.session._active_context", lambda: None)
    for name in ("PYSPARK_GATEWAY_PORT", "MASTER", "PYSPARK_SUBMIT_ARGS", "SPARK_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    if text:
        (tmp_path / "spark-defaults.conf").write_text(text)
    assert spark_is_set_up() is expected
