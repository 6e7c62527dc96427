"""MySQL's rows taken apart, however the network cuts them up."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pymysql
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract_jobs.sources.mysql.wire import decode
from tests.support.sampling import examples

Row = Sequence[bytes | None]
EOF = b"\5\0\0\7\xfe\0\0\2\0"
LARGEST = 0xFFFFFF


class Wire:
    """Gives bytes in pieces, and fails at the end, where a socket would wait for ever."""

    def __init__(self, data: bytes, pieces: Sequence[int] = ()) -> None:
        self.data = data
        self.pieces = list(pieces)

    def readinto(self, target: memoryview) -> int:
        size = min(len(target), len(self.data), self.pieces.pop(0) if self.pieces else 2**30)
        target[:size] = self.data[:size]
        self.data = self.data[size:]
        return size


def packet(payload: bytes) -> bytes:
    parts = b""
    while True:
        part, payload = payload[:LARGEST], payload[LARGEST:]
        parts += len(part).to_bytes(3, "little") + b"\1" + part
        if len(part) < LARGEST:
            return parts


def value(text: bytes | None) -> bytes:
    if text is None:
        return b"\xfb"
    size = len(text)
    if size < 251:
        return bytes([size]) + text
    if size < 2**16:
        return b"\xfc" + struct.pack("<H", size) + text
    if size < 2**24:
        return b"\xfd" + struct.pack("<I", size)[:3] + text
    return b"\xfe" + struct.pack("<Q", size) + text


def stream_of(rows: Sequence[Row]) -> bytes:
    return b"".join(packet(b"".join(map(value, row))) for row in rows)


def decoded(
    wire: Wire, columns: int, begun: bytes = b"", batch_bytes: int = 64, batch_rows: int = 10**6
) -> list[Row]:
    found: list[Row] = []
    for arrays in decode(begun, wire, columns, batch_bytes=batch_bytes, batch_rows=batch_rows):
        assert len({len(array) for array in arrays}) == 1
        assert 0 < len(arrays[0]) <= batch_rows
        for array in arrays:
            array.validate(full=True)
        found += zip(*(array.to_pylist() for array in arrays), strict=True)
    return found


TEXTS = st.none() | st.binary(max_size=20) | st.sampled_from([
    EOF, b"\0" + EOF, b"\1\0\0\1\xff", b"\xff", b"\xfb\xfc\xfd\xfe\xff", b"x" * 250, b"y" * 251,
    b"z" * 70_000, EOF[4:], b"\5\0\0\1\xfe\0\0\2\0" * 40,
])  # fmt: skip


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_rows_arrive_whatever_they_hold_and_however_they_are_cut_up(data: st.DataObject) -> None:
    columns = data.draw(st.integers(1, 4))
    rows = data.draw(st.lists(st.tuples(*[TEXTS] * columns), max_size=12))
    sent = stream_of(rows) + EOF
    begun = data.draw(st.integers(0, min(len(sent), 300)))
    wire = Wire(sent[begun:], data.draw(st.lists(st.integers(1, 90), max_size=60)))
    size, most = data.draw(st.integers(16, 400)), data.draw(st.integers(1, 20))
    found = decoded(wire, columns, sent[:begun], size, most)
    assert found == [tuple(row) for row in rows]
    assert wire.data == b""


@pytest.mark.parametrize("size", [LARGEST - 5, LARGEST - 4, LARGEST - 3, LARGEST, 2 * LARGEST])
def test_rows_of_several_packets(size: int) -> None:
    rows: list[Row] = [(b"a", b"1"), (b"x" * size, None), (b"", b"2")]
    found = decoded(Wire(stream_of(rows) + EOF), 2, batch_bytes=2**20)
    assert [(len(row[0] or b""), row[1]) for row in found] == [(1, b"1"), (size, None), (0, b"2")]


@pytest.mark.parametrize("count", [0, 1, 50])
def test_an_error_is_raised_behind_the_rows_before_it(count: int) -> None:
    error = packet(b"\xff" + struct.pack("<H", 1317) + b"#70100Query execution was interrupted")
    rows: list[Row] = [(b"n" * 30,)] * count
    batches = decode(b"", Wire(stream_of(rows) + error), 1, batch_bytes=256, batch_rows=100)
    seen: list[int] = []
    with pytest.raises(pymysql.err.OperationalError) as raised:
        seen.extend(len(arrays[0]) for arrays in batches)
    assert raised.value.args[0] == 1317
    assert sum(seen) == count


def test_an_end_without_its_packet_is_a_lost_connection() -> None:
    sent = stream_of([(b"n" * 30,)] * 20)
    for end in (0, 3, 40, len(sent)):
        with pytest.raises(pymysql.err.OperationalError, match="Lost connection"):
            decoded(Wire(sent[:end]), 1)
    long = stream_of([(b"x" * LARGEST,)])
    with pytest.raises(pymysql.err.OperationalError, match="Lost connection"):
        decoded(Wire(long[:-1]), 1)
