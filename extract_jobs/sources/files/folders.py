"""Columns in the names of folders, ``year=2023/month=01/``, as Hive and Spark write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

import pyarrow as pa

from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.schema import Column
from extract_jobs.sources.files.texts import to_type
from extract_jobs.spec.source import TextTypeSpec
from extract_jobs.transform.partitions import DEFAULT_PARTITION

_LEVEL = re.compile(r"([^/=]+)=([^/]*)/")

Folders = Mapping[str, str | None]
"""Value by name, in the order of the path."""


def folders_of(uri: str, base: str) -> dict[str, str | None]:
    """Return the columns that a file's folders name.

    Args:
        uri: The file.
        base: The folder below which names count, from `listing.folder_of`.

    Returns:
        Names and values percent-decoded; None for Hive's NULL.

    Raises:
        ConfigError: Two levels have the same name, or a name is not UTF-8.
    """
    found: dict[str, str | None] = {}
    path = uri.removeprefix(base)
    # Levels without a key lie between those that have one.
    for match in _LEVEL.finditer(path, 0, path.rfind("/") + 1):
        try:
            name, value = (unquote(part, errors="strict") for part in match.groups())
        except UnicodeDecodeError:
            raise ConfigError(
                f"{uri}: the folder {match[0][:-1]!r} is not UTF-8 in percent-encoding; rename it, "
                "or set files.partitions to ignore"
            ) from None
        if name in found:
            raise ConfigError(
                f"{uri}: two folders are named {name!r}; rename one, or set files.partitions to "
                "ignore"
            )
        found[name] = None if value == DEFAULT_PARTITION else value
    return found


def refuse_both(folders: Folders, names: Iterable[str], uri: str) -> None:
    """Refuse a column that both a file and its folder have: nothing says which one is right.

    Raises:
        ConfigError: There is one.
    """
    both = [name for name in names if name in folders]
    if both:
        raise ConfigError(
            f"{uri}: column {', '.join(map(repr, both))} is in the file and in the name of its "
            "folder; set files.partitions to ignore to take the file's"
        )


def folder_column(
    value: str | None, column: Column, rows: int, uri: str, form: TextTypeSpec | None = None
) -> pa.Array:
    """Return a folder's value as a column; ``form`` is how it is written, None the usual way.

    Raises:
        TypeNotRepresentable: It is not a value of that type.
    """
    [converted], failed = to_type(pa.array([value], pa.string()), column.arrow_type, form)
    if failed:
        raise TypeNotRepresentable(
            f"{uri}: the folder's {column.name!r} is not a valid {column.arrow_type}; declare "
            "another type in files.types, or rename the folder"
        )
    return pa.repeat(converted, rows)
