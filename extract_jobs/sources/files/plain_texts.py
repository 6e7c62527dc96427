"""Recognizes numbers, days and times that are written plainly, by their bytes and with numpy.

This is `type_inference` for almost all values of almost all files, several times faster than its
regular expressions. It never guesses: what is not plain is left to them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_ZERO, _MINUS, _POINT = b"0-."
_BEGINS = frozenset("0123456789-.")
_MAX_INTEGER_DIGITS = 18
"""Every integer of this many digits fits 64 bits."""
_MAX_NUMBER_LENGTH = 16
"""Characters of a number that a double certainly holds: 15 digits and a point."""
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_DAY_LENGTH = len("YYYY-MM-DD")

_WORDS = pa.array(
    ["true", "false", "True", "False", "TRUE", "FALSE", "NaN", "nan", "inf", "Infinity"]
)
"""Texts that begin with a letter and are not of kind text."""
_NUMBER_OR_DAY = np.zeros(256, np.bool_)
_NUMBER_OR_DAY[list(b"0123456789-.")] = True
_WORD = np.zeros(256, np.bool_)
_WORD[list(b"tfTFNniI")] = True

_Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PlainNumbers:
    """What plain numbers are: digits with ``-`` and one point at most, no zero before a digit.

    Attributes:
        has_integers: Whether some have no point.
        has_fractions: Whether some have one.
        whole: Maximum digits of those without.
        digits: Maximum digits before the point.
        scale: Maximum digits behind it.
        scale_is_needed: Whether the last of so many digits is not always 0.
        has_digits_around_points: Whether every point has digits before and behind it.
    """

    has_integers: bool
    has_fractions: bool
    whole: int = 0
    digits: int = 0
    scale: int = 0
    scale_is_needed: bool = True
    has_digits_around_points: bool = True


def plain_numbers(values: pa.StringArray) -> PlainNumbers | None:
    """Return what the numbers are like, None unless all are plain and neither large nor long.

    Integers have at most 18 digits then, and every other number is what the nearest double prints.

    Args:
        values: Texts without NULL, at least one.
    """
    if values[0].as_py()[:1] not in _BEGINS:
        return None  # most texts, without reading them
    data, offsets = _buffers(values)
    starts, ends = offsets[:-1], offsets[1:]
    if not (starts < ends).all():
        return None
    marks = np.flatnonzero(data - _ZERO > 9)
    kinds = data[marks]
    points = marks[kinds == _POINT]
    negative = data[starts] == _MINUS
    minuses = int(np.count_nonzero(negative))
    if len(points) + np.count_nonzero(kinds == _MINUS) < len(marks):
        return None
    if len(points) + minuses < len(marks):
        return None  # one that is not the first character
    firsts = starts + negative if minuses else starts
    if minuses and not (firsts < ends).all():
        return None
    rows = np.searchsorted(ends, points, side="right")
    if len(rows) > 1 and not (rows[1:] > rows[:-1]).all():
        return None  # two points in one text
    has_point = np.zeros(len(starts), np.bool_)
    has_point[rows] = True
    first_is_zero = data[firsts] == _ZERO
    whole = digits = scale = 0
    needed = around = True
    if len(rows):
        before, behind = points - firsts[rows], ends[rows] - points - 1
        lengths = ends[rows] - starts[rows]
        if (
            not (before + behind).all()
            or lengths.max() > _MAX_NUMBER_LENGTH
            or (first_is_zero[rows] & (before > 1)).any()
        ):
            return None
        digits, scale = int(before.max()), int(behind.max())
        needed = (data[ends[rows[behind == scale]] - 1] != _ZERO).any()
        around = before.all() and behind.all()
    integers = len(starts) - len(rows)
    if integers:
        lengths = ends - firsts
        odd = first_is_zero & ((lengths > 1) | negative)
        if integers < len(starts):
            odd, lengths = odd & ~has_point, lengths[~has_point]
        whole = int(lengths.max())
        if odd.any() or whole > _MAX_INTEGER_DIGITS:
            return None
    return PlainNumbers(
        integers > 0, len(rows) > 0, whole, digits, scale, bool(needed), bool(around)
    )


def plain_times(values: pa.StringArray) -> str | None:
    """Return ``date``, ``timestamp`` or ``timestamptz`` if all texts are written like one of these.

    All of them are as long as the first, and have a digit where it has one. Whether there is such a
    day and time is not checked.

    Args:
        values: Texts without NULL, at least one.
    """
    first = values[0].as_py()
    found = _TIME.fullmatch(first)
    if found is None:
        return None
    data, offsets = _buffers(values)
    length = len(first)
    if offsets[-1] != length * len(values) or not (np.diff(offsets) == length).all():
        return None
    table = data.reshape(-1, length)
    for i, character in enumerate(first):
        column = table[:, i]
        if character.isdigit():
            fits = column - _ZERO <= 9
        elif i == _DAY_LENGTH:
            fits = (column == ord("T")) | (column == ord(" "))
        elif character in "+-" and i > _DAY_LENGTH:
            fits = (column == ord("+")) | (column == _MINUS)
        else:
            fits = column == ord(character)
        if not fits.all():
            return None
    years = table[table[:, 0] == _ZERO, : len("YYYY")]
    if len(years) and (years == _ZERO).all(axis=1).any():
        return None  # there is no year 0
    if length == _DAY_LENGTH:
        return "date"
    return "timestamptz" if found[1] else "timestamp"


def not_just_text(values: pa.StringArray) -> pa.Array:
    """Return which texts may be of another kind, by how they begin; all others are just text.

    Args:
        values: Texts without NULL.
    """
    first = first_bytes(values)
    found = _NUMBER_OR_DAY[first]
    letters = _WORD[first]
    if letters.any():
        words = pc.is_in(values.filter(pa.array(letters)), _WORDS)
        found[letters] = words.to_numpy(zero_copy_only=False)
    return pa.array(found)


def first_bytes(values: pa.StringArray) -> _Bytes:
    """Return the first byte of each text, 0 for an empty one.

    Args:
        values: Texts without NULL.
    """
    data, offsets = _buffers(values)
    filled = offsets[:-1] < offsets[1:]
    first = np.zeros(len(values), np.uint8)
    first[filled] = data[offsets[:-1][filled]]
    return first


def _buffers(values: pa.StringArray) -> tuple[_Bytes, npt.NDArray[np.int32]]:
    """Return the bytes of all texts, and where each begins and ends in them."""
    _, places, data = values.buffers()
    offsets = np.frombuffer(places, np.int32)[values.offset : values.offset + len(values) + 1]
    text = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return text[offsets[0] : offsets[-1]], offsets - offsets[0]
