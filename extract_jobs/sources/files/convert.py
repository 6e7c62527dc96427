"""From texts to batches of values; bad rows fail the read, or are set aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from extract_jobs.errors import ExtractError, SourceQueryFailed, TypeNotRepresentable
from extract_jobs.schema import Column
from extract_jobs.sources.files.jsonl_rows import JsonLines
from extract_jobs.sources.files.rejects import Rejects
from extract_jobs.sources.files.text_forms import Forms
from extract_jobs.sources.files.texts import Fault, Texts, converted, to_type
from extract_jobs.spec.source import TextTypeSpec


def batch_of(
    texts: Texts,
    columns: Sequence[Column],
    uri: str,
    rejects: Rejects | None,
    lists: JsonLines | None = None,
    *,
    forms: Forms,
) -> pa.RecordBatch:
    """Return the rows of a block as values.

    Args:
        texts: In these columns.
        columns: Their types.
        uri: The file, for messages.
        rejects: Takes the rows that do not parse; None fails at the first.
        lists: Parses arrays; None if there are none.
        forms: Columns that are written in a way of their own.

    Raises:
        SourceQueryFailed: A record is not a row.
        TypeNotRepresentable: A value is not of its column's type.
    """
    faults, arrays = list(texts.faults), []
    for column, values in zip(columns, texts.columns, strict=True):
        form = forms.get(column.name)
        array, failed = _values(values, column.arrow_type, lists, form)
        arrays.append(array)
        reason = f"is not a valid {column.arrow_type}"
        reason += f" written as {form.written}" if form else ""
        faults += [Fault(texts.record_of(row), column.name, reason) for row in failed]
    names = [column.name for column in columns]
    batch = pa.RecordBatch.from_arrays(arrays, names=names)
    if not faults:
        return batch
    bad = refuse(texts, faults, uri, rejects)
    records = texts.records or pa.array(range(texts.rows), pa.int64())
    return batch.filter(pa.array([r not in bad for r in records.to_pylist()], pa.bool_()))


def _values(
    values: pa.Array, target: pa.DataType, lists: JsonLines | None, form: TextTypeSpec | None
) -> tuple[pa.Array, list[int]]:
    if not pa.types.is_list(target):
        return to_type(values, target, form)
    assert lists is not None
    convert: Callable[[pa.Array], pa.Array] = lambda part: lists.to_list(part, target.value_type)  # noqa: E731
    return converted(values, convert, target)


def refuse(texts: Texts, faults: Sequence[Fault], uri: str, rejects: Rejects | None) -> set[int]:
    """Set bad records aside and return their numbers, or fail at the first.

    Raises:
        SourceQueryFailed: A record is not a row.
        TypeNotRepresentable: A value is not of its column's type.
    """
    places = texts.locate()
    # Only the first reason of a record is reported.
    by_record: dict[int, Fault] = {}
    for fault in sorted(faults, key=lambda f: (f.record, f.column is not None)):
        by_record.setdefault(fault.record, fault)
    for fault in by_record.values():
        line, raw = places[fault.record]
        if rejects is None:
            raise _error(fault, line, uri)
        rejects.add(uri, line, fault, raw)
    return set(by_record)


def _error(fault: Fault, line: int, uri: str) -> ExtractError:
    where = f"{uri}, line {line}"
    advice = "fix the file, or set such rows aside with files.bad_rows: reject"
    if fault.column is None:
        return SourceQueryFailed(f"{where}: the row {fault.reason}; {advice}")
    return TypeNotRepresentable(
        f"{where}, column {fault.column!r}: the value {fault.reason}; {advice}, or declare another "
        "type in files.types"
    )
