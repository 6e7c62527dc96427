"""No cast loses anything in silence: what comes out says what went in, or nothing comes out."""

# ruff: noqa: DTZ001  naive timestamps are a type of their own here

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.transform.casts import (
    can_cast,
    can_keep,
    cast,
    is_wider,
    keep,
)
from extract_jobs.transform.types import kind, printed_type
from tests.support.sampling import examples

EXACT = Context(prec=100)


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    limit = 10**precision - 1
    return st.integers(-limit, limit).map(lambda n: Decimal(n).scaleb(-scale, EXACT))


def near(*bounds: int) -> st.SearchStrategy[int]:
    """Integers around where types end."""
    return st.sampled_from(bounds).flatmap(lambda n: st.integers(n - 2, n + 2))


INTEGERS = st.one_of(st.integers(-300, 300), near(2**31, -(2**31), 2**53, 2**24, 2**63 - 3))
MOMENTS = st.one_of(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
    st.dates(date(1, 1, 2), date(9999, 12, 30)).map(lambda d: datetime(d.year, d.month, d.day)),
)
FLOATS = st.one_of(
    st.floats(), st.integers(-(2**60), 2**60).map(float), st.sampled_from([0.5, 1.25, -0.0, 1e300])
)
TEXTS = st.one_of(
    INTEGERS.map(str),
    FLOATS.map(repr),
    decimals(38, 10).map(str),
    MOMENTS.map(lambda m: m.isoformat(" ")),
    MOMENTS.map(lambda m: f"{m.isoformat()}123"),
    MOMENTS.map(lambda m: f"{m.isoformat()}+05:30"),
    st.dates().map(date.isoformat),
    st.sampled_from(["", " 5", "5 ", "007", "+5", "1_000", "true", "T", "1e400", "0x1f", "NaN",
                     "2026-01-01 24:00:00", "2026-02-30", "٣"]),
    st.text(max_size=5),
)  # fmt: skip
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.string(): TEXTS,
    pa.bool_(): st.booleans(),
    pa.int8(): st.integers(-128, 127),
    pa.int16(): st.integers(-(2**15), 2**15 - 1),
    pa.int32(): INTEGERS.filter(lambda n: -(2**31) <= n < 2**31),
    pa.int64(): INTEGERS,
    pa.float32(): st.floats(width=32),
    pa.float64(): FLOATS,
    pa.decimal128(9, 2): decimals(9, 2),
    pa.decimal128(20, 0): decimals(20, 0),
    pa.decimal128(38, 10): st.one_of(decimals(38, 10), INTEGERS.map(Decimal)),
    pa.date32(): st.dates(),
    pa.timestamp("us"): MOMENTS,
    pa.timestamp("us", "UTC"): MOMENTS.map(lambda m: m.replace(tzinfo=UTC)),
    pa.binary(): st.one_of(st.binary(max_size=5), TEXTS.map(str.encode)),
}
pairs = st.sampled_from([(s, t) for s in VALUES for t in VALUES if can_cast(s, t)])
kept = st.sampled_from([(s, t) for s in VALUES for t in VALUES if s != t and can_keep(s, t)])


def says_the_same(before: Any, after: Any, target: pa.DataType) -> bool:
    """Whether a value that was cast still says what it said, judged by Python alone."""
    if kind(target) == "float":
        number = float(after)
        if isinstance(before, str):
            before = float(before)
        if math.isnan(number) or math.isinf(number):
            return str(float(before)) == str(number)
        width = 2.0 ** (-23 if target.bit_width == 32 else -52)
        return math.isclose(float(before), number, rel_tol=width, abs_tol=1e-44)
    match before:
        case bool():
            return after in (before, str(before).lower(), int(before))
        case int() | Decimal():
            return Decimal(after) == before
        case float():
            # Text of 32 bits is the shortest that reads back as 32 bits.
            again = {float(after), pa.scalar(float(after), pa.float32()).as_py()}
            return before in again or (math.isnan(before) and math.isnan(float(after)))
        case datetime():
            if isinstance(after, str):
                after = datetime.fromisoformat(after)
            if not isinstance(after, datetime):
                after = datetime(after.year, after.month, after.day)
            return bool(after.replace(tzinfo=None) == before.replace(tzinfo=None))
        case date():
            return str(after)[:10] == str(before) and str(after)[10:] in ("", *MIDNIGHT)
        case bytes():
            return after == before or after.encode() == before
    return _text_says(before, after)


MIDNIGHT = (" 00:00:00", " 00:00:00+00:00")


def _text_says(before: str, after: Any) -> bool:
    match after:
        case str():
            return after == before
        case bytes():
            return after == before.encode()
        case bool():
            return before.lower() in (("true", "1") if after else ("false", "0"))
        case int():
            return int(before, 0 if before.lower().startswith(("0x", "-0x")) else 10) == after
        case Decimal():
            return Decimal(before) == after
        case datetime():
            return _moment(before) == _moment(after.isoformat())
    return bool(date.fromisoformat(before) == after)


def _moment(text: str) -> tuple[datetime, str]:
    """Return an instant in UTC, and what its text says beyond microseconds."""
    found = datetime.fromisoformat(text)
    instant = found.replace(tzinfo=found.tzinfo or UTC)
    fraction = text.partition(".")[2].partition("+")[0]
    return instant, fraction[6:].rstrip("0")


@example((pa.string(), pa.decimal128(38, 10), "7.773703529588399e-106"))
@example((pa.string(), pa.decimal128(38, 10), "0e-106"))
@settings(max_examples=examples(300), deadline=None)
@given(pairs.flatmap(lambda p: st.tuples(st.just(p[0]), st.just(p[1]), VALUES[p[0]])))
def test_what_is_cast_still_says_what_it_said(case: tuple[pa.DataType, pa.DataType, Any]) -> None:
    source, target, value = case
    array = pa.array([value, None], source)
    try:
        found = cast(array, target, "c")
    except TypeNotRepresentable:
        return
    assert found.type == target
    assert found.null_count == 1
    after = found[0].as_py()
    assert after is not None
    assert says_the_same(array[0].as_py(), after, target), (source, target, value, after)


@settings(max_examples=examples(150), deadline=None)
@given(kept.flatmap(lambda p: st.tuples(st.just(p[0]), st.just(p[1]), VALUES[p[0]])))
def test_what_is_kept_gives_exactly_the_value_back(
    case: tuple[pa.DataType, pa.DataType, Any],
) -> None:
    source, target, value = case
    array = pa.array([value, None], source)
    try:
        found = keep(array, target, "c")
    except TypeNotRepresentable:
        return
    assert found.null_count == 1
    back = found.cast(source)[0].as_py() if kind(source) != "decimal" else found[0].as_py()
    if isinstance(value, float):
        assert back == array[0].as_py() or math.isnan(value)
    elif kind(source) == "decimal":
        assert Decimal(back) == value
    else:
        assert back == value


def test_nested_values_are_kept_field_by_field() -> None:
    now = pa.struct([("new", pa.string()), ("n", pa.int64()), ("l", pa.list_(pa.float64()))])
    older = pa.struct([("l", pa.list_(pa.float32())), ("n", pa.int32()), ("gone", pa.bool_())])
    rows = [{"new": "x", "n": 7, "l": [1.5, None]}, None, {"new": None, "n": None, "l": []}]
    array = pa.array([[("a", rows)], None, []], pa.map_(pa.string(), pa.list_(now)))
    found = keep(array, pa.map_(pa.string(), pa.list_(older)), "c")
    found.validate(full=True)
    assert found.to_pylist() == [
        [("a", [
            {"l": [1.5, None], "n": 7, "gone": None},
            None,
            {"l": [], "n": None, "gone": None},
        ])],
        None,
        [],
    ]  # fmt: skip
    large = pa.array([{"new": "x", "n": 2**40, "l": None}], now)
    with pytest.raises(TypeNotRepresentable, match=r"column 'c\.n' is int64 .*widened: new_files"):
        keep(large, older, "c")
    hidden = pa.StructArray.from_arrays(large.flatten(), fields=list(now), mask=pa.array([True]))
    assert keep(hidden, older, "c").to_pylist() == [None]


@pytest.mark.parametrize("older", [pa.int8(), pa.int16(), pa.int32(), pa.int64()])
@pytest.mark.parametrize("now", [pa.decimal128(5, 2), pa.decimal128(20, 4)])
def test_whole_decimals_fit_integers_with_room_for_more(
    older: pa.DataType, now: pa.DataType
) -> None:
    array = pa.array([Decimal(-7), Decimal(6), None], now)
    assert keep(array, older, "c").to_pylist() == [-7, 6, None]
    with pytest.raises(TypeNotRepresentable):
        keep(pa.array([Decimal("6.5")], now), older, "c")


@settings(max_examples=examples(150), deadline=None)
@given(
    st.tuples(st.sampled_from(list(VALUES)), st.sampled_from(list(VALUES)))
    .filter(lambda p: is_wider(p[0], p[1]))
    .flatmap(lambda p: st.tuples(st.just(p[0]), st.just(p[1]), VALUES[p[1]]))
)
def test_a_wider_type_holds_every_value(case: tuple[pa.DataType, pa.DataType, Any]) -> None:
    wide, narrow, value = case
    array = pa.array([value], narrow)
    found = cast(array, wide, "c")
    assert found.cast(narrow).equals(array) or math.isnan(value)


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (pa.int64(), pa.int32()),
        (pa.decimal128(19, 0), pa.int64()),
        (pa.decimal128(20, 0), pa.uint64()),
        (pa.int64(), pa.uint32()),
        (pa.decimal128(12, 2), pa.decimal128(9, 2)),
        (pa.decimal128(11, 4), pa.decimal128(9, 2)),
        (pa.int64(), pa.decimal128(18, 0)),
        (pa.int32(), pa.decimal128(9, 0)),
        (pa.float32(), pa.int16()),
        (pa.float64(), pa.int32()),
        (pa.float64(), pa.float32()),
        (pa.timestamp("us"), pa.date32()),
    ],
)
def test_widening_has_one_direction(wide: pa.DataType, narrow: pa.DataType) -> None:
    assert is_wider(wide, narrow)
    assert not is_wider(narrow, wide)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.int64(), pa.int64()),
        (pa.decimal128(18, 0), pa.int64()),
        (pa.decimal128(10, 4), pa.decimal128(9, 2)),
        (pa.float64(), pa.int64()),
        (pa.float32(), pa.int32()),
        (pa.int64(), pa.decimal128(19, 0)),
        (pa.int64(), pa.decimal128(18, 1)),
        (pa.decimal128(9, 2), pa.decimal128(9, 2)),
        (pa.decimal128(12, 1), pa.decimal128(9, 2)),
        (pa.uint64(), pa.int8()),
        (pa.string(), pa.int32()),
        (pa.timestamp("us", "UTC"), pa.date32()),
    ],
)
def test_what_does_not_hold_all_is_not_wider(one: pa.DataType, other: pa.DataType) -> None:
    assert not is_wider(one, other)


@pytest.mark.parametrize(
    "data_type",
    [*VALUES, pa.list_(pa.int32()), pa.list_(pa.list_(pa.decimal128(5, 2))), pa.large_string(),
     pa.list_(pa.field("element", pa.timestamp("us", "UTC"), nullable=False)), pa.uint16()],
)  # fmt: skip
def test_types_are_known_again_by_how_they_are_printed(data_type: pa.DataType) -> None:
    assert printed_type(str(data_type)) == data_type


def test_a_type_that_is_printed_ambiguously_is_not_guessed() -> None:
    assert printed_type(str(pa.struct([("a, b: int32", pa.int32())]))) is None
    assert printed_type("list<item: extension<odd>>") is None


@pytest.mark.parametrize(
    ("now", "older"),
    [
        (pa.int32(), pa.string()),
        (pa.bool_(), pa.string()),
        (pa.date32(), pa.string()),
        (pa.int64(), pa.float64()),
        (pa.float64(), pa.int64()),
    ],
)
def test_what_may_be_kept_depends_on_the_direction(now: pa.DataType, older: pa.DataType) -> None:
    assert can_keep(now, older)
    assert can_keep(older, now) == (kind(older) != "string")
