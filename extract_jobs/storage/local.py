"""A local folder as storage: a staged file is in a hidden folder of the same file system.

It relies on what POSIX promises: ``rename`` and ``link`` are atomic, and a write survives a power
cut once the file *and* the folders that name it are synced.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote

from extract_jobs.errors import ConfigError, WriteFailed
from extract_jobs.storage.contract import (
    PROBE,
    AbandonedUpload,
    ObjectInfo,
    StagedFile,
    encoded,
    join,
)
from extract_jobs.storage.local_files import (
    ATTEMPTS,
    STAGING,
    SUFFIX,
    TEMPORARY,
    ListedFile,
    drafts,
    files,
    info_of,
    local_errors,
    make_folders,
    prune,
    staged_below,
    sync_folder,
    temporary,
    to_path,
)

_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}


class LocalStorage:
    """`Storage` in local folders. Stateless, so safe for threads and processes; picklable.

    A file has no metadata: a completed file is recognized as the staged one by its size and its
    modification time, whose nanoseconds staging derives from the token. `head` returns no token.
    """

    def read(self, uri: str) -> bytes | None:
        with local_errors("read", uri):
            try:
                return to_path(uri).read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def open(self, uri: str, listed: ObjectInfo | None = None) -> IO[bytes] | None:
        with local_errors("read", uri):
            try:
                if listed is not None:
                    return cast("IO[bytes]", ListedFile(to_path(uri), listed))
                return to_path(uri).open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def put(
        self, uri: str, data: bytes, *, private: bool = False, content_type: str | None = None
    ) -> None:
        del content_type
        path, mode = to_path(uri), 0o600 if private else 0o666
        with local_errors("write", uri), temporary(path, data, mode) as draft:
            draft.replace(path)
            sync_folder(path.parent)

    def put_if_absent(self, uri: str, data: bytes) -> bytes:
        path = to_path(uri)
        with local_errors("write", uri), temporary(path, data) as draft:
            for _ in range(ATTEMPTS):
                try:
                    # Atomic, and never replaces a file; the content is complete before the name
                    # exists.
                    os.link(draft, path)
                    held: bytes | None = data
                except FileExistsError:
                    if path.is_dir():
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
                    held = self.read(uri)
                if held is not None:
                    # Also for a loser: the winner may die before it syncs what we build on.
                    sync_folder(path.parent)
                    return held
        raise WriteFailed(f"{uri} exists but cannot be read; it may be a broken link")

    def head(self, uri: str) -> ObjectInfo | None:
        with local_errors("look at", uri):
            try:
                path = to_path(uri)
                return info_of(uri, path.stat()) if path.is_file() else None
            except (FileNotFoundError, NotADirectoryError):
                return None

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """List files, without staging folders and unfinished files."""
        folder_uri = prefix[: prefix.rfind("/") + 1]
        is_uri = prefix.startswith("file://")
        folder = to_path(folder_uri or ".")
        begin = os.path.relpath(to_path(prefix), folder) if prefix != folder_uri else ""
        after = "" if start_after is None else _spelled_like(start_after, folder_uri)
        found = []
        with local_errors("list", prefix):
            for path in files(folder, begin):
                uri = folder_uri + (encoded(path) if is_uri else path)
                if uri > after:
                    found.append((uri, path))
        for uri, path in sorted(found):
            with local_errors("look at", uri):
                try:
                    yield info_of(uri, (folder / path).stat())
                except FileNotFoundError:
                    continue  # deleted since it was listed

    def copy(self, source: str, uri: str) -> bool:
        """Give a file a second name; on another file system, copy it with its time."""
        path, origin = to_path(uri), to_path(source)
        with local_errors("copy to", uri):
            make_folders(path.parent)
            draft = path.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
            try:
                try:
                    os.link(origin, draft)
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    shutil.copy2(origin, draft)
                    with draft.open("rb") as file:
                        os.fsync(file.fileno())
                draft.replace(path)
            except (FileNotFoundError, NotADirectoryError):
                return False
            finally:
                draft.unlink(missing_ok=True)  # also if both names were the same file already
            sync_folder(path.parent)
        return True

    def delete(self, uri: str) -> None:
        """Delete a file; its folders stay."""
        self.delete_all([uri])

    def delete_all(self, uris: Iterable[str]) -> None:
        """Delete files, and sync each of their folders once; the folders stay."""
        folders = dict[Path, str]()
        for uri in uris:
            path = to_path(uri)
            with local_errors("delete", uri), suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
            folders[path.parent] = uri
        # Also if another process deleted them: that process may die before it syncs.
        for folder, uri in folders.items():
            with local_errors("delete", uri), suppress(FileNotFoundError, NotADirectoryError):
                sync_folder(folder)

    def stage(self, uri: str, root: str, token: str) -> LocalStagingWriter:
        """Start a staged file; ``uri`` must be below ``root``.

        Raises:
            ConfigError: Access was denied, or ``uri`` is not below ``root``.
        """
        return LocalStagingWriter(uri, root, token)

    def complete(self, staged: StagedFile) -> bool:
        source, target = _staged_path(staged), to_path(staged.uri)
        with local_errors("publish", staged.uri):
            while _is_same(source, staged):
                make_folders(target.parent)
                try:
                    source.replace(target)
                except FileNotFoundError:
                    continue  # another process has just completed or aborted it
                break
            if not _is_same(target, staged):
                return False
            # Also if another process renamed it: that process may die before it syncs.
            sync_folder(target.parent)
            prune(source)
        return True

    def abort(self, root: str, upload: AbandonedUpload | StagedFile) -> None:
        path = _staged_path(upload)
        with local_errors("abort a staged file in", root):
            path.unlink(missing_ok=True)
            prune(path)

    def abandoned(self, root: str) -> Iterator[AbandonedUpload]:
        staging = to_path(root).absolute() / STAGING
        with local_errors("list", root):
            for path in sorted(staged_below(staging)):
                relative = path.relative_to(staging).as_posix().removesuffix(SUFFIX)
                _, _, segments = relative.partition("/")
                try:
                    # Whole seconds: the rest is the token's mark, which may lie ahead of now.
                    began = datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
                except FileNotFoundError:
                    continue  # completed or aborted since it was listed
                yield AbandonedUpload(join(root, segments), began, {"path": str(path)})

    def delete_drafts(self, root: str, before: datetime) -> None:
        with local_errors("delete what a killed process left in", root):
            for path in drafts(to_path(root)):
                with suppress(FileNotFoundError):  # its process is alive, or another one was faster
                    # Not the time of change: a draft may be a second name of an old file.
                    if path.stat().st_ctime <= before.timestamp():
                        path.unlink()

    def probe(self, root: str) -> None:
        """Try it. What may be moved from the staging folder may be deleted there."""
        token = uuid.uuid4().hex
        uri = join(root, PROBE + token)
        writer = self.stage(uri, root, token)
        try:
            writer.write(b"extract-jobs")
            staged = writer.close()
        except BaseException:
            writer.abort()
            raise
        if not self.complete(staged):
            raise WriteFailed(f"{uri}: staged, completed, then gone; a retry is safe")
        self.delete(uri)


class LocalStagingWriter:
    """`StagingWriter` of a local file."""

    def __init__(self, uri: str, root: str, token: str) -> None:
        """Open ``<root>/.extract_staging/<token>/<path below root>.staged``.

        The path shows where the file would have appeared, even after its writer is gone.
        """
        self._uri, self._root, self._token = uri, root, token
        folder = to_path(root).absolute()
        target = to_path(uri).absolute()
        if not target.is_relative_to(folder) or target == folder:
            raise ConfigError(f"{uri}: expected a file below {root}")
        relative = target.relative_to(folder)
        self._path = folder / STAGING / token / relative.parent / (relative.name + SUFFIX)
        self._staged: StagedFile | None = None
        self._size = 0
        with local_errors("stage", uri):
            self._file = self._open()

    @property
    def closed(self) -> bool:
        """Whether the file takes no more bytes."""
        return self._file.closed

    def tell(self) -> int:
        """Return how many bytes were written so far."""
        return self._size

    def flush(self) -> None:
        """Do nothing: `close` syncs. Here because writers of Parquet call it."""

    def write(self, data: Any) -> int:
        """Take bytes (any buffer), return how many.

        Raises:
            WriteFailed: The disk is full or failed.
        """
        with local_errors("write", self._uri):
            view = memoryview(data).cast("B")
            self._file.write(view)
        self._size += len(view)
        return len(view)

    def close(self) -> StagedFile:
        """Sync the file to disk and return the staged file; repeated calls return the same one.

        Its name is not synced before it is completed: a power cut may take the staged file, whose
        commit is then voided and extracted again.

        Raises:
            WriteFailed: The disk is full or failed, or the writer was aborted.
        """
        if self._staged is None:
            if self._file.closed:
                raise WriteFailed(f"{self._uri}: was aborted before; nothing is visible")
            with local_errors("write", self._uri):
                self._file.flush()
                seen = os.fstat(self._file.fileno())
                # Renaming keeps the modification time, which carries the token to the target.
                mark = int(hashlib.sha256(self._token.encode()).hexdigest(), 16) % 10**9
                os.utime(
                    self._path, ns=(seen.st_atime_ns, seen.st_mtime_ns // 10**9 * 10**9 + mark)
                )
                os.fsync(self._file.fileno())
                self._file.close()
                mtime = self._path.stat().st_mtime_ns
            upload = {"path": str(self._path), "mtime_ns": mtime}
            self._staged = StagedFile(self._uri, self._token, self._size, upload)
        return self._staged

    def abort(self) -> None:
        """Drop what was staged. Safe at any time and any number of times; raises nothing."""
        # Data that could not be written is dropped anyway.
        with suppress(OSError):
            self._file.close()
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return
        prune(self._path)

    def _open(self) -> IO[bytes]:
        for _ in range(ATTEMPTS):
            # Another writer may prune the empty staging folder at any instant.
            with suppress(FileNotFoundError):
                make_folders(to_path(self._root).absolute())
                make_folders(self._path.parent, sync=False)
                return self._path.open("xb", buffering=1024**2)
        raise WriteFailed(f"{self._uri}: {self._path.parent} is deleted again and again")


def _staged_path(upload: AbandonedUpload | StagedFile) -> Path:
    """Return where a file is staged, after checking that it is staged for its own URI.

    Raises:
        ConfigError: The path is another file's, so the record was not written by a run.
    """
    given = upload.upload.get("path")
    mark = upload.upload.get("mtime_ns", None if isinstance(upload, StagedFile) else 0)
    path = Path(given) if isinstance(given, str) and "\0" not in given else Path()
    target = to_path(upload.uri).absolute()
    for root in target.parents:
        inner = target.relative_to(root)
        staged = root / STAGING
        if path.is_relative_to(staged) and type(mark) is int:
            below = path.relative_to(staged)
            _, _, rest = below.as_posix().partition("/")
            # A target may be spelled with "..", but no staged file within its root.
            if ".." not in below.parts and rest == inner.as_posix() + SUFFIX:
                return path
    raise ConfigError(
        f"{upload.uri}: its record names a staged file that is not its own; nothing was touched. "
        "Restore the record from the bucket's or folder's earlier versions"
    )


def _is_same(path: Path, staged: StagedFile) -> bool:
    try:
        seen = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (seen.st_size, seen.st_mtime_ns) == (staged.size, staged.upload["mtime_ns"])


def _spelled_like(uri: str, folder_uri: str) -> str:
    """Return ``uri`` percent-encoded as a listing of ``folder_uri`` would spell it."""
    if not folder_uri.startswith("file://") or not uri.startswith(folder_uri):
        return uri
    return folder_uri + encoded(unquote(uri.removeprefix(folder_uri)))
