"""Ten thousand tables through the Extract Config Manager: seconds, memory, and all of it there.

Run it by hand: ``python -m tests.bench.bench_config_manager [--tables N]``. The emulator shares the
machine with it, so the seconds are more than the function's own; CPU seconds are those of the
function's process alone. Lambda with 512 MB has 0.29 of a CPU, with 1,769 MB a whole one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from infra.local.emulator import start_emulator

BUDGET_SECONDS = 60.0
BUDGET_MB = 512.0
_FUNCTION = """
import json, resource, sys, time
event = json.load(sys.stdin)
start, cpu = time.perf_counter(), time.process_time()
from entrypoints.extract_config_manager import handler
loaded = time.perf_counter() - start
answer = handler(event, None)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"answer": answer, "import_seconds": round(loaded, 2),
    "seconds": round(time.perf_counter() - start, 2),
    "cpu_seconds": round(time.process_time() - cpu, 2), "peak_mb": round(peak)}))
"""


def config_of(tables: int) -> str:
    """Return a config of so many tables, the three job types in turn."""
    jobs = ("glue", "emr", "ecs")
    return yaml.safe_dump(
        {
            "version": 1,
            "source": {
                "name": "wide",
                "type": "postgres",
                "connection": {"secret_id": "lake/wide"},
            },
            "defaults": {"target": {"uri": "s3://lake/raw/{source_name}/{schema}/{table}"}},
            "tables": {f"public.t{n:05d}": {"job_type": jobs[n % 3]} for n in range(tables)},
        },
        sort_keys=False,
    )


def measure(tables: int, overrides: dict[str, object]) -> dict[str, object]:
    """Run the function once, in a process of its own, and check what it left."""
    import boto3

    from extract_jobs.tracking.table import Tracking, create_table, utc_now

    with tempfile.TemporaryDirectory() as folder, start_emulator(Path(folder)) as emulator:
        given = emulator.environment()
        os.environ.update(given)
        s3, dynamodb = boto3.client("s3"), boto3.client("dynamodb")
        s3.create_bucket(Bucket="work")
        s3.put_object(Bucket="work", Key="config/wide.yml", Body=config_of(tables).encode())
        create_table(dynamodb, "tracking")
        event = {
            "input": {"source_name": "wide", "extract_tables": "*", "overrides": overrides},
            "execution_id": "arn:aws:states:us-east-1:000000000000:execution:bench:1",
            "execution_started_at": "2025-03-01T12:00:00Z",
        }
        ended = subprocess.run(
            [sys.executable, "-c", _FUNCTION],
            input=json.dumps(event),
            env={
                **os.environ,
                "CONFIG_URI": "s3://work/config",
                "WORK_URI": "s3://work/executions",
                "TRACKING_TABLE": "tracking",
                "PYTHONPATH": str(Path(__file__).parents[2]),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise SystemExit(ended.stderr)
        result: dict[str, object] = json.loads(ended.stdout)
        answer = result.pop("answer")
        assert isinstance(answer, dict)
        listed = json.loads(
            s3.get_object(Bucket=answer["bucket"], Key=answer["key"])["Body"].read()
        )
        start = time.perf_counter()
        pending = list(Tracking(dynamodb, "tracking", utc_now).by_execution(event["execution_id"]))
        result["read_back_seconds"] = round(time.perf_counter() - start, 2)
        prefix = answer["key"].rsplit("/", 1)[0] + "/specs/"
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket="work", Prefix=prefix)
        specs = sum(len(page.get("Contents", [])) for page in pages)
        found = (len(listed), len({i["run_id"] for i in listed}), len(pending), specs)
        if found != (tables,) * 4:
            raise SystemExit(f"items, run ids, PENDING, specs: {found}; expected {tables} of each")
        return {"tables": tables, "overrides": overrides, **result}


def main() -> None:
    """Measure, print, and fail over budget."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=10_000)
    options = parser.parse_args()
    over = False
    for overrides in ({}, {"mode": "full", "max_connections": 2}):
        result = measure(options.tables, overrides)
        print(json.dumps(result), flush=True)
        over |= float(str(result["seconds"])) > BUDGET_SECONDS
        over |= float(str(result["peak_mb"])) > BUDGET_MB
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
