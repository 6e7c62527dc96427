"""Finds the jobs of a run on Glue, EMR and ECS, and stops them.

Each service is queried once for all jobs of a place, however many runs are searched for there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from extract_jobs.tracking.item import TrackedRun
from extract_jobs.tracking.map_item import Item

logger = logging.getLogger(__name__)

_GLUE_OVER = {"SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED"}
_EMR_RUNNING = ["SUBMITTED", "PENDING", "SCHEDULED", "RUNNING", "QUEUED", "CANCELLING"]
_STEP_RUNNING = ["PENDING", "RUNNING", "CANCEL_PENDING"]

_GONE = {"EntityNotFoundException", "ResourceNotFoundException", "ClusterNotFoundException"}
"""Errors for a job, application or cluster that was deleted: nothing runs there."""

Client = Callable[[str], Any]
"""Returns the boto3 client of a service, by name."""


@dataclass(frozen=True)
class Job:
    """One job that is running, or waiting to run.

    Attributes:
        words: The words of its start command, which include its run's id.
        stop: Asks the service to stop it, with a reason that some services show.
        started_at: When; None if the service does not say.
    """

    words: frozenset[str]
    stop: Callable[[str], Any]
    started_at: datetime | None = None


@dataclass(frozen=True)
class RunningJobs:
    """The running jobs of all services.

    Attributes:
        client: Returns the client of a service.
        since: Jobs that began earlier are over, whatever their service reports.
    """

    client: Client
    since: datetime
    known: dict[tuple[str, str], Sequence[Job]] = field(default_factory=dict)

    def of(self, run: TrackedRun, item: Item) -> list[Job] | None:
        """Return the running jobs of a run; None if its service cannot be queried."""
        if run.job_type not in _PLACES:
            return []
        from botocore.exceptions import BotoCoreError, ClientError

        place = service, name = _PLACES[run.job_type](item)
        try:
            if place not in self.known:
                self.known[place] = list(_RUNNING[service](self.client(service), name, self.since))
        except (BotoCoreError, ClientError) as error:
            code = getattr(error, "response", {}).get("Error", {}).get("Code")
            if code in _GONE:
                return []
            logger.warning("%s cannot be asked for the run's job: %s", service, error)
            return None
        # A batch's job is named after the batch.
        started_with = item.get("job_run_id") or run.run_id
        return [job for job in self.known[place] if started_with in job.words]

    def may_run(self, run: TrackedRun, item: Item) -> bool:
        """Return whether a job of the run still runs; an unknown state counts as running."""
        # A table of a batch may be waiting for its turn.
        started = run.status != "PENDING" or item.get("job_run_id")
        return bool(started) and self.of(run, item) != []


def _emr_place(item: Item) -> tuple[str, str]:
    cluster = item["emr_cluster"]["cluster_id"]
    return ("emr", cluster) if cluster else ("emr-serverless", item["emr"]["application_id"])


def _glue_jobs(glue: Any, job_name: str, since: datetime) -> Iterator[Job]:
    """Yield the running job runs. Glue lists 90 days, newest first; older ones are not read.

    https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-runs.html
    """
    for page in glue.get_paginator("get_job_runs").paginate(JobName=job_name):
        for job in page["JobRuns"]:
            started, number = job.get("StartedOn"), job.get("Id", "")
            if (started or since) < since:
                return
            if job["JobRunState"] not in _GLUE_OVER:

                def stop(_reason: str, number: str = number) -> None:
                    glue.batch_stop_job_run(JobName=job_name, JobRunIds=[number])

                yield Job(frozenset(job.get("Arguments", {}).values()), stop, started)


def _emr_serverless_jobs(emr: Any, application_id: str, since: datetime) -> Iterator[Job]:
    pages = emr.get_paginator("list_job_runs")
    asked = {"applicationId": application_id, "states": _EMR_RUNNING, "createdAtAfter": since}
    for page in pages.paginate(**asked):
        for job in page["jobRuns"]:

            def stop(_reason: str, number: str = job.get("id", "")) -> None:
                emr.cancel_job_run(applicationId=application_id, jobRunId=number)

            yield Job(frozenset({job.get("name", "")}), stop, job.get("createdAt"))


def _emr_steps(emr: Any, cluster_id: str, _since: datetime) -> Iterator[Job]:
    pages = emr.get_paginator("list_steps")
    for page in pages.paginate(ClusterId=cluster_id, StepStates=_STEP_RUNNING):
        for step in page["Steps"]:

            def stop(_reason: str, number: str = step.get("Id", "")) -> None:
                emr.cancel_steps(
                    ClusterId=cluster_id,
                    StepIds=[number],
                    StepCancellationOption="TERMINATE_PROCESS",
                )

            started = step.get("Status", {}).get("Timeline", {}).get("CreationDateTime")
            yield Job(frozenset({step["Name"]}), stop, started)


def _ecs_tasks(ecs: Any, cluster: str, _since: datetime) -> Iterator[Job]:
    for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster):
        if not page["taskArns"]:
            continue
        for task in ecs.describe_tasks(cluster=cluster, tasks=page["taskArns"])["tasks"]:
            if task["lastStatus"] == "STOPPED":
                continue

            def stop(reason: str, number: str = task.get("taskArn", "")) -> None:
                ecs.stop_task(cluster=cluster, task=number, reason=reason[:_MOST_REASON])

            words = {
                word
                for container in task.get("overrides", {}).get("containerOverrides", [])
                for word in container.get("command", [])
            }
            yield Job(frozenset(words), stop, task.get("createdAt"))


_MOST_REASON = 255
_PLACES: dict[str, Callable[[Item], tuple[str, str]]] = {
    "glue": lambda item: ("glue", item["glue"]["job_name"]),
    "emr": _emr_place,
    "ecs": lambda item: ("ecs", item["ecs"]["cluster"]),
}
_RUNNING: dict[str, Callable[[Any, str, datetime], Iterator[Job]]] = {
    "glue": _glue_jobs,
    "emr-serverless": _emr_serverless_jobs,
    "emr": _emr_steps,
    "ecs": _ecs_tasks,
}
