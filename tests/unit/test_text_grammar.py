"""What text means as a value of a type: one grammar, whatever the text came from.

Python's own reading is the judge: a text is taken where the grammar of the docs spells it, and then
as the very value that Python makes of it.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ExtractError
from extract_jobs.sources.files.texts import to_type
from extract_jobs.transform.casts import cast
from extract_jobs.transform.exact_cast import exact_cast
from tests.support.files import files_spec, read_all
from tests.support.sqlite_source import source, values, write

EXACT = Context(prec=400)
DIGITS = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
TIME = r"[T ][0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?)?"
ZONE = r"(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)"
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


class NoValueError(Exception):
    """Python reads no such value, or the grammar has no such text."""


def spelled(pattern: str, text: str, flags: int = 0) -> None:
    if not re.fullmatch(pattern, text, flags | re.ASCII):
        raise NoValueError


def read_integer(text: str, kind: pa.DataType) -> int:
    spelled("-?[0-9]+", text)
    value, limit = int(text), 1 << (kind.bit_width - 1)
    if not -limit <= value < limit:
        raise NoValueError
    return value


def read_decimal(text: str, kind: pa.DataType) -> Decimal:
    spelled(f"[+-]?{DIGITS}", text)
    value = Decimal(text)
    if value.is_zero():
        return Decimal(0)
    if value.adjusted() > 50 or value.adjusted() < -50:
        raise NoValueError
    scaled = value.scaleb(kind.scale, EXACT)
    if scaled != scaled.to_integral_value() or scaled.copy_abs() >= 10**kind.precision:
        raise NoValueError
    return value


def read_float(text: str, kind: pa.DataType) -> float:
    spelled(rf"[+-]?(?:{DIGITS}|nan|inf|infinity)", text, re.IGNORECASE)
    value = float(text)
    if not math.isfinite(value) and re.search("[0-9]", text):
        raise NoValueError
    if kind.bit_width == 32 and math.isfinite(value):
        # From this half-way on, the nearest is infinity. A fraction of a small value with a huge
        # negative exponent would take for ever.
        if abs(value) >= 2.0**127 and abs(Fraction(text)) >= Fraction(2**128 - 2**103):
            raise NoValueError
        largest = (2 - 2.0**-23) * 2.0**127
        return float(pa.scalar(max(-largest, min(value, largest)), pa.float32()).as_py())
    return value


def read_boolean(text: str, _: pa.DataType) -> bool:
    spelled("true|false|1|0", text, re.IGNORECASE)
    return text.lower() in ("true", "1")


def read_date(text: str, _: pa.DataType) -> date:
    spelled(DAY, text)
    return date.fromisoformat(text)


def read_timestamp(text: str, kind: pa.DataType) -> datetime:
    spelled(f"{DAY}{TIME}{ZONE}" if kind.tz else f"{DAY}(?:{TIME})?", text)
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if kind.tz else moment


READ: dict[pa.DataType, Any] = {
    pa.int8(): read_integer,
    pa.int32(): read_integer,
    pa.int64(): read_integer,
    pa.float32(): read_float,
    pa.float64(): read_float,
    pa.decimal128(9, 2): read_decimal,
    pa.decimal128(38, 0): read_decimal,
    pa.decimal128(38, 30): read_decimal,
    pa.bool_(): read_boolean,
    pa.date32(): read_date,
    pa.timestamp("us"): read_timestamp,
    pa.timestamp("us", "UTC"): read_timestamp,
}


def by_python(text: str, kind: pa.DataType) -> Any:
    """Return the value, or None where the text is none."""
    try:
        return READ[kind](text, kind)
    except (NoValueError, ValueError, OverflowError):
        return None


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or repr(one) == repr(other)
    return bool(one == other) and (one is None) == (other is None)


NUMBERS = st.from_regex(rf"[+-]?(?:0[xX])?{DIGITS}", fullmatch=True)
LONG = st.from_regex(r"-?[0-9]{15,42}(?:\.[0-9]{0,10})?(?:[eE][+-]?[0-9]{1,2})?", fullmatch=True)
NEAR = st.sampled_from([2**7, 2**31, 2**63, 2**64, 10**38, 2**127, 2**128]).flatmap(
    lambda n: st.integers(n - 2, n + 2).flatmap(lambda m: st.sampled_from([str(m), str(-m)]))
)
TIMES = st.from_regex(
    r"[0-9]{3,5}-[01][0-9]-[0-3][0-9](?:[T ][0-2][0-9](?::?[0-6][0-9]){0,2}(?:\.[0-9]{1,8})?)?"
    r"(?:Z|z|[+-][0-2][0-9](?::?[0-6][0-9])?)?",
    fullmatch=True,
)
MOMENTS = st.tuples(
    st.datetimes(), st.sampled_from(["T", " "]), st.integers(-1439, 1439), st.booleans()
).map(lambda m: m[0].isoformat(m[1]) + _offset(m[2]) * m[3])


def _offset(minutes: int) -> str:
    hours, rest = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hours:02}:{rest:02}"


ODD = st.sampled_from(
    ["", " ", "0xFF", "0XfF", "0xFFFFFFFFFFFFFFFF", "+5", " 5", "5 ", "007", "1_000", "٣", "1e",
     "1d", "1f", "1.", ".5", ".", "-0", "-0.0", "1e999", "-1e999", "1e-999", "1e39", "3.4028235e38",
     "3.4028235677973366e38", "0x1p3", "nan", "NaN", "-nan", "nan(abc)", "inf", "+Infinity",
     "infinit", "true", "TRUE", "t", "yes", "1", "0", "01", "0000-06-01", "0001-01-01",
     "10000-01-01", "2026-1-1", "20260101", "2026-02-30", "2026-02-29", "2024-02-29",
     "9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00", "9999-12-31 23:59:59.999999Z",
     "2026-01-01 24:00:00", "2026-01-01 23:59:60", "2026-W01-1", "2026-01-01T0102", "2026-01-01 01",
     "2026-01-01Z", "2026-01-01 00:00 +05:00", "2026-01-01 00:00+24:00", "-8751178276354246509",
     "155889942944785896101149665591289786384.9", "87.0090000900900000009e18"]
)  # fmt: skip
TEXTS = st.one_of(ODD, NUMBERS, LONG, NEAR, TIMES, MOMENTS, st.text(max_size=4))


@example("0xFF", pa.int8())
@example("0000-06-01", pa.date32())
@example("9999-12-31T23:59:59-05:00", pa.timestamp("us", "UTC"))
@example("1e999", pa.float64())
@example("1e39", pa.float32())
@example("nan(abc)", pa.float64())
@example("-8751178276354246509", pa.decimal128(38, 30))
@settings(max_examples=250, deadline=None)
@given(TEXTS, st.sampled_from(list(READ)))
def test_text_is_what_python_reads_or_nothing(text: str, kind: pa.DataType) -> None:
    array = pa.array([text, None, text])
    expected = by_python(text, kind)
    read, failed = to_type(array, kind)
    assert failed == ([0, 2] if expected is None else [])
    assert read.type == kind
    assert all(map(same, read.to_pylist(), [expected, None, expected]))
    try:
        found = cast(array, kind, "c").to_pylist()
    except ExtractError:
        found = [None, None, None]
    assert all(map(same, found, [expected, None, expected]))


@pytest.mark.parametrize("kind", list(READ))
def test_every_odd_text_of_every_type(kind: pa.DataType) -> None:
    """The fuzz above meets them by chance alone."""
    assert len(ODD.elements) > 10  # type: ignore[attr-defined]
    for text in ODD.elements:  # type: ignore[attr-defined]
        [found], _ = to_type(pa.array([text]), kind)
        assert same(found.as_py(), by_python(text, kind)), text


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("text", "kind"),
    [("0xFF", "int8"), ("0x10", "int64"), ("0000-06-01", "date"), ("1e999", "float64"),
     ("9999-12-31T23:59:59-05:00", "timestamptz"), ("1e39", "float32"),
     ("-8751178276354246509", "decimal(38,30)")],
)  # fmt: skip
def test_no_file_brings_a_value_that_was_never_there(
    tmp_path: Path, form: str, text: str, kind: str
) -> None:
    content = f"a\n{text}\n" if form == "csv" else f'{{"a": "{text}"}}\n'
    (tmp_path / f"x.{form}").write_text(content)
    with pytest.raises(ExtractError, match="line"):
        read_all(files_spec(tmp_path, f"*.{form}", types={"a": kind}))
    inferred = read_all(files_spec(tmp_path, f"*.{form}"))
    found = inferred.column("a")[0].as_py()
    assert str(found) in (text, "1e+39")  # which a double holds


def test_nor_does_a_list_of_json(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": [1.5, 1e999]}\n')
    found = read_all(files_spec(tmp_path, "*.jsonl")).column("a")[0].as_py()
    assert found == ["1.5", "1e999"]


@pytest.mark.parametrize(
    ("value", "source", "target"),
    [
        ("-70.57", pa.decimal128(5, 2), pa.decimal128(38, 37)),
        ("-4072933479", pa.decimal128(19, 0), pa.decimal128(38, 29)),
        ("-2389431072520336484", pa.int64(), pa.decimal128(38, 22)),
    ],
)
def test_no_decimal_wraps_around(value: str, source: pa.DataType, target: pa.DataType) -> None:
    number = Decimal(value) if pa.types.is_decimal(source) else int(value)
    with pytest.raises(pa.ArrowInvalid):
        exact_cast(pa.array([None, number], source), target)


def test_nor_does_one_in_a_list() -> None:
    array = pa.array([None, [Decimal("-70.57"), None]], pa.list_(pa.decimal128(5, 2)))
    kept = exact_cast(array, pa.list_(pa.decimal128(38, 10)))
    assert kept.to_pylist() == [None, [Decimal("-70.57"), None]]
    with pytest.raises(pa.ArrowInvalid):
        exact_cast(array, pa.list_(pa.decimal128(38, 37)))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 38).flatmap(lambda p: st.tuples(st.just(p), st.integers(0, p))),
    st.integers(1, 38).flatmap(lambda p: st.tuples(st.just(p), st.integers(0, p))),
    st.integers(-(10**38) + 1, 10**38 - 1),
)
def test_decimals_arrive_whole_or_not_at_all(
    source: tuple[int, int], target: tuple[int, int], digits: int
) -> None:
    number = Decimal(digits % 10 ** source[0]).scaleb(-source[1], EXACT)
    array = pa.array([number], pa.decimal128(*source))
    scaled = number.scaleb(target[1], EXACT)
    fits = scaled == scaled.to_integral_value() and scaled.copy_abs() < 10 ** target[0]
    try:
        found = exact_cast(array, pa.decimal128(*target))[0].as_py()
    except pa.ArrowInvalid:
        found = None
    assert found == (number if fits else None)


@pytest.mark.parametrize("others", [[], [math.inf], [math.inf, -math.inf, math.nan]])
def test_a_number_too_large_is_refused_beside_real_infinities(others: list[float]) -> None:
    array = pa.array([*others, 1e39, 1.0])
    with pytest.raises(ExtractError):
        cast(array, pa.float32(), "c")
    texts = pa.array([*map(str, others), "1e39", "1"])
    with pytest.raises(ExtractError):
        cast(texts, pa.float32(), "c")
    kept = cast(pa.array([*others, 1.0]), pa.float32(), "c").to_pylist()
    assert all(map(same, kept, [*others, 1.0]))


def test_a_real_of_sqlite_does_not_wrap_around(tmp_path: Path) -> None:
    write(
        tmp_path / "x.db",
        "create table t (d decimal(38,30))",
        "insert into t values (-8751178276354246509), (1.5)",
    )
    found = source(tmp_path / "x.db", lossy_types="null")
    assert values(found, "d") == [Decimal("1.5"), None]
