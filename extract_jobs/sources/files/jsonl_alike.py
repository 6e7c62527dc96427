"""Blocks of JSON lines whose objects all have the same keys in the same order, as programs write.

Such a block needs no parser. Without a backslash every other quote ends a text, and a key if a
colon follows. numpy finds all of them, and compares what stands between the values with the first
line. What is left are the values, as bytes of the block. Their texts are what
`jsonl_rows.JsonLines` would find; it judges every block that is in any way different.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.schema import Column
from extract_jobs.sources.files.plain_texts import PlainNumbers, plain_numbers
from extract_jobs.sources.files.type_inference import BOOLEAN, TEXT, TypeProfile, of_plain_numbers

_QUOTE, _COLON, _NEWLINE, _BLANK = b'":\n '
_NULL, _TRUE, _FALSE = b"ntf"
_SMALLEST = 1e-6
"""DuckDB prints smaller numbers with an exponent; then their profile is another one."""

_Places = npt.NDArray[np.intp]
_Bytes = npt.NDArray[np.uint8]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Alike:
    """Objects with the same keys in the same order. All are valid JSON if their bare values are.

    Attributes:
        keys: The keys of each, in order.
        rows: Number of objects.
    """

    keys: tuple[str, ...]
    rows: int
    _between: pa.StringArray  # values of all keys, object by object, and what stands between them
    _first: _Bytes  # first byte of each value, a row for each object
    _positions: Mapping[str, int]

    def texts(self, key: str) -> tuple[pa.StringArray, _Flags]:
        """Return a key's values, texts without their quotes, and which of them are texts."""
        position, step = self._positions[key], 2 * len(self.keys)
        places = np.arange(2 * position, step * self.rows, step)
        return self._between.take(pa.array(places)), self._first[:, position] == _QUOTE

    def profiles(self, known: Mapping[str, TypeProfile]) -> dict[str, TypeProfile] | None:
        """Return what is known about some keys after these objects; None if they may be invalid.

        Args:
            known: What is known of each key so far. If that settles a key's type, it stays.
        """
        found = {}
        for key in self.keys:
            seen = self._profile(key, known[key])
            if seen is None:
                return None
            found[key] = known[key] if known[key].is_settled else known[key] | seen
        return found

    def _profile(self, key: str, known: TypeProfile) -> TypeProfile | None:
        first = self._first[:, self._positions[key]]
        is_text = first == _QUOTE
        if is_text.all():
            return TypeProfile(frozenset({TEXT}))
        texts, _ = self.texts(key)
        words = np.isin(first, (_NULL, _TRUE, _FALSE))
        if words.any():
            given = pc.unique(texts.filter(pa.array(words))).to_pylist()
            if not {"null", "true", "false"}.issuperset(given):
                return None
        numbers = TypeProfile()
        others = ~(is_text | words)
        if others.any():
            seen = _numbers(texts if others.all() else texts.filter(pa.array(others)))
            if seen is None:
                return None
            numbers = of_plain_numbers(seen)
        if is_text.any() or known.is_settled:
            return TypeProfile(frozenset({TEXT}))
        logical = frozenset({BOOLEAN}) if (words & (first != _NULL)).any() else frozenset()
        return TypeProfile(logical) | numbers

    def batch(self, columns: Sequence[Column]) -> pa.RecordBatch | None:
        """Return the objects as rows, None if a value is not of its column's type.

        Args:
            columns: With types for which `jsonl_typed.can_be_typed`, inferred by planning from
                these objects, among others.
        """
        arrays = []
        for column in columns:
            values = self._values(column.name, column.arrow_type)
            if values is None:
                return None
            arrays.append(values)
        return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])

    def _values(self, key: str, target: pa.DataType) -> pa.Array | None:
        if key not in self._positions:
            return pa.nulls(self.rows, target)
        texts, is_text = self.texts(key)
        is_null = self._first[:, self._positions[key]] == _NULL
        if is_null.any():
            if pc.unique(texts.filter(pa.array(is_null))).to_pylist() != ["null"]:
                return None
            texts = pc.if_else(pa.array(is_null), pa.scalar(None, pa.string()), texts)
        if (is_text | is_null).all() if pa.types.is_string(target) else not is_text.any():
            return _converted(texts, target)
        return None


def alike(data: bytes) -> Alike | None:
    """Return the objects of a block of whole lines, None if they are not alike.

    Args:
        data: Valid UTF-8.
    """
    if b"\\" in data or not data:
        return None
    data = data if data.endswith(b"\n") else data + b"\n"
    view = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(view == _NEWLINE)
    if np.count_nonzero(view < _BLANK) != len(ends):
        return None
    quotes = np.flatnonzero(view == _QUOTE)
    closing = quotes[1::2]
    key_ends = closing[view[closing + 1] == _COLON]
    count, odd = divmod(len(key_ends), len(ends))
    if odd or not count:
        return None
    key_ends = key_ends.reshape(len(ends), count)
    leads = _leads(data[: ends[0]], key_ends[0])
    if leads is None:
        return None
    starts = key_ends + np.array([_behind_quote(lead) for lead in leads])
    stops = np.empty_like(starts)
    stops[:, :-1] = starts[:, 1:] - np.array([len(lead) for lead in leads[1:]], np.intp)
    stops[:, -1] = ends - 1
    if not (starts < stops).all() or (starts[1:, 0] - ends[:-1] - 1 != len(leads[0])).any():
        return None
    if not _stand_between(data, starts, stops, leads):
        return None
    first = view[starts]
    is_text = first == _QUOTE
    if len(quotes) != 2 * (key_ends.size + np.count_nonzero(is_text)):
        return None
    last = view[stops - 1]
    if ((last != _QUOTE) & is_text).any() or (stops - starts < 1 + is_text).any():
        return None
    keys = tuple(lead[lead.index(b'"') + 1 : lead.rindex(b'"')].decode() for lead in leads)
    if len(set(keys)) < len(keys):
        return None
    between = _parts(data, starts + is_text, stops - is_text)
    return Alike(keys, len(ends), between, first, {key: i for i, key in enumerate(keys)})


def _parts(data: bytes, starts: _Places, stops: _Places) -> pa.StringArray:
    """Return a text for each pair of places, and between two of them what stands between them."""
    places = np.empty((starts.size, 2), np.int32)
    places[:, 0], places[:, 1] = starts.ravel(), stops.ravel()
    return pa.StringArray.from_buffers(places.size - 1, pa.py_buffer(places), pa.py_buffer(data))


def _leads(line: bytes, key_ends: Iterable[int]) -> list[bytes] | None:
    """Return what stands before each value of an object: ``{"a":``, then ``, "b":``."""
    found: list[bytes] = []
    for end in key_ends:
        start = begin = line.rfind(b'"', 0, end)
        while begin > 0 and line[begin - 1] == _BLANK:
            begin -= 1
        begin -= 1
        if start < 0 or begin < 0 or line[begin : begin + 1] != (b"," if found else b"{"):
            return None
        stop = end + 2
        while stop < len(line) and line[stop] == _BLANK:
            stop += 1
        found.append(line[begin:stop])
    return found


def _behind_quote(lead: bytes) -> int:
    """Return how far behind the end of its key a value begins."""
    return len(lead) - lead.rindex(b'"')


def _stand_between(data: bytes, starts: _Places, stops: _Places, leads: Sequence[bytes]) -> bool:
    """Return whether all that is not a value is as in the first object."""
    one = b"".join(leads[1:]) + b"}\n" + leads[0]
    between = _parts(data, starts, stops).take(pa.array(np.arange(1, 2 * starts.size - 1, 2)))
    if not data.startswith(leads[0]) or not data.endswith(b"}\n"):
        return False
    expected = pa.py_buffer(leads[0] + one * len(starts))
    size = expected.size - 2 * len(leads[0]) - len(b"}\n")
    found = between.buffers()[2]
    return not size or bool(found.slice(0, size).equals(expected.slice(len(leads[0]), size)))


def _numbers(texts: pa.StringArray) -> PlainNumbers | None:
    """Return what numbers are like in the form that DuckDB prints; None unless all are plain."""
    found = plain_numbers(texts)
    if found is None or not found.has_fractions:
        return found
    if not found.has_digits_around_points:
        return None
    if found.scale > 1 and not found.scale_is_needed:
        trimmed = pc.utf8_rtrim(texts, "0")
        whole = pc.binary_join_element_wise(trimmed, "0", "")
        trimmed = pc.if_else(pc.ends_with(trimmed, "."), whole, trimmed)
        found = plain_numbers(pc.if_else(pc.match_substring(texts, "."), trimmed, texts))
    if found is not None and found.scale > -np.log10(_SMALLEST):
        sizes = pc.abs(texts.cast(pa.float64()))
        if pc.any(pc.and_(pc.less(sizes, _SMALLEST), pc.greater(sizes, 0))).as_py():
            return None
    return found


def _converted(texts: pa.StringArray, target: pa.DataType) -> pa.Array | None:
    if pa.types.is_boolean(target):
        true = pc.equal(texts, "true")
        return true if pc.all(pc.or_(true, pc.equal(texts, "false"))).as_py() is not False else None
    try:
        values = texts.cast(target)
    except pa.ArrowInvalid:
        return None
    if pa.types.is_floating(target):
        numbers = values.fill_null(1).to_numpy(zero_copy_only=False)
        if np.signbit(numbers[numbers == 0]).any():
            return None  # -0.0, or the integer -0, which has no sign
    return values
