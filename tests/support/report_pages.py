"""A page about runs in every state, for tests of what it says and of how it looks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from extract_jobs.reporting.page import TableRun, report_page
from extract_jobs.reporting.report import Report, ReportedError, SchemaChange
from extract_jobs.reporting.table_state import TROUBLE, State, TableStatus

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def run_of(table: str, state: State = "ok", *, ended: int = 0, **report: Any) -> TableRun:
    """Return a run that ended some seconds ago."""
    fields: dict[str, Any] = {
        "status": "succeeded", "run_id": "r", "attempt": 1, "source_name": "sales",
        "extract_table": table, "target_uri": "lake", "rows": 1000, "bytes": 5_000_000,
        "timings": {"plan": 1.0, "extract": 2.0},
    }  # fmt: skip
    at = NOW - timedelta(seconds=ended)
    status = TableStatus(table, state, succeeded_at=at, rows=(500, 0, 1000))
    return TableRun(status, Report(**{**fields, **report}), at)


FAILED = ReportedError(**{"class": "SourceUnavailable", "message": "no <b>answer</b> & more",
                          "retryable": True})  # fmt: skip


def whole_page() -> str:
    change = SchemaChange(kind="added", column="discount", to="double", effect="older files: NULL")
    marked = TableStatus("public.events", "ok", "", NOW, "2026-02-27 12:00:00",
                         NOW - timedelta(days=2), (1,))  # fmt: skip
    return report_page(
        "sales",
        [
            replace(
                run_of("public.orders", ended=10, schema_changes=[change]),
                units={"vCPU-hours": 0.01234, "GB-hours": 1234.5},
            ),
            run_of("<script>alert(1)</script>", "failed", status="failed", error=FAILED,
                   timings={"recover": 0.5, "plan": 3.5}),
            TableRun(marked),
            *(TableRun(TableStatus(f"t {state}", state)) for state in TROUBLE),
        ],
        NOW,
    )  # fmt: skip
