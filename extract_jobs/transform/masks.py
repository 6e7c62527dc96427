"""The mask ``hash``: HMAC-SHA256 of a value under a secret key, in hexadecimal digits.

Equal values give equal hashes in every table, run and source with the same key, so masked columns
can still be joined and counted. Without the key, values cannot be guessed by hashing candidates.

A value is hashed in its canonical form, in UTF-8:

- text: as it is, neither trimmed nor normalized; binary: its bytes;
- numbers: decimal digits without exponent, leading or trailing zeros, so that 5, 5.00 and the
  double 5 are equal; of floats the fewest digits that read back; ``NaN``, ``Infinity``,
  ``-Infinity``;
- booleans: ``true`` and ``false``; dates: ``2026-01-31``;
- timestamps: ``2026-01-31T13:14:15.000000``, in UTC with a final ``Z`` if they have a zone;
- lists, maps and structs: JSON of the values in them, each in its canonical form, NULL as ``null``;
  a map is a list of its pairs, in their order.

NULL stays NULL. https://www.rfc-editor.org/rfc/rfc2104
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa

from extract_jobs.errors import ConfigError
from extract_jobs.transform.nested import rows_of
from extract_jobs.transform.types import kind

MIN_KEY_BYTES = 16
"""Shorter keys are refused, because they can be guessed."""

_CHECKED = b"extract-jobs: which key is it"


@dataclass(frozen=True)
class MaskKey:
    """The key of the mask ``hash``. Picklable; hidden from ``repr``.

    Attributes:
        secret: Its bytes.
    """

    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, text: str, where: str) -> MaskKey:
        """Return the key from a secret's text, without surrounding white space.

        Args:
            text: The secret.
            where: Where it is configured, for the message.

        Raises:
            ConfigError: It is shorter than `MIN_KEY_BYTES`.
        """
        secret = text.strip().encode()
        if len(secret) < MIN_KEY_BYTES:
            raise ConfigError(
                f"{where} is a key of {len(secret)} bytes for the mask hash, which needs at least "
                f"{MIN_KEY_BYTES}: use a random one, such as `openssl rand -hex 32` gives"
            )
        return cls(secret)

    @property
    def fingerprint(self) -> str:
        """8 hexadecimal digits that identify this key without revealing it."""
        return hmac.digest(self.secret, _CHECKED, "sha256").hex()[:8]

    def hashed(self, array: pa.Array) -> pa.Array:
        """Return the hash of every value, as text; NULL stays NULL.

        Arrow has no keyed hash: each distinct value is hashed once, in Python.
        """
        encoded = _distinct(array)
        spell = _speller(encoded.dictionary.type)
        secret, digest = self.secret, hmac.digest
        hashes = [
            None if value is None else digest(secret, spell(value), "sha256").hex()
            for value in _values(encoded.dictionary)
        ]
        return pa.array(hashes, pa.string()).take(encoded.indices)


def _distinct(array: pa.Array) -> pa.DictionaryArray:
    if pa.types.is_nested(array.type):
        # Arrow cannot compare them, so each row counts as a distinct value.
        return pa.DictionaryArray.from_arrays(pa.array(range(len(array)), pa.int32()), array)
    return array.dictionary_encode()


def _values(array: pa.Array) -> list[Any]:
    """Convert values to the form that `_speller` expects."""
    if pa.types.is_nested(array.type):
        return rows_of(array, _spelled)
    if kind(array.type) not in ("string", "binary", "boolean", "integer", "decimal"):
        # Arrow prints floats as the shortest text that reads back, and supports all years.
        array = array.cast(pa.string())
    return list(array.to_pylist())


def _speller(data_type: pa.DataType) -> Callable[[Any], bytes]:
    """Return a function to the canonical form of a type's values."""
    spellers: dict[str, Callable[[Any], bytes]] = {
        "string": str.encode,
        "binary": bytes,
        "boolean": lambda value: b"true" if value else b"false",
        "integer": lambda value: b"%d" % value,
        "decimal": _number,
        "float": lambda text: _number(Decimal(text)),
        "timestamp": _moment,
        "timestamptz": _moment,
    }
    return spellers.get(kind(data_type), _nested if pa.types.is_nested(data_type) else str.encode)


def _moment(text: str) -> bytes:
    return text.replace(" ", "T").encode()


def _nested(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _spelled(array: pa.Array) -> list[str | None]:
    """Return the canonical form of values that are not nested, as text."""
    spell = _speller(array.type)
    return [
        None if value is None else spell(value).decode("utf-8", "surrogateescape")
        for value in _values(array)
    ]


def _number(value: Decimal) -> bytes:
    if not value.is_finite():
        if value.is_nan():
            return b"NaN"
        return b"Infinity" if value > 0 else b"-Infinity"
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return b"0" if text == "-0" else text.encode()
