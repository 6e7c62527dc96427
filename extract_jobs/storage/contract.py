"""What every storage promises, and what it returns.

Every method takes whole URIs (``s3://bucket/key``, ``file:///path`` or a plain path), so that
target and state may live in different places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any, Protocol
from urllib.parse import quote

PROBE = "_extract_probe-"
"""Begins the name of what `Storage.probe` writes; hidden from Spark, Hive and Athena."""


@dataclass(frozen=True)
class ObjectInfo:
    """What a listing or a HEAD returns about one object.

    Attributes:
        uri: Whole URI.
        size: Bytes.
        token: The token it was staged with; None for objects that were not staged, in listings, and
            on a local file system, which cannot store it. `Storage.complete` checks there too.
        etag: Identifies this content of the object; for a local file, its modification time and
            size.
        modified_at: When it was written last, UTC.
    """

    uri: str
    size: int
    token: str | None = None
    etag: str | None = None
    modified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file that is uploaded but not visible to any reader.

    Attributes:
        uri: Where it will appear when completed.
        token: Unique to this file; a completed object is recognized by it.
        size: Bytes.
        upload: What the storage needs to complete or abort it; its own JSON (S3: upload id,
            parts with ETag and checksum; local: path of the staged file).
    """

    uri: str
    token: str
    size: int
    upload: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form kept in a commit record."""
        return {"uri": self.uri, "token": self.token, "size": self.size, "upload": self.upload}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StagedFile:
        """Read what `to_json` wrote."""
        return cls(data["uri"], data["token"], data["size"], data["upload"])


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A staged Parquet file and what the commit log keeps of it.

    Attributes:
        staged: The file.
        rows: Rows in its footer.
        partition: Partition field to value, in path order; None is the NULL partition.
        footer: Parquet's own, as the writer left it; not in records.
    """

    staged: StagedFile
    rows: int
    partition: dict[str, str | None]
    footer: Any = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form kept in a commit record."""
        return {"staged": self.staged.to_json(), "rows": self.rows, "partition": self.partition}


@dataclass(frozen=True)
class AbandonedUpload:
    """A staged file found by listing, which may belong to no commit.

    Attributes:
        uri: Where it would have appeared.
        started_at: When staging began, UTC.
        upload: As in `StagedFile.upload`, enough to abort it.
    """

    uri: str
    started_at: datetime
    upload: dict[str, Any]


class StagingWriter(Protocol):
    """A binary file being staged. Not thread-safe; memory is bounded by a few parts."""

    def write(self, data: Any) -> int:
        """Write bytes (any buffer) and return how many."""

    def tell(self) -> int:
        """Return how many bytes were written so far."""

    def close(self) -> StagedFile:
        """Send what is left and return the staged file. Raises WriteFailed."""

    def abort(self) -> None:
        """Drop what was staged. Safe at any time and any number of times; raises nothing."""


class Storage(Protocol):
    """One kind of storage. Safe to share between threads; created in each process.

    Every method raises `WriteFailed` when storage still fails after bounded retries, and
    `ConfigError` when the bucket is absent or access is denied.
    """

    def read(self, uri: str) -> bytes | None:
        """Return an object's bytes, or None if there is none."""

    def open(self, uri: str, listed: ObjectInfo | None = None) -> IO[bytes] | None:
        """Open an object for reading parts of it; None if there is none.

        The object must not change while it is open; the caller closes it.

        Args:
            uri: The object's.
            listed: The object as it was listed. If given, exactly that content is read: opening or
                any later read raises `SourceUnavailable` if it was replaced or deleted.
        """

    def put(
        self, uri: str, data: bytes, *, private: bool = False, content_type: str | None = None
    ) -> None:
        """Write an object, replacing what is there, atomically.

        Args:
            uri: The object's.
            data: All of it.
            private: Whether only this process's user may read it, where files have permissions of
                their own. In S3 the bucket's policy says who may.
            content_type: What a browser is told that it is. Files have no such field.
        """

    def put_if_absent(self, uri: str, data: bytes) -> bytes:
        """Write an object only if there is none, atomically and durably.

        Returns:
            What the object holds now: ``data`` if this call created it (even if the response was
            lost and the object was read back), else the earlier content.
        """

    def head(self, uri: str) -> ObjectInfo | None:
        """Return size and token of an object, or None if there is none."""

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Yield visible objects whose URI starts with ``prefix``, in ascending order of URI.

        Args:
            prefix: Whole URI; a folder ends in ``/``.
            start_after: Whole URI; only later ones are yielded.
        """

    def copy(self, source: str, uri: str) -> bool:
        """Copy an object with its token, replacing what is there, atomically and durably.

        Both are in this kind of storage. Bytes do not pass through this process if the storage can
        do without; a local copy may share them with the source.

        Returns:
            False if there is no source; then nothing is changed.
        """

    def delete(self, uri: str) -> None:
        """Delete an object; succeeds if there is none."""

    def delete_all(self, uris: Iterable[str]) -> None:
        """Delete many objects, with far fewer calls than one for each.

        Not atomic: if this raises, or the process ends, any of them may be gone.
        """

    def stage(self, uri: str, root: str, token: str) -> StagingWriter:
        """Start a file that stays invisible until completed.

        Args:
            uri: Where it will appear.
            root: The target's folder, on whose file system (or in whose bucket) it is staged.
            token: Unique to the file.
        """

    def complete(self, staged: StagedFile) -> bool:
        """Make a staged file visible. Any number of processes may call it for the same file.

        Returns:
            True once the object at ``staged.uri`` was *seen* to have the token and the size,
            whatever the completion returned; False if upload and object are both gone.
        """

    def abort(self, root: str, upload: AbandonedUpload | StagedFile) -> None:
        """Drop a staged file that was not completed, until storage confirms that it is gone."""

    def abandoned(self, root: str) -> Iterator[AbandonedUpload]:
        """Yield every staged, uncompleted file below ``root``."""

    def delete_drafts(self, root: str, before: datetime) -> None:
        """Delete what killed calls of `put` and `copy` left below ``root``, if it is older.

        No listing shows it.
        """

    def probe(self, root: str) -> None:
        """Check that files can be staged, completed, deleted and aborted below ``root``.

        Raises:
            ConfigError: Bucket or folder absent or denied, naming the permission that is missing.
        """


OpenStorage = Callable[[str], Storage]
"""Returns the storage of a URI. Picklable: each executor calls it itself."""


def encoded(path: str) -> str:
    """Return a path as ``file://`` URIs spell it: percent-encoded but for ``/`` and ``=``."""
    return quote(path, safe="/=")


def join(base: str, *segments: str) -> str:
    """Join a URI and path segments with single slashes.

    Segments below a ``file://`` URI are percent-encoded, since such a URI is decoded when it is
    used; keys and plain paths are never decoded, so theirs are not.
    """
    if base.startswith("file://"):
        segments = tuple(encoded(segment) for segment in segments)
    return "/".join([base.rstrip("/"), *(s.strip("/") for s in segments)])


def is_probe(info: ObjectInfo) -> bool:
    """Return whether an object is what a killed `Storage.probe` left behind."""
    return info.uri.rsplit("/", 1)[-1].startswith(PROBE)


def changed_message(uri: str) -> str:
    """Return the message for an object that changed after it was listed."""
    return (
        f"{uri} was replaced or deleted since it was listed; the next attempt lists again. Write "
        "files under other names and rename them, or add new ones, while a run may read them"
    )
