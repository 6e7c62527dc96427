"""Files from the command line: plan, run, run again, status; rows put aside are told, not shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from extract_jobs.errors import SchemaChanged
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec

ROOT = Path(__file__).parents[2]
CONFIG = """\
version: 1
source: {name: drop, type: files, connection: {uri: in}}
defaults: {target: {uri: "out/{table}"}}
tables:
  orders:
    mode: incremental
    files: {glob: "orders/*.csv", bad_rows: reject, types: {id: int64, what: string}}
"""


def test_plan_run_and_status_of_files(tmp_path: Path) -> None:
    (tmp_path / "drop.yml").write_text(CONFIG)
    (tmp_path / "in/orders").mkdir(parents=True)
    (tmp_path / "in/orders/1.csv").write_text("id,what\n1,x\nSECRET,y\n")

    def cli(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "extract_jobs.cli", *arguments], cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "SECRET" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    shown = cli("plan", "drop.yml", "orders")
    assert "drop/orders (files, 1 csv files)" in shown
    assert "csv as int64" in shown
    assert not (tmp_path / "out").exists()
    printed = cli("run", "drop.yml", "--json").splitlines()
    first = json.loads(next(line for line in printed if line.startswith("{")))
    assert (first["rows"], first["rejected_rows"]) == (1, 1)
    newest = cli("plan", "drop.yml", "orders", "--set", "files.listing=newest")
    assert "none: no file is new" in newest
    assert "listing:     increments list from the files of the last day on" in newest
    (tmp_path / "in/orders/2.csv").write_text("what,id\nz,2\n")
    assert "1 row" in cli("run", "drop.yml")
    assert "orders  2    published" in cli("history", "drop.yml", "orders")
    files = (tmp_path / "out/orders").rglob("*.parquet")
    assert sorted(n for f in files for n in pq.read_table(f).column("id").to_pylist()) == [1, 2]


def test_a_type_that_changed_says_how_to_find_the_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/1.csv").write_text("id\n1\n")
    given = {
        "source_name": "drop", "source_type": "files", "extract_table": "orders",
        "connection": {"uri": str(tmp_path / "in")}, "files": {"glob": "*.csv"},
        "mode": "incremental", "target": {"uri": str(tmp_path / "out")},
        "state_uri": str(tmp_path / "state"), "report_uri": str(tmp_path / "report.json"),
    }  # fmt: skip
    run_extract(ExtractSpec.model_validate({**given, "run_id": "1"}))
    (tmp_path / "in/2.csv").write_text("id\nabc\n")
    with pytest.raises(SchemaChanged, match=r"column id .* declare the types in files\.types"):
        run_extract(ExtractSpec.model_validate({**given, "run_id": "2"}))
