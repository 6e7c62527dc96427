"""``plan``: what a run would do, for one table in detail or for all with totals. Read-only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from extract_jobs.attempt.dry_run import Planned, planned
from extract_jobs.cli.each_table import each_table, error_of_all
from extract_jobs.cli.selection import selected_config, specs_of
from extract_jobs.config import tables_at_a_time
from extract_jobs.engine.pandas_free import skip_pandas
from extract_jobs.engine.placement import may_use_spark
from extract_jobs.errors import EXIT_DONE, ConfigError, ExtractError, error_line, printable
from extract_jobs.planning.new_files import Objects
from extract_jobs.planning.retired_preview import Amount, Retired
from extract_jobs.planning.schema_comparison import audit_names
from extract_jobs.reporting.figures import aligned, count_text, counted, size_text
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.columns import audit_fields
from extract_jobs.transform.fidelity import arrival
from extract_jobs.transform.transform import Transform
from extract_jobs.watermark import Interval

_AT_ONCE = 4


def command(arguments: argparse.Namespace) -> int:
    """Print one table's plan, or a line for each of several; with ``--sql`` the statements.

    Raises:
        ExtractError: A table cannot be planned.
    """
    skip_pandas()
    config = selected_config(arguments)
    specs = specs_of(config, arguments, "none")
    now = datetime.now(UTC)
    if len(specs) == 1 and not arguments.sql:
        print(plan_text(specs[0], planned(specs[0], now)))
        return EXIT_DONE
    most = tables_at_a_time(config, [spec.split.max_connections for spec in specs])
    at_once = 1 if any(map(may_use_spark, specs)) else min(_AT_ONCE, most)
    plans: list[tuple[ExtractSpec, Planned]] = []
    errors: list[ExtractError] = []
    for spec, found in each_table(specs, lambda spec: planned(spec, now), at_once=at_once):
        if not isinstance(found, ExtractError):
            plans.append((spec, found))
            continue
        errors.append(found)
        if len(specs) > 1:
            print(f"{printable(spec.extract_table)}: {error_line(found)}", file=sys.stderr)
    if arguments.sql:
        for spec, plan in plans:
            print(_sql(spec, plan), flush=True)
    elif plans:
        print(plans_text(plans))
    if errors:
        raise error_of_all(errors, len(specs))
    return EXIT_DONE


def _sql(spec: ExtractSpec, plan: Planned) -> str:
    """Return the statements of a table, each split's after a comment.

    Raises:
        ConfigError: The source has no statements.
    """
    if not plan.statements:
        raise ConfigError(f"{spec.extract_table}: a source of type {spec.source_type} has no SQL")
    each = (f"{text};" for text in plan.statements)
    head = f"-- {printable(spec.table_id)}: {counted(len(plan.splits), 'split')}"
    return "\n".join([head, *each])


def plans_text(plans: Sequence[tuple[ExtractSpec, Planned]]) -> str:
    """Return a line for each table, and the totals of what is known."""
    rows = [["table", "rows", "bytes", "splits", "retires", "interval"]]
    for spec, plan in plans:
        goes = plan.retired.goes
        about = plan.description
        interval = _interval_text(plan.plan.interval, plan.plan.objects)
        changes = len(plan.plan.drift.changes)
        changed = [counted(changes, "column change")] if changes else []
        rows.append([
            spec.extract_table,
            count_text(about.estimated_rows),
            size_text(about.estimated_bytes),
            str(len(plan.splits)),
            counted(goes.files, "file") if goes.files else "-",
            "; ".join([interval, *(text for _, text in _kept_facts(plan, short=True)), *changed]),
        ])  # fmt: skip
    known = [plan.description for _, plan in plans]
    rows.append([
        counted(len(plans), "table"),
        _total([about.estimated_rows for about in known], count_text),
        _total([about.estimated_bytes for about in known], size_text),
        str(sum(len(plan.splits) for _, plan in plans)),
        counted(sum(plan.retired.goes.files for _, plan in plans), "file"),
        "as the source estimates whole tables",
    ])  # fmt: skip
    return "\n".join(aligned(rows))


def _kept_facts(seen: Planned, *, short: bool = False) -> list[tuple[str, str]]:
    """Return what would be kept of the last commit, or why nothing; nothing if not asked for."""
    if seen.reuse is None:
        return []
    if isinstance(seen.reuse, str) or not seen.reuse.kept:
        reason = seen.reuse if isinstance(seen.reuse, str) else seen.reuse.reason
        return [("kept", "nothing kept" if short else f"nothing: {reason}")]
    found = seen.reuse
    ranges = counted(len(found.kept) + len(found.spans), "range")
    if short:
        return [("kept", f"{len(found.kept):,} of {ranges} kept")]
    size = size_text(sum(split.estimated_bytes for split in found.splits))
    text = f"{len(found.kept):,} of {ranges}, unchanged, with {counted(found.rows, 'row')}"
    return [("kept", f"{text}; {size} of {size_text(seen.description.estimated_bytes)} are read")]


def _total(amounts: Sequence[int | None], text: Callable[[int | None], str]) -> str:
    """Return a sum as text that says if some of it, or all, is unknown."""
    known = [amount for amount in amounts if amount is not None]
    if not known:
        return text(None)
    return text(sum(known)) if len(known) == len(amounts) else f"at least {text(sum(known))}"


def plan_text(spec: ExtractSpec, seen: Planned) -> str:
    """Return one table's plan as text: its reads, its target, its columns with their rules."""
    about = seen.description
    published = seen.plan.base.published
    last = f"after commit {published.seq}" if published else "the first commit"
    partitions = ", ".join(p.name for p in seen.transform.partitions) or "none"
    reads = f"{len(seen.splits)}, at most {spec.split.max_connections} at a time"
    if seen.splits and seen.splits[0].note:
        reads = f"1: {seen.splits[0].note}"
    facts = [
        ("table", f"{spec.table_id} ({about.kind}, {about.source_version})"),
        *_read_from_facts(about.read_from),
        ("key", ", ".join(about.key) or "none"),
        ("estimated", f"{_rough(about.estimated_rows)}, {size_text(about.estimated_bytes)}"),
        ("rows", _interval_text(seen.plan.interval, seen.plan.objects)),
        *_listing_facts(spec),
        ("splits", reads),
        *_kept_facts(seen),
        ("target", f"{spec.target.uri} ({spec.target.write_mode}, {spec.target.compression})"),
        ("partitions", partitions),
        *([] if spec.target.is_iceberg else _guessed_facts(seen.transform)),
        *_retired_facts(spec, seen.retired),
        ("state", f"{spec.state_uri} ({last})"),
        *(("change", str(change)) for change in seen.plan.drift.changes),
    ]
    lines = aligned([[f"{name}:", text] for name, text in facts])
    types = {c.name: c for c in seen.columns}
    rows = [["column", "source type", "file type", "fidelity", "rule"]]
    files = {f.name: str(f.type) for f in seen.transform.schema}
    for name, column in types.items():
        output = spec.columns.rename.get(name, name)
        kind = files.get(output, "in the path")
        shown = name if output == name else f"{name} → {output}"
        rows.append([shown, column.source_type, kind, *arrival(column, spec)])
    present = {spec.columns.rename.get(name, name) for name in types} | {*audit_names(spec)}
    gone = [name for name in files if name not in present]
    rows += [[n, "-", files[n], "-", "gone from the source: NULL, as older files have it"]
             for n in gone]  # fmt: skip
    rows += [[f.name, "-", str(f.type), "-", "added to every row"] for f in audit_fields(spec)]
    return "\n".join([*lines, "", *aligned(rows)])


def _listing_facts(spec: ExtractSpec) -> list[tuple[str, str]]:
    """Return a note if not all files are listed."""
    if spec.files is None or spec.files.listing == "all" or spec.mode == "full":
        return []
    text = "increments list from the files of the last day on, and all files once a day"
    return [("listing", text)]


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
    if "unverified" in read_from:
        facts.append(("trust", f"{read_from['unverified']}; sslmode: verify-full checks both"))
    return facts


def _retired_facts(spec: ExtractSpec, retired: Retired) -> list[tuple[str, str]]:
    if spec.target.merges:
        key = ", ".join(spec.columns.key)
        facts = [("merges", f"rows by {key}; rows of the table with the same key are replaced")]
        if spec.deletes == "detect":
            facts.append(
                ("deletes", f"rows whose {key} is gone from the source; all keys are read")
            )
        amount = _amount_text(retired.goes)
        which = f"those of {amount} that hold such rows" if retired.depends else amount
        return [*facts, ("rewrites", which)]
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
    if interval.empty:
        return f"none above {interval.lower.text}" if interval.lower else "none"
    return str(interval)
