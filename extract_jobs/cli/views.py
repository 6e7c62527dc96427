"""Plans and results as text for a person. Nothing here writes anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from extract_jobs.attempt.attempt import make_transform
from extract_jobs.catalog import check_catalog
from extract_jobs.cli.figures import aligned, count_text, counted, size_text
from extract_jobs.cli.history import commit_log, last_published
from extract_jobs.commit.record import Base
from extract_jobs.errors import printable
from extract_jobs.planning.new_files import Objects, choose_objects
from extract_jobs.planning.plan import Plan, make_plan, partition_names, read_request
from extract_jobs.planning.retired import Amount, Retired, retired_by
from extract_jobs.planning.schema_change import columns_after, find_drift, schema_json
from extract_jobs.planning.schema_comparison import AUDIT_NAMES
from extract_jobs.reporting.report import Report
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import known_at, open_source
from extract_jobs.sources.splits import Split
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import OpenStorage, Storage, open_storage
from extract_jobs.transform.columns import AUDIT_FIELDS, choose_columns
from extract_jobs.transform.transform import Transform
from extract_jobs.watermark import Interval


@dataclass(frozen=True)
class Preview:
    """What a run of a spec would do now.

    Attributes:
        description: The table as the source describes it.
        columns: The chosen columns.
        transform: The transform to the files' columns.
        plan: The plan that the run would pin.
        splits: The splits that the run would read.
        retired: What would happen to the live files.
    """

    description: TableDescription
    columns: tuple[Column, ...]
    transform: Transform
    plan: Plan
    splits: tuple[Split, ...]
    retired: Retired


class _ReadOnly:
    """A storage to read from; writes are dropped as if they had succeeded."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        if name not in ("read", "head", "list"):
            raise AttributeError(f"a preview does not {name}")
        return getattr(self._storage, name)

    def put_if_absent(self, uri: str, data: bytes) -> bytes:
        found = self._storage.read(uri)
        return data if found is None else found


def preview(spec: ExtractSpec, now: datetime, open_storage: OpenStorage = open_storage) -> Preview:
    """Plan an extract as a run would, and pin nothing. Read-only in source, target and state.

    Args:
        spec: What would be extracted.
        now: The present, UTC.
        open_storage: Gives the storage of a URI.

    Raises:
        ExtractError: As the run would, before it starts to read.
    """

    def open_read_only(uri: str) -> Storage:
        return cast("Storage", _ReadOnly(open_storage(uri)))

    log = commit_log(spec, open_read_only)
    newest = log.newest()
    base = Base(newest.seq if newest else 0, last_published(log))
    source, objects = choose_objects(spec, log, base, open_source(spec), now)
    description = source.describe()
    chosen = choose_columns(description, spec)
    wanted = make_transform(spec, chosen, now, now).schema
    drift = find_drift(spec, base.published, chosen, wanted)
    columns = drift.columns
    transform = make_transform(spec, columns, now, now, layout=drift.layout)
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
    request = read_request(spec, columns, plan.interval, base.published)
    with known_at(source, plan.position).snapshot(request) as snapshot:
        splits = tuple(snapshot.splits(spec))
    retired = retired_by(spec, log, plan, description)
    return Preview(description, columns, transform, plan, splits, retired)


def preview_text(spec: ExtractSpec, seen: Preview) -> str:
    """Return a preview as text: the table, its columns with their rules, the reads, the target."""
    about = seen.description
    published = seen.plan.base.published
    last = f"after commit {published.seq}" if published else "the first commit"
    partitions = ", ".join(p.name for p in seen.transform.partitions) or "none"
    reads = f"{len(seen.splits)}, at most {spec.split.max_connections} at a time"
    if seen.splits[0].note:
        reads = f"1: {seen.splits[0].note}"
    facts = [
        ("table", f"{spec.table_id} ({about.kind}, {about.source_version})"),
        *_read_from_facts(about.read_from),
        ("key", ", ".join(about.key) or "none"),
        ("estimated", f"{_rough(about.estimated_rows)}, {size_text(about.estimated_bytes)}"),
        ("rows", _interval_text(seen.plan.interval, seen.plan.objects)),
        ("splits", reads),
        ("target", f"{spec.target.uri} ({spec.target.write_mode}, {spec.target.compression})"),
        ("partitions", partitions),
        *_guessed_facts(seen.transform),
        *_retired_facts(seen.retired),
        ("state", f"{spec.state_uri} ({last})"),
        *(("change", str(change)) for change in seen.plan.drift.changes),
    ]
    lines = aligned([[f"{name}:", text] for name, text in facts])
    types = {c.name: c for c in seen.columns}
    masked = spec.columns.mask
    rows = [["column", "source type", "file type", "fidelity", "rule"]]
    files = {f.name: str(f.type) for f in seen.transform.schema}
    for name, column in types.items():
        output = spec.columns.rename.get(name, name)
        kind = files.get(output, "in the path")
        mask = f", masked: {masked[name]}" if name in masked else ""
        shown = name if output == name else f"{name} → {output}"
        fidelity = "masked" if mask else column.fidelity
        rows.append([shown, column.source_type, kind, fidelity, column.rule + mask])
    outputs = {spec.columns.rename.get(name, name) for name in types}
    gone = [n for n in files if n not in outputs and n not in AUDIT_NAMES]
    rows += [[n, "-", files[n], "-", "gone from the source: NULL, as older files have it"]
             for n in gone]  # fmt: skip
    rows += [[f.name, "-", str(f.type), "-", "added to every row"] for f in AUDIT_FIELDS]
    return "\n".join([*lines, "", *aligned(rows)])


def _guessed_facts(transform: Transform) -> list[tuple[str, str]]:
    """Return a note on text folders, whose type readers without a catalog guess."""
    names = transform.text_partitions()
    if not names:
        return []
    text = (
        f"the folders of {', '.join(names)} hold text: a reader without a catalog guesses numbers "
        "and dates from it unless the type is given (docs/readers.md)"
    )
    return [("note", text)]


def _read_from_facts(read_from: dict[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if read_from.get("in_recovery"):
        lag = read_from["lag_seconds"]
        amount = "by an unknown time" if lag is None else f"by {lag} s"
        facts.append(("read from", f"a standby, which lags {amount}"))
    if "row_security" in read_from:
        facts.append(("policies", "row-level security may hide rows, which row_security allows"))
    return facts


def _retired_facts(retired: Retired) -> list[tuple[str, str]]:
    if retired.depends:
        text = f"those of {_amount_text(retired.goes)} whose partitions the run writes"
        return [("retires", text)]
    kept = [("keeps", _amount_text(retired.stays))] if retired.stays.files else []
    return [("retires", _amount_text(retired.goes)), *kept]


def _amount_text(amount: Amount) -> str:
    if not amount.files:
        return "nothing"
    where = f" in {counted(amount.partitions, 'partition')}" if amount.partitions else ""
    return f"{counted(amount.files, 'file')}{where}, {size_text(amount.size)}"


def _rough(rows: int | None) -> str:
    return "? rows" if rows is None else f"about {counted(rows, 'row')}"


def _interval_text(interval: Interval | None, objects: Objects | None = None) -> str:
    if objects and objects.nothing_new:
        return "none: no file is new"
    if interval is None:
        return "all"
    return f"none above {interval}" if interval.empty else str(interval)


def summary(reports: Sequence[Report]) -> str:
    """Return one line per table with its result."""
    rows = [["table", "status", "rows", "bytes", "files", "splits", "seconds", "commit"]]
    for report in reports:
        failed = report.error.class_name if report.error else None
        rows.append(
            [
                report.extract_table,
                failed or report.status,
                "-" if failed else count_text(report.rows),
                "-" if failed else size_text(report.bytes),
                "-" if failed else str(report.files),
                "-" if failed else str(report.splits),
                f"{sum(report.timings.values()):.1f}",
                "-" if report.commit_seq is None else str(report.commit_seq),
            ]
        )
    return "\n".join(aligned(rows))


def result_line(report: Report, *, told_later: bool = False) -> str:
    """Return one table's result in a line.

    Args:
        report: The table's.
        told_later: Whether the command's last line will be this table's error, in full.
    """
    table = printable(report.extract_table)
    if report.error and told_later:
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
    rows += ", counted in the source too" if report.reconciled else ""
    if report.rejected_rows:
        rows += f", {counted(report.rejected_rows, 'row')} rejected"
    for name, count in report.nulled.items():
        rows += f", {counted(count, 'value')} of {printable(name)} made NULL" if count else ""
    where = f" in {printable(report.target_uri)}" if report.commit_seq is not None else ""
    return (
        f"{table}: {report.status}: {rows}, {size_text(report.bytes)}, "
        f"{counted(report.files, 'file')}{where}, {seconds:.1f} s, {commit}"
    )
