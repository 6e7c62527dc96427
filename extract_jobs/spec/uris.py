"""Compares URIs and paths in one normal form, in which equal locations are equal text.

``file://`` URIs are decoded, relative paths are resolved against the working folder, and ``..`` and
symbolic links are followed. A key in S3 is taken literally, as S3 does.
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def address_problem(url: str | None) -> str | None:
    """Return what is wrong with an address that credentials are sent to; None if nothing is."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return "is not a URL"
    if parts.username or parts.password:
        return "must not contain a user or password"
    if not host or parts.scheme not in ("http", "https"):
        return "must begin with https://"
    if parts.scheme == "http" and host not in _LOOPBACK:
        return "must begin with https://, since credentials are sent there"
    return None


def normal_uri(uri: str) -> str:
    """Return the normal form of a URI or path, without a trailing slash; reads no file.

    Args:
        uri: ``s3://…``, ``file:///…`` or a path.
    """
    if uri.startswith("file://"):
        return os.path.realpath("/" + unquote(uri.removeprefix("file://").partition("/")[2]))
    if "://" in uri:
        return uri.rstrip("/")
    return os.path.realpath(uri)


class NormalUris:
    """Returns the normal forms of many URIs, and looks at each folder once.

    Use it for one check only, since folders may change later.
    """

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, uri: str) -> str:
        """Return what `normal_uri` returns."""
        if "://" in uri and not uri.startswith("file://"):
            return normal_uri(uri)
        path = "/" + unquote(uri.removeprefix("file://").partition("/")[2]) if "://" in uri else uri
        # What .. means depends on links before it.
        return os.path.realpath(path) if ".." in path.split("/") else self._real(path)

    def overlap(self, one: str, other: str) -> bool:
        """Return what `overlap` returns."""
        a, b = (f"{self(uri).rstrip('/')}/" for uri in (one, other))
        return a.startswith(b) or b.startswith(a)

    def _real(self, path: str) -> str:
        path = "/" + os.path.abspath(path).lstrip("/")  # noqa: PTH100 - Path.absolute leaves /./
        parent, name = posixpath.split(path)
        if not name:
            return path
        if parent not in self._folders:
            self._folders[parent] = self._real(parent)
        found = posixpath.join(self._folders[parent], name)
        return os.path.realpath(found) if posixpath.islink(found) else found


def scheme_problem(uri: str) -> str | None:
    """Return why files cannot be written to a URI of this scheme; None if they can."""
    if "://" not in uri or uri.startswith(("s3://", "file://")):
        return None
    return f"{uri!r}: expected s3://bucket/folder, file:///folder or a path"


def absolute(uri: str, folder: str | None) -> str:
    """Return a path that means the same from any working folder; a URI is returned unchanged.

    Args:
        uri: ``s3://…``, ``file:///…`` or a path, which may begin with ``~``.
        folder: Where relative paths start; None leaves every path unchanged.
    """
    if folder is None or "://" in uri:
        return uri
    return str(Path(folder, os.path.expanduser(uri)))  # noqa: PTH111 - Path's raises for ~nobody


def is_inside(uri: str, folder: str) -> bool:
    """Return whether a URI is a folder itself or is below it. Both may be in any form."""
    return f"{normal_uri(uri)}/".startswith(f"{normal_uri(folder).rstrip('/')}/")


def overlap(one: str, other: str) -> bool:
    """Return whether one of two URIs is the other or is below it."""
    return is_inside(one, other) or is_inside(other, one)
