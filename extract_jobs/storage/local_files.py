"""File system operations of the local storage: whole files, synced folders, mapped errors."""

from __future__ import annotations

import errno
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from extract_jobs.errors import ConfigError, SourceUnavailable, WriteFailed
from extract_jobs.storage.contract import ObjectInfo, changed_message

STAGING = ".extract_staging"
TEMPORARY = ".extract_tmp-"
# Not .parquet: globs such as **/*.parquet look into hidden folders too.
SUFFIX = ".staged"

ATTEMPTS = 100
"""How often a race with another process is retried before it counts as another problem."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRONG = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EXDEV,
}


def to_path(uri: str) -> Path:
    """Return the path of ``file:///path`` (percent-decoded) or of a plain path (unchanged).

    Raises:
        ConfigError: The URI names another host, or is neither a path nor ``file://``.
    """
    if uri.startswith("file://"):
        host, slash, rest = uri.removeprefix("file://").partition("/")
        if host not in {"", "localhost"} or not slash:
            raise ConfigError(f"{uri}: expected file:///path, without a host")
        return Path("/" + unquote(rest))
    if "://" in uri or not uri:
        raise ConfigError(f"{uri!r}: expected file:///path or a path")
    return Path(uri)


@contextmanager
def local_errors(action: str, uri: str) -> Iterator[None]:
    """Map what the file system raises to the tree of `extract_jobs.errors`.

    Args:
        action: What was being done, for the message.
        uri: The file or folder.

    Raises:
        ConfigError: Permission denied, read-only, a file where a folder should be, a bad name.
        WriteFailed: The disk is full, or anything else.
    """
    try:
        yield
    except OSError as error:
        what = f"cannot {action} {uri}: {error.strerror or error}"
        if error.errno in _FULL:
            raise WriteFailed(f"{what}; free some space, then run again") from error
        if error.errno in _WRONG:
            raise ConfigError(
                f"{what}; expected a folder that this user may write, on a local file system"
            ) from error
        raise WriteFailed(f"{what}; a retry is safe") from error
    except ValueError as error:  # a NUL in the name
        raise ConfigError(f"cannot {action} {uri}: {error}") from error


@contextmanager
def temporary(target: Path, data: bytes, mode: int = 0o666) -> Iterator[Path]:
    """Yield a synced temporary file with ``data`` next to ``target``; delete it afterwards.

    ``mode`` is its permissions, before the umask.
    """
    make_folders(target.parent)
    path = target.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(made, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def make_folders(folder: Path, *, sync: bool = True) -> None:
    """Create a folder and its parents, and sync the parents of new ones.

    Args:
        folder: The innermost.
        sync: Whether to sync; False for what need not survive a power cut.

    Raises:
        FileNotFoundError: A parent was removed in the meantime; can be retried.
        OSError: The folder cannot be created; ``strerror`` names it.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
        if folder.is_file():
            raise _not_made(missing[-1], errno.ENOTDIR)
    for made in reversed(missing):
        _make_folder(made)
        if sync:
            sync_folder(made.parent)


def _make_folder(folder: Path) -> None:
    for _ in range(ATTEMPTS):
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError:
            if not folder.parent.is_dir():
                raise
        except FileExistsError:
            pass  # it was removed in the meantime, or is not a folder
        except OSError as error:
            raise _not_made(folder, error.errno or errno.EINVAL) from error
        else:
            return
    # The parent exists: its file system takes no folders (/proc), or a broken link has the name.
    raise _not_made(folder, errno.ENOTDIR if folder.is_symlink() else errno.ENOTSUP)


def _not_made(folder: Path, number: int) -> OSError:
    return OSError(number, f"the folder {folder} cannot be created: {os.strerror(number)}")


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(staged: Path) -> None:
    """Remove the empty folders that a staged file leaves, up to the staging folder."""
    folder = staged.parent
    while STAGING in folder.parts:
        try:
            folder.rmdir()
        except OSError:
            return  # others are staging there
        folder = folder.parent


def files(folder: Path, begin: str) -> Iterator[str]:
    """Yield relative paths of visible files below a folder, those that start with ``begin``."""

    def fail(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise error

    for here, folders, names in os.walk(folder, onerror=fail):
        relative = os.path.relpath(here, folder)
        depth = "" if relative == "." else relative + "/"
        folders[:] = [
            f for f in folders
            if f != STAGING and f"{depth}{f}/"[: len(begin)] == begin[: len(f"{depth}{f}/")]
        ]  # fmt: skip
        for name in names:
            path = depth + name  # not a Path, which takes ten times as long
            if path.startswith(begin) and not name.startswith(TEMPORARY):
                yield path


def drafts(folder: Path) -> Iterator[Path]:
    """Yield the unfinished files below a folder, of running and of killed processes."""
    for here, _, names in os.walk(folder):
        yield from (Path(here, name) for name in names if name.startswith(TEMPORARY))


def staged_below(staging: Path) -> Iterator[Path]:
    """Yield the staged files in a staging folder, whose folders other processes may remove."""

    def fail(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise error

    for here, _, names in os.walk(staging, onerror=fail):
        if here != str(staging):
            yield from (Path(here, name) for name in names if name.endswith(SUFFIX))


def info_of(uri: str, seen: os.stat_result) -> ObjectInfo:
    """Return what a listing holds for a file.

    Its modification time in nanoseconds and its size serve as an ETag: not the inode, which
    some network file systems do not keep.
    """
    modified = datetime.fromtimestamp(seen.st_mtime, UTC)
    etag = f"{seen.st_mtime_ns:x}-{seen.st_size:x}"
    return ObjectInfo(uri, seen.st_size, etag=etag, modified_at=modified)


class ListedFile(io.FileIO):
    """A file that can be read only while it is unchanged since it was listed."""

    def __init__(self, path: Path, listed: ObjectInfo) -> None:
        """Open it.

        Raises:
            SourceUnavailable: The file has changed.
            OSError: As `open` raises it.
        """
        self._listed = listed
        super().__init__(path, "rb")
        self._check()

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes: as many as asked for, fewer only at the end.

        Raises:
            SourceUnavailable: The file was written to since it was listed.
        """
        data = super().read(-1 if size is None else size) or b""
        self._check()
        return data

    def _check(self) -> None:
        if info_of(self._listed.uri, os.fstat(self.fileno())).etag != self._listed.etag:
            self.close()
            raise SourceUnavailable(changed_message(self._listed.uri))
