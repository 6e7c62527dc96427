"""A SQLite column in conditions: its literals, and its values as watermarks."""

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
        if self.kind == "decimal":
            number = Decimal(text)
            whole = number == number.to_integral_value() and abs(number) < 2**63
            # Decimal digits are stored as doubles, and SQLite does not parse all of them exactly.
            return str(int(number)) if whole else literal(float(number))
        # Digits, checked; beyond 64 bits SQLite reads them as a real.
        return text if self.kind == "integer" else literal(text)

    @property
    def is_no_text(self) -> str:
        """A condition that is true for a number or blob in a column that orders rows as text.

        Numbers sort before every text, and blobs after.
        """
        return f"{self.sql} < '' or {self.sql} >= x''"

    def value(self, found: Any) -> WatermarkValue | str:
        """Return a value of the column's storage class; another class would hide rows."""
        if self.kind == "integer" and type(found) is int:
            return WatermarkValue("integer", str(found))
        if self.kind == "decimal" and isinstance(found, int | float) and math.isfinite(found):
            return WatermarkValue("decimal", f"{Decimal(repr(found)):f}")
        if self.kind == "string" and isinstance(found, str):
            return WatermarkValue("string", printed(found))
        return storage_class(found)
