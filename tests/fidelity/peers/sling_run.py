"""Sling's command line, from a stream of a connection to Parquet files."""

import os
import subprocess
import sys
from pathlib import Path

from serve import Job, serve

PROGRAM = Path(sys.prefix) / "bin" / "sling"


def extract(job: Job) -> None:
    scheme = {"postgres": "postgres", "sqlite": "sqlite"}.get(job.database, job.database)
    uri = f"sqlite://{job.name}" if job.database == "sqlite" else job.uri(scheme)
    if job.database == "postgres":
        uri += "?sslmode=disable"
    done = subprocess.run(
        [PROGRAM, "run", "--src-conn", "SOURCE", "--src-stream", job.query,
         "--tgt-object", f"file://{job.file}"],
        env=os.environ | {"SOURCE": uri, "SLING_HOME_DIR": f"{job.folder}/home",
                          "SLING_DISABLE_TELEMETRY": "true"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr).strip()[-600:])


serve(extract)
