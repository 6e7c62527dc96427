"""How a table is doing: facts from its state and, if there is one, the tracking table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, pairwise
from typing import Literal

from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.commit.record_check import number_in
from extract_jobs.commit.rollback import is_rollback, rolled_back_to
from extract_jobs.commit.table_log import commit_log
from extract_jobs.errors import ConfigError
from extract_jobs.reporting.figures import counted, rough_age, size_text
from extract_jobs.reporting.report import Report
from extract_jobs.reporting.table_state import State, TableStatus, moment_of
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import ObjectInfo, OpenStorage, Storage, join, open_storage
from extract_jobs.tracking.heartbeat import is_silent, progress_of
from extract_jobs.tracking.item import TrackedRun
from extract_jobs.watermark import WatermarkValue

TREND_RUNS = 10
_SHORTEST_INTERVAL = timedelta(hours=1)


@dataclass(frozen=True)
class Attempted:
    """What is known about a table's runs, apart from its commits.

    Attributes:
        state: State of the newest run; None if nothing is known about it.
        reason: Why it failed, or what is known about a run that is under way.
        succeeded_at: When the last successful run ended, UTC.
    """

    state: Literal["failed", "retrying", "running"] | None = None
    reason: str = ""
    succeeded_at: datetime | None = None


def table_status(
    spec: ExtractSpec,
    now: datetime,
    *,
    overdue: timedelta | None = None,
    runs: Sequence[TrackedRun] | None = None,
    open_storage: OpenStorage = open_storage,
) -> TableStatus:
    """Return how a table is doing. Read-only.

    Args:
        spec: The table's.
        now: The present, UTC.
        overdue: Age of the last success from which the table is overdue. None: twice the usual
            time between its last commits, and an hour at least.
        runs: The table's runs in the tracking table. None looks for their traces in the state.
        open_storage: Returns the storage of a URI.

    Raises:
        WriteFailed: Storage failed.
        ConfigError: Access was denied.
    """
    log = commit_log(spec, open_storage)
    try:
        newest = log.newest()
        outcome = log.outcome(newest) if newest else None
        last = newest
        if newest is not None and outcome != "published":
            last = log.read(newest.parent) if newest.parent else None
        of_runs = (one for one in _chain(log, last) if not is_rollback(one))
        commits = list(islice(of_runs, TREND_RUNS))
    except ConfigError as error:
        return TableStatus(spec.extract_table, "damaged", str(error))
    times = _publish_times(log, commits)
    tried = _tracked(runs, now) if runs is not None else _traces(spec, log, last, times, now)
    success = max(filter(None, (tried.succeeded_at, *times[-1:])), default=None)
    state: State = tried.state or ("ok" if success else "never run")
    reason = tried.reason
    late = overdue or _usual_interval(times)
    if state == "ok" and success and late and now - success > late:
        state, reason = "overdue", f"the last success is more than {rough_age(late)} old"
    if tried.state is None and newest is not None and outcome is None:
        state = "running"
        reason = "a commit has no outcome yet: a run is publishing it, or died"
    if state == "ok" and last is not None and is_rollback(last):
        reason = f"rolled back: as commit {rolled_back_to(last)} left it"
    mark = WatermarkValue.from_json(last.watermark) if last else None
    return TableStatus(
        spec.extract_table,
        state,
        reason,
        success,
        mark.text if mark else None,
        moment_of(mark),
        tuple(commit.rows for commit in reversed(commits)),
    )


def _chain(log: CommitLog, commit: Commit | None) -> Iterator[Commit]:
    """Yield published commits, newest first: each names the one before it."""
    while commit is not None:
        yield commit
        commit = log.read(commit.parent) if commit.parent else None


def _publish_times(log: CommitLog, commits: Sequence[Commit]) -> list[datetime]:
    """Return when the outcomes of published commits, newest first, were written; oldest first."""
    if not commits:
        return []
    folder = join(log.state_uri, "outcomes")
    listed = log.state.list(f"{folder}/", join(folder, f"{commits[-1].seq - 1:020d}.json"))
    at = {number_in(one.uri): one.modified_at for one in listed}
    return [moment for commit in reversed(commits) if (moment := at.get(commit.seq))]


def _usual_interval(times: Sequence[datetime]) -> timedelta | None:
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    return max(2 * gaps[len(gaps) // 2], _SHORTEST_INTERVAL) if len(gaps) > 1 else None


def _tracked(runs: Sequence[TrackedRun], now: datetime) -> Attempted:
    """Return what the tracking table says about a table's runs."""
    ordered = sorted(runs, key=lambda run: run.updated_at)
    good = [run for run in ordered if run.status == "SUCCEEDED"]
    success = datetime.fromisoformat(good[-1].updated_at) if good else None
    if not ordered or ordered[-1].status == "SUCCEEDED":
        catalog = ordered[-1].catalog_error if ordered else None
        if catalog:
            return Attempted("failed", f"CatalogFailed: {catalog}", success)
        return Attempted(None, "", success)
    newest = ordered[-1]
    error = f"{newest.error_class}: {newest.error_message}".strip(": ")
    if newest.status == "FAILED":
        return Attempted("failed", error or newest.handler_error, success)
    if newest.status == "RETRYING":
        return Attempted("retrying", f"after attempt {newest.attempt}: {error}", success)
    begun = "waiting to start" if newest.status == "PENDING" else "started"
    reason = f"run {newest.run_id} {begun}, {newest.updated_at[:16]}"
    return Attempted("running", f"{reason}{_progress_text(newest, now)}", success)


def _progress_text(run: TrackedRun, now: datetime) -> str:
    """Return how far a running attempt is, from its last progress; empty before it wrote any."""
    progress = progress_of(run)
    if not progress:
        return ""

    def age(moment: str) -> str:
        return rough_age(now - datetime.fromisoformat(moment))

    text = f"; {progress['phase']}: {counted(progress['rows'], 'row')}"
    if progress["splits"]:
        text += f", {progress['splits_done']} of {counted(progress['splits'], 'split')} done"
    text += f", {size_text(progress['bytes'])}; last progress {age(progress['moved_at'])} ago"
    if is_silent(run, now):
        text += f", silent for {age(run.beat_at)}"
    return text


def _traces(
    spec: ExtractSpec, log: CommitLog, last: Commit | None, times: list[datetime], now: datetime
) -> Attempted:
    """Return what a table's reports and staged files show about its runs."""
    newest = _newest_report(spec, log.state)
    committed = {file.staged.uri for file in last.files} if last else set()
    staged = [
        one.started_at for one in log.target.abandoned(spec.target.uri) if one.uri not in committed
    ]
    ended = max((_written_at(newest), *times[-1:])) if newest else max(times, default=None)
    if staged and (ended is None or max(staged) > ended):
        age = now - max(staged)
        return Attempted("running", f"its newest file was staged {rough_age(age)} ago; the run may "
                         "have died (extract-jobs recover drops what it left)", None)  # fmt: skip
    raw = log.state.read(newest.uri) if newest else None
    report = Report.parse(raw, newest.uri) if raw and newest else None
    if report is None or newest is None:
        return Attempted()
    if report.error is not None and not (times and times[-1] > _written_at(newest)):
        return Attempted("failed", f"{report.error.class_name}: {report.error.message}")
    if report.catalog == "failed":
        return Attempted("failed", f"CatalogFailed: {report.catalog_error}", _written_at(newest))
    return Attempted(None, "", _written_at(newest) if report.error is None else None)


def newest_report(
    spec: ExtractSpec, open_storage: OpenStorage = open_storage
) -> tuple[Report, datetime] | None:
    """Return the last report of a table, and when it was written; None without one.

    Raises:
        ConfigError: It is not a report, or access was denied.
        WriteFailed: Storage failed.
    """
    storage = open_storage(spec.report_uri)
    newest = _newest_report(spec, storage)
    raw = storage.read(newest.uri) if newest else None
    return (Report.parse(raw, newest.uri), _written_at(newest)) if raw and newest else None


def _newest_report(spec: ExtractSpec, storage: Storage) -> ObjectInfo | None:
    folder = spec.report_uri.rsplit("/", 2)[0]  # without the run and the attempt
    return max(filter(_is_report, storage.list(f"{folder}/")), key=_written_at, default=None)


def _is_report(found: ObjectInfo) -> bool:
    return found.uri.endswith(".json") and found.modified_at is not None


def _written_at(found: ObjectInfo) -> datetime:
    assert found.modified_at is not None
    return found.modified_at
