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

    def check(self, batch: pa.RecordBatch, split: Split) -> None:
        """Check a batch. Columns that are smaller than the limit as a whole are not examined.

        Raises:
            TypeNotRepresentable: A value is too large. More memory would not help, so the attempt
                is not retried.
        """
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            if values.nbytes <= self.most:
                continue
            longest = int(value_sizes(values).max(initial=0))
            if longest > self.most:
                where = f", in {split.objects[0].uri}" if len(split.objects) == 1 else ""
                raise TypeNotRepresentable(
                    f"{self.table}{where}: column {name!r} has a value of {longest:,} bytes, and "
                    f"max_value_bytes allows {self.most:,}. Leave the column out with "
                    "columns.exclude, or raise max_value_bytes"
                )
