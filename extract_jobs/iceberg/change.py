"""What a commit changes in an Iceberg table, in the form that commit records keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from extract_jobs.storage import WrittenFile

DATA_FOLDER = "data"
"""Folder of a table's Parquet files, below its location."""
METADATA_FOLDER = "metadata"
"""Folder of what describes them, below the table's location."""
FIELD_ID = b"PARQUET:field_id"
"""Key of an Arrow field's metadata that pyarrow writes as the Parquet field's id."""

_TRANSFORMS = ("identity", "year", "month", "day", "hour")


@dataclass(frozen=True)
class Layout:
    """The columns and partitions of an Iceberg table after a commit.

    Attributes:
        schema: Iceberg's JSON of the schema, with the ids that the commit's files have.
        base: The ids of the table's schema and of the last column that it ever had when ids were
            assigned; None if there was no table.
        partitions: ``[{"name", "transform", "source-id"}]``, in order.
    """

    schema: dict[str, Any]
    base: tuple[int, int] | None
    partitions: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"schema": self.schema, "base": self.base, "partitions": list(self.partitions)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Layout:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is damaged.
        """
        try:
            schema, base, partitions = data["schema"], data["base"], data["partitions"]
            right = isinstance(schema, dict) and isinstance(schema["fields"], list)
            right &= base is None or [type(number) for number in base] == [int, int]
            for one in partitions:
                right &= type(one["source-id"]) is int
                right &= type(one["name"]) is str and one["transform"] in _TRANSFORMS
        except (KeyError, TypeError, AttributeError):
            right = False
        if not right:
            raise ValueError("iceberg is not valid")
        return cls(schema, tuple(base) if base else None, tuple(partitions))


@dataclass(frozen=True)
class TableCommit:
    """A commit of the log, as its snapshot needs it.

    Attributes:
        seq: Its position in the log, from 1.
        commit_id: Identifies it.
        parent: The last published commit before it; 0 for none.
        overwrite: Whether it replaces every row.
        files: The files that it adds; all are in place.
        replaces: The partitions that it replaces, as `WrittenFile.partition` has them.
        layout: Columns and partitions.
        removes: Files that it removes besides.
        summary: What the snapshot's summary says besides.
        stands_on: The files that the table has to have before it, and no others, because some of
            them stay and all others go; None if that does not matter.
    """

    seq: int
    commit_id: str
    parent: int
    overwrite: bool
    files: tuple[WrittenFile, ...]
    replaces: tuple[dict[str, str | None], ...]
    layout: Layout
    summary: dict[str, str]
    removes: tuple[str, ...] = ()
    stands_on: tuple[str, ...] | None = None
