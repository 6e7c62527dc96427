"""Checks that a state record is one that a run could have written.

Whoever can write state can make a run fail, and nothing else: a record names files to complete, to
delete and to read, and none of them may be outside the table's own target. A record is checked
completely when it is read, before it is acted on.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from extract_jobs.errors import ConfigError
from extract_jobs.storage import WrittenFile
from extract_jobs.storage.local_files import to_path
from extract_jobs.watermark import Interval, WatermarkValue

if TYPE_CHECKING:
    from extract_jobs.commit.record import Commit

_RUN_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_OBJECTS = re.compile(r"objects/[A-Za-z0-9_.-]{1,128}/\d{1,20}-\d{1,9}\.parquet")
_COLUMN_KEYS = {"name": str, "type": str, "nullable": bool}
_MORE_COLUMN_KEYS = {"mask": str, "folder": bool}


def is_below(uri: str, folder: str) -> bool:
    """Return whether a URI is below a folder, in whatever form.

    A URI with a segment ``..`` or ``.`` never is, nor is the folder itself. Symbolic links are not
    followed: only who can write to the target could have made one there.
    """
    if uri.startswith("s3://") or folder.startswith("s3://"):
        below = uri.startswith(folder.rstrip("/") + "/")
        inner = uri[len(folder.rstrip("/")) + 1 :].split("/")
        return below and not {"", ".", ".."} & set(inner)
    try:
        path, root = to_path(uri), to_path(folder)
    except ConfigError:
        return False
    if "\0" in str(path) or ".." in path.parts:
        return False
    inside = os.path.relpath(os.path.abspath(path), os.path.abspath(root))  # noqa: PTH100
    return inside not in {".", ".."} and not inside.startswith("../")


def check_commit(commit: Commit, seq: int | None) -> None:
    """Check a commit record whose fields have their types.

    Args:
        commit: The record.
        seq: The sequence number in its name; None if it has no name yet.

    Raises:
        ValueError: It is not what a run wrote; the message says which field, never its value.
    """
    if seq is not None and commit.seq != seq:
        raise ValueError("seq is not the number in its name")
    _demand(1 <= commit.seq < 10**20, "seq is out of range")
    _demand(0 <= commit.parent < commit.seq, "parent is not an earlier commit")
    _demand(
        commit.live_since == commit.seq or 1 <= commit.live_since <= commit.parent,
        "live_since is neither the commit nor an earlier one",
    )
    _demand(bool(_RUN_ID.fullmatch(commit.run_id)), "run_id is not valid")
    _demand(commit.attempt >= 1, "attempt is out of range")
    _demand(
        commit.objects is None or bool(_OBJECTS.fullmatch(commit.objects)),
        "objects is not the name of a list",
    )
    check_files(commit.files, commit.target_uri)
    uris = {file.staged.uri for file in commit.files}
    _demand(len(uris) == len(commit.files), "files names a file twice")
    for uri in commit.retire:
        _demand(is_below(uri, commit.target_uri), "retire names a file outside the target")
        _demand(uri not in uris, "retire names a file of the commit itself")
    _check_positions(commit)
    check_position(commit.position)
    check_columns("schema", commit.schema)
    check_columns("source_columns", commit.source_columns, _MORE_COLUMN_KEYS)


def check_files(files: Iterable[WrittenFile], target_uri: str) -> None:
    """Check the files of a record.

    Raises:
        ValueError: One lies outside the target, or its numbers are out of range.
    """
    for file in files:
        _demand(is_below(file.staged.uri, target_uri), "files names a file outside the target")
        _demand(file.staged.size >= 0 and file.rows >= 0, "a file's size or rows are out of range")
        _demand(file.staged.token != "", "a file has no token")


def check_columns(
    name: str, columns: list[dict[str, Any]], more: Mapping[str, type] = MappingProxyType({})
) -> None:
    """Check columns as records keep them, ``[{"name", "type", "nullable"}]``.

    Args:
        name: What the message calls them.
        columns: The columns.
        more: Keys that a column may have beside those, and their types.

    Raises:
        ValueError: One is not what a run wrote.
        TypeError: Likewise.
    """
    for column in columns:
        right = _COLUMN_KEYS.keys() <= column.keys() and all(
            type(value) is {**_COLUMN_KEYS, **more}.get(key) for key, value in column.items()
        )
        _demand(right, f"{name} holds what is no column")


def check_position(position: Any) -> None:
    """Check a source's position as records keep it: text by name, or None.

    Raises:
        ValueError: It is not what a run wrote.
    """
    right = position is None or (
        isinstance(position, dict) and all(isinstance(v, str) for v in position.values())
    )
    _demand(right, "position is not valid")


def _check_positions(commit: Commit) -> None:
    try:
        WatermarkValue.from_json(commit.watermark)
        for interval in (commit.interval, *commit.covered):
            Interval.from_json(interval)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("watermark, interval or ground is not what a run wrote") from None


def _demand(right: bool, wrong: str) -> None:
    if not right:
        raise ValueError(wrong)
