"""Records of the commit log: one per commit, and occasionally one of all live files."""

from __future__ import annotations

import functools
import json
import re
import zlib
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from extract_jobs.commit.record_check import (
    check_columns,
    check_files,
    check_position,
    is_below,
    is_objects_name,
    require,
)
from extract_jobs.commit.sealed import KEY, check_seal, sealed
from extract_jobs.errors import ConfigError
from extract_jobs.iceberg.change import Layout
from extract_jobs.storage import WrittenFile
from extract_jobs.watermark import Interval, WatermarkValue

_COMPRESSED_FROM = 32 * 2**10
"""Bytes from which a record is compressed: one of many columns repeats them, and has many files."""
_MAX_BYTES = 2**30
_GZIP = b"\x1f\x8b"
_COVERED = "ground"
"""Name of `Commit.covered` in stored records, from before it was renamed."""

_RUN_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_MORE_COLUMN_KEYS = {"mask": str, "folder": bool}


@dataclass(frozen=True)
class Commit:
    """One record of the log.

    Attributes:
        commit_id: Random; distinguishes this record from any other writer's.
        seq: Position in the log, from 1.
        parent: The last *published* commit when this one was prepared, 0 if there was none.
        live_since: The commit from which live files count; this commit if it overwrites.
        run_id: The run that made it.
        attempt: That run's attempt.
        table_id: ``<source_name>/<extract_table>``.
        target_uri: The table's folder, fixed by the first commit.
        fingerprint: Identifies the source; fixed by the first commit.
        interval: JSON of the `Interval` it holds; None for a full extract.
        watermark: JSON of the `WatermarkValue` that the next interval starts above.
        schema: Columns of its files, ``[{"name", "type", "nullable"}]``.
        files: Every staged file.
        retire: URIs to delete once every file of this commit was seen in place.
        report: The figures in the run's report.
        watermark_column: The column of intervals and watermark; None in a full extract.
        covered: JSON of the intervals that commits cover since the last overwrite, this one
            included; a full extract covers all.
        increments: Whether live files hold rows of incremental runs; None in records of versions
            that did not keep it.
        partition_by: Names of its files' partition fields, in path order.
        objects: Where the list of objects read up to this commit is, below the state folder; None
            for sources without objects.
        columns: Type by name of every column in any live file, including dropped ones.
        source_columns: The source's columns under their names in the files, in the source's order:
            ``[{"name", "type", "nullable", "mask", "folder"}]``, where the type is the one that
            files would have without older files; ``folder`` marks a column that exists only in the
            path.
        position: The source's position in its history when the run was planned; None if it has
            no positions.
        keeps_retired: Whether retired files are kept for a while, for a rollback.
        iceberg: JSON of the `Layout` of its Iceberg table; None if the target is a folder of
            Parquet files.
        replaces: Partitions of an Iceberg table that the commit replaces.
        key: Columns of an Iceberg table that no two of its rows share the values of; empty if that
            is not known. Unless it replaces all files, the commit merges: it removes the files
            that it retires, by their locations.
        keeps: Whether it keeps files of an Iceberg table that have not changed, in place of writing
            all anew: it removes the files that it retires, and the table may have no others than
            the log has.
    """

    commit_id: str
    seq: int
    parent: int
    live_since: int
    run_id: str
    attempt: int
    table_id: str
    target_uri: str
    fingerprint: dict[str, str]
    interval: dict[str, Any] | None
    watermark: dict[str, str] | None
    schema: list[dict[str, Any]]
    files: tuple[WrittenFile, ...]
    retire: tuple[str, ...]
    report: dict[str, Any]
    watermark_column: str | None = None
    covered: Annotated[tuple[dict[str, Any], ...], Field(validation_alias=_COVERED)] = ()
    increments: bool | None = None
    partition_by: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    objects: str | None = None
    source_columns: list[dict[str, Any]] = field(default_factory=list)
    position: dict[str, str] | None = None
    keeps_retired: bool = False
    iceberg: dict[str, Any] | None = None
    replaces: tuple[dict[str, str | None], ...] = ()
    key: tuple[str, ...] = ()
    keeps: bool = False

    def to_bytes(self) -> bytes:
        """Return the record as it is stored: JSON with a checksum, by gzip if it is large.

        Raises:
            ConfigError: It is larger than a reader takes, so nothing may be committed with it.
        """
        data = {**self.__dict__, "version": 1}
        del data["files"], data["retire"]
        data[_COVERED] = data.pop("covered")
        # What few tables use is only in their records.
        if not self.keeps_retired:
            del data["keeps_retired"]
        if self.iceberg is None:
            del data["iceberg"], data["replaces"]
        if not self.key:
            del data["key"]
        if not self.keeps:
            del data["keeps"]
        # Pieces of it are compressed as they come: there may be a million files.
        start, rest, size = bytearray(), list[bytes](), 0
        stream = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        lists = {"files": (f.to_json() for f in self.files), "retire": self.retire}
        for piece in sealed(data, lists):
            size += len(piece)
            if size >= _MAX_BYTES:
                raise ConfigError(
                    f"commit {self.seq} writes {len(self.files):,} files and retires "
                    f"{len(self.retire):,}: a record of so many files cannot be read back, so "
                    "nothing was committed; write fewer and larger files"
                )
            start += piece
            if size >= _COMPRESSED_FROM:
                rest.append(stream.compress(start))
                start.clear()
        if size < _COMPRESSED_FROM:
            return bytes(start)
        return b"".join([*rest, stream.compress(start), stream.flush()])

    def check(self) -> None:
        """Refuse to write a record that no run could read.

        Raises:
            ConfigError: As `from_bytes` would.
        """
        where = f"commit {self.seq}, which was not written,"
        without_files = replace(self, files=(), retire=())
        Commit.from_bytes(without_files.to_bytes(), where, self.seq)
        try:
            _check(self, self.seq)
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"{where} is not valid: {_reason(error)}") from error

    @property
    def overwrites(self) -> bool:
        """Whether it replaces every file of earlier commits."""
        return self.live_since == self.seq

    @property
    def merges(self) -> bool:
        """Whether it replaces some rows by their key."""
        return bool(self.key) and not self.overwrites

    @property
    def held_interval(self) -> dict[str, Any] | None:
        """JSON of the interval that its files hold rows of; None if they may hold any."""
        return None if self.merges else self.interval

    @property
    def rows(self) -> int:
        """Rows that its run read or kept as unchanged; not those that it rewrote beside others."""
        return sum(file.rows for file in self.files) + self._more("rows")

    @property
    def size(self) -> int:
        """Bytes of the same files."""
        return sum(file.staged.size for file in self.files) + self._more("bytes")

    @property
    def file_count(self) -> int:
        """Number of the same files."""
        return len(self.files) + self._more("files")

    def _more(self, of: str) -> int:
        kept, rewritten = self.report.get(f"kept_{of}"), self.report.get(f"rewritten_{of}")
        return (kept if isinstance(kept, int) else 0) - (
            rewritten if isinstance(rewritten, int) else 0
        )

    @property
    def holds_increments(self) -> bool:
        """Whether live files hold rows of incremental runs, as far as the record shows."""
        return self.watermark_column is not None if self.increments is None else self.increments

    @classmethod
    def from_bytes(cls, raw: bytes, where: str, seq: int | None = None) -> Commit:
        """Read a stored record and check all of it.

        Args:
            raw: The record.
            where: Its URI, for the message.
            seq: The sequence number in its name.

        Raises:
            ConfigError: This version cannot read it, or no run of this table could have written it.
                Nothing that it names may be touched then.
        """
        try:
            raw = _json_of(raw)
            check_seal(raw)
            _check_keys(json.loads(raw))  # which is gone before its files are there once more
            commit = _commits().validate_json(raw, strict=True)
            _check(commit, seq)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(
                f"{where} is not a commit record of version 1 ({_reason(error)}); another version "
                "of extract-jobs wrote it, or it was damaged: restore it from the bucket's or "
                "folder's earlier versions"
            ) from error
        return commit


def _check_keys(data: dict[str, Any]) -> None:
    require(data.get("version") == 1, "its version is not 1")
    unknown = data.keys() - _names() - {"version", KEY}
    require(not unknown, f"it has {len(unknown)} keys that this version does not know")


def _json_of(raw: bytes) -> bytes:
    """Return the JSON of a record; raises ValueError if it was compressed and is damaged."""
    if not raw.startswith(_GZIP):
        return raw
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        found = stream.decompress(raw, _MAX_BYTES)
    except zlib.error:
        found = b""
    require(stream.eof and not stream.unused_data, "it is cut, damaged or too large")
    return found


@dataclass(frozen=True)
class LiveFiles:
    """Files of one commit that no later commit has retired.

    Attributes:
        seq: The commit's.
        interval: JSON of the `Interval` that they hold rows of; None if they may hold any, as those
            of a full extract or a merge.
        files: The files that a reader should see.
    """

    seq: int
    interval: dict[str, Any] | None
    files: tuple[WrittenFile, ...]

    @classmethod
    def from_bytes(cls, raw: bytes, commit: Commit) -> list[LiveFiles]:
        """Read a stored record of the files live at a commit.

        Raises:
            ValueError: It is damaged, or names a file outside the commit's target.
        """
        try:
            found = _live_files().validate_json(raw, strict=True)
            for live in found:
                Interval.from_json(live.interval)
                check_files(live.files, commit.target_uri)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("it is damaged") from error
        return found


def _check(commit: Commit, seq: int | None) -> None:
    """Check a commit record whose fields have their types.

    Args:
        commit: The record.
        seq: The sequence number in its name; None if it has no name yet.

    Raises:
        ValueError: No run could have written it; the message names the field, never its value.
    """
    if seq is not None and commit.seq != seq:
        raise ValueError("seq is not the number in its name")
    require(1 <= commit.seq < 10**20, "seq is out of range")
    require(0 <= commit.parent < commit.seq, "parent is not an earlier commit")
    require(
        commit.live_since == commit.seq or 1 <= commit.live_since <= commit.parent,
        "live_since is neither the commit nor an earlier one",
    )
    require(bool(_RUN_ID.fullmatch(commit.run_id)), "run_id is not valid")
    require(commit.attempt >= 1, "attempt is out of range")
    require(
        commit.objects is None or is_objects_name(commit.objects),
        "objects is not the name of a list",
    )
    check_files(commit.files, commit.target_uri)
    uris = {file.staged.uri for file in commit.files}
    require(len(uris) == len(commit.files), "files names a file twice")
    for uri in commit.retire:
        require(is_below(uri, commit.target_uri), "retire names a file outside the target")
        require(uri not in uris, "retire names a file of the commit itself")
    _check_positions(commit)
    check_position(commit.position)
    if commit.iceberg is not None:
        Layout.from_json(commit.iceberg)
    check_columns("schema", commit.schema)
    check_columns("source_columns", commit.source_columns, _MORE_COLUMN_KEYS)


def _check_positions(commit: Commit) -> None:
    try:
        WatermarkValue.from_json(commit.watermark)
        for interval in (commit.interval, *commit.covered):
            Interval.from_json(interval)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("watermark, interval or ground is not valid") from None


# Checks the types of a record's fields; created when the first record is read.


@functools.cache
def _commits() -> TypeAdapter[Commit]:
    return TypeAdapter(Commit)


@functools.cache
def _live_files() -> TypeAdapter[list[LiveFiles]]:
    return TypeAdapter(list[LiveFiles])


def _names() -> set[str]:
    """Return the keys of a record, besides its version."""
    return {field.name for field in fields(Commit)} - {"covered"} | {_COVERED}


def _reason(error: Exception) -> str:
    """Return what is wrong, without values of the record."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return ".".join(map(str, first["loc"])) + ": " + first["msg"]
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return "it is not JSON"
    return str(error) if isinstance(error, ValueError) else type(error).__name__


@dataclass(frozen=True)
class Base:
    """The state that a new commit is built on.

    Attributes:
        seq: The newest commit, which has an outcome; 0 for an empty log.
        published: The last published commit, None before the first.
        finished: The newest commit if it had no outcome before it was finished.
    """

    seq: int
    published: Commit | None
    finished: Commit | None = None

    @property
    def watermark(self) -> dict[str, str] | None:
        """JSON of the watermark before the new commit."""
        return self.published.watermark if self.published else None
