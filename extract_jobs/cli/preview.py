"""``preview``: a table's first rows as its files would hold them. Writes nothing."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from extract_jobs.attempt.attempt import make_transform, mask_key
from extract_jobs.attempt.dry_run import Planned, planned
from extract_jobs.cli.selection import selected_spec
from extract_jobs.engine.pandas_free import skip_pandas
from extract_jobs.errors import EXIT_DONE, ConfigError, printable
from extract_jobs.reporting.figures import aligned, counted
from extract_jobs.sources import DataFrameReader
from extract_jobs.sources.limit import LimitedSnapshot
from extract_jobs.spec.extract_spec import ExtractSpec

if TYPE_CHECKING:
    from collections.abc import Generator

_MOST_CHARACTERS = 60
"""Of one value; longer ones are cut and end in an ellipsis."""


def command(arguments: argparse.Namespace) -> int:
    """Print a table's first rows.

    Raises:
        ExtractError: The table cannot be planned or read.
    """
    skip_pandas()
    spec = selected_spec(arguments)
    now = datetime.now(UTC)
    plan = planned(spec, now)
    if plan.plan.is_empty:
        print(f"{printable(spec.extract_table)}: no row is new")
        return EXIT_DONE
    rows = first_rows(spec, plan, now, arguments.rows)
    print(_text(rows))
    return EXIT_DONE


def first_rows(spec: ExtractSpec, plan: Planned, now: datetime, count: int) -> pa.Table:
    """Return the first rows that a run would read, transformed, with their partitions' values.

    The source decides their order. Rows that are already committed are included.

    Args:
        spec: The table's.
        plan: What a run would do.
        now: The present, UTC.
        count: Maximum rows.

    Raises:
        ConfigError: Spark reads the table.
        ExtractError: The source cannot be read, or a value has no faithful form.
    """
    transform = make_transform(
        spec, plan.columns, now, now, layout=plan.plan.drift.layout, key=mask_key(spec)
    )
    names = [partition.name for partition in transform.partitions]
    schema = transform.schema
    for name in names:
        schema = schema.append(pa.field(name, pa.string()))
    batches = []
    for batch in _batches(spec, plan, count):
        written = transform.apply(batch)
        folders = [values.cast(pa.string()) for values in transform.partition_keys(batch)]
        batches.append(pa.record_batch([*written.columns, *folders], schema=schema))
    return pa.Table.from_batches(batches, schema)


def _batches(spec: ExtractSpec, plan: Planned, count: int) -> Iterator[pa.RecordBatch]:
    with plan.source.snapshot(plan.request) as whole:
        snapshot = LimitedSnapshot(whole, count)
        reader = snapshot.reader
        if isinstance(reader, DataFrameReader):
            raise ConfigError(
                f"{spec.extract_table}: Spark reads this source, and preview does not start it: "
                f"take a sample with `extract-jobs run --limit {count} --target FOLDER`"
            )
        for split in snapshot.splits(spec):
            with closing(cast("Generator[pa.RecordBatch]", reader.read(split))) as batches:
                yield from batches


def _text(rows: pa.Table) -> str:
    """Return rows as a table if that fits the terminal, else each row as lines."""
    if not rows.num_rows:
        return f"no rows; columns: {', '.join(map(printable, rows.schema.names))}"
    values = [[_value_text(value) for value in column.to_pylist()] for column in rows.itercolumns()]
    names = rows.schema.names
    lines = aligned([names, *map(list, zip(*values, strict=True))])
    if max(map(len, lines)) <= shutil.get_terminal_size().columns:
        return "\n".join(lines)
    blocks = []
    for number, row in enumerate(zip(*values, strict=True), start=1):
        pairs = aligned([[f"  {name}", value] for name, value in zip(names, row, strict=True)])
        blocks.append("\n".join([f"row {number}", *pairs]))
    return "\n".join([*blocks, counted(rows.num_rows, "row")])


def _value_text(value: Any) -> str:
    if value is None:
        return "NULL"
    text = value.isoformat(sep=" ") if isinstance(value, datetime) else str(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
