"""JSON lines: one object per line, parsed with DuckDB's JSON functions, ten times Python's speed.

DuckDB reads a number with a fraction or an exponent as a double. So a number that a double cannot
hold is put in quotes first, and arrives as text with all its digits.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.sources.files.blocks import Block
from extract_jobs.sources.files.csv_rows import is_utf8_text
from extract_jobs.sources.files.jsonl_alike import alike
from extract_jobs.sources.files.plain_texts import first_bytes
from extract_jobs.sources.files.texts import CONTENT, Fault, Texts, as_text, check_columns
from extract_jobs.sources.files.type_inference import (
    ARRAY,
    BOOLEAN,
    OBJECT,
    TEXT,
    TypeProfile,
    observe,
)
from extract_jobs.transform.exact_cast import exact_cast

if TYPE_CHECKING:
    import duckdb

_LONG = r"[0-9.]{17,}|[0-9][eE]-0*[1-9][0-9]{2,}\s*[,}\]]"
"""Finds numbers that may have more digits than a double holds, or be too close to 0 for one."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|-?\d++(?:\.\d++(?:[eE][+-]?\d+)?|[eE][+-]?\d+)')
NO_OBJECT = "is not one JSON object"
TWICE = "has a key twice"
NOT_STRICT = (
    "is not valid JSON: it has a trailing comma, a NaN or an infinity (files.json_dialect: "
    "lenient accepts NaN, Infinity and -Infinity)"
)
SURROGATE = "has half of a surrogate pair, which is not valid text"
_QUOTE, _LAST_DIGIT = b'"9'
_BLANKS = re.compile(r"[ \t\r]*")
_JOINED = re.compile(rb"}[ \t\r]*{")
_SUSPECT = r"""(?i),\s*[}\]]|[:\[,]\s*-?(?:nan|inf)"""
"""What DuckDB accepts beyond JSON, if it is outside of a string."""


_CELLS = 2**21
"""Values of all keys in all rows that are extracted at a time, missing ones included. Those of rows
that have all of their keys are fewer in a block."""


_held = threading.local()


class JsonLines:
    """Parses blocks of JSON lines with a DuckDB of its own, in memory and single-threaded."""

    def __init__(self) -> None:
        """Open the database; it uses neither disk nor network."""
        import duckdb

        self._database: duckdb.DuckDBPyConnection = duckdb.connect(
            config={"threads": "1", "autoinstall_known_extensions": "false"}
        )

    @classmethod
    def of_this_thread(cls) -> JsonLines:
        """Return this thread's and process's own: opening one takes longer than a small file."""
        held = getattr(_held, "parser", None)
        if held is None or _held.pid != os.getpid():
            held, _held.pid = cls(), os.getpid()
            _held.parser = held
        return held

    def parse(
        self, block: Block, wanted: Sequence[str], *, lenient: bool, checked: bool = False
    ) -> Iterator[Texts]:
        """Yield the rows of a block in some keys; a value that is not a string is its JSON.

        They come in parts if they lack most of the keys: then a small block has many values.

        Args:
            block: Whole lines.
            wanted: Keys.
            lenient: Whether NaN and infinities are accepted, as Python's own writer spells them.
            checked: Whether `observe` found that all of its lines are objects.
        """
        lines, _, texts = self._objects(block, lenient=lenient, checked=checked)
        most = rows_at_once(len(wanted))
        for start in range(0, len(lines), most) or [0]:
            part, records = lines.slice(start, most), texts.records
            yield replace(
                texts,
                columns=self._extract("json_extract_string", part, wanted),
                rows=len(part),
                records=None if records is None else records.slice(start, most),
                faults=[] if start else texts.faults,
            )

    def observe(
        self,
        block: Block,
        before: Mapping[str, TypeProfile],
        known: Mapping[str, TypeProfile],
        *,
        lenient: bool,
        uri: str,
    ) -> tuple[dict[str, TypeProfile], Texts]:
        """Return what is known about every key after one more block, and the block's faults.

        Args:
            block: Whole lines.
            before: What the file's earlier blocks showed.
            known: What earlier files showed about keys that it may have.
            lenient: As for `parse`.
            uri: The file, for messages.

        Raises:
            ConfigError: There are too many keys.
        """
        found = dict(before)
        same = alike(block.data) if is_utf8_text(block.data) else None
        if same is not None:
            for key in same.keys:
                found.setdefault(key, known.get(key, TypeProfile()))
            check_columns(len(found), uri)
            if (profiles := same.profiles(found)) is not None:
                return found | profiles, Texts([], same.rows, None, list)
            found = dict(before)
        lines, shapes, texts = self._objects(block, lenient=lenient)
        # In an order that does not depend on how DuckDB works.
        shapes = sorted(shapes, key=lambda keys: (-len(keys), keys))
        for key in dict.fromkeys(key for keys in shapes for key in keys):
            found.setdefault(key, known.get(key, TypeProfile()))
        check_columns(len(found), uri)
        open_keys = [key for key, profile in found.items() if not profile.is_settled]
        if len(lines) > rows_at_once(len(open_keys)):
            given = self._by_key(lines, frozenset(open_keys))
        else:
            given = zip(open_keys, self._extract("json_extract", lines, open_keys), strict=True)
        for key, column in given:
            found[key] = self._observe(column, found[key])
        return found, texts

    def _by_key(self, lines: pa.Array, keys: Collection[str]) -> Iterator[tuple[str, pa.Array]]:
        """Yield the values of each key, as JSON and in no order, without rows that lack the key."""
        self._database.register("texts", pa.table({"j": lines}))
        query = """
            select each.key as k, list(each.value::varchar) as v
            from texts, json_each(texts.j) as each group by each.key"""
        table = self._database.execute(query).to_arrow_table().combine_chunks()
        lists = table.column("v").combine_chunks()
        offsets, values = lists.offsets.to_pylist(), lists.values
        for row, key in enumerate(table.column("k").to_pylist()):
            if key in keys:
                yield key, values.slice(offsets[row], offsets[row + 1] - offsets[row])

    def to_list(self, values: pa.Array, item: pa.DataType) -> pa.Array:
        """Return JSON arrays of scalars as lists.

        Raises:
            ArrowInvalid: An element has no faithful form.
        """
        self._database.register("texts", pa.table({"j": values}))
        query = """select json_transform(j, '["VARCHAR"]') as v from texts"""
        lists = self._column(query, pa.list_(pa.string()))
        offsets = pa.array(lists.offsets.to_pylist(), pa.int32())
        return pa.ListArray.from_arrays(
            offsets, exact_cast(lists.values, item), mask=lists.is_null()
        )

    def _objects(
        self, block: Block, *, lenient: bool, checked: bool = False
    ) -> tuple[pa.Array, list[list[str]], Texts]:
        """Return the objects of a block, their keys, and the faults of other lines."""
        raw = block.data.split(b"\n")
        numbers = [i for i, line in enumerate(raw) if line and not line.isspace()]
        filled = raw if len(numbers) == len(raw) else [raw[i] for i in numbers]
        if _JOINED.search(block.data):
            filled, numbers = _parted(filled, numbers)

        def locate() -> list[tuple[int, bytes]]:
            return [(block.line + i, line.rstrip(b"\r")) for i, line in enumerate(raw)]

        records = pa.array(numbers, pa.int64())
        lines, failed = as_text(pa.array(filled, pa.binary()))
        faults = [Fault(numbers[i], None, CONTENT) for i in failed]
        if failed:
            lines, records = lines.drop_null(), records.filter(lines.is_valid())
        if not checked:
            strict = _are_strict(lines, lenient=lenient)
            faults += [
                Fault(r, None, NOT_STRICT) for r in records.filter(pc.invert(strict)).to_pylist()
            ]
            lines, records = lines.filter(strict), records.filter(strict)
        lines = _quoted(lines)
        if checked:
            return lines, [], Texts([], len(lines), records, locate, faults)
        shapes = self._all_objects(lines)
        if shapes is None:
            keep = self._are_objects(lines)
            for record, good, line in zip(
                records.to_pylist(), keep.to_pylist(), lines, strict=True
            ):
                if not good:
                    reason = TWICE if good is None else _why_no_object(line.as_py())
                    faults.append(Fault(record, None, reason))
            mask = keep.fill_null(False)
            lines, records = lines.filter(mask), records.filter(mask)
            shapes = self._shapes(lines)
        return lines, shapes, Texts([], len(lines), records, locate, faults)

    def _all_objects(self, lines: pa.Array) -> list[list[str]] | None:
        """Return the keys of lines that are all objects; None if one is not."""
        import duckdb

        begins = pc.starts_with(pc.utf8_ltrim_whitespace(lines), "{")
        if pc.all(begins).as_py() is False:
            return None
        try:
            shapes = self._shapes(lines)
        except (duckdb.Error, UnicodeDecodeError):
            # DuckDB quotes the line in its message, and may cut it inside of a character.
            return None
        return shapes if all(len(set(keys)) == len(keys) for keys in shapes) else None

    def _are_objects(self, lines: pa.Array) -> pa.Array:
        """Return whether each line is an object, NULL if it has a key twice."""
        self._database.register("texts", pa.table({"j": lines}))
        query = """
            select case when json_valid(j) and json_type(j) = 'OBJECT' then
                case when len(json_keys(j)) = len(list_distinct(json_keys(j))) then true end
            else false end as v from texts"""
        return self._column(query, pa.bool_())

    def _shapes(self, lines: pa.Array) -> list[list[str]]:
        self._database.register("texts", pa.table({"j": lines}))
        found = self._database.execute("select distinct json_keys(j) from texts").fetchall()
        return [keys for (keys,) in found]

    def _extract(self, function: str, lines: pa.Array, keys: Sequence[str]) -> list[pa.Array]:
        if not keys or not len(lines):
            return [pa.nulls(len(lines), pa.string()) for _ in keys]
        self._database.register("texts", pa.table({"j": lines}))
        paths = ", ".join(map(_path, keys))
        query = f"select {function}(j, [{paths}]) as v from texts"
        lists = self._column(query, pa.list_(pa.string()))
        return [pc.list_element(lists, i) for i in range(len(keys))]

    def _column(self, query: str, expected: pa.DataType) -> pa.Array:
        # Without parameters: to look at Python values, DuckDB imports pandas, if that is installed.
        table = self._database.execute(query).to_arrow_table()
        column = table.column("v").combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # of no rows
            return pa.array([], expected)
        return column.cast(expected) if column.type != expected else column

    def _observe(
        self, values: pa.Array, known: TypeProfile, *, inside: bool = False
    ) -> TypeProfile:
        """Return what is known about a key after more of its values, given as JSON.

        Elements of arrays (``inside``) are not inspected further: arrays of arrays arrive as JSON.
        """
        values = values.drop_null() if values.null_count else values
        first = first_bytes(values)
        if (first <= _LAST_DIGIT).all():  # numbers, and texts, which begin with a quote
            is_text = first == _QUOTE
            if is_text.all():
                return known | TypeProfile(frozenset({TEXT})) if len(values) else known
            if not is_text.any():
                return observe(values, known)
        values = values.filter(pc.not_equal(values, "null"))
        found = known
        for kind, begin in ((TEXT, '"'), (OBJECT, "{"), (ARRAY, "[")):
            begins = pc.starts_with(values, begin)
            if not pc.any(begins).as_py():
                continue
            found |= TypeProfile(frozenset({kind}))
            if kind == ARRAY and not inside:
                items = self._items(values.filter(begins))
                known_items = found.items or TypeProfile()
                found |= TypeProfile(items=self._observe(items, known_items, inside=True))
            values = values.filter(pc.invert(begins))
        if found.is_settled:
            return found
        logical = pc.is_in(values, pa.array(["true", "false"]))
        if pc.any(logical).as_py():
            found |= TypeProfile(frozenset({BOOLEAN}))
            values = values.filter(pc.invert(logical))
        return observe(values, found) if len(values) else found

    def _items(self, values: pa.Array) -> pa.Array:
        self._database.register("texts", pa.table({"j": values}))
        query = """select unnest(json_transform(j, '["JSON"]')) as v from texts"""
        return self._column(query, pa.string())


def rows_at_once(keys: int) -> int:
    """Return how many rows are extracted at a time, if each of them is asked for so many keys."""
    return max(1, _CELLS // max(1, keys))


def _path(key: str) -> str:
    """Return the path of a key, as a literal of SQL."""
    path = "/" + key.replace("~", "~0").replace("/", "~1")
    return "'" + path.replace("'", "''").replace("\0", "' || chr(0) || '") + "'"


def _parted(lines: list[bytes], numbers: list[int]) -> tuple[list[bytes], list[int]]:
    """Split lines with several objects into one line per object, with the line's number.

    Delivery streams write such lines. Any other line stays unchanged.
    """
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)
    parts: list[bytes] = []
    where: list[int] = []
    for line, number in zip(lines, numbers, strict=True):
        found = [line]
        if _JOINED.search(line):
            try:
                text, at, found = line.decode().strip(), 0, []
                while at < len(text):
                    end = decoder.raw_decode(text, at)[1]
                    found.append(text[at:end].encode())
                    blanks = _BLANKS.match(text, end)
                    at = blanks.end() if blanks else end
            except (ValueError, RecursionError):
                found = [line]
        parts += found
        where += [number] * len(found)
    return parts, where


def _are_strict(lines: pa.Array, *, lenient: bool) -> pa.Array:
    """Return which lines have nothing that only DuckDB accepts; others may not be JSON."""
    suspect = pc.match_substring_regex(lines, _SUSPECT)
    if not pc.any(suspect).as_py():
        return pc.invert(suspect)
    judged = [_is_json(text, lenient=lenient) for text in lines.filter(suspect).to_pylist()]
    return pc.replace_with_mask(pc.invert(suspect), suspect, pa.array(judged, pa.bool_()))


def _is_json(text: str, *, lenient: bool) -> bool:
    try:
        json.loads(
            text,
            parse_constant=None if lenient else _refuse_constant,
            parse_int=str,
            parse_float=str,
        )
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _why_no_object(text: str) -> str:
    try:
        found = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return NO_OBJECT
    # Python accepts half of a surrogate pair, DuckDB does not.
    return SURROGATE if isinstance(found, dict) else NO_OBJECT


def _quoted(lines: pa.Array) -> pa.Array:
    """Return lines in which numbers that a double cannot hold are in quotes."""
    long = pc.match_substring_regex(lines, _LONG)
    if not pc.any(long).as_py():
        return lines

    def quote(found: re.Match[str]) -> str:
        text = found[0]
        return text if text.startswith('"') or _is_double(text) else json.dumps(text)

    texts = [_TOKEN.sub(quote, text) for text in lines.filter(long).to_pylist()]
    return pc.replace_with_mask(lines, long, pa.array(texts, lines.type))


def _is_double(text: str) -> bool:
    """Return whether the nearest double prints as exactly this number."""
    if len(text) <= 16 and "-" not in text[1:]:
        return True  # 15 digits, and not close to 0; DuckDB keeps one beyond all doubles as it is
    try:
        return Decimal(text) == Decimal(repr(float(text)))
    except InvalidOperation:  # an exponent that even Decimal does not accept
        return False
