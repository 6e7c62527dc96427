"""One attempt of a run, inside one snapshot of the source: from its splits to its commit."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from extract_jobs.attempt.attempt_report import attempt_report
from extract_jobs.attempt.context import RunContext
from extract_jobs.attempt.kept_sample import verify_kept
from extract_jobs.attempt.merge import (
    Counter,
    Merged,
    check_merge,
    key_after,
    keys_in_source,
    merge,
    refuse_unkeyed,
)
from extract_jobs.attempt.resume import Noted
from extract_jobs.attempt.reuse import Reuse, all_but, plan_reuse
from extract_jobs.catalog import update_catalog
from extract_jobs.commit.deduplication import (
    MAX_IN_MEMORY,
    CommittedRows,
    RowKey,
    committed_rows,
    files_on,
)
from extract_jobs.commit.expiry import expire_most, expire_snapshots
from extract_jobs.commit.log import CommitLog, Replaces, next_commit
from extract_jobs.commit.merge_keys import Digests, MergeKey
from extract_jobs.commit.reconcile import reconcile, refuse_emptying, refuse_fewer
from extract_jobs.commit.record import Base, Commit
from extract_jobs.connections.secrets import secret_at
from extract_jobs.engine.placement import Placement, place_splits
from extract_jobs.engine.run_splits import (
    SplitResult,
    SplitTask,
    abort_leftover_uploads,
    check_driver,
    report_done,
    run_splits,
)
from extract_jobs.engine.spark_deduplication import committed_by_split
from extract_jobs.engine.value_limit import ValueLimit
from extract_jobs.errors import (
    CommitConflict,
    ExtractError,
    Outdated,
    StopRequested,
    WriteFailed,
)
from extract_jobs.iceberg.change import Layout
from extract_jobs.iceberg.table import with_ids_of
from extract_jobs.planning.full_watermark import after_reading, column_of, is_followed
from extract_jobs.planning.interval import covered_after, watermark_column
from extract_jobs.planning.overwrite_partitions import replaced_by_interval, replaced_by_snapshot
from extract_jobs.planning.plan import Plan, partition_names
from extract_jobs.planning.schema_change import columns_after, find_drift, schema_json
from extract_jobs.planning.schema_comparison import Drift, audit_names
from extract_jobs.reporting.report import Report, identity, versions
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import (
    CourteousSnapshot,
    JointSnapshot,
    Snapshot,
    VerifiedSnapshot,
)
from extract_jobs.sources.splits import Split
from extract_jobs.spark.session import spark_context
from extract_jobs.spec.attempt_names import file_prefix
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.predicates import reads_clock
from extract_jobs.spec.source_types import registration
from extract_jobs.storage import WrittenFile
from extract_jobs.transform.masks import MaskKey
from extract_jobs.transform.transform import Transform
from extract_jobs.watermark import Interval, WatermarkType

logger = logging.getLogger(__name__)

_MANY_FILES = 16
"""Files of a range. More, and small ones, are worth a warning."""
_SMALL_FILE = 2**20


@dataclass(frozen=True)
class Attempt:
    """One attempt of a run, inside one snapshot of the source.

    Attributes:
        spec: The run's.
        context: Session, clock, progress and storages.
        log: The table's.
        plan: What the run extracts, and onto which commit.
        description: The table as it was when the run was planned.
        columns: Those that are read.
        snapshot: Of the source.
        left_out: Rows that are not read because their watermark is NULL.
        key: Key of the mask ``hash``, if a column has that mask.
        layout: Columns and partitions of the Iceberg table; None for a folder of Parquet files.
    """

    spec: ExtractSpec
    context: RunContext
    log: CommitLog
    plan: Plan
    description: TableDescription
    columns: tuple[Column, ...]
    snapshot: Snapshot
    left_out: int
    key: MaskKey | None = None
    layout: Layout | None = None

    def extract_and_commit(self) -> Report:
        """Read and stage every split, reconcile, commit, publish.

        Nothing stays staged when this raises before the commit point, but for ranges that the next
        attempt of the run can take over (`Noted`). From the commit point on
        nothing is aborted: it may be unknown whether the commit exists, and the next attempt or
        `recover` finishes it.
        """
        task = self.task()
        noted = Noted(self.spec, self.log, self.plan.base.seq)
        try:
            with self.context.phase("extract"):
                reuse, reason = self.reuse(task)
                noted.reuse = reuse
                splits = reuse.splits if reuse else self.snapshot.splits(self.spec)
                assert task.reader is not None
                placement = place_splits(
                    self.spec.engine, task.reader, splits=max(1, len(splits)),
                    connections=self.spec.split.max_connections, spark=self.context.spark,
                )  # fmt: skip
                read_from = self.take_snapshot(task, len(splits), placement)
                task = replace(task, reader=self.snapshot.reader)
                # There is no count from the same snapshot to compare with.
                before = None if self.snapshot.shared else self.count()
                earlier = reuse.staged_results() if reuse else []
                self.context.progress.planned(
                    len(splits) + len(earlier),
                    self.description.estimated_rows,
                    self.description.estimated_bytes,
                )
                results = self.read(task, splits, placement, noted)
                in_source = self.keys_in_source(task)
                if isinstance(self.snapshot, CourteousSnapshot):
                    read_from = read_from | self.snapshot.read_from()
                files = self.staged(task, [*results, *earlier], reuse)
            with self.context.phase("reconcile"):
                source_rows, reconciled = self.reconcile([*results, *earlier], files, before, reuse)
            if placement.on != "here":
                abort_leftover_uploads(task, files)  # of workers that were lost
            check_driver(placement.context)
            merged = self.merge(task, results, in_source)
            plan, covers = self.after_reading(results)
            report = attempt_report(
                self.spec, self.context, plan, self.columns, task.transform,
                read_from=read_from,
                results=[*results, *earlier], files=files, source_rows=source_rows,
                reconciled=reconciled, left_out=self.left_out, reuse=reuse, not_reused=reason,
                merged=merged,
            )  # fmt: skip
            commit = replace(self, plan=plan).commit(
                task.transform, files, report, covers, reuse, merged=merged
            )
            self.note_reads(commit, reuse, results)
        except BaseException as error:
            self.discard_staged(task, noted.outliving(error))
            raise
        if self.changes_nothing(commit, report):
            unchanged = report.model_copy(update={"watermark": self.plan.base.watermark})
            return with_catalog(
                unchanged, self.spec, self.log, self.plan.base.published, self.context
            )
        winner = self.prepare(commit, task, noted)
        if winner.commit_id != commit.commit_id:
            self.discard_staged(task, winner.files)
            if winner.run_id != self.spec.run_id:
                raise CommitConflict(
                    f"{self.spec.extract_table}: run {winner.run_id} made commit {winner.seq} "
                    f"while run {self.spec.run_id} was extracting onto {self.plan.base.seq}; "
                    "this run's files were dropped"
                )
        return finish(self.spec, self.log, winner, self.context, commit.files)

    def read(
        self, task: SplitTask, splits: Sequence[Split], placement: Placement, noted: Noted
    ) -> list[SplitResult]:
        """Read and stage splits; what is staged is noted for later attempts of the run."""
        if noted.reuse:
            report_done(self.context.progress, noted.reuse.staged_results())
        if not splits:
            return []
        counter = Counter()

        def finished(results: Sequence[SplitResult]) -> None:
            noted.add(results)
            counter.add(results)

        return run_splits(
            task,
            splits,
            placement=placement,
            progress=self.context.progress,
            committed=self.committed(task, splits),
            resumable=noted.reuse is not None,
            workers=self.context.workers,
            check=self.give_way,
            finished=finished,
        )

    def is_keyed(self, task: SplitTask) -> bool:
        """Return whether the keys of all rows of the source are read too."""
        return self.spec.deletes == "detect" and task.key is not None and task.key.collects

    def keys_in_source(self, task: SplitTask) -> Digests | None:
        """Return the keys of all rows of the source; None where deletes are not looked for."""
        if not self.is_keyed(task):
            return None
        return keys_in_source(self.snapshot, task, self.give_way)

    def merge(
        self, task: SplitTask, results: Sequence[SplitResult], in_source: Digests | None
    ) -> Merged:
        """Write the files again that hold rows to be replaced or deleted."""
        last = self.plan.base.published
        if task.key is None or not task.key.collects or last is None:
            return Merged(inserted=sum(r.rows for r in results) if task.key else 0)
        assert self.layout is not None
        with self.context.phase("merge"):
            return merge(
                self.spec, self.log, last, self.layout, task,
                results=results, source=in_source, one_moment=self.snapshot.shared,
                check=self.give_way,
            )  # fmt: skip

    def give_way(self) -> None:
        """Stop where somebody waits for the snapshot's locks and the spec says to yield."""
        if isinstance(self.snapshot, CourteousSnapshot):
            self.snapshot.give_way()

    def reuse(self, task: SplitTask) -> tuple[Reuse | None, str]:
        """Return what is kept and read by range, or None and why; a sample of what is kept holds.

        Raises:
            FilesDamaged: Rows of the sample differ from the source's.
        """
        if self.spec.reuse == "never":
            return None, ""
        found = plan_reuse(
            self.spec, self.log, self.snapshot, task.transform,
            base=self.plan.base, key=self.key, check=self.give_way,
        )  # fmt: skip
        if isinstance(found, str):
            return None, found
        if found.kept:
            verify_kept(
                found, self.spec, self.log, self.plan.base,
                snapshot=self.snapshot, transform=task.transform, check=self.give_way,
            )  # fmt: skip
        return found, found.reason

    def note_reads(
        self, commit: Commit, reuse: Reuse | None, results: Sequence[SplitResult]
    ) -> None:
        """Keep what was read for the next run, if no crash of the source can undo it."""
        if reuse is None:
            return
        self.warn_of_small_files(results)
        if reuse.pages.is_durable():
            self.log.reads.write(commit, reuse.reads(results))
        else:
            logger.warning(
                "%s: the source may still lose or change what was read, so the next run reads "
                "everything",
                self.spec.extract_table,
            )

    def warn_of_small_files(self, results: Sequence[SplitResult]) -> None:
        """Warn if ranges have left many small files in the target's partitions."""
        files = [file for result in results for file in result.files]
        size = sum(file.staged.size for file in files)
        if len(files) > _MANY_FILES * len(results) and size < _SMALL_FILE * len(files):
            logger.warning(
                "%s: %d files of %d KB on average were written, because with reuse each range has "
                "its own in every partition; a larger split.target_bytes makes fewer",
                self.spec.extract_table, len(files), size // len(files) // 1000,
            )  # fmt: skip

    def reconcile(
        self,
        results: Sequence[SplitResult],
        files: Sequence[WrittenFile],
        before: int | None,
        reuse: Reuse | None = None,
    ) -> tuple[int | None, bool]:
        """Compare what was read, what was written and what the source counts.

        Counts from a different snapshot are reported only. Reading fewer rows than there were both
        before and after is an error.

        Args:
            results: Of every split.
            files: What they staged.
            before: The source's count before the first split; None for no such count.
            reuse: What was kept; its rows were counted in the same snapshot.

        Returns:
            The source's count, None if it is not wanted, and whether it was compared.

        Raises:
            ReconcileFailed: They differ, or the table would be emptied unasked.
            SourceMoved: The splits may have read different states of the table.
        """
        if isinstance(self.snapshot, VerifiedSnapshot):
            self.snapshot.verify()
        source_rows, same_rows = self.count(reuse), self.selects_same_rows()
        kept = reuse.rows if reuse else 0
        rows = sum(result.rows for result in results) + kept
        comparable = source_rows if self.snapshot.shared and same_rows else None
        reconcile(
            self.spec.extract_table,
            rows,
            sum(f.rows for f in files) + sum(r.repeated_rows for r in results) + kept,
            comparable,
            (before, source_rows) if same_rows else (None, None),
        )
        if same_rows and self.reads_interval_once():
            refuse_fewer(self.spec.extract_table, rows, source_rows)
        if not rows and self.spec.target.write_mode == "overwrite":
            live = self.log.live_files(self.plan.base.published)
            held = sum(file.rows for file in live)
            refuse_emptying(self.spec.extract_table, self.spec.empty_source, held)
        return source_rows, comparable is not None

    def prepare(self, commit: Commit, task: SplitTask, noted: Noted) -> Commit:
        """Make the commit; returns it, or the one that was made in its place.

        Raises:
            StopRequested: The attempt was stopped. If the commit had not begun, what was staged is
                dropped, but for what the next attempt can take over.
        """
        with ExitStack() as phase:
            try:
                phase.enter_context(self.context.phase("commit"))
            except StopRequested as stop:
                self.discard_staged(task, noted.outliving(stop))
                raise
            return self.log.prepare(commit)

    def take_snapshot(self, task: SplitTask, splits: int, placement: Placement) -> dict[str, Any]:
        """Open the sessions of a joint snapshot, if it is one; return what is read from."""
        read_from = self.description.read_from
        if not isinstance(self.snapshot, JointSnapshot):
            return read_from
        keyed = self.is_keyed(task)
        return read_from | self.snapshot.take(splits, placement.connections_here, keyed=keyed)

    def task(self) -> SplitTask:
        """Return the task that is run for each split.

        Raises:
            ConfigError: Deletes are to be detected, and the source cannot.
        """
        if self.spec.deletes == "detect" and self.spec.target.merges:
            refuse_unkeyed(self.spec, self.snapshot)
        spec, now = self.spec, self.context.clock()
        planned = datetime.combine(self.plan.extract_date, datetime.min.time(), UTC)
        transform = make_transform(
            spec, self.columns, now, planned, layout=self.plan.drift.layout, key=self.key
        )
        if self.layout is not None:
            transform = replace(transform, schema=with_ids_of(self.layout, transform.schema))
        return SplitTask(
            reader=self.snapshot.reader,
            transform=transform,
            target=spec.target,
            file_prefix=file_prefix(spec.run_id, spec.attempt),
            metadata={
                "extract.run_id": spec.run_id,
                "extract.attempt": str(spec.attempt),
                "extract.table": spec.table_id,
                **(
                    {"extract.interval": json.dumps(self.plan.interval.to_json())}
                    if self.plan.interval
                    else {}
                ),
                **{f"extract.version.{k}": v for k, v in versions().items()},
            },
            open_storage=self.context.open_storage,
            watermark_column=spec.watermark.column if spec.watermark else None,
            follows=self.followed(),
            spill_folder=spec.spill_folder,
            value_limit=ValueLimit(spec.extract_table, spec.max_value_bytes),
            key=MergeKey.of(spec, collects=not self.plan.is_first) if spec.target.merges else None,
        )

    def followed(self) -> WatermarkType | None:
        """Return the kind of the watermark column if a full run needs its greatest value."""
        column = column_of(self.spec, self.plan.base.published, self.columns)
        return column.watermark if column is not None and is_followed(column) else None

    def after_reading(self, results: Sequence[SplitResult]) -> tuple[Plan, Interval]:
        """Return the plan with the watermark after the commit, and what a full run covers."""
        if self.followed() is None:
            return self.plan, Interval()
        delay = self.spec.watermark and self.spec.watermark.delay
        watermark, covers = after_reading(
            self.plan.watermark,
            (result.greatest for result in results),
            one_moment=self.snapshot.shared and self.selects_same_rows() and not delay,
        )
        return replace(self.plan, watermark=watermark), covers

    def committed(
        self, task: SplitTask, splits: Sequence[Split]
    ) -> Callable[[Split], CommittedRows | None] | None:
        """Return a function from a split to its rows that are already committed, or None."""
        last, covered = self.plan.base.published, self.plan.repeated
        if last is None or not covered:
            return None
        # Another tool may have put rows of an Iceberg table into files of any commit.
        live = list(self.log.live(last, covered if self.log.table is None else None))
        files = files_on(live, covered)
        if self.log.table is not None:
            files = self.log.table.current(files, [f for one in live for f in one.files])
        key, limit = RowKey.of(self.spec), self.spec.split.max_connections
        found = committed_rows(files, covered, key, self.log.target, limit=MAX_IN_MEMORY)
        if found is not None:
            return lambda _: found
        spark = spark_context(self.context.spark, limit)
        return committed_by_split(
            spark, task, splits, files=files, covered=covered, key=key, connections=limit
        )

    def staged(
        self, task: SplitTask, results: Sequence[SplitResult], reuse: Reuse | None
    ) -> tuple[WrittenFile, ...]:
        """Return what was staged; without rows, perhaps one file that has none (`schema_file`)."""
        files = tuple(file for result in results for file in result.files)
        return files if files or (reuse and reuse.files) else self.schema_file(task)

    def schema_file(self, task: SplitTask) -> tuple[WrittenFile, ...]:
        """Return one staged file without rows, if the policy for empty tables requires it."""
        increments = self.plan.interval is not None or self.spec.target.write_mode == "append"
        adds_to_others = increments and not self.plan.is_first
        if self.spec.on_empty == "nothing" or adds_to_others or self.layout is not None:
            return ()  # the catalog has the columns of an Iceberg table
        writer = task.writer(0)
        try:
            return tuple(writer.close(schema_file=True))
        except BaseException:
            writer.abort()
            raise

    def count(self, reuse: Reuse | None = None) -> int | None:
        """Return the source's own count in the snapshot; None if it is not wanted.

        Ranges that are kept have been counted already.
        """
        size = self.description.estimated_bytes
        if not self.spec.reconcile or size is None or size > self.spec.reconcile_max_bytes:
            return None
        return reuse.count(self.spec) if reuse and reuse.found else self.snapshot.count()

    def selects_same_rows(self) -> bool:
        """Return whether every statement of the attempt selects the same rows of the snapshot.

        They start at different moments, so a condition or query with ``now()`` in it does not.
        """
        texts = filter(None, (self.spec.where, self.spec.query))
        dialect = registration(self.spec.source_type).where or "generic"
        return not any(reads_clock(text, dialect) for text in texts)

    def reads_interval_once(self) -> bool:
        """Return whether no later run would read rows that arrive in the interval from now on.

        With a lag the next run reads them, and so does one that replaces whole partitions, whose
        interval reaches beyond the watermark, where rows arrive all the time.
        """
        lag = self.spec.watermark and self.spec.watermark.lag
        appends = self.spec.target.write_mode in ("append", "merge")
        return self.plan.interval is not None and appends and not lag

    def commit(
        self,
        transform: Transform,
        files: tuple[WrittenFile, ...],
        report: Report,
        covers: Interval,
        reuse: Reuse | None,
        *,
        merged: Merged,
    ) -> Commit:
        """Return the commit record for this attempt's files; a full run covers an interval too."""
        spec, plan = self.spec, self.plan
        kept = reuse.files if reuse else ()
        column = column_of(spec, plan.base.published, self.columns)
        return next_commit(
            plan.base,
            replaces=all_but(kept) if kept else self.replaces(files),
            overwrite=spec.target.write_mode == "overwrite" and not kept,
            log=self.log,
            within=self.replaced_within(),
            commit_id=str(uuid.uuid4()),
            run_id=spec.run_id,
            attempt=spec.attempt,
            table_id=spec.table_id,
            target_uri=spec.target.uri,
            fingerprint=self.description.fingerprint,
            position=plan.position,
            interval=plan.interval and plan.interval.to_json(),
            watermark=plan.watermark and plan.watermark.to_json(),
            schema=schema_json(transform.schema),
            partition_by=partition_names(spec),
            columns=columns_after(spec, plan.base.published, schema_json(transform.schema)),
            source_columns=plan.drift.source,
            files=(*files, *merged.files),
            removes=merged.removes,
            key=key_after(spec),
            objects=plan.objects.name if plan.objects else None,
            keeps_retired=spec.keep_retired is not None and not spec.target.is_iceberg,
            iceberg=self.layout and self.layout.to_json(),
            keeps=bool(kept) and self.layout is not None,
            report=report.model_dump(mode="json", by_alias=True, exclude={"timings"}),
            **covered_after(
                spec,
                plan.base.published,
                plan.interval,
                (*files, *kept),
                full=covers,
                column=column.name if column else None,
            ),
        )

    def replaces(self, files: tuple[WrittenFile, ...]) -> Replaces:
        """Return a predicate for the live files that these replace; None if that is all or none."""
        if self.spec.target.write_mode != "overwrite_partitions":
            return None
        if self.plan.interval is None:
            return replaced_by_snapshot(self.spec, self.plan.extract_date, files)
        column = watermark_column(self.spec, self.description)
        assert column.watermark is not None
        return replaced_by_interval(self.spec, self.plan.interval, column.watermark)

    def replaced_within(self) -> tuple[Interval, ...] | None:
        """Return the interval that replaced files have rows of; None if they may have any."""
        replaces = self.spec.target.write_mode == "overwrite_partitions"
        return (self.plan.interval,) if replaces and self.plan.interval else None

    def changes_nothing(self, commit: Commit, report: Report) -> bool:
        """Return whether a commit would only change the log, because no row is new."""
        if self.plan.interval is None or commit.files or commit.retire:
            return False
        if self.layout and self.plan.is_first and self.spec.on_empty == "schema_file":
            return False  # it creates the table
        moves = commit.watermark != self.plan.base.watermark
        return not (report.repeated_rows and moves)

    def discard_staged(self, task: SplitTask, kept: Sequence[WrittenFile] = ()) -> None:
        """Abort what this worker has staged, but for some files; failing that, `recover` does."""
        try:
            abort_leftover_uploads(task, kept)
        except ExtractError as error:
            logger.warning("staged files were left for `extract-jobs recover`: %s", error)
        except StopRequested:
            self.discard_staged(task, kept)  # stopped halfway: nothing else would finish it
            raise


def mask_key(spec: ExtractSpec) -> MaskKey | None:
    """Read the key of the mask ``hash``, once per attempt; None if no column has that mask.

    Raises:
        ConfigError: It is missing, denied, or too short.
        SourceUnavailable: AWS cannot be reached or is throttling.
    """
    place = spec.columns.mask_key
    if place is None or "hash" not in spec.columns.mask.values():
        return None
    text = secret_at(place, "columns.mask_key")
    name = place.secret_id or place.ssm_parameter or place.env
    return MaskKey.of(text, f"columns.mask_key {name}")


def make_transform(
    spec: ExtractSpec,
    columns: tuple[Column, ...],
    extracted_at: datetime,
    planned: datetime,
    *,
    layout: pa.Schema | None = None,
    key: MaskKey | None = None,
) -> Transform:
    """Return the transform of each batch; ``planned`` dates the run, ``extracted_at`` its rows."""
    return Transform.build(
        columns,
        spec,
        run_id=spec.run_id,
        extracted_at=extracted_at,
        extract_date=planned.date(),
        layout=layout,
        mask_key=key,
    )


def draft_transform(
    spec: ExtractSpec,
    last: Commit | None,
    chosen: tuple[Column, ...],
    now: datetime,
    *,
    key: MaskKey | None = None,
) -> tuple[Drift, Transform]:
    """Compare a table with its last commit; return that and a transform without the mask's key.

    Args:
        spec: The run's.
        last: The last published commit.
        chosen: Columns, as the source has them.
        now: When the run is planned.
        key: Of the mask ``hash``, if it is known.

    Raises:
        ConfigError: Columns cannot be written.
    """
    first = make_transform(spec, chosen, now, now)
    drift = find_drift(spec, last, chosen, first.schema, key=key.fingerprint if key else None)
    audit = audit_names(spec)
    if drift.columns == chosen and list(drift.layout) == [
        field for field in first.schema if field.name not in audit
    ]:
        return drift, first
    return drift, make_transform(spec, drift.columns, now, now, layout=drift.layout)


def table_layout(
    spec: ExtractSpec, log: CommitLog, transform: Transform, base: Base
) -> Layout | None:
    """Check that a run can write to its Iceberg table, and return what it makes of it. Read-only.

    Args:
        spec: The run's.
        log: The table's.
        transform: Has the files' columns and partitions.
        base: What the run builds on.

    Returns:
        None if the target is a folder of Parquet files.

    Raises:
        ConfigError: The catalog or the table cannot take the run.
    """
    if log.table is None:
        return None
    last = base.published
    check_merge(spec, last, transform.schema)
    return log.table.plan(
        transform.schema,
        transform.partitions,
        source_names=spec.columns.rename,
        parent=last.seq if last else 0,
        overwrite=spec.target.write_mode == "overwrite",
        replaces_some=spec.target.write_mode in ("overwrite_partitions", "merge"),
        known=last.columns if last else (),
        last=Layout.from_json(last.iceberg) if last and last.iceberg else None,
        is_in_log=lambda seq: log.read(seq) is not None,
    )


def refuse_fenced(spec: ExtractSpec, log: CommitLog) -> None:
    """Check that nobody has given up on the run.

    Raises:
        Outdated: Somebody has given up on it.
    """
    by = log.fenced_by(spec.run_id)
    if by:
        raise Outdated(
            f"{spec.extract_table}: run {spec.run_id} was given up on by {by}; nothing of this "
            "attempt was published"
        )


def finish(
    spec: ExtractSpec,
    log: CommitLog,
    commit: Commit,
    context: RunContext,
    staged: Sequence[WrittenFile] = (),
) -> Report:
    """Publish a prepared commit of this run, update the catalog, return its report.

    The commit may belong to another run, which this one replaces.

    Args:
        spec: The run's.
        log: The table's.
        commit: The commit.
        context: Keeps the time.
        staged: Its files, if this process has staged them.

    Raises:
        Outdated: The run was given up on before its commit was claimed: the commit was voided.
        WriteFailed: The commit was voided, because a staged file was gone, or another tool altered
            the Iceberg table.
        CommitConflict: The same of a commit that merges rows.
    """
    with context.phase("publish"):
        outcome = log.publish(commit, staged)
    if outcome == "voided":
        refuse_fenced(spec, log)
        # A merge is repeated with the files that the table has now.
        kind = CommitConflict if commit.merges else WriteFailed
        raise kind(
            f"{spec.extract_table}: commit {commit.seq} was voided, because "
            f"{log.why_voided(commit)}; nothing of it is visible, and the next attempt extracts "
            "its rows"
        )
    _drop_kept(spec, log, commit, context)
    if spec.reuse != "never":
        log.reads.drop_before(commit)
        for run_id in (spec.run_id, *spec.reruns):  # none of them can commit any more
            log.staged.drop(run_id, spec.target.uri, keep=[file.staged for file in commit.files])
    fields = {**commit.report, **identity(spec), "commit_seq": commit.seq}
    report = Report.model_validate({**fields, "timings": context.timings})
    return with_catalog(report, spec, log, commit, context)


def _drop_kept(spec: ExtractSpec, log: CommitLog, commit: Commit, context: RunContext) -> None:
    """Delete the files that earlier commits retired and whose time is over."""
    try:
        if spec.keep_retired is None:
            if log.table is not None:
                expire_most(log, commit)
            # Of a folder, `recover` drops what is left of a time when files were kept.
        elif log.table is None:
            log.kept.drop(spec.keep_retired, context.clock())
        else:
            expire_snapshots(log, spec.keep_retired, context.clock())
    except ExtractError as error:
        logger.warning("%s; the next run drops the kept files", error)


def with_catalog(
    report: Report, spec: ExtractSpec, log: CommitLog, commit: Commit | None, context: RunContext
) -> Report:
    """Update the catalog to the newest published commit, and return the report with the result.

    Args:
        report: Report of an attempt whose rows are published, or that has none.
        spec: The run's.
        log: The table's.
        commit: The newest published commit; None if there is none.
        context: Keeps the time.
    """
    if commit is None or spec.target.catalog is None:
        return report
    with context.phase("catalog"):
        catalog = update_catalog(spec, log, commit)
    return report.model_copy(
        update={
            "catalog": catalog.state,
            "catalog_error": catalog.error,
            "catalog_retryable": catalog.retryable,
            "timings": context.timings,
        }
    )
