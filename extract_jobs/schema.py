"""Columns: source type, Arrow type, and how faithful the one is to the other.

Types are lossless, refused, or converted by permission, never silently lossy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from extract_jobs.watermark import WatermarkType

if TYPE_CHECKING:
    import pyarrow as pa

Fidelity = Literal["lossless", "as_text", "by_permission"]


@dataclass(frozen=True)
class Column:
    """One column of a table as it will be read.

    Attributes:
        name: Its name in the source.
        source_type: Its type as the source prints it, for example ``numeric(12,2)``.
        arrow_type: What `read` yields for it.
        nullable: Whether the source admits NULL.
        fidelity: ``lossless``; ``as_text`` where the value arrives as the source's own text;
            ``by_permission`` where the spec allowed a loss.
        rule: One sentence for the report: why this type arrives this way.
        expression: SQL of the source's dialect that reads it, identifiers quoted.
        watermark: Its kind as a watermark; None where its type does not order rows.
        nulls_odd_values: Whether values without a faithful form become NULL, as ``lossy_types``
            allows.
    """

    name: str
    source_type: str
    arrow_type: pa.DataType
    nullable: bool
    fidelity: Fidelity
    rule: str
    expression: str
    watermark: WatermarkType | None = None
    nulls_odd_values: bool = False


@dataclass(frozen=True)
class TypeRule:
    """How one type of a source arrives: a row of that source's table of types in the docs.

    Attributes:
        source_type: As the source's documentation writes it, for example ``numeric(p,s)``.
        arrives_as: Type in the files, as ``columns.cast`` writes it; ``-`` if it is refused.
        fidelity: ``lossless``, ``as_text``, ``by_permission``, or ``refused``.
        reason: One sentence: why, and what happens to values that have no faithful form.
    """

    source_type: str
    arrives_as: str
    fidelity: Literal["lossless", "as_text", "by_permission", "refused"]
    reason: str


@dataclass(frozen=True)
class TableDescription:
    """What the source's catalogue says about a table; no row was read for it.

    Attributes:
        table: Name as given in the spec.
        kind: What kind of table it is.
        columns: In the source's order.
        key: Primary key columns, empty if there is none.
        estimated_rows: Catalogue estimate; None when unknown.
        estimated_bytes: Size on disk including out-of-line values; None when unknown.
        fingerprint: Identifies the source (system identifier, database).
        source_version: The server's version, for the report.
        read_from: What plan and report say about the place that rows come from: whether it is a
            standby and how many seconds it lags, whether policies hide rows.
    """

    table: str
    kind: Literal["table", "partitioned", "view", "query", "files"]
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    estimated_rows: int | None
    estimated_bytes: int | None
    fingerprint: dict[str, str]
    source_version: str
    read_from: dict[str, Any] = field(default_factory=dict)

    def column(self, name: str) -> Column | None:
        """Return the column of that exact name, or None."""
        return next((c for c in self.columns if c.name == name), None)
