"""Runs one attempt on a worker: arguments → spec → one core call → exit code.

The entrypoints of Glue, EMR and ECS differ only in how they are started and stopped; the rest is
here. The order matters to the state machine: the tracking table says RUNNING before the first row
is read, and a report is at ``report_uri`` before the process ends, even if the spec is unreadable.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from extract_jobs.engine.shutdown import Stop
from extract_jobs.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    CatalogFailed,
    ConfigError,
    ExtractError,
    Interrupted,
    Outdated,
    StopRequested,
    WorkerOutOfMemory,
    as_reported,
    error_line,
)
from extract_jobs.reporting.logs import in_every_line, log_json_lines
from extract_jobs.reporting.metrics import attempt_metrics, metrics_line
from extract_jobs.reporting.progress import Progress
from extract_jobs.reporting.report import Report, catalog_failure, reported, versions
from extract_jobs.spec.arguments import JobArguments, parse_arguments
from extract_jobs.spec.attempt_names import report_of
from extract_jobs.spec.extract_spec import ExtractSpec, parse_spec
from extract_jobs.storage import open_storage
from extract_jobs.storage.region import name_the_region
from extract_jobs.tracking.batch import BatchedTable, parse_batch
from extract_jobs.tracking.heartbeat import Heartbeat
from extract_jobs.tracking.table import TrackedRun, Tracking, client_from_environment, utc_now

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


def begin_log(argv: Sequence[str]) -> None:
    """Log JSON lines from now on, each with the run from the arguments."""
    log_json_lines()
    with contextlib.suppress(ConfigError):  # reported when the attempt runs
        given = parse_arguments(argv)
        in_every_line(**_fields_of(given))


def main(argv: Sequence[str], *, stop: Stop, spark: SparkSession | None = None) -> int:
    """Run one attempt as a process does.

    Args:
        argv: The arguments, without the program's name.
        stop: What a SIGTERM does.
        spark: The runtime's session; None if the core may start one.

    Returns:
        The exit code; the last line on standard error is ``<Class>: <message>`` on failure.
    """
    try:
        run_attempt(argv, stop=stop, spark=spark)
    except (ExtractError, StopRequested) as raised:
        # A signal that arrives after the attempt has ended is mapped here.
        error = raised if isinstance(raised, ExtractError) else Interrupted(str(raised))
        logger.debug("failed", exc_info=True)
        _print_last_line(error_line(error))
        return error.exit_code
    except Exception as error:
        logger.exception("a defect in extract-jobs")
        _print_last_line(
            f"{type(error).__name__}: a defect in extract-jobs; its traceback is logged"
        )
        return EXIT_FAILED
    return EXIT_DONE


def run_attempt(argv: Sequence[str], *, stop: Stop, spark: SparkSession | None = None) -> None:
    """Run one attempt: of a table, or of each table of a batch in turn.

    Raises:
        CatalogFailed: The data is published, as the report says, and the catalog is behind.
        ExtractError: The attempt failed, as its report says; or the attempt is outdated, and then
            nothing was read, written or reported. Of a batch, tables failed, as their reports say.
        Exception: A defect, which the report marks as one.
    """
    name_the_region()
    arguments = parse_arguments(argv)
    with _failure_reported(arguments):
        text = _text_of(arguments.spec_uri)
        batch = parse_batch(text, arguments.spec_uri)
    if batch is None:
        _run_table(arguments, text, stop, spark)
    else:
        _run_batch(arguments, batch, stop, spark)


def _run_batch(
    arguments: JobArguments,
    batch: Sequence[BatchedTable],
    stop: Stop,
    spark: SparkSession | None,
) -> None:
    """Run the tables of a batch that have not ended yet, one after the other.

    A table that fails does not stop the others, unless this process can do no more: those whose
    turn has not come are then left, untouched, to the next attempt.
    """
    with _failure_reported(arguments):
        tables = _in_turn(arguments, batch)
    failed: list[tuple[str, ExtractError]] = []
    for table in tables:
        in_every_line(**_fields_of(table))
        try:
            _run_table(table, None, stop, spark)
        except Outdated as outdated:
            logger.info("%s", outdated)
        except (Interrupted, WorkerOutOfMemory):
            raise
        except ExtractError as error:
            failed.append((table.extract_table, error))
        except Exception:
            logger.exception("a defect in extract-jobs")
            failed.append((table.extract_table, ExtractError("a defect in extract-jobs")))
    if failed:
        named = ", ".join(f"{table} ({type(error).__name__})" for table, error in failed)
        raise type(failed[0][1])(
            f"{len(failed)} of {len(tables)} tables of the batch failed, as the report of each "
            f"says: {named}"
        )


def _in_turn(arguments: JobArguments, batch: Sequence[BatchedTable]) -> list[JobArguments]:
    """Return the arguments of each table that has not ended, those that failed least first."""
    turns = []
    for table in batch:
        table_id, failures = f"{arguments.source_name}/{table.extract_table}", 0
        if arguments.tracking_table:
            known = _tracking(arguments.tracking_table).read(table_id, table.run_id)
            if known is not None and known.ended and known.generation >= table.generation:
                continue
            failures = known.failures if known else 0
        own = {
            **asdict(table),
            "report_uri": report_of(table.report_uri, arguments.attempt or 1),
        }
        turns.append((failures, replace(arguments, **own)))
    return [own for _, own in sorted(turns, key=lambda turn: turn[0])]


def _run_table(
    arguments: JobArguments, text: str | bytes | None, stop: Stop, spark: SparkSession | None
) -> None:
    """Run one attempt of one table; ``text`` is its spec, None if that is still to be read."""
    with _failure_reported(arguments):
        spec = read_spec(arguments, text)
        stop.spec = spec
        tracked = _claim(arguments, spec)
        run_extract = _imported(spec)
    in_every_line(**_log_fields(spec), execution_id=arguments.execution_id)
    logged = LoggedProgress(spec)
    with Heartbeat(*tracked, logged) if tracked else nullcontext(logged) as progress:
        report = run_extract(spec, spark=spark, progress=progress)
    if report.catalog == "failed":
        raise CatalogFailed(catalog_failure(report))


def _imported(spec: ExtractSpec) -> Callable[..., Report]:
    """Import what an extract needs, and return `run_extract`."""
    from extract_jobs.engine.imports import import_early, without_collections

    with without_collections():
        from extract_jobs.engine.pandas_free import skip_pandas
        from extract_jobs.engine.placement import worker_modules
        from extract_jobs.run import run_extract

        skip_pandas()
        import_early(worker_modules([spec]))
    return run_extract


@contextlib.contextmanager
def _failure_reported(arguments: JobArguments) -> Iterator[None]:
    """Leave a report of what is raised before the core is reached; not if it is `Outdated`."""
    try:
        yield
    except Outdated:
        raise
    except (Exception, StopRequested) as error:
        failure = as_reported(error)
        assert isinstance(failure, Exception)
        _report_failure(arguments, failure)
        if failure is not error:
            raise failure from error
        raise


def _text_of(spec_uri: str) -> str | bytes:
    if spec_uri.lstrip().startswith("{"):
        return spec_uri
    text = open_storage(spec_uri).read(spec_uri)
    if text is None:
        raise ConfigError(
            f"{spec_uri}: there is no spec; the config manager writes it before any job starts, so "
            "either it was deleted or --spec_uri is wrong"
        )
    return text


def read_spec(arguments: JobArguments, text: str | bytes | None = None) -> ExtractSpec:
    """Return the spec that the arguments name, with their overrides.

    Args:
        arguments: The worker's.
        text: The spec, if it has been read already.

    Raises:
        ConfigError: It is missing, unreadable, or belongs to another run.
    """
    text = _text_of(arguments.spec_uri) if text is None else text
    where = "--spec_uri" if arguments.spec_uri.lstrip().startswith("{") else arguments.spec_uri
    spec = parse_spec(text, where)
    if arguments.run_id and arguments.run_id != spec.run_id:
        raise ConfigError(
            f"{where} is the spec of run {spec.run_id}, and --run_id says {arguments.run_id}: "
            "start the run again"
        )
    given = {
        "attempt": arguments.attempt,
        "report_uri": arguments.report_uri or None,
        "tracking_table": arguments.tracking_table or None,
    }
    return spec.model_copy(update={k: v for k, v in given.items() if v is not None})


class LoggedProgress(Progress):
    """Logs each phase, and finally the result and its metrics."""

    def __init__(self, spec: ExtractSpec) -> None:
        self._spec = spec

    def phase(self, name: str) -> None:
        """Log the phase."""
        logger.info(name)

    def planned(self, splits: int, rows: int | None, size: int | None) -> None:
        """Log the splits; estimates are the source's own."""
        logger.info("%d splits, about %s rows, %s bytes in the source", splits, rows, size)

    def reported(self, report: Report) -> None:
        """Log the figures; in a pipeline also as metrics."""
        if report.status == "succeeded":
            table, rows, files = report.extract_table, report.rows, report.files
            logger.info("%s: %d rows in %d files", table, rows, files)
        pipeline = self._spec.tracking_table
        if pipeline:
            line = metrics_line(
                attempt_metrics(report), pipeline=pipeline, now=utc_now(), **_log_fields(self._spec)
            )
            print(line, flush=True)  # noqa: T201


def _fields_of(arguments: JobArguments) -> dict[str, Any]:
    return {
        "source_name": arguments.source_name,
        "extract_table": arguments.extract_table,
        "run_id": arguments.run_id,
        "attempt": arguments.attempt or 1,
        "execution_id": arguments.execution_id,
    }


def _log_fields(spec: ExtractSpec) -> dict[str, Any]:
    return {
        "source_name": spec.source_name,
        "extract_table": spec.extract_table,
        "run_id": spec.run_id,
        "attempt": spec.attempt,
    }


def _claim(arguments: JobArguments, spec: ExtractSpec) -> tuple[TrackedRun, Tracking] | None:
    """Mark this attempt as running in the tracking table, and return both; None without a table.

    Raises:
        Outdated: A later attempt has replaced it, or the run has ended.
    """
    if not spec.tracking_table:
        return None
    run = TrackedRun(
        table_id=spec.table_id,
        run_id=spec.run_id,
        generation=arguments.generation,
        attempt=spec.attempt,
        execution_id=arguments.execution_id,
        source_name=spec.source_name,
        extract_table=spec.extract_table,
        job_type=arguments.job_type or spec.job_type or "",
        spec_uri="" if arguments.spec_uri.lstrip().startswith("{") else arguments.spec_uri,
        report_uri=spec.report_uri,
    )
    tracking = _tracking(spec.tracking_table)
    if not tracking.start(run):
        found = tracking.read(run.table_id, run.run_id)
        now = f"{found.status}, generation {found.generation}, attempt {found.attempt}" \
            if found else "gone"  # fmt: skip
        raise Outdated(
            f"generation {run.generation}, attempt {run.attempt} of run {run.run_id} "
            f"({run.table_id}) is outdated: the tracking table {spec.tracking_table} has it as "
            f"{now}. Nothing was extracted"
        )
    return run, tracking


def _tracking(table: str) -> Tracking:
    return Tracking(client_from_environment(), table, utc_now)


def _report_failure(arguments: JobArguments, error: Exception) -> None:
    """Write a report if the core was never reached and there is a ``--report_uri``."""
    if not arguments.report_uri:
        return
    report = Report(
        status="failed",
        run_id=arguments.run_id,
        attempt=arguments.attempt or 1,
        source_name=arguments.source_name,
        extract_table=arguments.extract_table,
        target_uri="",
        error=reported(error),
        versions=versions(),
    )
    try:
        storage = open_storage(arguments.report_uri)
        storage.put(arguments.report_uri, report.to_json().encode())
    except ExtractError as failure:
        logger.error("no report at %s: %s", arguments.report_uri, error_line(failure))  # noqa: TRY400


def _print_last_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
