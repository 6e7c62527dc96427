"""ingestr's command line, into a DuckDB file, which is written out as Parquet by DuckDB."""

import os
import subprocess
import sys
from pathlib import Path

import duckdb
from serve import Job, serve

PROGRAM = Path(sys.prefix) / "bin" / "ingestr"


def extract(job: Job) -> None:
    kept = f"{job.folder}/extracted.duckdb"
    done = subprocess.run(
        [PROGRAM, "ingest", "--yes", "--source-uri", job.uri(),
         "--source-table", f"query:{job.query}", "--dest-uri", f"duckdb:///{kept}",
         "--dest-table", "main.extracted"],
        env=os.environ | {"INGESTR_DISABLE_TELEMETRY": "true"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr).strip()[-600:])
    with duckdb.connect(kept, read_only=True) as database:
        database.execute(f"copy main.extracted to '{job.file}' (format parquet)")


serve(extract)
