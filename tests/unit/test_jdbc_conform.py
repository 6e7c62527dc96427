"""Dates and times of servers' texts: exact to the microsecond, or told to be none."""

# ruff: noqa: DTZ001  naive timestamps are a type of their own here

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.schema import Column
from extract_jobs.sources.jdbc.conform import JdbcConform, parse

NAIVE, INSTANT = pa.timestamp("us"), pa.timestamp("us", "UTC")
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999))


def printed(moment: datetime, form: str) -> str:
    day, time = moment.date().isoformat(), f"{moment:%H:%M:%S}"
    fraction = f"{moment.microsecond:06}"
    return {
        "oracle": f" {day} {time}.{fraction}000",
        "sqlserver": f"{day} {time}.{fraction}0",
        "iso": f"{day}T{time}.{fraction}",
        "short": f"{day} {time}" + (f".{fraction.rstrip('0')}" if moment.microsecond else ""),
        "derby": f"{day} {time}.{fraction.rstrip('0') or '0'}",
    }[form]


@settings(deadline=None)  # the first call pays for all imports
@given(
    st.lists(st.none() | MOMENTS, max_size=20),
    st.sampled_from(["oracle", "sqlserver", "iso", "short", "derby"]),
    st.sampled_from(["", "+00", " +00:00", "Z", "+0:00"]),
)
def test_any_moment_in_any_form_arrives(
    moments: list[datetime | None], form: str, zone: str
) -> None:
    texts = pa.array([m and printed(m, form) for m in moments], pa.string())
    assert parse(texts, NAIVE) == (pa.array(moments, NAIVE), 0)
    zoned = pa.array([m and printed(m, form) + zone for m in moments], pa.string())
    instants = pa.array([m and m.replace(tzinfo=UTC) for m in moments], INSTANT)
    assert parse(zoned, INSTANT) == (instants, 0)


@settings(deadline=None)  # the first call pays for all imports
@given(st.lists(st.none() | st.dates(), max_size=20), st.booleans())
def test_any_day_arrives(days: list[date | None], with_time: bool) -> None:
    suffix = " 00:00:00" if with_time else ""
    texts = pa.array([d and d.isoformat() + suffix for d in days], pa.string())
    assert parse(texts, pa.date32()) == (pa.array(days, pa.date32()), 0)


@pytest.mark.parametrize(
    "text",
    ["infinity", "-infinity", "0000-00-00 00:00:00", "2024-00-10 00:00:00", "2023-02-29 00:00:00",
     "10000-01-01 00:00:00", "-0044-03-15 00:00:00", "2024-01-01 00:00:00.1234567",
     "2024-01-01 00:00:00.123456001", "2024-01-01 24:00:00", "0001-01-01 00:00:00 BC", "", "1",
     "0000-01-01 00:00:00", "2024-01-01 00:00:00+02"],
)  # fmt: skip
def test_what_is_no_moment_becomes_null_and_is_counted(text: str) -> None:
    texts = pa.array(["2024-02-29 01:02:03.5", text, None])
    found, lost = parse(texts, NAIVE)
    assert (found.to_pylist(), lost) == ([datetime(2024, 2, 29, 1, 2, 3, 500000), None, None], 1)


@pytest.mark.parametrize("text", ["infinity", "0000-00-00", "2023-02-29", "2024-01-01 00:00:01"])
def test_what_is_no_day_becomes_null_and_is_counted(text: str) -> None:
    found, lost = parse(pa.array(["2024-02-29", text]), pa.date32())
    assert (found.to_pylist(), lost) == ([date(2024, 2, 29), None], 1)


def column(arrow: pa.DataType) -> Column:
    return Column("at", "TIMESTAMP(9)", arrow, True, "lossless", "a rule.", '"at"')


def test_the_policy_decides_and_the_message_holds_no_value() -> None:
    batch = pa.record_batch([pa.array(["2024-01-01 00:00:00.123456789"])], ["c0"])
    with pytest.raises(TypeNotRepresentable, match="finer than microseconds") as caught:
        JdbcConform((column(NAIVE),), null_what_fails=frozenset())(batch)
    assert "2024" not in str(caught.value)
    lenient = pickle.loads(
        pickle.dumps(JdbcConform((column(NAIVE),), null_what_fails=frozenset({"at"})))
    )
    found, nulled = lenient(batch)
    assert (found.to_pylist(), nulled) == ([{"at": None}], {"at": 1})
    assert found.schema.field("at").type == NAIVE
