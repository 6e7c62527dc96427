"""What a run used of what AWS charges for, as an estimate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from extract_jobs.config.model import JobSettings
from extract_jobs.tracking.batch_item import batched, tables_of
from extract_jobs.tracking.cost_units import cost_units
from extract_jobs.tracking.map_item import first_item
from tests.support.specs import make_spec


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"job_type": "glue", "glue": {"worker_type": "G.2X", "number_of_workers": 5}},
         {"DPU-hours": 5.0}),
        ({"job_type": "glue", "glue": {"worker_type": "R.1X", "number_of_workers": 2}},
         {"M-DPU-hours": 1.0}),
        ({"job_type": "ecs", "ecs": {"cpu": 512, "memory": 4096}},
         {"vCPU-hours": 0.25, "GB-hours": 2.0}),
        # A driver of 2 vCPU and 5 GB, and three executors of 2 vCPU and 9 GB.
        ({"job_type": "emr", "emr": {"application_id": "a", "entry_point": "s3://b/emr.py",
          "executors": 3, "executor_memory_gb": 8, "executor_cores": 2}},
         {"vCPU-hours": 4.0, "GB-hours": 16.0}),
        ({"job_type": "emr", "emr": {"cluster_id": "j-1", "entry_point": "s3://b/emr.py"}}, {}),
    ],
)  # fmt: skip
def test_half_an_hour(settings: dict[str, Any], expected: dict[str, float], tmp_path: Path) -> None:
    item = first_item(
        make_spec(tmp_path), JobSettings.model_validate(settings), spec_uri="s3://b/specs/x.json",
        execution_id="e", generation=1, job_defaults={},
    )  # fmt: skip
    assert cost_units(item, 1800) == pytest.approx(expected)


def test_each_table_of_a_batch_uses_its_worker_for_its_own_time(tmp_path: Path) -> None:
    settings = JobSettings.model_validate({"job_type": "ecs", "ecs": {"cpu": 512}})
    items = [
        first_item(
            make_spec(tmp_path, extract_table=name, run_id=name), settings, execution_id="e",
            spec_uri=f"s3://b/specs/{name}.json", generation=1, job_defaults={},
        )
        for name in ("a", "b")
    ]  # fmt: skip
    [batch] = batched(items, {"a": 1, "b": 1}, "s3://b")
    assert [cost_units(one, 3600)["vCPU-hours"] for one in tables_of(batch)] == [0.5, 0.5]
