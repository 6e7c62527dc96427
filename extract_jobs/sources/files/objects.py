"""The list of objects that a run reads and that commits have read, as stored with the state.

One list is pinned for each run and base, so that all attempts extract the same objects; the commit
names it, so the next run knows what was read. It is Parquet: 100,000 objects are a few
megabytes.

Most runs find a few new objects among many that are known. Their list is *partial*: it holds what
was read since the last whole list, and names that one. So a run reads two lists at most, and writes
little, however many objects there are. A list is whole again where a partial one would be long, or
the last whole one is a day old.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from extract_jobs.errors import ConfigError
from extract_jobs.sources import ObjectsBefore
from extract_jobs.storage import ObjectInfo

FORGET_AFTER = timedelta(days=90)
"""An object that no listing has shown for this long is forgotten, so the list is bounded by the
listing, however long the history. If it comes back, it counts as new."""

WHOLE_EVERY = timedelta(days=1)
"""Partial lists do not say what listings have shown, so a whole one is written this often."""
_PARTIAL_ROWS, _PARTIAL_SHARE = 1000, 8
"""A partial list may have this many objects, or one of so many that the whole one has."""

_VERSION, _PARTIAL_VERSION = 1, 2
"""Versions without partial lists refuse them by their number."""
_ABOUT = b"extract.objects"
_KEYS = {"format", "evidence", "schema", "files", "folders", "inspected"}
"""What is said about the columns."""
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
        adds_to: Name of the whole list that this one adds to; None if it is whole itself.
    """

    table: pa.Table
    about: dict[str, Any]
    adds_to: str | None = None

    @classmethod
    def of(cls, objects: Sequence[Listed], about: dict[str, Any], now: datetime) -> ObjectList:
        """Return the whole list of a run before which nothing was read.

        Args:
            objects: What it reads.
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
        return cls(pa.Table.from_pylist(rows, schema=_SCHEMA), about)

    def over(self, older: ObjectList) -> ObjectList:
        """Return these objects, and an older list's others as objects that are not read."""
        new = set(self.table.column("uri").to_pylist())
        kept = [uri not in new for uri in older.table.column("uri").to_pylist()]
        old = older.table.filter(pa.array(kept, pa.bool_()))
        column = pa.repeat(pa.scalar(False), old.num_rows)
        old = old.set_column(_SCHEMA.get_field_index("read"), _SCHEMA.field("read"), column)
        return replace(self, table=pa.concat_tables([self.table, old]))

    def seen(self, listed: set[str], now: datetime) -> ObjectList:
        """Return the updated list: objects that have long been missing from listings are dropped.

        Args:
            listed: URIs.
            now: The present, UTC.
        """
        index = _SCHEMA.get_field_index("listed_at")
        field = _SCHEMA.field(index)
        present = pc.is_in(self.table.column("uri"), value_set=pa.array(listed, pa.string()))
        times = pc.if_else(present, pa.scalar(now, field.type), self.table.column(index))
        kept = pc.greater(times, pa.scalar(now - FORGET_AFTER, field.type))
        return replace(self, table=self.table.set_column(index, field, times).filter(kept))

    def written_at(self) -> datetime | None:
        """Return when a whole list was made; None if it has no object."""
        found: datetime | None = pc.max(self.table.column("listed_at")).as_py()
        return found

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
        version: dict[str, Any] = {"version": _VERSION}
        if self.adds_to is not None:
            version = {"version": _PARTIAL_VERSION, "adds_to": self.adds_to}
        about = version | self.about | {"objects": self.table.num_rows}
        about["checksum"] = _checksum(about)
        sink = pa.BufferOutputStream()
        schema = _SCHEMA.with_metadata({_ABOUT: json.dumps(about).encode()})
        pq.write_table(self.table.cast(schema), sink, compression="zstd", write_page_checksum=True)
        return bytes(sink.getvalue().to_pybytes())

    @classmethod
    def from_bytes(cls, raw: bytes) -> ObjectList:
        """Read what `to_bytes` returned.

        Raises:
            ConfigError: It is damaged.
        """
        try:
            with pq.ParquetFile(pa.BufferReader(raw), page_checksum_verification=True) as file:
                table = file.read()
            about = json.loads(table.schema.metadata[_ABOUT])
            if "checksum" in about:  # versions before it wrote none
                _require(about.pop("checksum") == _checksum(about), "it is damaged")
                _require(about.pop("objects") == table.num_rows, "it lacks objects")
            version = about.pop("version")
            _require(version in (_VERSION, _PARTIAL_VERSION), "another version wrote it")
            adds_to = about.pop("adds_to") if version == _PARTIAL_VERSION else None
            _require(adds_to is None or isinstance(adds_to, str), "adds_to is not a name")
            _require(about.keys() <= _KEYS, "another version wrote it")
            _check(table, about.get("format"))
            return cls(table.cast(_SCHEMA), about, adds_to)
        except DAMAGE as error:
            raise damaged_objects() from error


@dataclass(frozen=True)
class KnownObjects:
    """What commits have read.

    Attributes:
        last: The last commit's list.
        whole: The whole list that it adds to, or itself.
        name: The whole list's name.
    """

    last: ObjectList
    whole: ObjectList
    name: str

    @classmethod
    def of(cls, before: ObjectsBefore) -> KnownObjects:
        """Read the stored lists.

        Raises:
            ConfigError: One is damaged.
        """
        last = ObjectList.from_bytes(before.last)
        if last.adds_to is None:
            return cls(last, last, before.name)
        if before.whole is None:
            raise damaged_objects()
        whole = ObjectList.from_bytes(before.whole)
        if whole.adds_to is not None:
            raise damaged_objects()
        return cls(last, whole, last.adds_to)

    def etags(self) -> dict[str, str]:
        """Return the ETag that each object had when it was read, by URI."""
        return self.whole.etags() if self._is_whole else self.whole.etags() | self.last.etags()

    def newest_after(self, new: int, now: datetime) -> str | None:
        """Return a URI after which a listing finds the newest objects, instead of listing all.

        Those are the objects that were modified within `WHOLE_EVERY` of the newest one, and all
        whose URI is greater than that of one of these.

        Args:
            new: Number of objects that are new as far as that is known.
            now: The present, UTC.

        Returns:
            None if all objects must be listed: a list of a run with so many new ones is whole.
        """
        known = len(self.last.table) if not self._is_whole else 0
        if not self._stays_partial(known + new, now):
            return None
        tables = [self.whole.table] if self._is_whole else [self.whole.table, self.last.table]
        table = pa.concat_tables([table.select(["uri", "modified_at"]) for table in tables])
        modified = table.column("modified_at")
        if not table.num_rows or modified.null_count:
            return None
        least = pc.max(modified).as_py() - WHOLE_EVERY
        recent = table.filter(pc.greater(modified, pa.scalar(least, modified.type)))
        first: str = pc.min(recent.column("uri")).as_py()
        return just_before(first)

    def and_new(self, new: ObjectList, listed: set[str] | None, now: datetime) -> ObjectList:
        """Return the list of a run that reads new objects.

        Args:
            new: What it reads.
            listed: URIs of all objects that are there; None if only the newest were listed, which
                `newest_after` must allow for so many new ones.
            now: The present, UTC.
        """
        added = new if self._is_whole else new.over(self.last)
        if self._stays_partial(added.table.num_rows, now):
            return replace(added, adds_to=self.name)
        assert listed is not None
        return added.over(self.whole).seen(listed, now)

    def _stays_partial(self, rows: int, now: datetime) -> bool:
        """Return whether a list of so many objects may add to the whole one."""
        since = self.whole.written_at()
        limit = max(_PARTIAL_ROWS, self.whole.table.num_rows // _PARTIAL_SHARE)
        # A clock that was ahead does not put the next whole list off.
        is_recent = since is not None and abs(now - since) < WHOLE_EVERY
        return is_recent and rows <= limit

    @property
    def _is_whole(self) -> bool:
        return self.last is self.whole


def just_before(uri: str) -> str:
    """Return a text that sorts before a URI, and after most that do."""
    return uri[:-1]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _checksum(about: dict[str, Any]) -> int:
    """Return the checksum of what a list says about itself: a footer has none of its own."""
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())


def _check(table: pa.Table, form: str | None) -> None:
    """Refuse a list that no run could have written: it would read an object twice, or skip rows.

    Raises:
        ValueError: It is one.
        pa.ArrowInvalid: Text is not UTF-8.
    """
    table.validate(full=True)
    for name in ("uri", "size", "listed_at", "read"):
        _require(table.column(name).null_count == 0, f"{name} is missing")
    _require(pc.count_distinct(table.column("uri")).as_py() == table.num_rows, "it names one twice")
    for name in ("size", "rows"):
        least = pc.min(table.column(name)).as_py()
        _require(least is None or least >= 0, f"{name} is out of range")
    cut = table.filter(pc.greater(pc.list_value_length(table.column("cuts")), 0))
    for size, cuts in zip(cut["size"].to_pylist(), cut["cuts"].to_pylist(), strict=True):
        if form == "parquet":
            _require(min(cuts) >= 0, "cuts are out of range")
        else:
            ordered = all(a < b for a, b in pairwise([0, *cuts, size]))
            _require(ordered, "cuts are out of order")


DAMAGE = (
    pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
    RecursionError,
)  # fmt: skip
"""What reading a damaged list may raise."""


def damaged_objects() -> ConfigError:
    """Return the error for a stored list that is not what a run wrote."""
    return ConfigError(
        "the list of objects read, which the last commit or the plan names, is damaged or of "
        "another version of extract-jobs: restore it, or start the table over with another "
        "state_uri and target"
    )
