"""The list of objects that a run reads and that commits have read, as stored with the state.

One list is pinned for each run and base, so that all attempts extract the same objects; the commit
names it, so the next run knows what was read. It is Parquet: 100,000 objects are a few
megabytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from extract_jobs.errors import ConfigError
from extract_jobs.storage import ObjectInfo

FORGET_AFTER = timedelta(days=90)
"""An object that no listing has shown for this long is forgotten, so the list is bounded by the
listing, however long the history. If it comes back, it counts as new."""

_VERSION = 1
_SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("size", pa.int64()),
        ("modified_at", pa.timestamp("us", "UTC")),
        ("listed_at", pa.timestamp("us", "UTC")),
        ("read", pa.bool_()),
        ("rows", pa.int64()),
        ("cuts", pa.list_(pa.int64())),
    ]
)


@dataclass(frozen=True)
class Listed:
    """One object, and what was found in it.

    Attributes:
        info: As it was listed.
        rows: Its number of rows, if they were counted.
        cuts: Where it can be split: for CSV the bytes at which records begin, for Parquet the bytes
            of each row group; empty if it is read as one.
    """

    info: ObjectInfo
    rows: int | None = None
    cuts: tuple[int, ...] = ()


@dataclass(frozen=True)
class ObjectList:
    """Objects that a run reads, objects read before, and what is known about their columns.

    Attributes:
        table: One row for each object; ``read`` marks those that this run reads.
        about: JSON of what was found out about the columns.
    """

    table: pa.Table
    about: dict[str, Any]

    @classmethod
    def of(
        cls,
        objects: Sequence[Listed],
        before: ObjectList | None,
        about: dict[str, Any],
        now: datetime,
    ) -> ObjectList:
        """Return the list of a run.

        Args:
            objects: What it reads.
            before: What commits have read and what still counts, updated by `seen`.
            about: What is known of the columns.
            now: The present, UTC.
        """
        rows = [
            {
                "uri": one.info.uri,
                "etag": one.info.etag,
                "size": one.info.size,
                "modified_at": one.info.modified_at,
                "listed_at": now,
                "read": True,
                "rows": one.rows,
                "cuts": one.cuts,
            }
            for one in objects
        ]
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        if before is not None and rows:
            new = {one.info.uri for one in objects}
            kept = [uri not in new for uri in before.table.column("uri").to_pylist()]
            old = before.table.filter(pa.array(kept, pa.bool_()))
            column = pa.repeat(pa.scalar(False), old.num_rows)
            old = old.set_column(_SCHEMA.get_field_index("read"), _SCHEMA.field("read"), column)
            table = pa.concat_tables([table, old])
        return cls(table, about)

    def seen(self, listed: set[str], now: datetime) -> ObjectList:
        """Return the updated list: objects that have long been missing from listings are dropped.

        Args:
            listed: URIs.
            now: The present, UTC.
        """
        times = self.table.column("listed_at").to_pylist()
        uris = self.table.column("uri").to_pylist()
        times = [now if u in listed else t for u, t in zip(uris, times, strict=True)]
        index = _SCHEMA.get_field_index("listed_at")
        field = _SCHEMA.field(index)
        table = self.table.set_column(index, field, pa.array(times, field.type))
        kept = pa.array([now - t < FORGET_AFTER for t in times], pa.bool_())
        return ObjectList(table.filter(kept), self.about)

    def etags(self, *, read: bool = False) -> dict[str, str]:
        """Return ETags by URI, of all objects or of those that this run reads."""
        table = self.table.filter(self.table.column("read")) if read else self.table
        uris, etags = table.column("uri").to_pylist(), table.column("etag").to_pylist()
        return dict(zip(uris, etags, strict=True))

    def to_read(self) -> Iterator[Listed]:
        """Yield the objects that this run reads."""
        names = ["uri", "size", "etag", "rows", "cuts"]
        for batch in self.table.filter(self.table.column("read")).select(names).to_batches():
            for uri, size, etag, rows, cuts in zip(
                *(column.to_pylist() for column in batch.columns), strict=True
            ):
                yield Listed(ObjectInfo(uri, size, etag=etag), rows, tuple(cuts or ()))

    def to_bytes(self) -> bytes:
        """Return the list as it is stored."""
        about = json.dumps({"version": _VERSION, **self.about})
        sink = pa.BufferOutputStream()
        schema = _SCHEMA.with_metadata({b"extract.objects": about.encode()})
        pq.write_table(self.table.cast(schema), sink, compression="zstd")
        return bytes(sink.getvalue().to_pybytes())

    @classmethod
    def from_bytes(cls, raw: bytes) -> ObjectList:
        """Read what `to_bytes` returned.

        Raises:
            ConfigError: It is damaged.
        """
        try:
            table = pq.read_table(pa.BufferReader(raw))
            about = json.loads(table.schema.metadata[b"extract.objects"])
            if about.pop("version") != _VERSION:
                raise ValueError("unknown version")
            return cls(table.cast(_SCHEMA), about)
        except (pa.ArrowInvalid, OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                "the list of objects read, which the last commit or the plan names, is damaged or "
                "of another version of extract-jobs: restore it, or start the table over with "
                "another state_uri and target"
            ) from error
