"""State records as JSON that ends with a checksum of what comes before it.

JSON that was damaged is often still JSON: a letter of a file's name, a digit of a bound. Readers of
a record verify its checksum before anything that it says is acted on. Versions before it wrote
none, so a record without one is accepted where they wrote that kind of record.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

KEY = "checksum"
_END = re.compile(rb', "checksum": "([0-9a-f]{8})"\}\Z')
_PIECE = 256
"""Items of a list that are encoded at a time."""
_LONGEST = 64
"""Bytes in which a checksum is looked for."""


def seal(record: Mapping[str, Any]) -> bytes:
    """Return a record that has at least one key as JSON whose last key is its checksum."""
    start = json.dumps(record).encode()[:-1]
    return start + _end(zlib.crc32(start))


def sealed(record: Mapping[str, Any], lists: Mapping[str, Iterable[Any]]) -> Iterator[bytes]:
    """Yield the pieces of a record as JSON whose last key is its checksum.

    Args:
        record: It has at least one key. Tuples and the like become lists.
        lists: Further keys, whose lists are never in memory as a whole.
    """
    checksum = 0
    for text in _pieces(record, lists):
        piece = text.encode()
        checksum = zlib.crc32(piece, checksum)
        yield piece
    yield _end(checksum)


def _end(checksum: int) -> bytes:
    return b', "%s": "%08x"}' % (KEY.encode(), checksum)


def _pieces(record: Mapping[str, Any], lists: Mapping[str, Iterable[Any]]) -> Iterator[str]:
    dumps = json.JSONEncoder(ensure_ascii=False, default=list).encode
    yield dumps(record)[:-1]
    for key, items in lists.items():
        yield f", {dumps(key)}: ["
        rest, comma = iter(items), ""
        while some := list(islice(rest, _PIECE)):
            yield comma + dumps(some)[1:-1]
            comma = ", "
        yield "]"


def check_seal(raw: bytes, *, needed: bool = False) -> None:
    """Verify the checksum of a record.

    Args:
        raw: The record as stored.
        needed: Whether every version has written one.

    Raises:
        ValueError: The record is damaged, or needs a checksum and has none.
    """
    found = _END.search(raw[-_LONGEST:])
    if found is None:
        if needed:
            raise ValueError("it has no checksum")
    elif zlib.crc32(memoryview(raw)[: -len(found[0])]) != int(found[1], 16):
        raise ValueError("its checksum does not match")


def without_seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as it was before it was sealed."""
    return {key: value for key, value in record.items() if key != KEY}
