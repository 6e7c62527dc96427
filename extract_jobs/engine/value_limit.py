"""Refuses a single value that is larger than a table allows, before it is copied any further."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.sources.splits import Split
from extract_jobs.transform.sizes import value_sizes


@dataclass(frozen=True)
class ValueLimit:
    """The maximum size of a table's values.

    Attributes:
        table: What messages call it.
        most: Maximum bytes of a value; a list is one value.
    """

    table: str
    most: int

    def check(self, batch: pa.RecordBatch, split: Split, before: int = 0) -> None:
        """Check a batch. Columns that are smaller than the limit as a whole are not examined.

        Args:
            batch: The rows.
            split: What they are read from.
            before: Number of the split's rows before them.

        Raises:
            TypeNotRepresentable: A value is too large. More memory would not help, so the attempt
                is not retried.
        """
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            if values.nbytes <= self.most:
                continue
            sizes = value_sizes(values)
            longest = int(sizes.max(initial=0))
            if longest > self.most:
                where = _place(split, before + int(sizes.argmax()) + 1)
                raise TypeNotRepresentable(
                    f"{self.table}{where}: column {name!r} has a value of {longest:,} bytes, and "
                    f"max_value_bytes allows {self.most:,}. Leave the column out with "
                    "columns.exclude, or raise max_value_bytes"
                )


def _place(split: Split, row: int) -> str:
    """Return where a row of a split is; rows of a database have no place."""
    if not split.objects:
        return ""
    first, last = split.objects[0], split.objects[-1]
    if len(split.objects) > 1:
        named = f"{len(split.objects)} files from {first.uri} to {last.uri}"
        return f", in row {row:,} of {named}"
    begins = f", counted from byte or row group {first.start:,}" if first.start else ""
    return f", in {first.uri}, row {row:,}{begins}"
