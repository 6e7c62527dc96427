"""Results as text for a person."""

from __future__ import annotations

from collections.abc import Sequence

from extract_jobs.errors import printable
from extract_jobs.reporting.figures import aligned, count_text, counted, size_text
from extract_jobs.reporting.report import FIRST_RUN, Report


def summary(reports: Sequence[Report]) -> str:
    """Return one line per table with its result."""
    rows = [["table", "status", "rows", "bytes", "files", "seconds", "commit"]]
    for report in reports:
        failed = report.error.class_name if report.error else None
        rows.append(
            [
                report.extract_table,
                failed or report.status,
                "-" if failed else count_text(report.table_rows),
                "-" if failed else size_text(report.table_bytes),
                "-" if failed else str(report.table_files),
                f"{sum(report.timings.values()):.1f}",
                "-" if report.commit_seq is None else str(report.commit_seq),
            ]
        )
    return "\n".join(aligned(rows))


def result_line(report: Report, *, error_follows: bool = False) -> str:
    """Return one table's result in a line.

    Args:
        report: The table's.
        error_follows: Whether the command's last line will be this table's error, in full.
    """
    table = printable(report.extract_table)
    if report.error and error_follows:
        return f"{table}: failed"
    if report.error:
        message = printable(" ".join(report.error.message.split()))
        return f"{table}: failed: {report.error.class_name}: {message}"
    seconds = sum(report.timings.values())
    commit = "nothing to commit" if report.commit_seq is None else f"commit {report.commit_seq}"
    repeated = counted(report.repeated_rows, "row")
    if report.repeated_rows and not report.rows:
        rows = f"{repeated} read, all committed before"
    else:
        rows = counted(report.rows, "row")
        rows += f" beside {repeated} committed before" if report.repeated_rows else ""
    if report.resumed_splits:
        splits = counted(report.splits, "split")
        rows += f", {report.resumed_splits:,} of {splits} staged by an earlier attempt"
    if report.merged_text:
        rows += f" ({report.merged_text})"
    if report.kept_rows:
        rows += f" beside {counted(report.kept_rows, 'row')} that have not changed"
    if report.not_reused and report.not_reused != FIRST_RUN:
        rows += f" (nothing was kept: {printable(report.not_reused)})"
    rows += ", counted in the source too" if report.reconciled else ""
    if report.rejected_rows:
        rows += f", {counted(report.rejected_rows, 'row')} rejected"
    for name, count in report.nulled.items():
        rows += f", {counted(count, 'value')} of {printable(name)} made NULL" if count else ""
    for name, count in report.cut_to_microseconds.items():
        rows += f", {counted(count, 'value')} of {printable(name)} cut to microseconds"
    where = f" in {printable(report.target_uri)}" if report.commit_seq is not None else ""
    return (
        f"{table}: {report.status}: {rows}, {size_text(report.bytes)}, "
        f"{counted(report.files, 'file')}{where}, {seconds:.1f} s, {commit}"
    )
