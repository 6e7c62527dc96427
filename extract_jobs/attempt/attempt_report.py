"""Builds an attempt's report and writes it where the status handler expects it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from extract_jobs.attempt.context import RunContext
from extract_jobs.attempt.merge import Merged
from extract_jobs.attempt.reuse import Reuse
from extract_jobs.engine.run_splits import SplitResult
from extract_jobs.errors import ExtractError, StopRequested
from extract_jobs.planning.plan import Plan
from extract_jobs.planning.schema_change import schema_json
from extract_jobs.reporting.report import Report, identity, versions
from extract_jobs.schema import Column
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import WrittenFile
from extract_jobs.transform.fidelity import fidelity
from extract_jobs.transform.transform import Transform

logger = logging.getLogger(__name__)


def attempt_report(
    spec: ExtractSpec,
    context: RunContext,
    plan: Plan,
    columns: tuple[Column, ...],
    transform: Transform,
    *,
    read_from: dict[str, Any],
    results: Sequence[SplitResult] = (),
    files: tuple[WrittenFile, ...] = (),
    source_rows: int | None = None,
    reconciled: bool = False,
    left_out: int = 0,
    reuse: Reuse | None = None,
    not_reused: str = "",
    merged: Merged = Merged(),  # noqa: B008 - frozen
) -> Report:
    """Return the report of an attempt that is about to commit or has nothing to commit.

    Args:
        spec: The run's.
        context: Holds the timings so far.
        plan: What the run extracts.
        columns: What was read.
        read_from: See `TableDescription.read_from`.
        transform: Has the files' schema.
        results: The result of each split.
        files: What the commit will hold of what was read.
        source_rows: The source's own count; None if it was not requested.
        reconciled: Whether it was compared.
        left_out: Rows that were not read because their watermark is NULL.
        reuse: What was kept of the last commit.
        not_reused: Why nothing was, if it was asked for.
        merged: What became of the rows of an Iceberg table.
    """
    kept = reuse.kept if reuse else ()
    return Report(
        **identity(spec),
        status="succeeded",
        interval=plan.interval and plan.interval.to_json(),
        watermark=plan.watermark and plan.watermark.to_json(),
        rows=sum(f.rows for f in files),
        bytes=sum(f.staged.size for f in files),
        files=len(files),
        splits=len(results),
        source_rows=source_rows,
        reconciled=reconciled,
        columns=schema_json(transform.schema),
        schema_changes=list(plan.drift.changes),
        fidelity=fidelity(columns, spec),
        as_text=as_text(columns, spec),
        nulled=_summed([*(r.nulled for r in results), *(one.nulled for one in kept)]),
        cut_to_microseconds=_summed(
            [*(r.truncated for r in results), *(one.truncated for one in kept)]
        ),
        null_watermark_rows=left_out + sum(r.null_watermark_rows for r in results),
        repeated_rows=sum(r.repeated_rows for r in results),
        rejected_rows=sum(r.rejected_rows for r in results),
        kept_rows=sum(one.rows for one in kept),
        kept_bytes=sum(f.staged.size for f in reuse.files) if reuse else 0,
        kept_files=len(reuse.files) if reuse else 0,
        kept_ranges=len(kept),
        resumed_splits=len(reuse.staged) if reuse else 0,
        not_reused=not_reused,
        inserted_rows=merged.inserted,
        updated_rows=merged.updated,
        deleted_rows=merged.deleted,
        missing_rows=merged.missing,
        rewritten_files=len(merged.files),
        rewritten_rows=sum(f.rows for f in merged.files),
        rewritten_bytes=sum(f.staged.size for f in merged.files),
        timings=context.timings,
        versions=versions(),
        read_from=read_from,
    )


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the counts of all splits by column."""
    found = Counter[str]()
    for one in counts:
        found.update(one)
    return dict(found)


def as_text(columns: Sequence[Column], spec: ExtractSpec) -> list[str]:
    """Return the columns that arrive as text because ``lossy_types: string`` allows it."""
    return [
        c.name
        for c in columns
        if spec.lossy_type(c.name) == "string"
        and c.fidelity == "by_permission"
        and pa.types.is_string(c.arrow_type)
        and c.name not in spec.columns.cast
    ]


def leave_report(spec: ExtractSpec, report: Report, context: RunContext) -> None:
    """Write the report; a failure does not change the outcome of the extract.

    Neither does a stop now: only the report is missing, and writing it is started again.
    """
    try:
        context.open_storage(spec.report_uri).put(spec.report_uri, report.to_json().encode())
    except ExtractError as error:
        # Where a run failed because nothing can be written, its own error says so already.
        told = report.error is not None and report.error.class_name == type(error).__name__
        level = logging.INFO if told else logging.WARNING
        logger.log(level, "the report could not be written to %s: %s", spec.report_uri, error)
    except StopRequested as stop:
        logger.warning("%s; the report is written anyway", stop)
        leave_report(spec, report, context)
