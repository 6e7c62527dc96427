"""Tables of HTML, as notebooks show results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def html_facts(title: str, facts: Iterable[tuple[str, Any]]) -> str:
    """Return names and values as a table of HTML; values that are None are left out."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(str(value))}</td></tr>'
        for name, value in facts
        if value is not None
    )
    return f"<table><caption>{escape(title)}</caption>{rows}</table>"


def html_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as a table of HTML."""

    def line(tag: str, cells: Sequence[Any]) -> str:
        inner = "".join(
            f'<{tag} style="text-align:left">{escape(str(cell))}</{tag}>' for cell in cells
        )
        return f"<tr>{inner}</tr>"

    return f"<table>{line('th', head)}{''.join(line('td', row) for row in rows)}</table>"
