"""The Map item: what the state machine needs to run one table's job.

An item is flat JSON: the worker's arguments, the sections of every job type, and fields for the
job's result. ``batch`` and ``waited`` are of use to batches (`extract_jobs.tracking.batch_item`).
``catalog`` says whether the worker updates a catalog after its commit.
Every key is always present, because a missing JSONPath is an error that no Catch handles. The
config manager makes the first item of a run; the status handler makes the next attempt's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from extract_jobs.config.model import JobSettings
from extract_jobs.config.worker_sizes import (
    EMR_MOST_GB,
    bigger_fargate_task,
    bigger_glue_worker,
    emr_worker,
)
from extract_jobs.errors import ConfigError
from extract_jobs.spec.attempt_names import report_of
from extract_jobs.spec.extract_spec import ExtractSpec, problems
from extract_jobs.tracking.item import TrackedRun

Item = dict[str, Any]

WORKER_ARGUMENTS = (
    "run_id", "attempt", "generation", "execution_id", "source_name", "source_type",
    "extract_table", "job_type", "spec_uri", "report_uri", "tracking_table",
)  # fmt: skip
"""Every worker's arguments, as ``--key value``; never anything secret."""

NO_RESULT: dict[str, Any] = {}
NO_ERROR = {"Error": "", "Cause": ""}
_PLACES = ("application_id", "cluster_id")
_STOP_MARGIN_SECONDS = 600
"""The state machine waits this much longer than the service's limit, whose error has more
detail."""

_QUEUE_SECONDS = 24 * 3600
"""Extra time for a Glue job, which may wait in Glue's queue."""
_DRIVER_CPUS = 2


def first_item(
    spec: ExtractSpec,
    settings: JobSettings,
    *,
    spec_uri: str,
    execution_id: str,
    generation: int,
    job_defaults: Mapping[str, Mapping[str, Any]],
) -> Item:
    """Return the item of a run's first attempt.

    Args:
        spec: The table's spec.
        settings: Where and how its job runs.
        spec_uri: Where the spec was written.
        execution_id: ARN of the execution.
        generation: 1, or more for a rerun.
        job_defaults: The deployment's values for what the config leaves out, by section: ``{"ecs":
            {"subnets": […]}}``.

    Raises:
        ConfigError: The deployment's defaults are invalid, or EMR would have no program to run.
    """
    emr = _section("emr", settings.emr, job_defaults)
    place = emr["application_id"] or emr["cluster_id"]
    if settings.job_type == "emr" and place and not emr["entry_point"]:
        raise ConfigError(
            f"{spec.extract_table}: emr.entry_point is given neither by the config nor by the "
            f"deployment, so {place} would have no program to run: deploy with Emr=yes or "
            "EmrClusterArns, or set it to the URI of emr.py"
        )
    return rendered(
        {
            "run_id": spec.run_id,
            "attempt": spec.attempt,
            "generation": generation,
            "failures": 0,
            "waited": 0,
            "batch": [],
            "execution_id": execution_id,
            "source_name": spec.source_name,
            "source_type": spec.source_type,
            "extract_table": spec.extract_table,
            "job_type": settings.job_type,
            "spec_uri": spec_uri,
            "report_uri": spec.report_uri,
            "state_uri": spec.state_uri,
            "tracking_table": spec.tracking_table or "",
            "catalog": bool(spec.target.catalog) and not spec.target.is_iceberg,
            "glue": _section("glue", settings.glue, job_defaults),
            "emr": emr,
            "ecs": _section("ecs", settings.ecs, job_defaults),
            "retry": _section("retry", settings.retry, job_defaults),
        }
    )


def next_item(item: Item, *, counted: bool, bigger: bool) -> Item:
    """Return the item of the attempt after ``item``'s.

    Args:
        item: The attempt that ended.
        counted: Whether that attempt counts as a failed one.
        bigger: Whether the next worker gets more memory.
    """
    attempt = int(item["attempt"]) + 1
    sections = _BIGGER[item["job_type"]](item) if bigger and item["job_type"] in _BIGGER else {}
    return rendered(
        {
            **item,
            **sections,
            "attempt": attempt,
            "failures": int(item["failures"]) + counted,
            "report_uri": report_of(item["report_uri"], attempt),
        }
    )


def worker_arguments(item: Mapping[str, Any]) -> list[str]:
    """Return a worker's command line arguments for an item."""
    return [text for name in WORKER_ARGUMENTS for text in (f"--{name}", str(item[name]))]


def _section(
    name: str, settings: BaseModel, job_defaults: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return one section as JSON: the config's values, then the deployment's, then defaults."""
    given = settings.model_dump(exclude_unset=True)
    # A config that names one kind of EMR does not want the deployment's other one.
    beaten = _PLACES if any(given.get(key) for key in _PLACES) else ()
    unset = {
        key: value
        for key, value in job_defaults.get(name, {}).items()
        if key not in given and key not in beaten
    }
    if unset:
        try:
            settings = type(settings).model_validate({**_given(settings), **unset})
        except ValidationError as error:
            listed = "; ".join(f"{name}.{problem}" for problem in problems(error))
            raise ConfigError(f"JOB_DEFAULTS of the deployment: {listed}") from error
    plain = settings.model_dump(mode="json")
    return {key: "" if value is None else value for key, value in plain.items()}


def _given(settings: BaseModel) -> dict[str, Any]:
    return settings.model_dump(exclude_unset=True)


def rendered(item: Item) -> Item:
    """Return the item with all values that are derived from its numbers."""
    glue, emr, ecs = dict(item["glue"]), dict(item["emr"]), dict(item["ecs"])
    for section in (glue, emr, ecs):
        section["timeout_seconds"] = section["timeout_minutes"] * 60 + _STOP_MARGIN_SECONDS
    glue["timeout_seconds"] += _QUEUE_SECONDS
    emr["spark_submit_parameters"] = " ".join(
        f"--conf {key}={value}" for key, value in _serverless_settings(emr).items()
    )
    # Fargate expects both as text.
    ecs["cpu_text"], ecs["memory_text"] = str(ecs["cpu"]), str(ecs["memory"])
    cluster = {
        "cluster_id": emr["cluster_id"],
        "command": _cluster_command(emr, item),
        "timeout_seconds": emr["timeout_seconds"],
    }
    return {
        **item,
        "glue": glue,
        "emr": emr,
        "emr_cluster": cluster,
        "ecs": ecs,
        "job_result": NO_RESULT,
        "job_error": NO_ERROR,
    }


def _spark_settings(emr: Mapping[str, Any]) -> dict[str, str]:
    (driver_cpus, _), (executor_cpus, _) = emr_workers(emr)
    return {
        "spark.driver.memory": f"{emr['driver_memory_gb']}g",
        "spark.driver.cores": str(driver_cpus),
        "spark.executor.memory": f"{emr['executor_memory_gb']}g",
        "spark.executor.cores": str(executor_cpus),
        "spark.executor.instances": str(emr["executors"]),
        "spark.dynamicAllocation.enabled": "false",
        "spark.speculation": "false",
        # Spark keeps large tasks in files, and a task holds the source's password.
        "spark.io.encryption.enabled": "true",
    }


def emr_workers(emr: Mapping[str, Any]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return vCPUs and whole memory in GB of the driver's worker, and of an executor's."""
    driver = emr_worker(emr["driver_memory_gb"], _DRIVER_CPUS)
    return driver, emr_worker(emr["executor_memory_gb"], emr["executor_cores"])


def _serverless_settings(emr: Mapping[str, Any]) -> dict[str, str]:
    (_, driver_size), (_, executor_size) = emr_workers(emr)
    settings = {
        **_spark_settings(emr),
        # Tasks hold the source's password. Needs EMR 6.15 or later:
        # https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/interworker-encryption.html
        "spark.ssl.internode.enabled": "true",
        # So that memory and overhead add up to an existing size.
        "spark.driver.memoryOverhead": f"{driver_size - emr['driver_memory_gb']}g",
        "spark.executor.memoryOverhead": f"{executor_size - emr['executor_memory_gb']}g",
    }
    if emr["archive"]:
        python = "./environment/bin/python"
        settings |= {
            "spark.archives": f"{emr['archive']}#environment",
            "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": python,
            "spark.emr-serverless.driverEnv.PYSPARK_PYTHON": python,
            "spark.executorEnv.PYSPARK_PYTHON": python,
        }
    return settings


def _cluster_command(emr: Mapping[str, Any], item: Mapping[str, Any]) -> list[str]:
    """Return the step's whole command: ASL cannot join two lists."""
    settings = _spark_settings(emr)
    settings |= {
        # Otherwise YARN would restart the driver; retries are the state machine's decision.
        "spark.yarn.maxAppAttempts": "1",
        # Tasks hold the source's password. Spark makes a secret for each application on YARN; the
        # cluster's shuffle service knows none, and is not needed without dynamic allocation.
        # https://spark.apache.org/docs/latest/security.html
        "spark.authenticate": "true",
        "spark.network.crypto.enabled": "true",
        "spark.shuffle.service.enabled": "false",
    }
    if emr["archive"]:
        python = "./environment/bin/python"
        settings |= {
            "spark.yarn.dist.archives": f"{emr['archive']}#environment",
            "spark.yarn.appMasterEnv.PYSPARK_PYTHON": python,
            "spark.executorEnv.PYSPARK_PYTHON": python,
        }
    confs = [text for key, value in settings.items() for text in ("--conf", f"{key}={value}")]
    submit = ["spark-submit", "--deploy-mode", "cluster", *confs, emr["entry_point"]]
    return [*submit, *worker_arguments(item)]


def _bigger_glue(item: Item) -> Item:
    """The next worker type of the same family."""
    glue = item["glue"]
    return {"glue": {**glue, "worker_type": bigger_glue_worker(glue["worker_type"])}}


def _bigger_emr(item: Item) -> Item:
    """Twice the memory for driver and executors, up to the largest EMR Serverless worker."""
    emr = item["emr"]
    sizes = {k: max(emr[k], min(EMR_MOST_GB, emr[k] * 2))
             for k in ("driver_memory_gb", "executor_memory_gb")}  # fmt: skip
    return {"emr": {**emr, **sizes}}


def _bigger_ecs(item: Item) -> Item:
    """Twice the memory, with the fewest CPUs that Fargate offers for it."""
    ecs = item["ecs"]
    cpu, memory = bigger_fargate_task(ecs["cpu"], ecs["memory"])
    return {"ecs": {**ecs, "cpu": cpu, "memory": memory}}


_BIGGER = {"glue": _bigger_glue, "emr": _bigger_emr, "ecs": _bigger_ecs}


def run_of(item: Item) -> TrackedRun:
    """Return the tracked run of an item."""
    return TrackedRun(
        table_id=f"{item['source_name']}/{item['extract_table']}",
        run_id=item["run_id"],
        generation=int(item["generation"]),
        attempt=int(item["attempt"]),
        execution_id=item["execution_id"],
        source_name=item["source_name"],
        extract_table=item["extract_table"],
        job_type=item["job_type"],
        spec_uri=item["spec_uri"],
        report_uri=item["report_uri"],
        failures=int(item["failures"]),
    )
