"""pandas is imported by nobody but who asks for it: it costs seconds in each process."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, sys
from extract_jobs.cli import main
code = main({arguments!r})
print(json.dumps([code, sorted({{"pandas"}} & set(sys.modules))]))
"""


def in_a_process(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def test_the_command_line_extracts_without_pandas(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("create table t (id integer primary key, name text, at timestamp)")
        database.execute("insert into t values (1, 'a', '2026-01-31 12:00:00')")
    database.close()
    config = tmp_path / "shop.yml"
    config.write_text(
        "version: 1\n"
        f"source: {{name: shop, type: sqlite, connection: {{path: {tmp_path}/shop.db}}}}\n"
        f"tables: {{t: {{target: {{uri: {tmp_path}/lake}}}}}}\n"
    )
    for command in ("plan", "run"):
        script = SCRIPT.format(arguments=[command, str(config), "t"])
        assert json.loads(in_a_process(script)) == [0, []], command
    assert list((tmp_path / "lake").rglob("*.parquet"))


def test_pandas_can_still_be_imported() -> None:
    """Skipped and then asked for, pandas converts as if it had never been skipped."""
    script = """
import sys
from extract_jobs.engine.pandas_free import pandas_is_skipped, skip_pandas
skip_pandas()
import pyarrow as pa
table = pa.table({"n": pa.array([1, None])})
assert pandas_is_skipped() and "pandas" not in sys.modules
frame = table.to_pandas()
import pandas as pd
assert pa.array(pd.Series([1.5, None])).null_count == 1
print(type(frame).__module__.split(".")[0])
"""
    assert in_a_process(script) == "pandas"


def test_pandas_that_is_imported_already_stays() -> None:
    script = """
import pandas as pd
from extract_jobs.engine.pandas_free import pandas_is_skipped, skip_pandas
skip_pandas()
import pyarrow as pa
print(pandas_is_skipped(), pa.array(pd.Series([1.5, None])).null_count)
"""
    assert in_a_process(script) == "False 1"
