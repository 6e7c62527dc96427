"""Text that the server printed, parsed into a column's Arrow type, or refused."""

from __future__ import annotations

from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.schema import Column
from extract_jobs.transform.date_range import out_of_range


def parse(values: pa.Array, column: Column, *, null_what_fails: bool) -> tuple[pa.Array, int]:
    """Parse one column of a batch.

    Args:
        values: The server's bytes.
        column: Their column.
        null_what_fails: Whether values without a faithful form become NULL.

    Returns:
        The values in the column's Arrow type, and how many of them became NULL.

    Raises:
        TypeNotRepresentable: A value has no faithful form and may not become NULL.
    """
    kind = column.arrow_type
    if pa.types.is_binary(kind):
        return values, 0
    if column.source_type == "json":
        # MySQL returns NULL for what is larger than its max_allowed_packet.
        values = pc.if_else(pc.equal(pc.binary_length(values), 0), b"\xff", values)
    parsed = _try(values, kind)
    if parsed is not None:
        return parsed, 0
    kept = _without_failures(values, kind)
    lost = kept.null_count - values.null_count
    if lost and not null_what_fails:
        raise _refused(column)
    parsed = _try(kept, kind)
    if parsed is None:
        raise TypeNotRepresentable(
            f"column {column.name} ({column.source_type}) holds a value that {kind} cannot "
            f"represent: set columns: {{cast: {{{column.name}: string}}}}, or exclude the column"
        )
    return parsed, lost


def _try(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Return the values parsed; None if one of them cannot be parsed. No message shows which."""
    try:
        texts = values.cast(pa.string())
        if pa.types.is_string(kind):
            return texts
        if pa.types.is_float32(kind):
            # Through the double that it exactly is: rounding twice would be wrong.
            return texts.cast(pa.float64()).cast(pa.float32(), safe=False)
        if pa.types.is_boolean(kind):
            return pc.equal(texts, "1")
        # Without the zone, which the server's texts do not have.
        parsed = texts.cast(pa.timestamp("us") if pa.types.is_timestamp(kind) else kind)
        # MySQL stores year 0, which readers do not support alike.
        return None if out_of_range(parsed) else parsed.cast(kind)
    except pa.ArrowInvalid:
        return None


def _without_failures(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return the values with NULL for those without a faithful form, one by one."""

    def passes(value: bytes) -> bool:
        try:
            text = value.decode()
            if pa.types.is_timestamp(kind):
                datetime.fromisoformat(text)
            elif pa.types.is_date(kind):
                date.fromisoformat(text)
        except ValueError:
            return False
        return True

    found = [value if value is None or passes(value) else None for value in values.to_pylist()]
    return pa.array(found, pa.binary())


def _refused(column: Column) -> TypeNotRepresentable:
    if pa.types.is_temporal(column.arrow_type):
        return TypeNotRepresentable(
            f"column {column.name} ({column.source_type}) holds a zero date, or a day that no "
            "calendar has. Set lossy_types: null to write NULL for it, lossy_types: string or "
            f"columns: {{cast: {{{column.name}: string}}}} to take the server's text, or "
            "leave such rows out with where"
        )
    return TypeNotRepresentable(
        f"column {column.name} ({column.source_type}) holds bytes that are not valid in its "
        "character set, or more than the server's max_allowed_packet lets it convert. Set "
        "lossy_types: null to write NULL for them, take the bytes in a query with cast(… as "
        "binary), or leave such rows out with where"
    )
