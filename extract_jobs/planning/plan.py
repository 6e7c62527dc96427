"""The plan: what a run extracts and onto which commit, pinned so that all attempts agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Base, Commit
from extract_jobs.commit.record_check import check_columns, check_position
from extract_jobs.errors import CommitConflict, ConfigError, SourceMoved
from extract_jobs.iceberg.change import METADATA_FOLDER
from extract_jobs.planning import full_watermark
from extract_jobs.planning.interval import (
    covered_by,
    next_step,
    order_of,
    overlap,
    watermark_column,
)
from extract_jobs.planning.new_files import Objects
from extract_jobs.planning.schema_change import Drift, differences, schema_json
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import ReadRequest, ReplicatedSource, Source, known_at
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.rules import RUN_PARTITIONS
from extract_jobs.spec.uris import is_inside, normal_uri
from extract_jobs.storage import is_probe, join
from extract_jobs.transform.columns import partition_fields
from extract_jobs.watermark import Interval, WatermarkValue


@dataclass(frozen=True)
class Plan:
    """What all attempts of a run on the same base share.

    Attributes:
        base: The commit to build on.
        interval: Rows to extract; None means all.
        watermark: The table's watermark after the commit; what a full run reads may raise it.
        extract_date: Date of the run's planning, UTC; partitions by ``extract_date`` use it, so
            that an attempt after midnight writes where the first did.
        drift: How the columns have changed since the last commit.
        repeated: Parts of the interval that commits already cover; their rows are deduplicated.
        objects: The objects to read; None for sources without objects.
        position: The source's position in its history then; a node that lags behind it is not read.
    """

    base: Base
    interval: Interval | None
    watermark: WatermarkValue | None
    extract_date: date
    drift: Drift
    repeated: tuple[Interval, ...] = ()
    objects: Objects | None = None
    position: dict[str, str] | None = None

    @property
    def is_first(self) -> bool:
        """Whether the table has no published commit yet."""
        return self.base.published is None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read (an empty interval, no objects) after the first run."""
        empty = self.interval.empty if self.interval else self.objects and self.objects.nothing_new
        return bool(empty and not self.is_first)


def make_plan(
    spec: ExtractSpec,
    log: CommitLog,
    base: Base,
    description: TableDescription,
    schema: pa.Schema,
    *,
    drift: Drift,
    source: Source,
    now: datetime,
    objects: Objects | None = None,
    replan: bool = False,
) -> Plan:
    """Check the table against its last commit and pin the run's interval and date.

    Args:
        spec: The run's spec.
        log: The table's log, whose newest commit has its outcome.
        base: What `CommitLog.finish_last` returned.
        description: The table as it is now.
        schema: Schema of the files to be written.
        drift: How the columns have changed since the last commit.
        source: Queried for the upper bound of an incremental extract.
        now: The present, UTC.
        objects: From `choose_objects`.
        replan: Whether to ignore a pinned plan, because the source has changed since.

    Returns:
        The plan that holds: this one, or the one that an earlier attempt pinned.

    Raises:
        ConfigError: The target or source is not the first commit's, the target holds other data, or
            the interval is not possible or would duplicate rows.
        SchemaChanged: The policy refuses a change.
        SourceMoved: The table changed since an earlier attempt pinned its plan.
        CommitConflict: Another run committed the table's first commit just now.
    """
    check_identity(spec, base.published, description)
    check_layout(spec, base.published)
    check_beside_increments(spec, base.published)
    if base.published is None:
        check_unoccupied(spec, log, base)
    columns = schema_json(schema)
    drift.check(spec, base.published)
    pinned = None if replan else log.plans.read(spec.run_id, base.seq)
    if pinned is None:
        source = known_at(source, base.published.position if base.published else None)
        step = next_step(spec, base.published, description, source)
        if step:
            watermark = step.watermark
        else:
            watermark = full_watermark.highest_before(spec, base.published, description, source)
        pinned = {
            "base_seq": base.seq,
            "planned_at": now.isoformat(),
            "extract_date": now.date().isoformat(),
            "interval": step and step.interval.to_json(),
            "watermark": watermark and watermark.to_json(),
            "schema": columns,
            "position": source.position() if isinstance(source, ReplicatedSource) else None,
        }
        # A new plan belongs to this attempt alone: the commit records its interval, and only one of
        # a run's attempts can commit.
        pinned = pinned if replan else log.plans.pin(spec.run_id, base.seq, pinned)
    held = _held(pinned, log.plans.uri(spec.run_id, base.seq))
    if pinned["schema"] != columns:
        raise SourceMoved(
            f"{spec.extract_table} was altered while run {spec.run_id} was under way: "
            f"{'; '.join(differences(pinned['schema'], columns))}; run again"
        )
    plan = Plan(
        base=base,
        interval=held.interval,
        watermark=held.watermark,
        extract_date=held.extract_date,
        drift=drift,
        objects=objects,
        position=held.position,
    )
    if plan.interval is None:
        if full_watermark.column_of(spec, base.published, description.columns):
            return plan
        return replace(plan, watermark=WatermarkValue.from_json(base.watermark))
    return replace(plan, repeated=repeated(spec, base.published, plan.interval, source))


@dataclass(frozen=True)
class _Held:
    """What a pinned plan decides."""

    interval: Interval | None
    watermark: WatermarkValue | None
    extract_date: date
    position: dict[str, str] | None


def _held(pinned: dict[str, Any], uri: str) -> _Held:
    """Read a pinned plan.

    Raises:
        ConfigError: It is not what a run wrote.
    """
    try:
        check_columns("schema", pinned["schema"])
        check_position(pinned.get("position"))
        return _Held(
            Interval.from_json(pinned["interval"]),
            WatermarkValue.from_json(pinned.get("watermark")),
            date.fromisoformat(pinned["extract_date"]),
            pinned.get("position"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{uri} was damaged: it is not the plan that a run wrote there. Start a new run"
        ) from error


def repeated(
    spec: ExtractSpec, last: Commit | None, interval: Interval, source: Source
) -> tuple[Interval, ...]:
    """Return the parts of an interval whose rows may already be committed.

    None if they are replaced anyway or duplicates are accepted.

    Raises:
        ConfigError: There are some, and nothing deduplicates them.
    """
    watermark = spec.watermark
    if watermark is None or watermark.orders_by is None or spec.target.write_mode != "append":
        return ()
    if watermark.duplicates == "accept":
        return ()
    found = overlap(covered_by(last), interval, order_of(source, watermark.orders_by))
    if found and watermark.snapshot:
        raise ConfigError(
            f"{spec.extract_table}: transactions {interval} overlap what commits hold already "
            f"({', '.join(map(str, found))}), as after an extract in mode full: rows would be "
            "duplicated. Accept that with watermark.duplicates: accept, or start over with "
            "another state_uri and target"
        )
    if found and not spec.columns.key:
        raise ConfigError(
            f"{spec.extract_table}: the interval {interval} overlaps what commits hold already "
            f"({', '.join(map(str, found))}), and write_mode append would duplicate those rows. "
            "Name the key that identifies them in columns.key, accept duplicates with "
            "watermark.duplicates: accept, or bound the interval with watermark.initial, lower "
            "and upper"
        )
    return found


def read_request(
    spec: ExtractSpec,
    columns: tuple[Column, ...],
    interval: Interval | None,
    last: Commit | None,
) -> ReadRequest:
    """Return what to read. Rows with a NULL watermark belong to the first run."""
    watermark = spec.watermark
    if watermark is None or interval is None:
        return ReadRequest(columns)
    return ReadRequest(
        columns,
        interval,
        watermark.orders_by,
        not watermark.snapshot and watermark.nulls == "include" and last is None,
    )


def count_null_watermarks(
    spec: ExtractSpec, description: TableDescription, source: Source, *, first: bool
) -> int:
    """Count the rows that an incremental run leaves out because their watermark is NULL.

    The source is queried only if the column is nullable and the rows are not extracted anyway.

    Args:
        spec: The run's spec.
        description: Has the column's nullability.
        source: Counts the rows.
        first: Whether no commit is published yet.

    Raises:
        ConfigError: There are some, and ``watermark.nulls`` is ``refuse``.
    """
    if spec.mode == "full" or spec.watermark is None:
        return 0
    column = watermark_column(spec, description)
    if not column.nullable or (first and spec.watermark.nulls == "include"):
        return 0
    count = source.null_watermarks(column.name)
    if count and spec.watermark.nulls == "refuse":
        raise ConfigError(
            f"{spec.extract_table}: {count} rows have NULL in watermark column {column.name}, and "
            "watermark.nulls is refuse; nothing was written. Fill the column in the source, or "
            "choose include (the first run extracts them) or exclude"
        )
    return count


def check_identity(spec: ExtractSpec, last: Commit | None, description: TableDescription) -> None:
    """Refuse to use one state for another target or source.

    Raises:
        ConfigError: Either differs from the last commit's.
    """
    if last is None:
        return
    if normal_uri(last.target_uri) != normal_uri(spec.target.uri):
        raise ConfigError(
            f"{spec.extract_table}: its commits went to {last.target_uri}, but target.uri is now "
            f"{spec.target.uri}. Move it back, or start over with another state_uri"
        )
    if (last.iceberg is not None) != spec.target.is_iceberg:
        then = "parquet" if last.iceberg is None else "iceberg"
        raise ConfigError(
            f"{spec.extract_table}: its commits are of format {then}, and target.format is "
            f"{spec.target.format}. Put it back, or start over with another state_uri and target"
        )
    if last.fingerprint != description.fingerprint:
        raise ConfigError(
            f"{spec.extract_table}: its commits came from source {last.fingerprint}, but the "
            f"connection now leads to {description.fingerprint}. A restored or different server "
            "has different rows: point the connection back, or start over with another state_uri "
            "and target"
        )


def partition_names(spec: ExtractSpec) -> tuple[str, ...]:
    """Return the names of the target's partition fields, in path order."""
    return tuple(f.name for f in partition_fields(spec))


def check_layout(spec: ExtractSpec, last: Commit | None) -> None:
    """Refuse to add files with another folder layout to those that stay.

    Readers could not read both, and partitions could not be matched.

    Raises:
        ConfigError: ``partition_by`` differs from the last commit's, and files stay.
    """
    if last is None or spec.target.write_mode == "overwrite":
        return
    wanted = partition_names(spec)
    if last.partition_by != wanted:
        raise ConfigError(
            f"{spec.extract_table}: its files are partitioned by {_listed(last.partition_by)}, and "
            f"target.partition_by is now {_listed(wanted)}. Put it back, replace all files with a "
            "run in mode full and write_mode overwrite (extract-jobs run --set mode=full), or "
            "start over with another state_uri and target"
        )


def check_beside_increments(spec: ExtractSpec, last: Commit | None) -> None:
    """Refuse to add a full extract to increments that hold the same rows.

    Raises:
        ConfigError: Increments are live, and the run would keep them.
    """
    if last is None or not last.holds_increments or spec.mode == "incremental":
        return
    by_run = any(name in RUN_PARTITIONS for name in spec.target.partition_by)
    accepted = spec.watermark is not None and spec.watermark.duplicates == "accept"
    adds = spec.target.write_mode == "append" and not accepted
    if adds or (spec.target.write_mode == "overwrite_partitions" and by_run):
        raise ConfigError(
            f"{spec.extract_table}: its files hold the rows of incremental runs, and a full "
            f"extract with write_mode {spec.target.write_mode} would add the same rows again. "
            "Replace all files with target.write_mode: overwrite, or start over with another "
            "state_uri and target"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


def check_unoccupied(spec: ExtractSpec, log: CommitLog, base: Base) -> None:
    """Refuse a target with data that is not in the commit log.

    Raises:
        ConfigError: There is some; the message names one object.
        CommitConflict: The data is from another run's first commit, made just now.
    """
    folder = join(spec.target.uri, "")
    # A first commit that was not finished leaves metadata that no catalog names.
    own = join(spec.target.uri, METADATA_FOLDER, "") if spec.target.is_iceberg else None
    found = next(
        (
            o
            for o in log.target.list(folder)
            if not o.uri.endswith("/") and not is_probe(o) and not (own and is_inside(o.uri, own))
        ),
        None,
    )
    if found is None:
        return
    newest = log.newest()
    if newest is not None and newest.seq > base.seq:
        raise CommitConflict(
            f"{spec.extract_table}: run {newest.run_id} made commit {newest.seq} in the meantime"
        )
    raise ConfigError(
        f"target {spec.target.uri} already holds data that no commit of this table wrote "
        f"({found.uri}); nothing was written. Give the table its own folder, or move that "
        "data away"
    )
