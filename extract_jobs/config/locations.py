"""Where a table's data and state go: placeholders, path segments, and places taken twice.

``{source_name}``, ``{schema}`` and ``{table}`` are filled in. In URIs names are percent-encoded,
so that none of them is two segments, hidden, or ``..``; in the catalog they are made into names
that Athena takes.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from pydantic import ValidationError

from extract_jobs.config.model import TableConfig
from extract_jobs.config.problems import Found, found_in, nearest
from extract_jobs.spec.extract_spec import TargetSpec
from extract_jobs.spec.places import absolute, normal
from extract_jobs.storage import encoded, join

DEFAULT_SCHEMA = "public"
QUERY_SCHEMA = "query"
STATE_FOLDER = "_extract"
_IDENTIFIER = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')


@dataclass(frozen=True)
class Places:
    """Where one table goes.

    Attributes:
        target: The target with its placeholders filled in.
        state_uri: Folder of the table's own plans, commits and outcomes.
    """

    target: TargetSpec
    state_uri: str


def segment(name: str) -> str:
    """Return a name as one path segment: UTF-8, percent-encoded save ``A-Z a-z 0-9 _ . - ~``.

    A leading ``.`` or ``_`` is encoded too: engines take such folders for hidden.
    """
    encoded = quote(name, safe="")
    return f"%{ord(encoded[0]):02X}{encoded[1:]}" if encoded[:1] in (".", "_") else encoded


def _segment_of_uri(name: str) -> str:
    return encoded(segment(name))


def catalog_name(name: str) -> str:
    """Return a name as Athena takes it: lower case letters, digits and underscores."""
    return re.sub(r"[^a-z0-9_]", "_", name.lower())


def table_parts(extract_table: str, is_query: bool = False) -> tuple[str, str]:
    """Return schema and table of a name, for placeholders.

    Args:
        extract_table: ``schema.table`` or ``table``; parts may be quoted as in SQL. Unquoted, the
            first dot ends the schema.
        is_query: Whether it names a query: all of it is the table then.

    Returns:
        The schema is ``query`` for a query, and ``public`` for a table that names none.
    """
    if is_query:
        return QUERY_SCHEMA, extract_table
    first = _IDENTIFIER.match(extract_table)
    if first is None:
        return DEFAULT_SCHEMA, extract_table
    rest = extract_table[first.end() :]
    if not rest.startswith(".") or len(rest) == 1:
        return DEFAULT_SCHEMA, _bare(extract_table)
    return _bare(first[0]), _bare(rest[1:])


def _bare(identifier: str) -> str:
    if len(identifier) > 2 and identifier[0] == identifier[-1] == '"':
        return identifier[1:-1].replace('""', '"')
    return identifier


def fill(template: str, names: Mapping[str, str], encode: Callable[[str], str]) -> str:
    """Return ``template`` with its placeholders filled in.

    Raises:
        ValueError: A placeholder that is not one of ``names``, or a stray brace.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in names:
            known = ", ".join(f"{{{n}}}" for n in names)
            raise ValueError(
                f"unknown placeholder {{{name}}}{nearest(name, names)} (known: {known})"
            )
        return encode(names[name])

    filled = re.sub(r"\{([^{}]*)\}", value, template)
    if re.search(r"[{}]", re.sub(r"\{([^{}]*)\}", "", template)):
        raise ValueError("a brace without its partner")
    return filled


def default_state_base(target_uri: str) -> str:
    """Return ``_extract`` at the root of the target's bucket, or beside a local target's folder."""
    if target_uri.startswith("s3://"):
        return join("s3://" + target_uri.removeprefix("s3://").split("/", 1)[0], STATE_FOLDER)
    parent = posixpath.dirname(target_uri.rstrip("/"))
    return posixpath.join(parent, STATE_FOLDER) if parent else STATE_FOLDER


def places_of(
    source_name: str, name: str, table: TableConfig, folder: str | None = None
) -> tuple[Places | None, list[Found]]:
    """Fill a table's placeholders in.

    Args:
        source_name: The source's name.
        name: The table's key in the config.
        table: Its merged config.
        folder: What relative paths start from; None leaves them as they are.

    Returns:
        Where it goes, and no problem; or None and every problem.
    """
    schema, bare = table_parts(name, table.query is not None)
    names = {"source_name": source_name, "schema": schema, "table": bare}
    found: list[Found] = []

    def filled(path: tuple[str, ...], template: str, encode: Callable[[str], str] = segment) -> str:
        if template.startswith("file://") and encode is segment:
            # Such a URI is decoded when it is used, and the segment must be left by that.
            encode = _segment_of_uri
        try:
            text = fill(template, names, encode)
            if text.startswith("~") and not template.startswith("~"):
                text = f"./{text}"  # a table's name, and nobody's home
            return absolute(text, folder) if encode is segment else text
        except ValueError as error:
            found.append(Found(path, str(error)))
            return template

    target = table.target.model_dump()
    target["uri"] = filled(("target", "uri"), table.target.uri)
    if table.target.catalog:
        target["catalog"] = {
            key: filled(("target", "catalog", key), text, catalog_name)
            for key, text in table.target.catalog.model_dump().items()
        }
    if table.state_uri is None:
        base = default_state_base(target["uri"])
    else:
        base = filled(("state_uri",), table.state_uri)
    if found:
        return None, found
    try:
        checked = TargetSpec.model_validate(target)
    except ValidationError as error:
        inner = found_in(error, target, TargetSpec)
        return None, [Found(("target", *f.path), f.text, f.partial) for f in inner]
    return Places(checked, join(base, segment(source_name), segment(name))), []


def collisions(places: Mapping[str, Places]) -> Iterator[tuple[str, str]]:
    """Yield (table, what is wrong) for every table whose place another table has.

    Places are compared without regard to case: file systems and catalogs may not tell them apart.
    A place inside another table's target counts too: its readers would see both tables' files.
    """
    targets = {name: _comparable(p.target.uri) for name, p in places.items()}
    states = {name: _comparable(p.state_uri) for name, p in places.items()}
    catalogs = {
        name: f"{p.target.catalog.database}.{p.target.catalog.table}".lower()
        for name, p in places.items()
        if p.target.catalog
    }
    for what, taken in (
        ("target.uri", targets),
        ("state path", states),
        ("target.catalog", catalogs),
    ):
        first: dict[str, str] = {}
        for name, place in taken.items():
            other = first.setdefault(place, name)
            if other != name:
                yield name, f"has the same {what} as {other}: {_told(places[name], what)}"
    yield from _nested(targets, states)


def _told(place: Places, what: str) -> str:
    if what == "target.catalog" and place.target.catalog:
        return f"{place.target.catalog.database}.{place.target.catalog.table}"
    return place.target.uri if what == "target.uri" else place.state_uri


def _nested(targets: Mapping[str, str], states: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    owners = {place: name for name, place in targets.items()}
    for what, inner in (("target.uri", targets), ("state path", states)):
        for name, place in inner.items():
            above = posixpath.dirname(place)
            while above and above != posixpath.dirname(above):
                if above in owners and owners[above] != name:
                    yield (
                        name,
                        (
                            f"its {what} lies inside the target of {owners[above]}, whose readers "
                            "would see it"
                        ),
                    )
                    break
                above = posixpath.dirname(above)


def _comparable(uri: str) -> str:
    """Return a place in a form in which also places are equal that differ in case only."""
    return normal(uri).casefold()
