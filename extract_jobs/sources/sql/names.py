"""Table names as users write them: what they may mean, and suggestions for wrong ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping


def readings(name: str, quote: str = '"') -> list[tuple[str | None, str]]:
    """Return every way to read a table's name as (schema, table), the likeliest first.

    Args:
        name: ``schema.table`` or ``table``, where either part may be quoted; without any quotes,
            either may hold dots.
        quote: The dialect's quote for names.
    """
    part = rf"(?:{quote}((?:[^{quote}]|{quote}{quote})+){quote}|([^{quote}.]+))"
    found: list[tuple[str | None, str]] = []
    parts = re.fullmatch(rf"(?:{part}\.)?{part}", name)
    if parts and (parts[1] or parts[3]):
        schema, table = (
            value.replace(quote * 2, quote) if value else bare
            for value, bare in ((parts[1], parts[2]), (parts[3], parts[4]))
        )
        found.append((schema, table))
    dots = [match.start() for match in re.finditer(r"\.", name)]
    found += [(name[:dot], name[dot + 1 :]) for dot in dots if name[:dot] and name[dot + 1 :]]
    return [*found, (None, name)]


def spelled(schema: str | None, table: str, quote: str = '"') -> str:
    """Return a name that `readings` first reads as this schema and table, quoted if needed.

    A ``*`` or ``?`` is quoted too: without quotes, a config takes it for a pattern.
    """
    plain = table if schema is None else f"{schema}.{table}"
    if readings(plain, quote)[0] == (schema, table) and not any(c in plain for c in "*?"):
        return plain

    def quoted(name: str) -> str:
        return quote + name.replace(quote, quote * 2) + quote

    return quoted(table) if schema is None else f"{quoted(schema)}.{quoted(table)}"


def nearest(wanted: Iterable[str], known: Mapping[str, str], visible: int) -> str:
    """Return the end of a message about a missing table: the nearest names, or how many.

    Args:
        wanted: What it may have meant.
        known: Existing names by the form they are compared in, in lower case.
        visible: How many tables the user can see.
    """
    close: dict[str, None] = {}
    for text in wanted:
        for match in difflib.get_close_matches(text.lower(), known, n=3, cutoff=0.6):
            close[known[match]] = None
    names = list(close)[:3]
    return (
        f"; did you mean {' or '.join(names)}?"
        if names
        else f" (tables that the user can see: {visible})"
    )
