"""Rows as texts: CSV and JSON lines before their values are converted to types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from extract_jobs.errors import ConfigError
from extract_jobs.sources.files.blocks import Block
from extract_jobs.sources.files.text_forms import usual_text
from extract_jobs.spec.source import TextTypeSpec
from extract_jobs.transform.exact_cast import exact_cast

CONTENT = "is not valid UTF-8 (see files.encoding)"
MOST_COLUMNS = 100_000
"""More are taken for data in the place of names. Each costs time and memory in every batch."""
Locate = Callable[[], Sequence[tuple[int, bytes]]]
"""Returns the line and the bytes of each record of a block."""


@dataclass(frozen=True)
class Fault:
    """Why one record is not a row.

    Attributes:
        record: Its number in the block, from 0.
        column: The column at fault, None if it is the record itself.
        reason: Never contains a value.
    """

    record: int
    column: str | None
    reason: str


@dataclass(frozen=True)
class Texts:
    """The rows of a block in some columns.

    Attributes:
        columns: Strings, one array per column.
        records: Number of each row's record in the block, from 0; None if all records are rows.
        faults: Records that are not rows.
        locate: Returns where records are; costly, so called for faults only.
    """

    columns: list[pa.Array]
    rows: int
    records: pa.Array | None
    locate: Locate
    faults: list[Fault] = field(default_factory=list)

    def record_of(self, row: int) -> int:
        """Return the number of a row's record."""
        return row if self.records is None else int(self.records[row].as_py())


Parse = Callable[[Block, Sequence[str]], Texts]


def check_columns(count: int, uri: str) -> None:
    """Check how many columns a file has, or several files together.

    Raises:
        ConfigError: They are more than `MOST_COLUMNS`.
    """
    if count > MOST_COLUMNS:
        raise ConfigError(
            f"{uri}: {count:,} columns, and a table may have {MOST_COLUMNS:,}. If keys of objects "
            "are data, write them as values; otherwise name the columns that you want in "
            "files.types"
        )


def as_text(values: pa.Array) -> tuple[pa.Array, list[int]]:
    """Return bytes as strings, invalid UTF-8 made NULL, and the positions of what was invalid."""
    return converted(values, lambda part: part.cast(pa.string()), pa.string())


def to_type(
    values: pa.Array, target: pa.DataType, form: TextTypeSpec | None = None
) -> tuple[pa.Array, list[int]]:
    """Return strings as values, those without a faithful form made NULL, and their positions.

    Args:
        values: Strings.
        target: One of the types of ``columns.cast``.
        form: How they are written; None in the usual way.
    """
    if target == values.type:
        return values, []

    def convert(part: pa.Array) -> pa.Array:
        return exact_cast(part if form is None else usual_text(part, form), target)

    return converted(values, convert, target)


def converted(
    values: pa.Array, convert: Callable[[pa.Array], pa.Array], target: pa.DataType
) -> tuple[pa.Array, list[int]]:
    """Return an array converted, what cannot be converted made NULL, and its positions.

    Failures are found by halving, so few of them cost little.
    """
    try:
        return convert(values), []
    except pa.ArrowInvalid:
        if len(values) == 1:
            return pa.nulls(1, target), [0]
    middle = len(values) // 2
    left, left_failed = converted(values.slice(0, middle), convert, target)
    right, right_failed = converted(values.slice(middle), convert, target)
    return pa.concat_arrays([left, right]), [*left_failed, *(middle + i for i in right_failed)]
