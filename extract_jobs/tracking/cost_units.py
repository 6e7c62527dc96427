"""What a run used of what AWS charges for: DPU-hours on Glue, vCPU- and GB-hours elsewhere.

An estimate: the time of the newest attempt's phases, times the size that its job was given first.
Tables of a batch run one after the other, so each uses the worker for its own time. The start of
the job, earlier attempts, larger workers of a retry and a service's least charge are not in it.
Prices differ by region and contract, so there are none here.
"""

from __future__ import annotations

from collections.abc import Mapping

from extract_jobs.tracking.map_item import Item, emr_workers

_GLUE_UNITS = {"G": "DPU-hours", "R": "M-DPU-hours"}


def cost_units(item: Item, seconds: float) -> Mapping[str, float]:
    """Return units by name, such as ``{"DPU-hours": 0.5}``; empty where they are not known.

    Args:
        item: The run's Map item.
        seconds: How long its worker worked.
    """
    hours = seconds / 3600
    if item["job_type"] == "glue":
        # G.2X is a worker of two DPU, R.2X one of two memory-optimized ones.
        kind, _, size = str(item["glue"]["worker_type"]).partition(".")
        units, name = size.removesuffix("X"), _GLUE_UNITS.get(kind)
        workers = int(item["glue"]["number_of_workers"])
        return {name: hours * workers * int(units)} if name and units.isdigit() else {}
    if item["job_type"] == "ecs":
        ecs = item["ecs"]
        return _hours(hours, int(ecs["cpu"]) / 1024, int(ecs["memory"]) / 1024)
    if item["job_type"] == "emr" and item["emr"]["application_id"]:
        driver, executor = emr_workers(item["emr"])
        count = int(item["emr"]["executors"])
        return _hours(hours, *(a + count * b for a, b in zip(driver, executor, strict=True)))
    return {}  # a cluster is charged for whether or not a step runs on it


def _hours(hours: float, cpus: float, gigabytes: float) -> dict[str, float]:
    return {"vCPU-hours": hours * cpus, "GB-hours": hours * gigabytes}
