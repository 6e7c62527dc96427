"""What a command imports: a person waits for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ARROW = {
    "pyarrow",
    "numpy",
    "duckdb",
    "botocore",
    "psycopg",
    "pandas",
    "pyspark",
    "rich",
    "sqlglot",
}
CONFIG = {"pydantic", "yaml"}
SCRIPT = """
import json, sys
from extract_jobs.cli import main
try:
    code = main({arguments!r})
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted({heavy!r} & set(sys.modules))]))
"""


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], ARROW | CONFIG),
        (["run", "--help"], ARROW | CONFIG),
        (["--version"], ARROW | CONFIG),
        (["schema"], ARROW),
        (["validate", "shop.yml"], ARROW),
        (["spec", "shop.yml", "t"], ARROW),
        (["status", "shop.yml"], ARROW),
        (["recover", "shop.yml"], ARROW),
    ],
)
def test_commands_that_read_no_table_import_nothing_that_reads_tables(
    tmp_path: Path, arguments: list[str], heavy: set[str]
) -> None:
    (tmp_path / "shop.yml").write_text(
        "version: 1\n"
        "source: {name: shop, type: sqlite, connection: {path: shop.db}}\n"
        "tables: {t: {target: {uri: lake}}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(arguments=arguments, heavy=heavy)],
        cwd=tmp_path, env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]
