"""Which objects of a file drop a glob means, and what a file's name says of its form.

A glob is matched against the path below ``connection.uri``: ``*`` and ``?`` stay within a folder,
``**`` goes across folders, also across none. Names that begin with ``_`` or ``.`` are hidden, as
Spark has it (`HadoopFSUtils.shouldFilterOutPathName`): with ``=`` in them those with ``_`` are
not, and what the glob spells out before its first wildcard is meant as it stands.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from extract_jobs.errors import ConfigError, printable
from extract_jobs.spec.uris import is_inside
from extract_jobs.storage import ObjectInfo, Storage, is_probe
from extract_jobs.storage.local_files import to_path

Format = Literal["csv", "jsonl", "parquet"]
Compression = Literal["none", "gzip", "zstd", "bz2", "xz", "lz4", "zip"]

_FORMATS: dict[str, Format] = {
    "csv": "csv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "parquet": "parquet",
    "pq": "parquet",
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
_WILD = re.compile(r"\*\*/|\*\*|\*|\?")
_AS_PATTERN = {"": "", "**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}

_INNER_FOLDERS = 3


def folder_of(uri: str) -> str:
    """Return a folder's URI as objects below it are spelled: ``file://`` as a plain path."""
    plain = str(to_path(uri)) if uri.startswith("file://") else uri
    return plain.rstrip("/") + "/"


def list_objects(storage: Storage, folder: str, glob: str) -> Iterator[ObjectInfo]:
    """Yield the objects that a glob means, by name; memory does not grow with their number.

    Only what begins like the glob does before its first wildcard is listed.

    Args:
        storage: Where they are.
        folder: From `folder_of`.
        glob: As the module says.
    """
    glob = glob.lstrip("/")
    first = _WILD.search(glob)
    spelled = glob if first is None else glob[: first.start()]
    pattern = glob_pattern(glob)
    depth = len(folder) + spelled.rfind("/") + 1
    is_local = "://" not in folder
    if is_local:
        _check_inside(folder, folder + spelled[: spelled.rfind("/") + 1])
    for found in storage.list(folder + spelled):
        if not pattern.fullmatch(found.uri, len(folder)) or is_probe(found):
            continue
        if not found.uri.endswith("/") and not _is_hidden(found.uri[depth:]):
            # Folders that are links are not gone into, so only the file itself can be one.
            if is_local and Path(found.uri).is_symlink():
                _check_inside(folder, found.uri)
            _check_name(found.uri)
            yield found


def _check_name(uri: str) -> None:
    """Refuse a name that is not UTF-8, as file systems allow: no list of files could hold it.

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
    """Refuse a path that a symbolic link takes out of its folder.

    Raises:
        ConfigError: It does.
    """
    if not is_inside(path, folder):
        raise ConfigError(
            f"{path} is, or lies behind, a symbolic link to a place outside of {folder}, which "
            "connection.uri names: put a copy of the file there, or name its own folder"
        )


def glob_pattern(glob: str) -> re.Pattern[str]:
    """Return the regular expression of a glob; every other character means itself.

    Matching takes time in proportion to the path's length times the glob's, however many wildcards
    there are: what follows a wildcard is taken where it is found first, and never looked for again,
    which gives the same answer. Only the last ``**`` and the last ``*`` have to reach the end. The
    exception is ``**/`` behind anything but a slash, of which there may be few.

    Raises:
        ConfigError: There are more than `_INNER_FOLDERS` of those.
    """
    blocks: list[list[tuple[str, str]]] = [[]]
    position, wild = 0, ""
    for found in _WILD.finditer(glob):
        if found[0] == "?":
            continue
        blocks[-1].append((wild, _literal(glob[position : found.start()])))
        wild, position = found[0], found.end()
        if wild.startswith("**"):
            blocks.append([])
    blocks[-1].append((wild, _literal(glob[position:])))
    parts, inner = [], 0
    for block, following in itertools.pairwise(blocks):
        # Any place where a block ends is as good as the first if what follows can skip the rest.
        is_free = following[0][0] == "**/" and not block[-1][1].endswith("/")
        if is_free and any(wild for wild, _ in block):
            inner += 1
            parts += [_AS_PATTERN[wild] + literal for wild, literal in block]
        else:
            parts.append(f"(?>{''.join(map(_first, block))})")
    if inner > _INNER_FOLDERS:
        raise ConfigError(
            f"files.glob has {inner} **/ that stand behind something other than a slash: there may "
            f"be {_INNER_FOLDERS}; put a slash before each"
        )
    *ahead, (wild, literal) = blocks[-1]
    parts += [*map(_first, ahead), _AS_PATTERN[wild] + literal]
    return re.compile("".join(parts), re.DOTALL)


def _first(piece: tuple[str, str]) -> str:
    """Return the pattern of a wildcard and of what follows, where that is found first."""
    wild, literal = piece
    if wild == "*":
        return f"(?>[^/]*?{literal})"
    return {"": "", "**/": "(?:.*?/)??", "**": ".*?"}[wild] + literal


def _literal(text: str) -> str:
    return "".join("[^/]" if letter == "?" else re.escape(letter) for letter in text)


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
    """Return the format that a file's name says; None if it says none."""
    names = uri.rsplit("/", 1)[-1].lower().split(".")
    if len(names) > 1 and names[-1] in _COMPRESSIONS:
        names.pop()
    return _FORMATS.get(names[-1]) if len(names) > 1 else None


def format_of(uri: str, given: Format | None) -> Format:
    """Return a file's format: as given, else by its name without the ending of a compression.

    Raises:
        ConfigError: The name does not say.
    """
    found = given or named_format(uri)
    if found is None:
        raise ConfigError(
            f"{uri}: its name tells no format; expected one of {', '.join(_FORMATS)} (with "
            f"{', '.join(f'.{c}' for c in _COMPRESSIONS)} after it, or not): set files.format, or "
            "narrow files.glob"
        )
    return found
