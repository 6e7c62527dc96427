"""Checks that a run could have written a state record.

Someone who can write state can make a run fail, but nothing else: a record names files to complete,
delete and read, and none of them may be outside the table's own target. A record is checked
completely before it is used.
"""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from extract_jobs.commit.sealed import check_seal
from extract_jobs.errors import ConfigError
from extract_jobs.storage import WrittenFile
from extract_jobs.storage.local_files import to_path

_OBJECTS = re.compile(r"objects/[A-Za-z0-9_.-]{1,128}/\d{1,20}-\d{1,9}\.parquet")
_COLUMN_KEYS = {"name": str, "type": str, "nullable": bool}


def is_below(uri: str, folder: str) -> bool:
    """Return whether a URI is below a folder; both may have any form.

    A URI with a segment ``..`` or ``.`` after the folder's own never is, nor is the folder itself.
    Symbolic links are not followed: creating one takes write access to the target.
    """
    if uri.startswith("s3://") or folder.startswith("s3://"):
        below = uri.startswith(folder.rstrip("/") + "/")
        inner = uri[len(folder.rstrip("/")) + 1 :].split("/")
        return below and not {"", ".", ".."} & set(inner)
    try:
        path, root = to_path(uri), to_path(folder)
    except ConfigError:
        return False
    depth = len(root.parts)
    own = path.parts[depth:] if path.parts[:depth] == root.parts else path.parts
    if "\0" in str(path) or ".." in own:
        return False
    inside = os.path.relpath(os.path.abspath(path), os.path.abspath(root))  # noqa: PTH100
    return inside not in {".", ".."} and not inside.startswith("../")


def is_objects_name(name: str) -> bool:
    """Return whether a name is one of a list of objects, below the state folder."""
    return bool(_OBJECTS.fullmatch(name))


def check_files(files: Iterable[WrittenFile], target_uri: str) -> None:
    """Check the files of a record.

    Raises:
        ValueError: One lies outside the target, or its numbers are out of range.
    """
    for file in files:
        require(is_below(file.staged.uri, target_uri), "files names a file outside the target")
        require(file.staged.size >= 0 and file.rows >= 0, "a file's size or rows are out of range")
        require(file.staged.token != "", "a file has no token")


def check_columns(
    name: str, columns: list[dict[str, Any]], more: Mapping[str, type] = MappingProxyType({})
) -> None:
    """Check columns in the form of records, ``[{"name", "type", "nullable"}]``.

    Args:
        name: What the message calls them.
        columns: The columns.
        more: Further keys that a column may have, and their types.

    Raises:
        ValueError: One is not valid.
        TypeError: Likewise.
    """
    for column in columns:
        right = _COLUMN_KEYS.keys() <= column.keys() and all(
            type(value) is {**_COLUMN_KEYS, **more}.get(key) for key, value in column.items()
        )
        require(right, f"{name} holds something that is not a column")


def check_position(position: Any) -> None:
    """Check a source's position in the form of records: text by name, or None.

    Raises:
        ValueError: It is not valid.
    """
    right = position is None or (
        isinstance(position, dict) and all(isinstance(v, str) for v in position.values())
    )
    require(right, "position is not valid")


def require(condition: bool, message: str) -> None:
    """Raise ValueError with the message unless a condition of a record holds."""
    if not condition:
        raise ValueError(message)


def number_in(uri: str) -> int | None:
    """Return the number in a record's name; None if the file is not a record."""
    name = uri.rsplit("/", 1)[1]
    found = re.fullmatch(r"(\d+)\.json", name)
    return int(found[1]) if found else None


def json_object(raw: bytes, uri: str) -> dict[str, Any]:
    """Return a record's JSON object.

    Raises:
        ConfigError: It is not one.
    """
    try:
        check_seal(raw)
        found = json.loads(raw)
        if isinstance(found, dict):
            return found
    except (ValueError, RecursionError):
        pass
    raise ConfigError(f"{uri} is damaged: it is not what a run wrote; restore it")
