"""Counts, sizes and tables as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from extract_jobs.errors import printable

_BARS = "▁▂▃▄▅▆▇█"
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def size_text(size: float | None) -> str:
    """Return bytes in readable decimal form, ``4.2 MB``; ``?`` if unknown."""
    if size is None:
        return "?"
    power = 0
    while size >= 999.5 and power < len(_SIZES) - 1:
        size, power = size / 1000, power + 1
    return (
        f"{size:.0f} {_SIZES[power]}"
        if power == 0 or size >= 100
        else f"{size:.1f} {_SIZES[power]}"
    )


def count_text(count: int | None) -> str:
    """Return a count with separated thousands; ``?`` if unknown."""
    return "?" if count is None else f"{count:,}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 row``, ``1,234 rows``."""
    return f"{count_text(count)} {noun}{'' if count == 1 else 's'}"


def rough_age(age: timedelta) -> str:
    """Return an age in its largest unit: ``40 s``, ``12 min``, ``5 h``, ``3 d``."""
    seconds = max(0, int(age.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (seconds >= size and unit == "min"):
            return f"{seconds // size:,} {unit}"
    return f"{seconds} s"


def spark_line(values: Sequence[int]) -> str:
    """Return a bar for each value, as high as its share of the greatest."""
    top = max(values, default=0)
    return "".join(_BARS[value * (len(_BARS) - 1) // top if top else 0] for value in values)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines with aligned columns, without trailing blanks.

    A name's control characters are shown escaped.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
