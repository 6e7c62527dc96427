"""Where a table's data and state go: placeholders and path segments.

``{source_name}``, ``{schema}`` and ``{table}`` are placeholders. Names are percent-encoded in URIs,
so that no name becomes two segments, a hidden folder or ``..``; in the catalog they become names
that Athena accepts.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import ValidationError

from extract_jobs.config.model import SourceSettings, TableConfig
from extract_jobs.config.problems import DataProblem, nearest, problems_in
from extract_jobs.spec.parts import TargetSpec
from extract_jobs.spec.uris import absolute
from extract_jobs.storage import encoded, join

DEFAULT_SCHEMA = "public"
UNKNOWN_DATABASE = "default"
QUERY_SCHEMA = "query"
STATE_FOLDER = "_extract"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_IDENTIFIER = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')


@dataclass(frozen=True)
class TableLocation:
    """Where one table's data and state go.

    Attributes:
        target: The target with its placeholders filled in.
        state_uri: Folder of the table's own plans, commits and outcomes.
    """

    target: TargetSpec
    state_uri: str


def segment(name: str) -> str:
    """Return a name as one path segment: UTF-8, percent-encoded except ``A-Z a-z 0-9 _ . - ~``.

    A leading ``.`` or ``_`` is encoded too: engines treat such folders as hidden.
    """
    encoded = quote(name, safe="")
    return f"%{ord(encoded[0]):02X}{encoded[1:]}" if encoded[:1] in (".", "_") else encoded


def _segment_of_uri(name: str) -> str:
    return encoded(segment(name))


def catalog_name(name: str) -> str:
    """Return a name that Athena accepts: lower case letters, digits and underscores."""
    return re.sub(r"[^a-z0-9_]", "_", name.lower())


def default_schema(source: SourceSettings) -> str:
    """Return what ``{schema}`` is for a table that is named without one.

    MySQL's schemas are its databases, so it is the database of the connection, or ``default`` if
    the config does not name it but a secret or variable does.
    """
    if source.type != "mysql":
        return DEFAULT_SCHEMA
    try:
        url = urlsplit(source.connection.url or "")
    except ValueError:
        return UNKNOWN_DATABASE  # the connection's own check says what is wrong
    named = [unquote(url.path.removeprefix("/")), *parse_qs(url.query).get("dbname", ())]
    return source.connection.database or next(filter(None, named), UNKNOWN_DATABASE)


def table_parts(
    extract_table: str, is_query: bool = False, schema: str = DEFAULT_SCHEMA
) -> tuple[str, str]:
    """Return schema and table of a name, for placeholders.

    Args:
        extract_table: ``schema.table`` or ``table``; parts may be quoted as in SQL. Without quotes
            the schema ends at the first dot.
        is_query: Whether it names a query; then the whole name is the table.
        schema: That of a table that is named without one.

    Returns:
        The schema is ``query`` for a query.
    """
    if is_query:
        return QUERY_SCHEMA, extract_table
    first = _IDENTIFIER.match(extract_table)
    if first is None:
        return schema, extract_table
    rest = extract_table[first.end() :]
    if not rest.startswith(".") or len(rest) == 1:
        return schema, _bare(extract_table)
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
    parts = _PLACEHOLDER.split(template)
    for name in parts[1::2]:
        if name not in names:
            known = ", ".join(f"{{{n}}}" for n in names)
            raise ValueError(
                f"unknown placeholder {{{name}}}{nearest(name, names)} (known: {known})"
            )
    if any("{" in literal or "}" in literal for literal in parts[::2]):
        raise ValueError("unbalanced brace")
    parts[1::2] = [encode(names[name]) for name in parts[1::2]]
    return "".join(parts)


def default_state_base(target_uri: str) -> str:
    """Return ``_extract`` at the root of the target's bucket, or beside a local target's folder."""
    if target_uri.startswith("s3://"):
        return join("s3://" + target_uri.removeprefix("s3://").split("/", 1)[0], STATE_FOLDER)
    parent = posixpath.dirname(target_uri.rstrip("/"))
    return posixpath.join(parent, STATE_FOLDER) if parent else STATE_FOLDER


class Filling:
    """Fills in the placeholders of one table."""

    def __init__(
        self, source: SourceSettings, name: str, *, is_query: bool, folder: str | None
    ) -> None:
        schema, bare = table_parts(name, is_query, default_schema(source))
        self._names = {"source_name": source.name, "schema": schema, "table": bare}
        self._name, self._folder = name, folder

    def uri(self, template: str) -> str:
        """Return a URI or path; raises ValueError, as `fill`."""
        # A file:// URI is decoded when it is used; the segment must survive decoding.
        encode = _segment_of_uri if template.startswith("file://") else segment
        text = fill(template, self._names, encode)
        if text.startswith("~") and not template.startswith("~"):
            text = f"./{text}"  # the table's name begins with ~ and is not a home folder
        return absolute(text, self._folder)

    def catalog_name(self, template: str) -> str:
        """Return a database's or table's name; raises ValueError, as `fill`."""
        return fill(template, self._names, catalog_name)

    def state(self, target_uri: str, template: str | None) -> str:
        """Return the table's state folder; raises ValueError, as `fill`.

        Args:
            target_uri: The target, filled in.
            template: The base of the state; None takes the default.
        """
        base = default_state_base(target_uri) if template is None else self.uri(template)
        return join(base, segment(self._names["source_name"]), segment(self._name))


def location_of(
    source: SourceSettings, name: str, table: TableConfig, folder: str | None = None
) -> tuple[TableLocation | None, list[DataProblem]]:
    """Fill in a table's placeholders.

    Args:
        source: The source.
        name: The table's key in the config.
        table: Its merged config.
        folder: Where relative paths start; None leaves them unchanged.

    Returns:
        The location and no problems, or None and every problem.
    """
    filling = Filling(source, name, is_query=table.query is not None, folder=folder)
    found: list[DataProblem] = []

    def filled(path: tuple[str, ...], template: str, fill: Callable[[str], str]) -> str:
        try:
            return fill(template)
        except ValueError as error:
            found.append(DataProblem(path, str(error)))
            return template

    target = table.target.model_dump()
    target["uri"] = filled(("target", "uri"), table.target.uri, filling.uri)
    if table.target.catalog:
        catalog = target["catalog"]
        for key in ("database", "table"):
            path = ("target", "catalog", key)
            catalog[key] = filled(path, catalog[key], filling.catalog_name)
        if catalog["path"] is not None:
            catalog["path"] = absolute(catalog["path"], folder)
    state_uri = filled(
        ("state_uri",),
        table.state_uri or "",
        lambda _: filling.state(target["uri"], table.state_uri),
    )
    if found:
        return None, found
    try:
        checked = TargetSpec.model_validate(target)
    except ValidationError as error:
        inner = problems_in(error, target, TargetSpec)
        return None, [replace(f, path=("target", *f.path)) for f in inner]
    return TableLocation(checked, state_uri), []
