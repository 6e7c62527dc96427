"""Finds out what a run would do now, without writing anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

from extract_jobs.attempt.attempt import draft_transform, mask_key, table_layout
from extract_jobs.attempt.reuse import Reuse, plan_reuse
from extract_jobs.catalog import check_catalog
from extract_jobs.commit.record import Base
from extract_jobs.commit.table_log import commit_log, last_published
from extract_jobs.iceberg.table import with_ids_of
from extract_jobs.planning.new_files import choose_objects
from extract_jobs.planning.plan import Plan, make_plan, partition_names, read_request
from extract_jobs.planning.retired_preview import Retired, retired_by
from extract_jobs.planning.schema_change import columns_after, schema_json
from extract_jobs.reporting.html import html_facts, html_table
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import ReadRequest, Source, SqlReader, known_at, open_source
from extract_jobs.sources.splits import Split
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import OpenStorage, Storage, open_storage
from extract_jobs.transform.columns import choose_columns, file_type
from extract_jobs.transform.fidelity import arrival
from extract_jobs.transform.transform import Transform


@dataclass(frozen=True)
class Planned:
    """What a run of a spec would do now.

    Attributes:
        description: The table as the source describes it.
        columns: The chosen columns.
        transform: The transform to the files' columns.
        plan: The plan that the run would pin.
        splits: The splits that the run would read.
        statements: The SQL that would read them; empty for sources without SQL.
        retired: What would happen to the live files.
        source: The table's source, in the state that the plan pins.
        request: What would be read from it.
        spec: What was planned.
        reuse: What would be kept of the last commit, or why the table cannot be read by range; None
            if the spec does not ask for it.
    """

    description: TableDescription
    columns: tuple[Column, ...]
    transform: Transform
    plan: Plan
    splits: tuple[Split, ...]
    statements: tuple[str, ...]
    retired: Retired
    source: Source
    request: ReadRequest
    spec: ExtractSpec
    reuse: Reuse | str | None = None

    def _repr_html_(self) -> str:
        """Return what notebooks show: figures, and how each column arrives."""
        about, published = self.description, self.plan.base.published
        interval = self.plan.interval
        facts = [
            ("table", f"{about.table} ({about.kind}, {about.source_version})"),
            ("estimated rows", about.estimated_rows),
            ("rows to read", "all" if interval is None else str(interval)),
            ("splits", len(self.splits)),
            ("files to retire", self.retired.goes.files),
            ("after commit", published.seq if published else "none: the first run"),
        ]
        columns = [
            [c.name, c.source_type, file_type(c, self.spec), *arrival(c, self.spec)]
            for c in self.columns
        ]
        head = ["column", "source type", "arrives as", "fidelity", "rule"]
        return html_facts("Plan", facts) + html_table(head, columns)


class _ReadOnly:
    """A storage to read from; writes are dropped as if they had succeeded."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        if name not in ("read", "head", "list"):
            raise AttributeError(f"a dry run does not {name}")
        return getattr(self._storage, name)

    def put_if_absent(self, uri: str, data: bytes) -> bytes:
        found = self._storage.read(uri)
        return data if found is None else found


def planned(
    spec: ExtractSpec, now: datetime | None = None, open_storage: OpenStorage = open_storage
) -> Planned:
    """Plan an extract as a run would, and pin nothing. Read-only in source, target and state.

    Args:
        spec: What would be extracted.
        now: The present, UTC; None asks the clock.
        open_storage: Returns the storage of a URI.

    Raises:
        ExtractError: As the run would, before it starts to read.
    """
    now = now or datetime.now(UTC)

    def open_read_only(uri: str) -> Storage:
        return cast("Storage", _ReadOnly(open_storage(uri)))

    log = commit_log(spec, open_read_only)
    newest = log.newest()
    base = Base(newest.seq if newest else 0, last_published(log))
    source, objects = choose_objects(spec, log, base, open_source(spec), now)
    description = source.describe()
    chosen = choose_columns(description, spec)
    drift, transform = draft_transform(spec, base.published, chosen, now)
    columns = drift.columns
    plan = make_plan(
        spec, log, base, description, transform.schema,
        drift=drift, source=source, now=now, objects=objects,
    )  # fmt: skip
    check_catalog(
        spec,
        log,
        description.fingerprint,
        columns_after(spec, base.published, schema_json(transform.schema)),
        partition_names(spec),
        first=plan.is_first,
    )
    layout = table_layout(spec, log, transform, plan.base)
    if layout is not None:
        transform = replace(transform, schema=with_ids_of(layout, transform.schema))
    request = read_request(spec, columns, plan.interval, base.published)
    source = known_at(source, plan.position)
    with source.snapshot(request) as snapshot:
        reuse = None if spec.reuse == "never" else plan_reuse(
            spec, log, snapshot, transform,
            base=base, key=mask_key(spec), check=lambda: None,
        )  # fmt: skip
        kept = reuse if isinstance(reuse, Reuse) else None
        splits, reader = tuple(kept.splits if kept else snapshot.splits(spec)), snapshot.reader
        statements = (
            tuple(text for split in splits for text in reader.statements(split))
            if isinstance(reader, SqlReader)
            else ()
        )
    retired = retired_by(spec, log, plan, description, kept=kept.files if kept else ())
    return Planned(
        description, columns, transform, plan, splits, statements, retired, source, request, spec,
        reuse,
    )  # fmt: skip
