"""Refuses a single value that is larger than a table allows, before it is copied any further."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.sources.splits import Split
from extract_jobs.transform.nested import listed


@dataclass(frozen=True)
class ValueLimit:
    """The maximum size of a table's values.

    Attributes:
        table: What messages call it.
        most: Maximum bytes of a value; a list is one value.
    """

    table: str
    most: int

    def check(self, batch: pa.RecordBatch, split: Split) -> None:
        """Check a batch. Columns that are smaller than the limit as a whole are not examined.

        Raises:
            TypeNotRepresentable: A value is too large. More memory would not help, so the attempt
                is not retried.
        """
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            if values.nbytes <= self.most:
                continue
            longest = int(_sizes(values).max(initial=0))
            if longest > self.most:
                where = f", in {split.objects[0].uri}" if len(split.objects) == 1 else ""
                raise TypeNotRepresentable(
                    f"{self.table}{where}: column {name!r} has a value of {longest:,} bytes, and "
                    f"max_value_bytes allows {self.most:,}. Leave the column out with "
                    "columns.exclude, or raise max_value_bytes"
                )


Sizes = np.ndarray[tuple[int], np.dtype[np.int64]]


def _sizes(values: pa.Array) -> Sizes:
    """Return the bytes of each value; 0 for NULL."""
    types, kind = pa.types, values.type
    if types.is_struct(kind):
        return sum(map(_sizes, values.flatten()), np.zeros(len(values), np.int64))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        values = listed(values)
        lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
        ends = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        inner = np.concatenate(([0], np.cumsum(_sizes(values.flatten()))))
        sizes: Sizes = np.diff(inner[ends])
        return sizes
    texts = types.is_string(kind) or types.is_large_string(kind)
    if texts or types.is_binary(kind) or types.is_large_binary(kind):
        lengths = pc.binary_length(values).fill_null(0)
        found: Sizes = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
        return found
    return np.full(len(values), (kind.bit_width + 7) // 8, np.int64)
