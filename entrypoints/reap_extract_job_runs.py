"""Scheduled Lambda that resolves abandoned runs and counts overdue tables.

An execution that is stopped by hand, that times out or that dies of an error no Catch sees leaves
runs in the tracking table that never get an outcome. For each such execution of the last `DAYS`,
this function asks the job services whether the run's job is still running. If it is not, the run is
resolved from its report and its table's commit log, as the status handler would do, but without
retries: whatever did not succeed becomes FAILED, so that ``rerun_failed_of`` picks it up. A run
marked FAILED although its commit was accepted is checked again, and becomes SUCCEEDED once that
commit is published.

A running execution is left alone: its state machine is notified about its jobs. Calling this twice,
or two at once, has no further effect.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from extract_jobs.config import load_config
from extract_jobs.errors import ConfigError
from extract_jobs.reporting.logs import in_every_line, log_json_lines
from extract_jobs.reporting.metrics import metrics_line
from extract_jobs.storage import OpenStorage, join, open_storage
from extract_jobs.tracking.finished_attempt import fields_of, is_unresolved, resolve_run
from extract_jobs.tracking.listed_items import ListedItems
from extract_jobs.tracking.map_item import Item
from extract_jobs.tracking.table import TrackedRun, Tracking, client_from_environment, utc_now

logger = logging.getLogger(__name__)

DAYS = 28
"""Executions that started within this many days are checked. The state machine itself gives one up
after 14 days, and that one must be checked too."""
LONGEST_JOB = timedelta(days=8)
"""Longer than a Glue job may run: one that began earlier is over, whatever Glue reports."""

_LEFT_BEHIND = ("FAILED", "TIMED_OUT", "ABORTED")
_GLUE_OVER = {"SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED"}
_EMR_RUNNING = ["SUBMITTED", "PENDING", "SCHEDULED", "RUNNING", "QUEUED", "CANCELLING"]
_STEP_RUNNING = ["PENDING", "RUNNING", "CANCEL_PENDING"]

_GONE = {"EntityNotFoundException", "ResourceNotFoundException", "ClusterNotFoundException"}
"""Errors for a job, application or cluster that was deleted: nothing runs there."""

Client = Callable[[str], Any]
"""Returns the boto3 client of a service, by name."""


@dataclass(frozen=True)
class Settings:
    """Settings from the deployment.

    Attributes:
        state_machine_arn: The state machine whose executions are checked.
        config_uri: Folder of the source configs, which list the tables that can be overdue.
        overdue: How long after its last success a table is overdue.
    """

    state_machine_arn: str
    config_uri: str
    overdue: timedelta

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read ``STATE_MACHINE_ARN``, ``CONFIG_URI`` and ``OVERDUE_HOURS``.

        Raises:
            ConfigError: One is missing, or the hours are not a number.
        """
        names = ("STATE_MACHINE_ARN", "CONFIG_URI", "OVERDUE_HOURS")
        missing = [name for name in names if not environment.get(name)]
        if missing:
            raise ConfigError(f"the function's environment lacks {', '.join(missing)}")
        try:
            hours = float(environment["OVERDUE_HOURS"])
        except ValueError:
            raise ConfigError("OVERDUE_HOURS of the deployment is not a number") from None
        arn, config_uri = environment["STATE_MACHINE_ARN"], environment["CONFIG_URI"]
        return cls(arn, config_uri, timedelta(hours=hours))


def handler(_event: object, _context: object) -> dict[str, Any]:
    """Resolve abandoned runs and count overdue tables."""
    log_json_lines()
    in_every_line()
    settings = Settings.from_environment(os.environ)
    tracking = Tracking(_client("dynamodb"), os.environ["TRACKING_TABLE"], utc_now)
    resolved = reap(settings, tracking=tracking, client=_client, open_storage=open_storage)
    in_every_line()
    overdue = count_overdue(settings, tracking=tracking, open_storage=open_storage)
    return {**resolved, "overdue": overdue}


def reap(
    settings: Settings, *, tracking: Tracking, client: Client, open_storage: OpenStorage
) -> dict[str, int]:
    """Resolve the runs that ended executions have left without an outcome.

    Returns:
        How many runs became ``succeeded`` and ``failed``, and how many were left as ``running``
        because their job still runs or its state is unknown; the next call checks those again.
    """
    counts = {"succeeded": 0, "failed": 0, "running": 0}
    since = tracking.clock() - timedelta(days=DAYS) - LONGEST_JOB
    jobs = _Jobs(client, since)
    for execution in _left_behind(settings.state_machine_arn, client, tracking.clock()):
        arn, status = execution["executionArn"], execution["status"]
        again = json.dumps({"rerun_failed_of": arn})
        # A new one for each execution: a list may have thousands of items.
        items = ListedItems(open_storage)
        for run in [run for run in tracking.by_execution(arn) if is_unresolved(run)]:
            in_every_line(**fields_of(run))
            item = items.of(run)
            if not run.ended and item is not None and jobs.may_run(run, item):
                counts["running"] += 1
                continue
            resolved = resolve_run(
                run,
                item,
                name=f"Execution{status.title().replace('_', '')}",
                cause=f"the execution is {status} and the run's job is no longer running; start "
                f"the state machine with {again}",
                tracking=tracking,
                open_storage=open_storage,
            )
            if resolved is not None:
                counts[resolved.status.lower()] += 1
    return counts


def count_overdue(
    settings: Settings, *, tracking: Tracking, open_storage: OpenStorage
) -> list[str]:
    """Return the tables of all configs that have not succeeded for too long, and count them.

    A table that never has is overdue from as long after its config was written. A config that
    cannot be read is logged, and its tables are not counted.
    """
    now = tracking.clock()
    since: dict[str, datetime] = {}
    storage = open_storage(settings.config_uri)
    for listed in storage.list(join(settings.config_uri, "")):
        if not listed.uri.endswith(".yml"):
            continue
        try:
            config = load_config(storage.read(listed.uri) or b"", listed.uri)
        except ConfigError as error:
            logger.warning("%s", error)
            continue
        for table in config.tables:
            since[f"{config.source.name}/{table}"] = listed.modified_at or now
    since.update(tracking.last_successes(list(since)))
    overdue = sorted(table for table, at in since.items() if now - at > settings.overdue)
    for table in overdue:
        logger.warning("%s has not been extracted since %s", table, since[table])
    counted = {"TablesOverdue": len(overdue)}
    print(metrics_line(counted, pipeline=tracking.table, source_name="*", now=now))
    return overdue


@functools.cache
def _client(service: str) -> Any:
    """One client a process and service, made at its first call and not at import."""
    if service == "dynamodb":
        return client_from_environment()
    import boto3

    from extract_jobs.storage.aws_errors import refuse_foreign_answers

    return refuse_foreign_answers(boto3.client(service))


def _left_behind(arn: str, client: Client, now: datetime) -> Iterator[dict[str, Any]]:
    """Yield the executions that are over and may have left runs behind, newest first."""
    pages = client("stepfunctions").get_paginator("list_executions")
    for page in pages.paginate(stateMachineArn=arn):
        for execution in page["executions"]:
            if now - execution["startDate"] > timedelta(days=DAYS):
                return
            if execution["status"] in _LEFT_BEHIND:
                yield execution


@dataclass(frozen=True)
class _Jobs:
    """The jobs that run, asked for once a service, however many runs were left behind."""

    client: Client
    since: datetime
    running: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def may_run(self, run: TrackedRun, item: Item) -> bool:
        """Return whether a job of the run still runs; what cannot be asked counts as running."""
        job = item.get("job_run_id")  # a table of a batch may be waiting for its turn
        if (run.status == "PENDING" and not job) or run.job_type not in _PLACES:
            return False
        from botocore.exceptions import BotoCoreError, ClientError

        place = service, name = _PLACES[run.job_type](item)
        try:
            if place not in self.running:
                self.running[place] = set(_RUNNING[service](self.client(service), name, self.since))
        except (BotoCoreError, ClientError) as error:
            code = getattr(error, "response", {}).get("Error", {}).get("Code")
            if code in _GONE:
                return False
            logger.warning("%s cannot be asked for the run's job: %s", service, error)
            return True
        return (job or run.run_id) in self.running[place]


def _emr_place(item: Item) -> tuple[str, str]:
    cluster = item["emr_cluster"]["cluster_id"]
    return ("emr", cluster) if cluster else ("emr-serverless", item["emr"]["application_id"])


def _glue_jobs(glue: Any, job_name: str, since: datetime) -> Iterator[str]:
    """Yield the runs under way. Glue lists all of 90 days, newest first: older ones are not read.

    https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-runs.html
    """
    for page in glue.get_paginator("get_job_runs").paginate(JobName=job_name):
        for job in page["JobRuns"]:
            if job.get("StartedOn", since) < since:
                return
            if job["JobRunState"] not in _GLUE_OVER:
                yield job.get("Arguments", {}).get("--run_id", "")


def _emr_serverless_jobs(emr: Any, application_id: str, since: datetime) -> Iterator[str]:
    pages = emr.get_paginator("list_job_runs")
    asked = {"applicationId": application_id, "states": _EMR_RUNNING, "createdAtAfter": since}
    for page in pages.paginate(**asked):
        yield from (job.get("name", "") for job in page["jobRuns"])


def _emr_steps(emr: Any, cluster_id: str, _since: datetime) -> Iterator[str]:
    pages = emr.get_paginator("list_steps")
    for page in pages.paginate(ClusterId=cluster_id, StepStates=_STEP_RUNNING):
        yield from (step["Name"] for step in page["Steps"])


def _ecs_tasks(ecs: Any, cluster: str, _since: datetime) -> Iterator[str]:
    """Yield every word of the running tasks' commands, the run ids among them."""
    for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster):
        if not page["taskArns"]:
            continue
        for task in ecs.describe_tasks(cluster=cluster, tasks=page["taskArns"])["tasks"]:
            if task["lastStatus"] != "STOPPED":
                for container in task.get("overrides", {}).get("containerOverrides", []):
                    yield from container.get("command", [])


_PLACES: dict[str, Callable[[Item], tuple[str, str]]] = {
    "glue": lambda item: ("glue", item["glue"]["job_name"]),
    "emr": _emr_place,
    "ecs": lambda item: ("ecs", item["ecs"]["cluster"]),
}
_RUNNING: dict[str, Callable[[Any, str, datetime], Iterator[str]]] = {
    "glue": _glue_jobs,
    "emr-serverless": _emr_serverless_jobs,
    "emr": _emr_steps,
    "ecs": _ecs_tasks,
}
