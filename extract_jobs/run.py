"""One extract of one table, from recovery to report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from typing import TYPE_CHECKING

from extract_jobs.attempt.attempt import (
    Attempt,
    draft_transform,
    finish,
    mask_key,
    refuse_fenced,
    table_layout,
    with_catalog,
)
from extract_jobs.attempt.attempt_report import attempt_report, leave_report
from extract_jobs.attempt.context import RunContext, utc_now
from extract_jobs.catalog import check_catalog
from extract_jobs.commit.table_log import commit_log
from extract_jobs.engine.placement import will_need_workers, worker_modules
from extract_jobs.engine.worker_processes import WorkerProcesses
from extract_jobs.errors import (
    CommitConflict,
    Interrupted,
    SourceMoved,
    StopRequested,
    as_reported,
)
from extract_jobs.planning.new_files import choose_objects
from extract_jobs.planning.plan import (
    count_null_watermarks,
    make_plan,
    partition_names,
    read_request,
)
from extract_jobs.planning.schema_change import columns_after, schema_json
from extract_jobs.reporting.notebook import notebook_progress
from extract_jobs.reporting.progress import Progress
from extract_jobs.reporting.report import Report, failed_report, reported
from extract_jobs.sources import known_at, open_source
from extract_jobs.sources.limit import LimitedSnapshot
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import OpenStorage, open_storage
from extract_jobs.transform.transform import choose_columns

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

PLAN_TRIES = 3
"""How often a run plans if another run commits first or the source changes."""


def run_extract(
    spec: ExtractSpec,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    open_storage: OpenStorage = open_storage,
    workers: WorkerProcesses | None = None,
) -> Report:
    """Extract one table: recover, plan, extract, reconcile, commit, publish, report.

    A crash at any instruction neither loses nor repeats a row: run it again. Repeating an attempt
    of a committed run writes nothing and returns that run's report. A run that fails before its
    commit leaves the target as it was. The report is always written, and written last.

    Args:
        spec: What to extract, and its target.
        spark: The caller's session. With None, splits run on processes of this machine, unless a
            Spark is set up or ``spec.engine`` asks for one.
        progress: Notified of every step, for display; None shows a line in a Jupyter notebook, and
            nothing elsewhere.
        clock: Returns the current time, UTC.
        open_storage: Returns the storage of a URI; picklable.
        workers: Worker processes that other extracts of this process use too and that the caller
            closes; None starts others if they are needed.

    Returns:
        The report, which is also at ``spec.report_uri``.

    Raises:
        ExtractError: The extract failed; the report says the same.

    Example:
        >>> spec = ExtractSpec(
        ...     run_id="1", source_name="shop", source_type="sqlite", extract_table="orders",
        ...     connection={"path": "missing.db"}, target={"uri": "lake/orders"},
        ...     state_uri="state", report_uri="state/report.json",
        ... )
        >>> extract(spec)
        Traceback (most recent call last):
            ...
        extract_jobs.errors.ConfigError: connection.path: ... does not exist on this worker
    """
    try:
        own = nullcontext(workers) if workers else WorkerProcesses(worker_modules([spec]))
        with own as processes:
            shown = progress or notebook_progress(spec.extract_table) or Progress()
            context = RunContext(spark, shown, clock, open_storage, processes)
            return _run_and_report(spec, context)
    except StopRequested as stop:  # it came when all was done, or all was lost
        raise Interrupted(str(stop)) from stop


def _run_and_report(spec: ExtractSpec, context: RunContext) -> Report:
    try:
        report = _extract_onto_latest(spec, context)
    except BaseException as error:
        failure = as_reported(error)
        report = failed_report(spec, reported(failure), context.timings)
        leave_report(spec, report, context)
        context.progress.phase("failed")
        context.progress.reported(report)
        if failure is not error:
            raise failure from error
        raise
    leave_report(spec, report, context)
    context.progress.phase("done")
    context.progress.reported(report)
    return report


def _extract_onto_latest(spec: ExtractSpec, context: RunContext) -> Report:
    """Extract onto the newest commit; plan again if another run or the source was faster."""
    replan = False
    for _ in range(PLAN_TRIES - 1):
        try:
            return _extract(spec, context, replan=replan)
        except (CommitConflict, SourceMoved) as conflict:
            replan = replan or isinstance(conflict, SourceMoved)
            logger.warning("%s; planning again", conflict)
    return _extract(spec, context, replan=replan)


def _extract(spec: ExtractSpec, context: RunContext, *, replan: bool) -> Report:
    log = commit_log(spec, context.open_storage)
    with context.phase("recover"):
        # First, so that what is found below is all that earlier runs will ever publish.
        for earlier in spec.reruns:
            log.fence(earlier, by=f"run {spec.run_id}")
        base = log.finish_last()
        committed = next(filter(None, map(log.find_run, (spec.run_id, *spec.reruns))), None)
    if committed is not None:
        if committed.run_id != spec.run_id:
            logger.info("commit %d of run %s is taken for this run's", committed.seq,
                        committed.run_id)  # fmt: skip
        return finish(spec, log, committed, context)
    refuse_fenced(spec, log)
    with context.phase("plan"):
        now = context.clock()
        source, objects = choose_objects(spec, log, base, open_source(spec, context.spark), now)
        description = source.describe()
        first = base.published is None
        if will_need_workers(spec, description, context.spark, first=first):
            context.workers.start()
        chosen, key = choose_columns(description, spec), mask_key(spec)
        drift, draft = draft_transform(spec, base.published, chosen, now, key=key)
        columns = drift.columns
        log.target.probe(spec.target.uri)
        plan = make_plan(
            spec, log, base, description, draft.schema,
            drift=drift, source=source, now=now, objects=objects, replan=replan,
        )  # fmt: skip
        check_catalog(
            spec,
            log,
            description.fingerprint,
            columns_after(spec, base.published, schema_json(draft.schema)),
            partition_names(spec),
            first=plan.is_first,
        )
        layout = table_layout(spec, log, draft, plan.base)
        left_out = count_null_watermarks(spec, description, source, first=plan.is_first)
    if plan.is_empty and spec.deletes == "ignore":
        report = attempt_report(
            spec, context, plan, columns, draft,
            read_from=description.read_from, left_out=left_out,
        )  # fmt: skip
        return with_catalog(report, spec, log, plan.base.published, context)
    request = read_request(spec, columns, plan.interval, base.published)
    with known_at(source, plan.position).snapshot(request) as whole:
        snapshot = LimitedSnapshot(whole, spec.limit) if spec.limit else whole
        attempt = Attempt(
            spec, context, log, plan, description, columns, snapshot, left_out, key, layout
        )
        return attempt.extract_and_commit()
