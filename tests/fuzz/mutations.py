"""Seeded changes of valid input: bytes flipped, cut and doubled, values replaced by others."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

_TOKENS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n", b'"', b'""', b"'", b",",
    b";", b"\\", b"{", b"}", b"[", b"]", b":", b"-", b"- ", b"&a ", b"*a", b"<<: *a", b"!!python/x",
    b"%", b"..", b"/../", b"null", b"NaN", b"1e999", b"-0", b"0x10", b"9" * 400, b"\\ud800",
    "é".encode(), "\U0001f600".encode(), "\u2028".encode(), b" " * 64, b"a" * 5000,
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, -(2**70), 1.5, 1e308, "", " ", "\0", "..", "a/../b",
    "x" * 3000, "\ud800", "%00", "s3://other/place", "file:///etc/passwd", [], {}, [[]], [{}],
    {"": None},
    "9999-12-31", "2026-13-45", "-1", "1e400", "9" * 5000,
)  # fmt: skip


def mutated_bytes(data: bytes, chance: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Return bytes with one to four changes.

    Args:
        data: Where to start from.
        chance: Decides; the same one in the same state changes the same.
        others: Inputs of the same kind, to splice with.
    """
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        data = chance.choice(_CHANGES)(data, chance, others)
    return data


def mutated_json(data: bytes, chance: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Return a JSON document in which one to three values or keys are others.

    One in ten is changed as bytes.
    """
    if chance.random() < 0.1:
        return mutated_bytes(data, chance, others)
    document = json.loads(data)
    for _ in range(chance.choice((1, 1, 2, 3))):
        _change_value(document, chance)
    return json.dumps(document, ensure_ascii=True).encode()


def _change_value(document: Any, chance: random.Random) -> None:
    places = list(_places(document))
    if not places:
        return
    holder, key = chance.choice(places)
    action = chance.random()
    if action < 0.15:
        del holder[key]
    elif action < 0.25 and isinstance(holder, dict):
        holder[chance.choice(("", "x", "uri", "seq", "__class__"))] = holder.pop(key)
    elif action < 0.5:
        other, name = chance.choice(places)
        # What an earlier change has taken out is there no more.
        if isinstance(other, dict) and name in other:
            holder[key] = copy.deepcopy(other[name])
    else:
        holder[key] = copy.deepcopy(chance.choice(_VALUES))


def _places(document: Any) -> Sequence[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    todo = [document]
    while todo:
        one = todo.pop()
        items = one.items() if isinstance(one, dict) else enumerate(one)
        for key, value in items:
            found.append((one, key))
            if isinstance(value, dict | list):
                todo.append(value)
    return found


Change = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


def _cut(data: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.choice((1, 2, 4, 16, 64, 1024)))


def _flip(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    if not data:
        return b"\x01"
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _delete(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    start, end = _cut(data, chance)
    return data[:start] + data[end:]


def _double(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    start, end = _cut(data, chance)
    return data[:end] + data[start:end] * chance.choice((1, 2, 50)) + data[end:]


def _insert(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(_TOKENS) + data[at:]


def _overwrite(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    start, end = _cut(data, chance)
    return data[:start] + chance.randbytes(end - start) + data[end:]


def _truncate(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _splice(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    if not others:
        return data + data
    other = chance.choice(others)
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


_CHANGES: tuple[Change, ...] = (_flip, _delete, _double, _insert, _overwrite, _truncate, _splice)
