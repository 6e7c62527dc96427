"""How a table is doing, in the words of `status`, `report` and an execution's page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from extract_jobs.watermark import TIME_TYPES, WatermarkValue, python_value

State = Literal["failed", "damaged", "retrying", "overdue", "running", "gone", "never run", "ok"]
TROUBLE: tuple[State, ...] = (
    "failed", "damaged", "retrying", "overdue", "running", "gone", "never run", "ok",
)  # fmt: skip
"""All states, the one that most needs attention first."""


@dataclass(frozen=True)
class TableStatus:
    """How one table is doing.

    Attributes:
        table: Its name.
        state: See `TROUBLE`.
        reason: Why it is in that state; empty if the state says it all.
        succeeded_at: When its last successful run ended, UTC; None if there was none.
        watermark: The last committed one, as text; None without one.
        watermark_at: The same as a time, UTC, if it is one.
        rows: Rows of each of its runs' last published commits, oldest first, a few at most.
    """

    table: str
    state: State
    reason: str = ""
    succeeded_at: datetime | None = None
    watermark: str | None = None
    watermark_at: datetime | None = None
    rows: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; times are ISO 8601, UTC."""
        return {
            "table": self.table,
            "state": self.state,
            "reason": self.reason or None,
            "succeeded_at": self.succeeded_at and self.succeeded_at.isoformat(),
            "watermark": self.watermark,
            "watermark_at": self.watermark_at and self.watermark_at.isoformat(),
            "rows": list(self.rows),
        }


def moment_of(mark: WatermarkValue | None) -> datetime | None:
    """Return a watermark of time as a datetime; one without a zone is taken as UTC."""
    if mark is None or mark.type not in TIME_TYPES:
        return None
    value = python_value(mark)
    if not isinstance(value, datetime):
        value = datetime.combine(value, datetime.min.time())
    return value.replace(tzinfo=UTC)
