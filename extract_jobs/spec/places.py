"""Places as one form, in which equal places are equal text: the form that all checks compare.

``file://`` URIs are decoded, relative paths are resolved against the working folder, and ``..`` and
symbolic links are followed. A key in S3 is taken as it stands, since S3 does so.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote


def normal(uri: str) -> str:
    """Return the normal form of a place, without a slash at its end. Looks at links, reads nothing.

    Args:
        uri: ``s3://…``, ``file:///…`` or a path.
    """
    if uri.startswith("file://"):
        return os.path.realpath("/" + unquote(uri.removeprefix("file://").partition("/")[2]))
    if "://" in uri:
        return uri.rstrip("/")
    return os.path.realpath(uri)


def absolute(uri: str, folder: str | None) -> str:
    """Return a path as one that means the same from any working folder; a URI as it is.

    Args:
        uri: ``s3://…``, ``file:///…`` or a path, which may begin with ``~``.
        folder: What a relative path starts from; None leaves every path as it is.
    """
    if folder is None or "://" in uri:
        return uri
    return str(Path(folder, os.path.expanduser(uri)))  # noqa: PTH111 - Path's raises for ~nobody


def lies_in(place: str, folder: str) -> bool:
    """Tell whether one place is another, or lies below it. Both in any form."""
    return f"{normal(place)}/".startswith(f"{normal(folder).rstrip('/')}/")


def overlap(one: str, other: str) -> bool:
    """Tell whether one of two places is the other, or lies below it."""
    return lies_in(one, other) or lies_in(other, one)
