"""Watermark values: read from people, compared and moved, exactly."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ConfigError
from extract_jobs.watermark import (
    Interval,
    WatermarkType,
    WatermarkValue,
    first_of_period,
    is_before,
    just_after,
    just_before,
    last_of_period,
    minus,
    parse_value,
    python_value,
)

BEGINNING = datetime.fromisoformat("0001-01-01")
UNITS = ("year", "month", "day", "hour")
moments = st.datetimes()
lags = st.timedeltas(timedelta(0), timedelta(days=4_000_000))


def value_of(kind: WatermarkType, value: Any) -> WatermarkValue:
    return parse_value(kind, str(value), "test")


@pytest.mark.parametrize(
    ("kind", "given", "text"),
    [
        ("integer", 7, "7"),
        ("integer", "-09223372036854775809", "-9223372036854775809"),
        ("decimal", "+0012.50", "12.50"),
        ("decimal", "-123456789012345678901234567890.123456789", None),
        ("date", "0001-01-01", None),
        ("timestamp", "2026-01-31", "2026-01-31 00:00:00"),
        ("timestamp", "2026-01-31T12:30", "2026-01-31 12:30:00"),
        ("timestamp", "2026-01-31 12:30:00.1", "2026-01-31 12:30:00.1"),
        ("timestamptz", "2026-01-31 12:30:00.000001", "2026-01-31 12:30:00.000001+00"),
        ("timestamptz", "2026-10-25 02:30:00+02:00", "2026-10-25 00:30:00+00"),
        ("timestamptz", "2026-10-25 02:30:00+01", "2026-10-25 01:30:00+00"),
        ("timestamptz", "2026-01-31T12:30:00Z", "2026-01-31 12:30:00+00"),
        ("string", " 01ARZ3 ", " 01ARZ3 "),
    ],
)
def test_what_people_write_is_spelled_as_the_source_does(
    kind: WatermarkType, given: str | int, text: str | None
) -> None:
    assert parse_value(kind, given, "x") == WatermarkValue(
        kind, str(given) if text is None else text
    )


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("integer", "1.0"), ("integer", ""), ("integer", "1e3"), ("integer", "²"),
        ("decimal", "NaN"), ("decimal", "1e3"), ("decimal", ".5"),
        ("date", "2026-02-30"), ("date", "2026-01-01 00:00"), ("date", "20260101"),
        ("timestamp", "2026-01-01 00:00+00"), ("timestamp", "2026-01-01 24:00"),
        ("timestamp", "2026-01-01 00:00:00.1234567"), ("timestamp", "infinity"),
        ("timestamp", "10000-01-01"), ("timestamptz", "0001-01-01 00:00+05"),
        ("timestamptz", "2026-01-01 00:00 Europe/Berlin"),
    ],
)  # fmt: skip
def test_what_is_no_value_names_key_and_type(kind: WatermarkType, given: str) -> None:
    with pytest.raises(
        ConfigError, match=f"^watermark.upper: .* of type {kind}; expected a value such as"
    ):
        parse_value(kind, given, "watermark.upper")


@settings(deadline=None)
@given(moments, moments, lags)
def test_timestamps_are_exact_to_the_microsecond(
    one: datetime, other: datetime, lag: timedelta
) -> None:
    for kind in ("timestamp", "timestamptz"):
        left, right = value_of(kind, one), value_of(kind, other)
        assert python_value(left) == one
        assert is_before(left, right) == (one < other)
        moved = minus(left, lag)
        if one - BEGINNING < lag:
            assert moved is None
        else:
            assert moved is not None
            assert python_value(moved) == one - lag


@settings(deadline=None)
@given(st.integers(), st.integers(0), st.integers())
def test_integers_of_any_size(one: int, lag: int, other: int) -> None:
    moved = minus(value_of("integer", one), lag)
    assert moved == WatermarkValue("integer", str(one - lag))
    assert is_before(value_of("integer", one), value_of("integer", other)) == (one < other)


@settings(deadline=None)
@given(st.integers(), st.integers(0, 60), st.integers(0, 10**40))
def test_decimals_of_any_precision(unscaled: int, scale: int, lag: int) -> None:
    sign, digits = "-" * (unscaled < 0), str(abs(unscaled)).rjust(scale + 1, "0")
    text = f"{sign}{digits[: len(digits) - scale]}" + f".{digits[-scale:]}" * (scale > 0)
    value = parse_value("decimal", text, "x")
    moved = minus(value, lag)
    assert moved is not None
    assert Fraction(moved.text) == Fraction(unscaled, 10**scale) - lag
    assert is_before(moved, value) == (lag > 0)


@settings(deadline=None)
@given(st.dates(), st.timedeltas(timedelta(0), timedelta(days=900)))
def test_dates_go_back_by_whole_days(day: date, lag: timedelta) -> None:
    days = -(-lag // timedelta(days=1))
    moved = minus(value_of("date", day), lag)
    if day.toordinal() - days < 1:
        assert moved is None
    else:
        assert moved == WatermarkValue("date", str(date.fromordinal(day.toordinal() - days)))


@settings(deadline=None)
@given(moments, st.sampled_from(UNITS), st.sampled_from(["timestamp", "timestamptz"]))
def test_a_period_holds_its_value_and_borders_on_others(
    moment: datetime, unit: str, kind: WatermarkType
) -> None:
    value = value_of(kind, moment)
    first, last = first_of_period(value, unit), last_of_period(value, unit)
    assert not is_before(value, first)
    assert not is_before(last, value)
    for inside in (first, last):
        assert (first_of_period(inside, unit), last_of_period(inside, unit)) == (first, last)
    below, above = just_before(first), just_after(last)
    assert below is None or last_of_period(below, unit) == below
    assert above is None or first_of_period(above, unit) == above


@settings(deadline=None)
@given(st.dates(), st.sampled_from(UNITS[:3]))
def test_a_period_of_dates_ends_with_a_day(day: date, unit: str) -> None:
    last = last_of_period(value_of("date", day), unit)
    after = just_after(last)
    assert after is None or first_of_period(after, unit) == after


def test_strings_are_never_compared_here() -> None:
    one, other = WatermarkValue("string", "a"), WatermarkValue("string", "B")
    with pytest.raises(TypeError, match="collation"):
        is_before(one, other)
    with pytest.raises(TypeError):
        minus(one, 1)
    with pytest.raises(ValueError, match="does not compare"):
        is_before(one, WatermarkValue("integer", "1"))


@pytest.mark.parametrize(
    "interval",
    [
        Interval(),
        Interval(WatermarkValue("string", 'a"\n☃'), None),
        Interval(None, WatermarkValue("timestamptz", "2026-01-01 00:00:00.000001+00")),
        Interval(WatermarkValue("integer", str(2**63)), None, empty=True),
    ],
)
def test_intervals_survive_json(interval: Interval) -> None:
    assert Interval.from_json(interval.to_json()) == interval


def test_an_instant_is_the_same_in_every_zone() -> None:
    """02:30 comes twice on the night that summer time ends."""
    summer = parse_value("timestamptz", "2026-10-25 02:30:00+02:00", "x")
    winter = parse_value("timestamptz", "2026-10-25 02:30:00+01:00", "x")
    assert is_before(summer, winter)
    assert python_value(winter) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC).replace(tzinfo=None)
