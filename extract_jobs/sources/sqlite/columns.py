"""A SQLite column as conditions compare it: its literals, and its values as watermarks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from extract_jobs.schema import Column
from extract_jobs.sources.sql.columns import SqlColumn
from extract_jobs.sources.sqlite.sql import literal
from extract_jobs.sources.sqlite.values import printed, storage_class
from extract_jobs.watermark import WatermarkValue


@dataclass(frozen=True)
class SqliteColumn(SqlColumn):
    """A column; its ``source_type`` is its declared type."""

    orderable: ClassVar[str] = (
        "an integer, a decimal with precision, or text that is in the order of time, such as ISO "
        "dates"
    )
    never: ClassVar[str] = "0"

    @classmethod
    def of(cls, column: Column) -> SqliteColumn:
        """Return a column as it is described."""
        declared = column.source_type or "of no type"
        return cls(column.name, column.expression, declared, column.watermark)

    def literal(self, text: str) -> str:
        """Return a number for numbers, text for everything else."""
        # Digits, checked; beyond 64 bits SQLite takes them for a real.
        return text if self.kind in ("integer", "decimal") else literal(text)

    def value(self, found: Any) -> WatermarkValue | str:
        """Return a value of the column's own storage class; one of another would hide others."""
        if self.kind == "integer" and type(found) is int:
            return WatermarkValue("integer", str(found))
        if self.kind == "decimal" and isinstance(found, int | float) and math.isfinite(found):
            return WatermarkValue("decimal", f"{Decimal(repr(found)):f}")
        if self.kind == "string" and not isinstance(found, bytes):
            return WatermarkValue("string", printed(found))
        return storage_class(found)
