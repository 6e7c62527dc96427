"""How a table could be extracted, going by what the source's catalogue says about it.

Suggestions are safe: anything that could leave rows out is only a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from extract_jobs.errors import printable
from extract_jobs.reporting.figures import counted, size_text
from extract_jobs.schema import Column, TableDescription
from extract_jobs.spec.listed_table import ListedTable

SMALL_BYTES = 128 * 2**20
"""Smaller tables are read whole: an increment would save nothing noticeable."""
LARGE_BYTES = 256 * 2**30
"""One machine needs a quarter of an hour for a table of that size, or more."""

_CHANGED = re.compile(
    r"(?:.*_)?(?:updated|modified|changed|last_?(?:update|modified|change)|(?:sys)?mod(?:ify)?)"
    r"_?(?:at|on|ts|time|timestamp|date|datetime|dt)?",
    re.IGNORECASE,
)
_PERSONAL = re.compile(
    r"e[-_ ]?mail|phone|mobile|fax|birth|\bdob\b|ssn|social_sec|passport|iban|credit_?card|card_n"
    r"|first_?name|last_?name|full_?name|sur_?name|given_?name|maiden|street|address|zip_?code"
    r"|postal|\bip\b|ip_addr|password|passwd|secret|token|salary|gender|religion",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Suggestion:
    """One table's part of a config.

    Attributes:
        name: Its key.
        about: What it is, for a comment beside the key.
        lines: YAML below the key, without indentation; those that begin with ``#`` are comments.
        problem: Why it cannot be extracted unchanged; then the whole part is a comment.
    """

    name: str
    about: str = ""
    lines: tuple[str, ...] = ()
    problem: str | None = None

    def text(self, indent: str) -> str:
        """Return the part as lines of YAML that end with a newline."""
        key = plain_or_quoted(self.name)
        if self.problem is not None:
            reason = " ".join(printable(self.problem.removeprefix(f"{self.name}: ")).split())
            return f"{indent}# {key}:  # {reason}\n"
        about = f"  # {printable(self.about)}" if self.about else ""
        return "".join(
            [f"{indent}{key}:{about}\n", *(f"{indent}  {line}\n" for line in self.lines)]
        )


def suggest(listed: ListedTable, found: TableDescription) -> Suggestion:
    """Return how a table could be extracted, each choice with its reason.

    Args:
        listed: The table as its source lists it.
        found: The same table, described.
    """
    parts = []
    if found.estimated_bytes is not None and found.kind != "view":
        parts.append(size_text(found.estimated_bytes))
    if found.estimated_rows is not None:
        parts.append(f"about {counted(found.estimated_rows, 'row')}")
    if found.kind != "table":
        parts.append({"files": "", "view": "view or foreign table"}.get(found.kind, found.kind))
    parts.append(f"key {', '.join(found.key)}" if found.key else "")
    watermark = _watermark(listed, found)
    keyed = watermark is not None and bool(found.key)
    lines = [
        *_files(listed),
        *_job_type(found),
        *_mode(listed, found, watermark),
        *_columns(found, keyed=keyed),
    ]
    return Suggestion(listed.name, ", ".join(filter(None, parts)), tuple(lines))


def own_values(listed: ListedTable) -> dict[str, Any]:
    """Return the keys that a table has in any case, as in a file."""
    if listed.glob is None:
        return {}
    return {"files": _files_values(listed)}


def _files_values(listed: ListedTable) -> dict[str, str]:
    values = {"glob": listed.glob, "format": listed.format, "delimiter": listed.delimiter}
    return {key: text for key, text in values.items() if text is not None}


def _files(listed: ListedTable) -> Iterator[str]:
    if listed.glob is not None:
        values = (f"{key}: {quoted(text)}" for key, text in _files_values(listed).items())
        yield f"files: {{{', '.join(values)}}}"
        yield "# mode: incremental        # only files that are new or were replaced"


def _job_type(found: TableDescription) -> Iterator[str]:
    if (found.estimated_bytes or 0) >= LARGE_BYTES:
        yield "# job_type: glue           # on AWS, where several machines read it at the same time"


def _mode(listed: ListedTable, found: TableDescription, watermark: Column | None) -> Iterator[str]:
    if _is_read_whole(listed, found):
        return
    if watermark is not None:
        name = printable(watermark.name)
        yield f"# {name} is indexed, and its name says when a row changed. If every"
        yield "# change sets it, runs can take only newer rows. Deletes are missed."
        if not found.key:
            yield "# Without a key they cannot follow a run in mode full: start over with another"
            yield "# state_uri and target."
        yield "# mode: incremental"
        yield f"# watermark: {{column: {quoted(watermark.name)}, delay: 1m}}"
        partition = quoted(f"day({watermark.name})")
        again = "   # if files are there already: run once with --set mode=full"
        yield f"# target: {{partition_by: [{partition}]}}{again if found.key else ''}"
    elif changed := next(filter(_orders_changes, found.columns), None):
        yield f"# An index on {printable(changed.name)} would allow mode: incremental by it."
    elif found.kind == "table" and found.source_version.startswith("PostgreSQL"):
        yield "# No column orders changes. PostgreSQL can read only what later transactions wrote."
        yield "# After a run in mode full, start over with another state_uri and target."
        yield "# mode: incremental"
        yield "# watermark: {snapshot: true}"


def _is_read_whole(listed: ListedTable, found: TableDescription) -> bool:
    """Whether the default, mode full, is right."""
    is_small = (found.estimated_bytes or 0) < SMALL_BYTES
    return listed.glob is not None or found.kind == "view" or is_small


def _watermark(listed: ListedTable, found: TableDescription) -> Column | None:
    """Return the indexed column that shows when a row changed; better one that is never NULL."""
    if _is_read_whole(listed, found):
        return None
    indexed = [c for c in found.columns if _orders_changes(c) and c.name in listed.indexed]
    return min(indexed, key=lambda column: column.nullable, default=None)


def _orders_changes(column: Column) -> bool:
    return column.watermark in ("timestamp", "timestamptz") and bool(
        _CHANGED.fullmatch(column.name)
    )


def _columns(found: TableDescription, *, keyed: bool) -> Iterator[str]:
    personal = [column.name for column in found.columns if _PERSONAL.search(column.name)]
    masks = ", ".join(f"{quoted(name)}: redact" for name in personal[:20])
    parts = []
    if keyed:
        key = ", ".join(map(quoted, found.key))
        parts.append((f"key: [{key}]", "no row is written twice, also after mode full"))
    if personal:
        parts.append((f"mask: {{{masks}}}", "names that look personal"))
    if len(parts) == 1:
        [(part, why)] = parts
        yield f"# columns: {{{part}}}   # {why}"
    elif parts:
        yield "# columns:"
        yield from (f"#   {part}   # {why}" for part, why in parts)


def plain_or_quoted(text: str) -> str:
    """Return text as a YAML key, quoted only where it must be."""
    return text if re.fullmatch(r"[A-Za-z_][\w.$-]*", text, re.ASCII) else quoted(text)


def quoted(text: str) -> str:
    """Return text as a YAML scalar on one line, whatever is in it."""
    if re.fullmatch(r"[A-Za-z_]\w*", text, re.ASCII) and text.lower() not in _WORDS:
        return text
    inner = (_ESCAPES.get(c) or (c if c.isprintable() else f"\\U{ord(c):08x}") for c in text)
    return f'"{"".join(inner)}"'


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\t": "\\t"}
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n", "none"})
