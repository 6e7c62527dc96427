"""Hive partitions of the target: each row's folder, and how the folder is spelled.

Values are spelled as Hive spells them: integers plain, dates ISO, booleans ``true`` and ``false``,
decimals with their scale, timestamps ``YYYY-MM-DD HH:MM:SS[.ffffff]``; ``year()`` ``2026``,
``month()`` ``2026-01``, ``day()`` ``2026-01-31``, ``hour()`` ``2026-01-31-13``. Timestamps with a
zone are in UTC. NULL is the folder ``__HIVE_DEFAULT_PARTITION__``.

Hive puts the empty string into the same folder, where it reads back as NULL, and Spark fails on a
folder without a value. So neither the empty string nor a text equal to the NULL folder's name can
be represented: both are refused, or become NULL if ``lossy_types: null`` allows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.spec.rules import PARTITION_FUNCTIONS, RUN_PARTITIONS
from extract_jobs.transform.types import kind

DEFAULT_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""The folder's value for NULL."""

# FileUtils.escapePathName of Hive, which Spark, Trino and Athena follow.
_ESCAPED = re.compile(r"[\x00-\x1f\x7f\"#%'*/:=?\\{\[\]^]")
_HEX = re.compile("%([0-9A-F]{2})")
_NULL = re.compile(r"\A[Nn](?=[Uu][Ll][Ll]\Z)")
_FUNCTION = re.compile(rf"({'|'.join(PARTITION_FUNCTIONS)})\((.+)\)", re.DOTALL)
PartitionKey = tuple[str | None, ...]
"""One value per partition field, in path order; None is the NULL partition."""

_SLICES = {"year": 4, "month": 7, "day": 10, "hour": 13}


@dataclass(frozen=True)
class PartitionField:
    """One level of the target's folders.

    Attributes:
        name: The folder's key, ``<name>=<value>``.
        column: Source column that the value comes from; None for ``extract_date`` and ``run_id``,
            which are the same for every row of a run.
        function: ``year``, ``month``, ``day`` or ``hour``; None takes the column's value itself,
            and the column is then not in the files.
    """

    name: str
    column: str | None = None
    function: str | None = None


def parse_partitions(partition_by: Sequence[str]) -> tuple[PartitionField, ...]:
    """Read ``partition_by``.

    A column ``c`` gives a field of its name, ``day(c)`` the field ``c_day``; blanks around a
    function's column are ignored. ``extract_date`` and ``run_id`` are always the run's own, even if
    the table has such columns.
    """
    return tuple(_parse(text) for text in partition_by)


def _parse(text: str) -> PartitionField:
    if text in RUN_PARTITIONS:
        return PartitionField(text)
    match = _FUNCTION.fullmatch(text)
    if match:
        column = match[2].strip()
        return PartitionField(f"{column}_{match[1]}", column, match[1])
    return PartitionField(text, text)


def partition_problem(field: PartitionField, data_type: pa.DataType) -> str | None:
    """Return why a field cannot use a column of that type; None if it can."""
    found = kind(data_type)
    if field.function:
        allowed: tuple[str, ...] = ("timestamp", "timestamptz")
        if field.function != "hour":
            allowed = ("date", *allowed)
    else:
        allowed = (
            "integer", "string", "boolean", "decimal", "date", "timestamp", "timestamptz",
        )  # fmt: skip
    if found in allowed:
        return None
    what = f"{field.function}({field.column})" if field.function else field.column
    return f"target.partition_by: {what} cannot use type {data_type}; it takes {', '.join(allowed)}"


def partition_values(
    array: pa.Array, field: PartitionField, *, empty_is_null: bool, is_iceberg: bool = False
) -> pa.DictionaryArray:
    """Return each row's folder value.

    Args:
        array: Values of the field's column, of a type that has no `partition_problem`.
        field: The partition field.
        empty_is_null: Whether the empty string, a text equal to the NULL folder's name, and a year
            without four digits may become NULL.
        is_iceberg: Whether it is an Iceberg table's partition, by which readers skip files: there,
            NULL for a value that is not NULL would hide the row, and is refused.

    Returns:
        Dictionary-encoded strings, not escaped; NULL is the NULL partition. The dictionary itself
        may hold NULL and may be longer than what rows use.

    Raises:
        TypeNotRepresentable: A value has no folder of its own, and may not become NULL.
    """
    if field.function:
        array = pc.floor_temporal(_naive(array), unit=field.function)
    # Only distinct values are turned into text.
    encoded = array.dictionary_encode()
    values = _text(encoded.dictionary)
    homeless, why = _homeless(values, field, array.type)
    if pc.any(homeless).as_py():
        if is_iceberg or not empty_is_null:
            way_out = "" if is_iceberg else ", or allow it with lossy_types: null"
            raise TypeNotRepresentable(
                f"partition column {field.column!r} holds {why}; use another partition{way_out}"
            )
        values = pc.if_else(homeless, pa.scalar(None, pa.string()), values)
    if field.function:
        values = pc.utf8_slice_codeunits(values, 0, _SLICES[field.function])
        values = pc.replace_substring(values, " ", "-")
    return pa.DictionaryArray.from_arrays(encoded.indices, values)


def _naive(array: pa.Array) -> pa.Array:
    """Return timestamps as UTC wall clock without a zone; other values unchanged."""
    return array.cast(pa.timestamp("us")) if pa.types.is_timestamp(array.type) else array


def _text(values: pa.Array) -> pa.Array:
    text = _naive(values).cast(pa.string())
    if pa.types.is_timestamp(values.type):
        text = pc.replace_substring_regex(text, r"\.0+$", "")
        return pc.replace_substring_regex(text, r"(\.\d*[1-9])0+$", r"\1")
    return text


def _homeless(
    texts: pa.Array, field: PartitionField, data_type: pa.DataType
) -> tuple[pa.Array, str]:
    """Return which values have no folder of their own, and why."""
    if field.function:
        # Cut off after four digits, the year 12000 would be the year 1200.
        known = pc.match_substring_regex(texts, r"^\d{4}-")
        return pc.invert(known), (
            f"a year below 0 or above 9999, for which {field.function}() has no folder"
        )
    if kind(data_type) != "string":
        return pa.repeat(pa.scalar(False), len(texts)), ""
    return pc.is_in(texts, pa.array(["", DEFAULT_PARTITION])), (
        f"an empty text or the text {DEFAULT_PARTITION}: as a folder's name both read back as NULL"
    )


class PartitionIds:
    """Numbers the partitions that a writer meets, from 0. Not thread-safe."""

    def __init__(self) -> None:
        """Start without partitions."""
        self._ids: dict[PartitionKey, int] = {}
        self._keys: list[PartitionKey] = []

    def key(self, partition: int) -> PartitionKey:
        """Return the values of a partition by its number."""
        return self._keys[partition]

    def of(self, keys: Sequence[pa.DictionaryArray]) -> pa.Array:
        """Return the number of each row's partition, new ones for partitions not met before.

        Args:
            keys: One array per partition field, from `partition_values`; at least one.

        Returns:
            int32, without NULL.
        """
        texts = [k.dictionary.to_pylist() for k in keys]
        codes = pa.repeat(pa.scalar(0, pa.int64()), len(keys[0]))
        for key, text in zip(keys, texts, strict=True):
            # One number per row, in which each field's value is a digit; NULL is the last one.
            digit = pc.fill_null(key.indices, len(text)).cast(pa.int64())
            codes = pc.add_checked(pc.multiply_checked(codes, len(text) + 1), digit)
        distinct = codes.dictionary_encode()
        found = [self._id(_decoded(code, texts)) for code in distinct.dictionary.to_pylist()]
        return pa.array(found, pa.int32()).take(distinct.indices)

    def _id(self, key: PartitionKey) -> int:
        number = self._ids.setdefault(key, len(self._keys))
        if number == len(self._keys):
            self._keys.append(key)
        return number


def _decoded(code: int, texts: Sequence[Sequence[str | None]]) -> PartitionKey:
    values: list[str | None] = []
    for text in reversed(texts):
        code, digit = divmod(code, len(text) + 1)
        values.insert(0, text[digit] if digit < len(text) else None)
    return tuple(values)


def rows_by_id(rows: pa.RecordBatch, ids: pa.Array) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield each partition's rows in order, copied so that they do not keep the batch in memory.

    A batch of one partition is passed on as it is.

    Args:
        rows: A batch.
        ids: The number of each row's partition, from `PartitionIds`.
    """
    counts = sorted((c["values"], c["counts"]) for c in ids.value_counts().to_pylist())
    order = None if len(counts) == 1 else pc.array_sort_indices(ids)
    start = 0
    for number, count in counts:
        yield number, rows if order is None else rows.take(order.slice(start, count))
        start += count


def folder(partition: dict[str, str | None]) -> str:
    """Return the path of a partition below the target, ``a=1/b=2``; empty for no fields.

    Names and values are escaped as in Hive: ``%XX`` for each character that a path cannot hold. The
    first letter of the text ``NULL``, in any case, is escaped too, because DuckDB reads it as NULL
    whatever type is declared.
    """
    return "/".join(
        f"{_escape(name)}={DEFAULT_PARTITION if value is None else _value(value)}"
        for name, value in partition.items()
    )


def values_of(path: str) -> list[str | None]:
    """Return a partition's values from its path below the target, the inverse of `folder`."""
    values = (part.partition("=")[2] for part in path.strip("/").split("/"))
    return [None if v == DEFAULT_PARTITION else _HEX.sub(_character, v) for v in values]


def _character(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))


def _value(text: str) -> str:
    return _NULL.sub(lambda match: f"%{ord(match[0]):02X}", _escape(text), count=1)


def _escape(text: str) -> str:
    return _ESCAPED.sub(lambda match: f"%{ord(match[0]):02X}", text)
