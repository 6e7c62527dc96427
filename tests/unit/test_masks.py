# ruff: noqa: DTZ001  naive timestamps are a type of their own here

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract_jobs.attempt.attempt import mask_key
from extract_jobs.errors import ConfigError
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform import masks
from extract_jobs.transform.masks import MaskKey
from tests.support.specs import make_spec

SECRET = "correct horse battery staple"
KEY = MaskKey.of(SECRET, "test")


def hashed(values: pa.Array, key: MaskKey = KEY) -> list[str | None]:
    found = key.hashed(values)
    assert found.type == pa.string()
    return list(found.to_pylist())


def expected(form: str | bytes) -> str:
    """What anybody who has the key computes."""
    data = form.encode() if isinstance(form, str) else form
    return hmac.new(SECRET.encode(), data, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("values", "forms"),
    [
        (pa.array(["Ann", "", " é", None, "Ann"]), ["Ann", "", " é", None, "Ann"]),
        (pa.array([b"\xff\x00"]), [b"\xff\x00"]),
        (pa.array([5, -5, 0, 2**63 - 1]), ["5", "-5", "0", "9223372036854775807"]),
        (pa.array([Decimal("5.00"), Decimal("-0.10"), Decimal("0.00")]), ["5", "-0.1", "0"]),
        (pa.array([Decimal(1).scaleb(-30)], pa.decimal128(38, 30)), ["0." + "0" * 29 + "1"]),
        (pa.array([5.0, 0.1, -0.0, 1e21]), ["5", "0.1", "0", "1" + "0" * 21]),
        (pa.array([float("nan"), float("-inf")]), ["NaN", "-Infinity"]),
        (pa.array([0.1], pa.float32()), ["0.1"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([date(26, 1, 2)]), ["0026-01-02"]),
        (pa.array([datetime(2026, 1, 2, 3)], pa.timestamp("us")), ["2026-01-02T03:00:00.000000"]),
        (pa.array([datetime(2026, 1, 2, tzinfo=UTC)]), ["2026-01-02T00:00:00.000000Z"]),
        (pa.array([[1, None], None]), ['["1",null]', None]),
        (pa.array([{"a": Decimal("1.50")}]), ['{"a":"1.5"}']),
        (pa.array([None, None]), [None, None]),
        (pa.array([], pa.int64()), []),
    ],
)
def test_what_is_hashed_is_the_canonical_form(
    values: pa.Array, forms: list[str | bytes | None]
) -> None:
    assert hashed(values) == [None if form is None else expected(form) for form in forms]


@given(st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1))))
def test_equal_numbers_are_equal_whatever_their_types(numbers: list[int | None]) -> None:
    whole = hashed(pa.array(numbers, pa.int32()))
    decimals = pa.array(numbers, pa.int64()).cast(pa.decimal128(21, 0)).cast(pa.decimal128(24, 3))
    assert hashed(decimals) == whole
    assert hashed(pa.array(numbers, pa.float64())) == whole
    assert hashed(pa.array([n if n is None else str(n) for n in numbers], pa.string())) == whole
    known = {n: h for n, h in zip(numbers, whole, strict=True) if n is not None}
    assert len(set(known.values())) == len(known)


def test_another_key_gives_other_hashes_and_another_fingerprint() -> None:
    other = MaskKey.of("another key, long enough", "test")
    assert hashed(pa.array(["a"]), other) != hashed(pa.array(["a"]))
    assert other.fingerprint != KEY.fingerprint
    # Kept in commit records: another one would look like another key to every later run.
    assert KEY.fingerprint == "48d6bb51"
    assert MaskKey.of(f" {SECRET}\n", "test") == KEY  # as an editor leaves it in a secret


def test_a_key_is_shown_nowhere_and_travels_to_workers() -> None:
    assert SECRET not in repr(KEY) + str(KEY)
    assert pickle.loads(pickle.dumps(KEY)) == KEY


def test_a_short_key_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError, match=r"a key of 9 bytes .* at least 16") as caught:
        MaskKey.of("guess-me!", "columns.mask_key K")
    assert "guess-me" not in str(caught.value)


def masked(**key: str) -> ExtractSpec:
    return make_spec(columns={"mask": {"a": "hash"}, "mask_key": key})


def test_the_key_comes_from_where_the_spec_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASK_KEY", SECRET)
    assert mask_key(masked(env="MASK_KEY")) == KEY
    assert mask_key(make_spec()) is None
    monkeypatch.delenv("MASK_KEY")
    with pytest.raises(ConfigError, match=r"columns.mask_key .* MASK_KEY, which is not set"):
        mask_key(masked(env="MASK_KEY"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"mode": "incremental", "watermark": {"column": "a"}}, "watermark.column a is masked"),
        ({"split": {"strategy": "range", "column": "a"}}, "split.column a is masked"),
    ],
)
def test_a_masked_column_cannot_be_one_whose_values_are_shown(
    overrides: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        make_spec(columns={"mask": {"a": "redact"}}, **overrides)


@pytest.mark.parametrize(
    ("inner", "values"),
    [
        (pa.float32(), [0.1, None]),
        (pa.timestamp("us"), [-(2**62), 2**60]),
        (pa.decimal128(9, 2), ["5.00"]),
    ],
)
def test_what_is_in_a_list_has_the_form_that_it_has_outside(inner, values):
    plain = pa.array(values, pa.int64() if pa.types.is_timestamp(inner) else None).cast(inner)
    forms = [_forms(plain.slice(i, 1))[0] for i in range(len(plain))]
    listed = pa.ListArray.from_arrays([0, len(plain)], plain)
    assert _forms(listed) == [json.dumps(forms, separators=(",", ":"))]


def test_lists_and_structs_keep_their_rows_and_nulls():
    rows = [{"a": 1, "b": ["x", None]}, None, {"a": None, "b": []}]
    kind = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))])
    assert _forms(pa.array([None, *rows], kind).slice(1)) == [
        '{"a":"1","b":["x",null]}', None, '{"a":null,"b":[]}'
    ]  # fmt: skip


def _forms(array):
    encoded = masks._distinct(array)
    spell = masks._speller(encoded.dictionary.type)
    found = [v if v is None else spell(v).decode() for v in masks._values(encoded.dictionary)]
    return [None if i is None else found[i] for i in encoded.indices.to_pylist()]
