"""Archives whose bytes are the same whenever and wherever the same files are packed.

Entries are sorted, times fixed, owners and permissions normalised. An archive's checksum depends on
its contents only: https://reproducible-builds.org/docs/archives/.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can represent."""
_SKIPPED = {"__pycache__", ".lock"}


def tree(folder: Path, prefix: str = "") -> dict[str, Path]:
    """Return the files and links of a folder by their names in an archive.

    Bytecode is left out: it contains times and paths of the machine that compiled it.

    Args:
        folder: Read recursively; links are not followed.
        prefix: Put before each name, with a slash.
    """
    return {
        f"{prefix}/{name}" if prefix else name: path
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink()) and not _SKIPPED & set(path.parts)
        for name in (path.relative_to(folder).as_posix(),)
    }


def write_zip(
    target: Path,
    files: Mapping[str, Path | bytes],
    *,
    packed: bool = True,
    begun: Path | None = None,
) -> None:
    """Write a zip whose bytes depend only on names and contents.

    Args:
        target: Replaced if it exists.
        files: Content, or the file that has it, by name. Every file is readable by all, as Lambda
            needs it, and none is executable.
        packed: Whether to compress entries; wheels already are compressed.
        begun: A zip of other files to start from, so that those are compressed only once.
    """
    if begun is not None:
        shutil.copyfile(begun, target)
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(target, "a" if begun else "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.compress_type = method
            entry.create_system = 3  # Unix, whatever system packs it
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            content = files[name]
            archive.writestr(entry, content if isinstance(content, bytes) else content.read_bytes())


def write_tar(target: Path, files: Mapping[str, Path | bytes], links: Mapping[str, str]) -> None:
    """Write a ``.tar.gz`` whose bytes depend only on names, contents and links.

    Args:
        target: Replaced if it exists.
        files: Content, or the file that has it, by name; executable files stay executable.
        links: Target of each symbolic link, by the link's name. It need not exist yet.
    """
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
        tarfile.open(mode="w", fileobj=packed, format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted({*files, *links}):
            entry = tarfile.TarInfo(name)
            if name in links:
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, links[name], 0o777
                archive.addfile(entry)
                continue
            content = files[name]
            data = content if isinstance(content, bytes) else content.read_bytes()
            executable = isinstance(content, Path) and content.stat().st_mode & stat.S_IXUSR
            entry.size, entry.mode = len(data), 0o755 if executable else 0o644
            archive.addfile(entry, io.BytesIO(data))


def write_checksums(target: Path, files: Iterable[Path]) -> None:
    """Write ``SHA256SUMS`` as ``sha256sum --check`` reads it, names relative to the folder."""
    lines = (f"{_sha256(path)}  {path.relative_to(target.parent).as_posix()}\n" for path in files)
    target.write_text("".join(sorted(lines, key=lambda line: line.split("  ", 1)[1])))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
