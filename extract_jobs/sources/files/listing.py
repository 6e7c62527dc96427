"""Which objects a glob matches, and what a file's name says about its format.

A glob is matched against the path below ``connection.uri``: ``*`` and ``?`` stay within a folder,
``**`` crosses any number of folders, including none. Names that begin with ``_`` or ``.`` are
hidden, as in Spark (`HadoopFSUtils.shouldFilterOutPathName`), except names with ``_`` and a ``=``.
What the glob spells out before its first wildcard is never hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from extract_jobs.errors import ConfigError, printable
from extract_jobs.spec.globs import glob_pattern, spelled_start
from extract_jobs.spec.uris import is_inside
from extract_jobs.storage import ObjectInfo, Storage, is_probe
from extract_jobs.storage.local_files import to_path

Format = Literal["csv", "jsonl", "json", "parquet"]
Compression = Literal["none", "gzip", "zstd", "bz2", "xz", "lz4", "zip"]

_FORMATS: dict[str, Format] = {
    "csv": "csv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "parquet": "parquet",
    "pq": "parquet",
}
_NOT_READ = {
    "avro": "Avro", "orc": "ORC", "xls": "Excel", "xlsx": "Excel", "xml": "XML",
    "db": "a database", "sqlite": "a database", "sqlite3": "a database",
}  # fmt: skip
"""Formats that no library reads faithfully enough; docs/files.md says what was tried."""
_WAYS_OUT = {
    "Excel": "save the sheet as CSV",
    "a database": "if it is SQLite, write a config of its own: extract-jobs init --from its path",
}
_COMPRESSIONS: dict[str, Compression] = {
    "gz": "gzip",
    "gzip": "gzip",
    "zst": "zstd",
    "bz2": "bz2",
    "xz": "xz",
    "lz4": "lz4",
    "zip": "zip",
}


def folder_of(uri: str) -> str:
    """Return a folder's URI in the spelling of objects below it: ``file://`` as a plain path."""
    plain = str(to_path(uri)) if uri.startswith("file://") else uri
    return plain.rstrip("/") + "/"


def list_objects(
    storage: Storage, folder: str, glob: str, start_after: str | None = None
) -> Iterator[ObjectInfo]:
    """Yield the objects that a glob matches, by name; memory does not grow with their number.

    Lists only what begins like the glob before its first wildcard.

    Args:
        storage: Where they are.
        folder: From `folder_of`.
        glob: As described above.
        start_after: Whole URI; only later ones are yielded.

    Raises:
        ConfigError: A name is not UTF-8, a link leads out of the folder, or what it names is no
            file.
    """
    glob = glob.lstrip("/")
    spelled = spelled_start(glob)
    pattern = glob_pattern(glob)
    depth = len(folder) + spelled.rfind("/") + 1
    is_local = "://" not in folder
    if is_local:
        _check_inside(folder, folder + spelled[: spelled.rfind("/") + 1])
    for found in storage.list(folder + spelled, start_after):
        if not pattern.fullmatch(found.uri, len(folder)) or is_probe(found):
            continue
        if not found.uri.endswith("/") and not _is_hidden(found.uri[depth:]):
            # Symbolic links to folders are not followed, so only the file itself can be one.
            if is_local and Path(found.uri).is_symlink():
                _check_inside(folder, found.uri)
            _check_name(found.uri)
            # Pipes, sockets and devices have no size, and would pass for empty files.
            if is_local and found.size == 0 and not Path(found.uri).is_file():
                raise ConfigError(
                    f"{found.uri} is a pipe, a socket or a device, not a file: remove it, or "
                    "narrow files.glob"
                )
            yield found


def _check_name(uri: str) -> None:
    """Refuse a name that is not UTF-8, which file systems allow: no list of files could store it.

    Raises:
        ConfigError: It is not.
    """
    try:
        uri.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{printable(uri)}: the name of this file is not UTF-8; rename the file"
        ) from None


def _check_inside(folder: str, path: str) -> None:
    """Refuse a path that leads out of its folder through a symbolic link.

    Raises:
        ConfigError: It does.
    """
    if not is_inside(path, folder):
        raise ConfigError(
            f"{path} is, or lies behind, a symbolic link to a place outside of {folder}, which "
            "connection.uri names: put a copy of the file there, or name its own folder"
        )


def _is_hidden(path: str) -> bool:
    return any(
        name.startswith(".")
        or (name.startswith("_") and "=" not in name)
        or name.endswith("._COPYING_")
        for name in path.split("/")
    )


def compression_of(uri: str, given: Compression | None) -> Compression:
    """Return how a file is compressed: as given, else by its name."""
    return given or _COMPRESSIONS.get(uri.rsplit(".", 1)[-1].lower(), "none")


def named_format(uri: str) -> Format | None:
    """Return the format that a file's name indicates; None if it indicates none."""
    return _FORMATS.get(extension(uri))


def extension(uri: str) -> str:
    """Return the extension of a file's name, without that of a compression; empty without one."""
    names = uri.rsplit("/", 1)[-1].lower().split(".")
    if len(names) > 1 and names[-1] in _COMPRESSIONS:
        names.pop()
    return names[-1] if len(names) > 1 else ""


def format_of(uri: str, given: Format | None) -> Format:
    """Return a file's format: as given, else from its name without a compression's extension.

    Raises:
        ConfigError: The name does not indicate one.
    """
    found = given or named_format(uri)
    if found is None and (reason := not_read(uri)):
        raise ConfigError(f"{uri}: {reason}, or narrow files.glob")
    if found is None:
        raise ConfigError(
            f"{uri}: its name indicates no format; expected one of {', '.join(_FORMATS)} (with or "
            f"without {', '.join(f'.{c}' for c in _COMPRESSIONS)} after it): set files.format "
            "(jsonl if each line is an object, json if the file is one array), or narrow files.glob"
        )
    return found


def not_read(uri: str) -> str | None:
    """Return why a file of the format that its name indicates is not read; None if it may be."""
    other = _NOT_READ.get(extension(uri))
    if other is None:
        return None
    return f"{other} is not read; {_WAYS_OUT.get(other, 'convert it to Parquet')}"
