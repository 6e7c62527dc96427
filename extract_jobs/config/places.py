"""Places of a config's tables, and tables that would get into each other's way.

To know whether one table can run beside the others of its config takes their places alone, which
are cheap: the others need not be valid.
"""

from __future__ import annotations

import posixpath
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from extract_jobs.config.locations import Filling, TableLocation
from extract_jobs.config.model import SourceSettings
from extract_jobs.spec.globs import glob_reaches
from extract_jobs.spec.uris import NormalUris, absolute

KEYS = ("target", "state_uri", "query", "files")
"""Keys of a table that its place depends on."""
_CATALOG = ("path", "url", "warehouse", "database", "table")


@dataclass(frozen=True)
class Place:
    """Where a table's data and state go, and which files it reads.

    Attributes:
        target_uri: Its target.
        state_uri: Its state folder.
        catalog: What identifies its catalog table, as `_CATALOG`; None if it has none.
        glob: Its ``files.glob``, if the source has files.
    """

    target_uri: str
    state_uri: str
    catalog: tuple[str, ...] | None = None
    glob: str | None = None

    @classmethod
    def of(cls, location: TableLocation, glob: str | None) -> Place:
        """Return the place of a table that is valid."""
        target = location.target
        names = None
        if target.catalog is not None:
            names = tuple(getattr(target.catalog, key) or "" for key in _CATALOG)
        return cls(target.uri, location.state_uri, names, glob)


def place_in(
    source: SourceSettings, name: str, values: Mapping[str, Any], folder: str | None
) -> Place | None:
    """Return the place that a table has if it is valid, from its values as they are written.

    Args:
        source: The source.
        name: The table's.
        values: Its merged values, or at least those of `KEYS`.
        folder: Where relative paths start.

    Returns:
        None if the values are so wrong that it has no place.
    """
    target, files = values.get("target"), values.get("files")
    catalog = target.get("catalog") if isinstance(target, Mapping) else None
    fill = Filling(source, name, is_query=values.get("query") is not None, folder=folder)
    try:
        uri = fill.uri(_text(target, "uri"))
        state_uri = fill.state(uri, values.get("state_uri") and _text(values, "state_uri"))
        names = None
        if catalog is not None:
            database, table = (fill.catalog_name(_text(catalog, k)) for k in ("database", "table"))
            others = [
                _text(catalog, key) if catalog.get(key) is not None else "" for key in _CATALOG[:3]
            ]
            path = absolute(others[0], folder) if others[0] else ""
            names = (path, *others[1:], database, table)
    except (ValueError, TypeError):
        return None
    glob = files.get("glob") if isinstance(files, Mapping) else None
    return Place(uri, state_uri, names, glob if isinstance(glob, str) else None)


def _text(values: Any, key: str) -> str:
    value = values[key] if isinstance(values, Mapping) and key in values else None
    if not isinstance(value, str):
        raise TypeError(f"{key} is no text")
    return value


@dataclass(frozen=True)
class Clash:
    """Two tables that get into each other's way.

    Attributes:
        name: The table that is refused.
        other: The table that it disturbs, or that disturbs it.
        text: What is wrong with the first.
    """

    name: str
    other: str
    text: str


def clashes(
    places: Mapping[str, Place], about: Container[str] | None = None, source_uri: str | None = None
) -> Iterator[Clash]:
    """Yield the tables that cannot be where they are.

    Case is ignored, because file systems and catalogs may ignore it. A location inside another
    table's target counts too: its readers would see both tables' files.

    Args:
        places: Of all tables.
        about: Only pairs that have one of these tables are wanted; None takes all.
        source_uri: Where the tables' files are, if the source has files.
    """
    normal, wanted = NormalUris(), places if about is None else about
    for one in _shared(places, normal):
        if one.name in wanted or one.other in wanted:
            yield one
    if source_uri is not None:
        yield from _read(places, wanted, source_uri, normal)


def _shared(places: Mapping[str, Place], normal: NormalUris) -> Iterator[Clash]:
    """Yield tables whose location another table uses."""
    targets = {name: normal(at.target_uri).casefold() for name, at in places.items()}
    states = {name: normal(at.state_uri).casefold() for name, at in places.items()}
    catalogs = {
        name: "{}{}{}{}.{}".format(*at.catalog).lower() for name, at in places.items() if at.catalog
    }
    for what, taken in (
        ("target.uri", targets),
        ("state path", states),
        ("target.catalog", catalogs),
    ):
        first: dict[str, str] = {}
        for name, uri in taken.items():
            other = first.setdefault(uri, name)
            if other != name:
                text = f"has the same {what} as {other}: {_printed(places[name], what)}"
                yield Clash(name, other, text)
    yield from _nested(targets, states)


def _printed(at: Place, what: str) -> str:
    if what == "target.catalog" and at.catalog:
        return ".".join(at.catalog[-2:])
    return at.target_uri if what == "target.uri" else at.state_uri


def _nested(targets: Mapping[str, str], states: Mapping[str, str]) -> Iterator[Clash]:
    owners = {uri: name for name, uri in targets.items()}
    nearest: dict[str, str | None] = {"": None}

    def target_at(folder: str) -> str | None:
        """Return the nearest target that is a folder or contains it."""
        passed = []
        while folder not in nearest and folder not in owners:
            passed.append(folder)
            parent = posixpath.dirname(folder)
            folder = parent if parent != folder else ""
        found = folder if folder in owners else nearest[folder]
        nearest.update(dict.fromkeys(passed, found))
        return found

    for what, inner in (("target.uri", targets), ("state path", states)):
        for name, uri in inner.items():
            above = target_at(posixpath.dirname(uri))
            if above is not None and owners[above] == name:
                above = target_at(posixpath.dirname(above))
            if above is not None:
                owner = owners[above]
                yield Clash(
                    name, owner,
                    f"its {what} is inside the target of {owner}, whose readers would see its "
                    "files",
                )  # fmt: skip


def _read(
    places: Mapping[str, Place], about: Container[str], uri: str, normal: NormalUris
) -> Iterator[Clash]:
    """Yield tables whose glob matches what another table writes."""
    owners = {
        name: written
        for name, at in places.items()
        if (written := [p for p in (at.target_uri, at.state_uri) if normal.overlap(p, uri)])
    }
    wanted = {name: written for name, written in owners.items() if name in about}
    for name, at in places.items():
        others = owners if name in about else wanted
        for other, written in others.items() if at.glob is not None else ():
            if name != other and any(glob_reaches(uri, at.glob or "", p) for p in written):
                text = f"its files.glob {at.glob} may match what is written for {other}"
                yield Clash(name, other, text)
                break
