"""Globs: one rule for the names of columns and tables, and for the paths of files.

``*`` stands for any text and ``?`` for one character; every other character, brackets too, stands
for itself, and upper and lower case differ. In paths both stay within a folder, and ``**`` crosses
any number of folders, including none.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from urllib.parse import quote

from extract_jobs.errors import ConfigError
from extract_jobs.spec.uris import is_inside, normal_uri

_WILD = re.compile(r"\*\*/|\*\*|\*|\?")
_AS_PATTERN = {"": "", "**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
_INNER_FOLDERS = 3


def is_glob(text: str) -> bool:
    """Return whether a text has wildcards."""
    return "*" in text or "?" in text


def matches(name: str, glob: str) -> bool:
    """Return whether a glob matches the whole name of a table or column."""
    return fnmatchcase(name, glob.replace("[", "[[]"))


def bracket_hint(text: str) -> str:
    """Return what to say of a name or glob that matches nothing, if that may be its bracket."""
    return "; [ is an ordinary character here: write one entry for each name" if "[" in text else ""


def spelled_start(glob: str) -> str:
    """Return what a glob spells out before its first wildcard."""
    first = _WILD.search(glob)
    return glob if first is None else glob[: first.start()]


def glob_pattern(glob: str) -> re.Pattern[str]:
    """Return the regular expression of a glob; every other character matches itself.

    Matching takes time in proportion to the path's length times the glob's, however many wildcards
    there are: what follows a wildcard is matched where it is first found, and never searched for
    again, which gives the same answer. Only the last ``**`` and the last ``*`` have to reach the
    end. The exception is ``**/`` after anything but a slash, of which only a few are allowed.

    Raises:
        ConfigError: There are more than `_INNER_FOLDERS` of them.
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
        # Any place where a block ends is as good as the first if the rest can be skipped.
        is_free = following[0][0] == "**/" and not block[-1][1].endswith("/")
        if is_free and any(wild for wild, _ in block):
            inner += 1
            parts += [_AS_PATTERN[wild] + literal for wild, literal in block]
        else:
            parts.append(f"(?>{''.join(map(_first, block))})")
    if inner > _INNER_FOLDERS:
        raise ConfigError(
            f"files.glob has {inner} **/ that follow something other than a slash, and at most "
            f"{_INNER_FOLDERS} are allowed; put a slash before each"
        )
    *ahead, (wild, literal) = blocks[-1]
    parts += [*map(_first, ahead), _AS_PATTERN[wild] + literal]
    return re.compile("".join(parts), re.DOTALL)


def _first(piece: tuple[str, str]) -> str:
    """Return the pattern of a wildcard and its next text, matched where that is first found."""
    wild, literal = piece
    if wild == "*":
        return f"(?>[^/]*?{literal})"
    return {"": "", "**/": "(?:.*?/)??", "**": ".*?"}[wild] + literal


def _literal(text: str) -> str:
    return "".join("[^/]" if letter == "?" else re.escape(letter) for letter in text)


def glob_reaches(uri: str, glob: str, folder: str) -> bool:
    """Return whether a glob may match objects in a folder, other than hidden ones.

    Args:
        uri: Where the glob starts, in any form.
        glob: As in ``files.glob``.
        folder: The folder, in any form.
    """
    *parents, last = glob.lstrip("/").split("/")
    literal = list(itertools.takewhile(lambda name: not is_glob(name), parents))
    root = normal_uri("/".join([uri.rstrip("/"), *map(_encode_for(uri), literal)]))
    if is_inside(root, folder):
        return True
    if not is_inside(folder, root):
        return False
    below = normal_uri(folder).removeprefix(root.rstrip("/")).strip("/").split("/")
    if any(name.startswith((".", "_")) and "=" not in name for name in below):
        return False
    names = [*parents[len(literal) :], last]
    for name, wanted in zip(below, names, strict=False):
        if "**" in wanted:
            return True
        if not matches(name, wanted):
            return False
    return len(names) > len(below)


def _encode_for(uri: str) -> Callable[[str], str]:
    """Return how names below a URI are spelled: ``file://`` URIs are decoded when used."""
    return (lambda name: quote(name, safe="")) if uri.startswith("file://") else (lambda name: name)
