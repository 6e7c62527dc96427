"""A session that was stopped: refused where it is needed, ignored where it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.java import QUICK_JAVA_ENVIRONMENT
from tests.support.sqlite_source import write

pytestmark = pytest.mark.spark

PROGRAM = """
from pyspark.sql import SparkSession
from extract_jobs.errors import ConfigError
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spark.java import bundled_java_home
import os, sys
os.environ.setdefault("JAVA_HOME", str(bundled_java_home()))
session = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
session.stop()
for engine in ("processes", "auto"):
    spec = ExtractSpec(
        run_id=engine, source_name="shop", source_type="sqlite", extract_table="t", mode="full",
        connection={"path": "shop.db"}, target={"uri": "lake"}, state_uri="state",
        report_uri=f"{engine}.json", engine=engine,
        split={"target_bytes": 8192, "max_connections": 2},
    )
    try:
        report = run_extract(spec, spark=session)
        print(engine, report.rows, report.splits > 2)
    except ConfigError as error:
        print(engine, error)
"""


def test_a_stopped_session_is_refused_only_where_splits_need_it(tmp_path: Path) -> None:
    write(
        tmp_path / "shop.db",
        "create table t (id integer primary key, note text)",
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000)"
        " insert into t select i, hex(randomblob(40)) from n",
    )
    (tmp_path / "program.py").write_text(PROGRAM)
    ended = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=True,
        timeout=300, env=os.environ | QUICK_JAVA_ENVIRONMENT,
    )  # fmt: skip
    assert ended.stdout.splitlines() == [
        "processes 2000 True",
        "auto the Spark session of this extract was stopped: pass one that runs, or none",
    ]
