"""Scheduled Lambda that resolves abandoned runs, stops silent jobs and counts overdue tables.

An execution that is stopped by hand, that times out or that dies of an error no Catch sees leaves
runs in the tracking table that never get an outcome. For each such execution of the last `DAYS`,
this function asks the job services whether the run's job is still running. If it is not, the run is
resolved from its report and its table's commit log, as the status handler would do, but without
retries: whatever did not succeed becomes FAILED, so that ``rerun_failed_of`` picks it up. A run
marked FAILED although its commit was accepted is checked again, and becomes SUCCEEDED once that
commit is published.

A running execution resolves its runs itself: its state machine is notified about its jobs. But a
worker that hangs ends none. So this function, called every few minutes with ``{"action":
"stop_silent"}``, stops the jobs of attempts that have written no progress for ten minutes; the
state machine then retries them.

Calling this twice, or two calls at once, have no further effect.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from extract_jobs.config import SourceConfig, load_config
from extract_jobs.config.known_tables import KnownTables, known_tables_uri
from extract_jobs.errors import ConfigError, ExtractError
from extract_jobs.reporting.logs import in_every_line, log_json_lines
from extract_jobs.reporting.metrics import metrics_line
from extract_jobs.storage import OpenStorage, join, open_storage
from extract_jobs.tracking.finished_attempt import fields_of, is_unresolved, resolve_run
from extract_jobs.tracking.heartbeat import is_silent, progress_of
from extract_jobs.tracking.listed_items import ListedItems
from extract_jobs.tracking.map_item import Item
from extract_jobs.tracking.running_jobs import Client, RunningJobs
from extract_jobs.tracking.table import TrackedRun, Tracking, client_from_environment, utc_now

logger = logging.getLogger(__name__)

DAYS = 28
"""Executions that started within this many days are checked. The state machine itself gives one up
after 14 days, and that one must be checked too."""
LONGEST_JOB = timedelta(days=8)
"""Longer than a Glue job may run: one that began earlier is over, whatever Glue reports."""

STOP_SILENT = "stop_silent"
"""The event's ``action`` that looks for silent attempts, and for nothing else."""

_LEFT_BEHIND = ("FAILED", "TIMED_OUT", "ABORTED")


@dataclass(frozen=True)
class Settings:
    """Settings from the deployment.

    Attributes:
        state_machine_arn: The state machine whose executions are checked.
        config_uri: Folder of the source configs, which list the tables that can be overdue.
        overdue: How long after its last success a table is overdue.
        work_uri: Folder of the executions' files, which says which tables patterns have taken;
            empty counts no such table.
    """

    state_machine_arn: str
    config_uri: str
    overdue: timedelta
    work_uri: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read ``STATE_MACHINE_ARN``, ``CONFIG_URI``, ``OVERDUE_HOURS`` and ``WORK_URI``.

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
        return cls(arn, config_uri, timedelta(hours=hours), environment.get("WORK_URI", ""))


def handler(event: object, _context: object) -> dict[str, Any]:
    """Resolve abandoned runs and count overdue tables; or, if asked to, stop silent jobs."""
    log_json_lines()
    in_every_line()
    settings = Settings.from_environment(os.environ)
    tracking = Tracking(_client("dynamodb"), os.environ["TRACKING_TABLE"], utc_now)
    if isinstance(event, dict) and event.get("action") == STOP_SILENT:
        return stop_silent(settings, tracking=tracking, client=_client, open_storage=open_storage)
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

    Raises:
        ExtractError: Of the first execution that could not be resolved, after all others were.
    """
    counts = {"succeeded": 0, "failed": 0, "running": 0}
    since = tracking.clock() - timedelta(days=DAYS) - LONGEST_JOB
    jobs, failures = RunningJobs(client, since), []
    for execution in _left_behind(settings.state_machine_arn, client, tracking.clock()):
        try:
            _resolve(execution, counts, jobs, tracking=tracking, open_storage=open_storage)
        except ExtractError as error:
            logger.warning("%s is left to the next call: %s", execution["executionArn"], error)
            failures.append(error)
    if failures:
        raise failures[0]
    return counts


def _resolve(
    execution: Mapping[str, Any],
    counts: dict[str, int],
    jobs: RunningJobs,
    *,
    tracking: Tracking,
    open_storage: OpenStorage,
) -> None:
    """Resolve the runs that one ended execution has left, and count them."""
    arn, status = execution["executionArn"], execution["status"]
    again = json.dumps({"rerun_failed_of": arn})
    # A new one per execution: a list may have thousands of items.
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


def stop_silent(
    settings: Settings, *, tracking: Tracking, client: Client, open_storage: OpenStorage
) -> dict[str, int]:
    """Stop the jobs of running attempts that have written no progress for `SILENT_AFTER`.

    Nothing else is decided here: the job's end reaches the state machine, whose status handler
    finds the reason in the tracking item and retries the table.

    Returns:
        How many attempts are ``running`` and ``silent``, and how many jobs were ``stopped``.

    Raises:
        ExtractError: Of the first attempt that could not be looked at, after all others were.
    """
    now = tracking.clock()
    jobs = RunningJobs(client, now - timedelta(days=DAYS) - LONGEST_JOB)
    counts = {"running": 0, "silent": 0, "stopped": 0}
    failures = []
    for execution in _executions(settings.state_machine_arn, client, "RUNNING"):
        runs = list(tracking.by_execution(execution["executionArn"]))
        _count_progress(runs, tracking)
        counts["running"] += sum(run.status == "RUNNING" for run in runs)
        items = ListedItems(open_storage)
        for run in [run for run in runs if is_silent(run, now)]:
            in_every_line(**fields_of(run))
            try:
                item = items.of(run)
                if item is not None and _is_done_with(item, open_storage):
                    continue
                counts["silent"] += 1
                if item is not None:
                    counts["stopped"] += _stop(run, item, jobs, tracking)
            except ExtractError as error:
                logger.warning("a silent attempt is left to the next call: %s", error)
                failures.append(error)
    if failures:
        raise failures[0]
    return counts


def _is_done_with(item: Item, open_storage: OpenStorage) -> bool:
    """Return whether a batch's worker has reported this table, and has gone on with others.

    The table counts as running until the whole batch has ended.
    """
    uri = item["report_uri"]
    return bool(item.get("job_run_id")) and open_storage(uri).read(uri) is not None


def _stop(run: TrackedRun, item: Item, jobs: RunningJobs, tracking: Tracking) -> int:
    """Stop what runs for a silent attempt; return how many jobs that were."""
    from botocore.exceptions import BotoCoreError, ClientError

    beat_at = datetime.fromisoformat(run.beat_at)
    found = [job for job in jobs.of(run, item) or () if (job.started_at or beat_at) <= beat_at]
    because = (
        f"attempt {run.attempt} has written no progress since {run.beat_at}; its worker hung, or "
        "lost the network, and was stopped"
    )
    if not found:
        logger.warning("silent since %s, but no job of it is found running", run.beat_at)
        return 0
    # From here on the handler knows why. A worker that has come back in the meantime is left alone.
    if not tracking.mark_stopped(run, because):
        return 0
    stopped = 0
    for job in found:
        try:
            job.stop(because)
        except (BotoCoreError, ClientError) as error:
            logger.warning("the job of a silent attempt could not be stopped: %s", error)
        else:
            stopped += 1
            logger.warning("stopped: %s", because)
    return stopped


def _count_progress(runs: Sequence[TrackedRun], tracking: Tracking) -> None:
    """Emit how far a running execution is, and each of its running tables."""
    if not runs:
        return
    counted = {
        "TablesPending": sum(run.status in {"PENDING", "RETRYING"} for run in runs),
        "TablesRunning": sum(run.status == "RUNNING" for run in runs),
        "TablesEnded": sum(run.ended for run in runs),
    }
    source, now = runs[0].source_name, tracking.clock()
    print(metrics_line(counted, pipeline=tracking.table, source_name=source, now=now))
    for run in runs:
        if progress := progress_of(run):
            figures = {"RowsInProgress": progress["rows"], "BytesInProgress": progress["bytes"]}
            print(metrics_line(figures, pipeline=tracking.table, now=now, **fields_of(run)))


def count_overdue(
    settings: Settings, *, tracking: Tracking, open_storage: OpenStorage
) -> list[str]:
    """Return the tables of all configs that have not succeeded for too long, and count them.

    A table that never has is overdue from as long after its config was written, or after a run
    first took it by a pattern. A config that cannot be read is logged, and its tables are not
    counted.
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
        written = listed.modified_at or now
        tables = dict.fromkeys(config.tables, written)
        for table, at in _taken(config, settings, open_storage).items():
            tables.setdefault(table, max(at, written))
        since.update({f"{config.source.name}/{table}": at for table, at in tables.items()})
    since.update(tracking.last_successes(list(since)))
    overdue = sorted(table for table, at in since.items() if now - at > settings.overdue)
    for table in overdue:
        logger.warning("%s has not been extracted since %s", table, since[table])
    counted = {"TablesOverdue": len(overdue)}
    print(metrics_line(counted, pipeline=tracking.table, source_name="*", now=now))
    return overdue


def _taken(
    config: SourceConfig, settings: Settings, open_storage: OpenStorage
) -> Mapping[str, datetime]:
    """Return the tables that executions took by the config's patterns, and since when."""
    if not config.patterns or not settings.work_uri:
        return {}
    uri = known_tables_uri(settings.work_uri, config.source.name)
    known = KnownTables.read(open_storage(uri), uri)
    return known.tables if known else {}


@functools.cache
def _client(service: str) -> Any:
    """One client per process and service, created at its first call and not at import."""
    if service == "dynamodb":
        return client_from_environment()
    import boto3

    from extract_jobs.storage.aws_errors import refuse_foreign_answers

    return refuse_foreign_answers(boto3.client(service))


def _left_behind(arn: str, client: Client, now: datetime) -> Iterator[dict[str, Any]]:
    """Yield the executions that are over and may have left runs behind, newest first."""
    for execution in _executions(arn, client):
        if now - execution["startDate"] > timedelta(days=DAYS):
            return
        if execution["status"] in _LEFT_BEHIND:
            yield execution


def _executions(arn: str, client: Client, status: str = "") -> Iterator[dict[str, Any]]:
    """Yield the executions of the state machine, newest first."""
    asked = {"statusFilter": status} if status else {}
    for page in (
        client("stepfunctions")
        .get_paginator("list_executions")
        .paginate(stateMachineArn=arn, **asked)
    ):
        yield from page["executions"]
