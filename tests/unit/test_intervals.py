"""Intervals of incremental runs: they tile the line, and the watermark never moves back."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from extract_jobs.commit.record import Commit
from extract_jobs.errors import ConfigError
from extract_jobs.planning.interval import Step, covered_after, next_step, overlap, with_interval
from extract_jobs.planning.overwrite_partitions import replaced_by_interval, widened
from extract_jobs.planning.plan import count_null_watermarks, repeated
from extract_jobs.schema import Column, TableDescription
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import StagedFile, WrittenFile
from extract_jobs.transform.partitions import PartitionField, partition_values
from extract_jobs.watermark import Interval, WatermarkType, WatermarkValue, is_before, parse_value
from tests.support.memory_source import ID, MemorySource
from tests.support.specs import make_description, make_spec

KEYED = {"key": ["id"]}


def integer(value: int | None) -> WatermarkValue | None:
    return None if value is None else WatermarkValue("integer", str(value))


def incremental(columns: dict[str, Any] | None = None, **watermark: Any) -> ExtractSpec:
    return make_spec(
        mode="incremental", watermark={"column": "id", **watermark}, columns=columns or {}
    )


def commit_of(
    spec: ExtractSpec, last: Commit | None, interval: Interval | None, watermark: Any
) -> Commit:
    return Commit(
        commit_id="c", seq=last.seq + 1 if last else 1, parent=0, live_since=1, run_id="r",
        attempt=1, table_id="t", target_uri="x", fingerprint={}, schema=[], files=(), retire=(),
        report={}, interval=interval and interval.to_json(),
        watermark=watermark and watermark.to_json(),
        **covered_after(spec, last, interval, (FILE,)),
    )  # fmt: skip


FILE = WrittenFile(StagedFile("u", "t", 1, {}), 1, {})


class Table:
    """Runs of one table against a source in memory, without storage."""

    def __init__(self, rows: list[int]) -> None:
        self.source, self.last = MemorySource(rows), None
        self.taken: list[int] = []

    def run(self, spec: ExtractSpec) -> Interval:
        step = next_step(spec, self.last, self.source.describe(), self.source)
        assert step is not None
        pieces = repeated(spec, self.last, step.interval, self.source)
        if not step.interval.empty:
            self.taken += [
                row
                for row in self.source.rows
                if inside(row, step.interval) and not any(inside(row, p) for p in pieces)
            ]
            self.last = commit_of(spec, self.last, step.interval, step.watermark)
        return step.interval

    @property
    def watermark(self) -> int | None:
        return int(self.last.watermark["text"]) if self.last and self.last.watermark else None


def inside(row: int, interval: Interval) -> bool:
    lower, upper = interval.lower, interval.upper
    return (lower is None or int(lower.text) < row) and (upper is None or row <= int(upper.text))


growth = st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=8)


@settings(deadline=None)
@given(growth, st.none() | st.integers(-3, 10))
def test_consecutive_runs_tile_the_line(growth: list[list[int]], initial: int | None) -> None:
    """Rows that come above what is there are each taken once, and no interval leaves a gap."""
    table, top = Table([]), 0
    spec, intervals = incremental(initial=initial), []
    for steps in growth:
        for step in steps:
            top += step
            table.source.rows.append(top)
        intervals.append(table.run(spec))
        expected = [r for r in table.source.rows if initial is None or r > initial]
        assert sorted(table.taken) == expected
    taken = [interval for interval in intervals if not interval.empty]
    assert all(a.upper == b.lower for a, b in itertools.pairwise(taken))


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 30), max_size=15),
    st.lists(
        st.tuples(
            st.none() | st.integers(-5, 35), st.none() | st.integers(-5, 35), st.integers(0, 9),
            st.lists(st.integers(0, 40), max_size=3),
        ),
        max_size=8,
    ),
)  # fmt: skip
def test_backfills_and_lag_never_move_the_watermark_back_nor_over_a_gap(
    rows: list[int], runs: list[tuple[int | None, int | None, int, list[int]]]
) -> None:
    table = Table(list(rows))
    for given_lower, upper, lag, more in runs:
        backwards = None not in (given_lower, upper) and given_lower >= upper
        lower = None if backwards else given_lower
        before = table.watermark
        interval = table.run(incremental(KEYED, lower=lower, upper=upper, lag=lag))
        after = table.watermark
        if before is not None:
            assert after is not None
            assert after >= before
        if after != before and lower is not None:
            assert before is not None
            assert lower <= before
        # Everything up to the watermark that was there when its interval was taken is covered.
        if after is not None and table.last is not None:
            covered = [Interval.from_json(g) for g in table.last.covered]
            assert any(g and g.lower is None and inside(after, g) for g in covered)
        assert interval.empty or interval.upper is not None
        table.source.rows += more


bounds = st.none() | st.integers(0, 12)
pieces = st.builds(
    lambda a, b: Interval(integer(a), integer(b)), bounds, bounds
).filter(lambda i: i.lower is None or i.upper is None or is_before(i.lower, i.upper))  # fmt: skip


@settings(deadline=None)
@given(st.lists(pieces, max_size=6), pieces)
def test_ground_is_the_union_of_intervals(found: list[Interval], one: Interval) -> None:
    line = range(-2, 16)
    covered: tuple[Interval, ...] = ()
    for piece in found:
        covered = with_interval(covered, piece)
    for value in line:
        assert any(inside(value, g) for g in covered) == any(inside(value, p) for p in found)
    shared = overlap(covered, one, is_before)
    for value in line:
        both = inside(value, one) and any(inside(value, g) for g in covered)
        assert any(inside(value, s) for s in shared) == both
    for a, b in itertools.permutations(covered, 2):  # what touches is one
        assert not (a.upper is not None and a.upper == b.lower)
        assert not any(inside(value, a) and inside(value, b) for value in line)


def test_covered_text_intervals_are_joined_if_one_continues_the_other() -> None:
    a, b, c = (WatermarkValue("string", text) for text in "aBc")
    assert with_interval(with_interval((), Interval(None, a)), Interval(a, b)) == (
        Interval(None, b),
    )
    assert with_interval((Interval(a, b),), Interval(None, a)) == (Interval(None, b),)
    assert with_interval((Interval(a, b),), Interval(a, c)) == (Interval(a, b), Interval(a, c))


def test_text_is_compared_by_the_source() -> None:
    """In this order "B" lies between "a" and "c", which no comparison of bytes would say."""

    class Folded(MemorySource):
        def precedes(self, column: str, left: WatermarkValue, right: WatermarkValue) -> bool:
            return left.text.casefold() < right.text.casefold()

        def highest(self, column: str, **bounds: Any) -> WatermarkValue:
            return bounds["upper"] or text("D")

    def text(value: str) -> WatermarkValue:
        return WatermarkValue("string", value)

    source, table = Folded([]), described("string")
    last = commit_of(incremental(), None, Interval(text("a"), text("c")), text("c"))
    step = next_step(incremental(), last, table, source)
    assert step == Step(Interval(text("c"), text("D")), text("D"))
    back = incremental(KEYED, lower="A", upper="B")
    step = next_step(back, last, table, source)
    assert step == Step(Interval(text("A"), text("B")), text("c"))
    assert repeated(back, last, step.interval, source) == (Interval(text("a"), text("B")),)
    with pytest.raises(ConfigError, match=r"no value is above watermark.lower 'c'"):
        next_step(incremental(lower="c", upper="B"), last, table, source)


# --- whole partitions ------------------------------------------------------------------------

ARROW = {
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}
times = st.datetimes(datetime.fromisoformat("2024-01-01"), datetime.fromisoformat("2024-12-31"))


@settings(deadline=None)
@given(
    times, times, times, st.sampled_from(["year", "month", "day", "hour", None]),
    st.sampled_from(["date", "timestamp", "timestamptz"]),
)  # fmt: skip
def test_a_partition_is_replaced_if_and_only_if_all_of_it_was_read(
    lower: datetime, upper: datetime, at: datetime, unit: str | None, kind: WatermarkType
) -> None:
    if kind == "date":
        unit = "day" if unit == "hour" else unit
        lower, upper, at = (v.replace(hour=0, minute=0, second=0, microsecond=0)
                            for v in (lower, upper, at))  # fmt: skip
    low, high, value = (
        parse_value(kind, str(v.date() if kind == "date" else v), "x") for v in (lower, upper, at)
    )
    if not is_before(low, high):
        return
    partition = f"{unit}(w)" if unit else "w"
    spec = make_spec(
        mode="incremental", watermark={"column": "w"},
        target={"write_mode": "overwrite_partitions", "partition_by": ["region", partition]},
    )  # fmt: skip
    interval = widened(Interval(low, high), spec)

    def read(v: WatermarkValue) -> bool:
        assert interval.lower is not None
        assert interval.upper is not None
        return is_before(interval.lower, v) and not is_before(interval.upper, v)

    field = PartitionField(f"w_{unit}" if unit else "w", "w", unit)
    array = pa.array([at], pa.timestamp("us")).cast(ARROW[kind])
    [text] = partition_values(array, field, empty_is_null=False).to_pylist()
    replaces = replaced_by_interval(spec, interval, kind)
    file = replace(FILE, partition={"region": "x", field.name: text})
    assert replaces(file) == read(value)
    if is_before(low, value) and not is_before(high, value):
        assert read(value)
    # NULL lies in no interval; a file with nothing but the schema is in no partition.
    assert not replaces(replace(FILE, partition={"region": "x", field.name: None}))
    assert not replaces(replace(FILE, partition={}, rows=0))
    with pytest.raises(ConfigError, match="partition_by"):
        replaces(replace(FILE, partition={"region": "x"}))


# --- what is refused -------------------------------------------------------------------------


def column(kind: WatermarkType | None, nullable: bool = True) -> Column:
    return replace(ID, watermark=kind, source_type=f"their {kind}", nullable=nullable)


def described(kind: WatermarkType | None, nullable: bool = True) -> TableDescription:
    found = make_description(pa.schema([pa.field("id", pa.int64())]))
    return replace(found, columns=(column(kind, nullable),))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mode": "incremental"}, ["mode incremental needs watermark.column"]),
        (
            {"mode": "incremental", "watermark": {"column": "id"}, "limit": 5},
            ["limit needs mode full"],
        ),
        (
            {"mode": "incremental", "watermark": {"lag": 1}, "target": {"write_mode": "overwrite"}},
            ["mode incremental needs watermark.column", "write_mode overwrite needs mode full"],
        ),
        ({"watermark": {"column": "a", "lower": 1}}, ["watermark.lower and upper need mode incr"]),
        ({"watermark": {"upper": "x"}}, ["watermark.lower and upper need mode incremental"]),
        (
            {"mode": "incremental", "watermark": {"column": "a", "lag": 1}},
            ["watermark.lag with write_mode append.*columns.key.*watermark.duplicates: accept"],
        ),
        (
            {"mode": "incremental", "watermark": {"column": "a"},
             "columns": {"key": ["b"], "mask": {"a": "null"}}},
            ["watermark.column a is masked, but its greatest value is kept"],
        ),
        ({"columns": {"key": ["b"], "mask": {"b": "null"}}}, ["key contains b, which mask"]),
        ({"columns": {"key": ["b", "b"]}}, ["key names one column twice"]),
        ({"target": {"write_mode": "overwrite_partitions"}}, ["needs target.partition_by"]),
        (
            {"mode": "incremental", "watermark": {"column": "a"},
             "target": {"write_mode": "overwrite_partitions",
                        "partition_by": ["day(b)", "extract_date", "region"]},
             "columns": {"cast": {"a": "string"}}},
            ["needs the watermark column in target.partition_by, such as day\\(a\\)",
             "needs a as it is: take it out of columns.cast"],
        ),
        ({"split": {"one_snapshot": "require"}}, ["one_snapshot is for sources of type mysql"]),
        ({"watermark": {"lag": -1}}, ["must not be negative"]),
        ({"watermark": {"lag": "-1s"}}, ["'-1s' is not a duration"]),
    ],
)  # fmt: skip
def test_specs_that_would_destroy_or_double_data(fields: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ValidationError, match=".*".join(said)):
        make_spec(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"target": {"write_mode": "overwrite_partitions", "partition_by": ["extract_date"]}},
        {"mode": "incremental", "watermark": {"column": "a", "lag": 1, "duplicates": "accept"}},
        {"mode": "incremental", "watermark": {"column": "a", "lag": 0}},
        {"mode": "incremental", "watermark": {"column": "a", "lag": "1h"},
         "target": {"write_mode": "overwrite_partitions", "partition_by": ["month( a )", "b"]}},
        {"mode": "incremental", "watermark": {"column": "a"},
         "target": {"write_mode": "overwrite_partitions", "partition_by": ["a"]}},
    ],
)  # fmt: skip
def test_specs_that_do_neither(fields: dict[str, Any]) -> None:
    make_spec(**fields)


@pytest.mark.parametrize(
    ("kind", "watermark", "said"),
    [
        (None, {}, "id is of type their None, which cannot be a watermark"),
        ("integer", {"delay": "1m"}, "watermark.delay needs a watermark that is a time, not"),
        ("integer", {"lag": "1h"}, "watermark.lag is a duration: use a whole number"),
        ("timestamptz", {"lag": 3600}, "watermark.lag is 3600: use a duration"),
        ("string", {"lag": 1}, "watermark.lag cannot be subtracted from .* text has no distance"),
        (
            "date",
            {"initial": "today", "lower": "2026-01-01 10:00", "upper": "1", "lag": 3},
            "lag is 3.*initial: 'today'.* of type date.*lower: '2026-01-01 10:00'.*upper: '1'",
        ),
        ("integer", {"lower": 5, "upper": 5}, "no value is above watermark.lower 5"),
    ],
)
def test_bounds_that_do_not_fit_the_column_all_at_once(
    kind: WatermarkType | None, watermark: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        next_step(incremental(KEYED, **watermark), None, described(kind), MemorySource([]))


def test_text_cannot_name_the_partitions_of_an_interval() -> None:
    spec = make_spec(
        mode="incremental", watermark={"column": "id"},
        target={"write_mode": "overwrite_partitions", "partition_by": ["id"]},
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"overwrite_partitions cannot decide .* interval"):
        next_step(spec, None, described("string"), MemorySource([]))


def test_another_watermark_column_or_type_is_refused() -> None:
    spec = incremental()
    last = commit_of(spec, None, Interval(None, integer(5)), integer(5))
    other = replace(last, watermark_column="at")
    with pytest.raises(ConfigError, match=r"commit 1 is of column at, and watermark.column is now"):
        next_step(spec, other, described("integer"), MemorySource([]))
    with pytest.raises(ConfigError, match=r"now of type decimal.* commit 1 is of type integer"):
        next_step(spec, last, described("decimal"), MemorySource([]))


@pytest.mark.parametrize(
    ("bounds", "overlaps"),
    [
        ({"lower": 2, "upper": 4}, True),  # below the watermark
        ({"lower": 5}, False),  # goes on
        ({"lower": 7, "upper": 9}, False),  # above a gap
        ({"lower": 4}, True),
        ({}, False),
    ],
)
def test_a_backfill_of_committed_ground_needs_a_key_or_consent(
    bounds: dict[str, int], overlaps: bool
) -> None:
    table = Table([1, 2, 3, 4, 5])
    table.run(incremental())
    table.source.rows += [6, 7, 8, 9]
    if overlaps:
        with pytest.raises(ConfigError, match=r"would duplicate those rows.*columns.key"):
            table.run(incremental(**bounds))
    else:
        table.run(incremental(**bounds))
        assert len(table.taken) == len(set(table.taken))
    table.run(incremental(duplicates="accept", **bounds))
    before = list(table.taken)
    table.run(incremental(KEYED, **bounds))
    assert table.taken == before


def test_what_a_backfill_above_the_watermark_took_is_not_doubled_later() -> None:
    table = Table(list(range(1, 11)))
    table.run(incremental(upper=3))
    table.run(incremental(lower=5, upper=8))
    assert table.watermark == 3
    with pytest.raises(ConfigError, match=r"\(3, 10\] overlaps .*\(5, 8\]"):
        table.run(incremental())
    table.run(incremental(KEYED))
    assert sorted(table.taken) == list(range(1, 11))
    assert table.watermark == 10


def test_after_a_full_extract_rows_are_deduplicated_by_key() -> None:
    table = Table([1, 2])
    table.last = commit_of(make_spec(), None, None, None)
    with pytest.raises(ConfigError, match=r"\(…, 2\] overlaps"):
        table.run(incremental())
    table.run(incremental(KEYED))
    # A full extract that found no row covers nothing.
    empty = commit_of(make_spec(), None, None, None)
    table.last = replace(empty, **covered_after(make_spec(), None, None, (replace(FILE, rows=0),)))
    table.run(incremental())


def test_nulls_are_asked_for_only_where_they_can_be() -> None:
    class Asked(MemorySource):
        def null_watermarks(self, column: str) -> int:
            asked.append(column)
            return 3

    asked: list[str] = []
    source = Asked([])
    nullable, never = described("integer"), described("integer", nullable=False)
    assert count_null_watermarks(incremental(), never, source, first=False) == 0
    assert count_null_watermarks(incremental(), nullable, source, first=True) == 0
    assert count_null_watermarks(make_spec(), nullable, source, first=False) == 0
    assert not asked
    assert count_null_watermarks(incremental(), nullable, source, first=False) == 3
    assert count_null_watermarks(incremental(nulls="exclude"), nullable, source, first=True) == 3
    with pytest.raises(ConfigError, match="3 rows have NULL in watermark column id"):
        count_null_watermarks(incremental(nulls="refuse"), nullable, source, first=True)


def test_a_lag_reaches_below_the_first_year() -> None:
    at = WatermarkValue("date", "0001-01-05")
    spec = incremental(KEYED, lag="9d")
    last = commit_of(spec, None, Interval(None, at), at)
    source = MemorySource([])
    step = next_step(spec, last, described("date"), source)
    assert step is not None
    assert step.interval == Interval(None, None, empty=True)
    assert timedelta(days=9) == spec.watermark.lag
