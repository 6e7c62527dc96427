"""Which partitions a run replaces: those that it read whole, and no other."""

from __future__ import annotations

from datetime import date

import pytest

from extract_jobs.planning.overwrite_partitions import (
    replaced_by_interval,
    replaced_by_snapshot,
    widened,
)
from extract_jobs.storage import StagedFile, WrittenFile
from extract_jobs.watermark import Interval, WatermarkValue
from tests.support.specs import make_spec


def moment(text):
    return WatermarkValue("timestamp", text)


def spec_of(*partition_by, mode="incremental"):
    watermark = {"watermark": {"column": "at"}} if mode == "incremental" else {}
    target = {"partition_by": list(partition_by), "write_mode": "overwrite_partitions"}
    return make_spec(mode=mode, target=target, **watermark)


def file(rows=1, **partition):
    uri = "/lake/" + "/".join(f"{k}={v}" for k, v in partition.items()) + "/x.parquet"
    return WrittenFile(StagedFile(uri, "t", 1, {}), rows, partition)


ONE_DAY = Interval(moment("2026-03-04 10:00:00"), moment("2026-03-04 12:00:00"))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("finest", "lower", "upper"),
    [
        ("hour(at)", "2026-03-04 09:59:59.999999", "2026-03-04 12:59:59.999999"),
        ("day(at)", "2026-03-03 23:59:59.999999", "2026-03-04 23:59:59.999999"),
        ("month(at)", "2026-02-28 23:59:59.999999", "2026-03-31 23:59:59.999999"),
        ("year(at)", "2025-12-31 23:59:59.999999", "2026-12-31 23:59:59.999999"),
    ],
)
def test_an_interval_is_widened_to_the_finest_partition_whatever_stands_first(
    finest, lower, upper, order
):
    units = ["year(at)", "month(at)", "day(at)", "hour(at)"]
    fields = units[: units.index(finest) + 1][::order]
    found = widened(ONE_DAY, spec_of(*fields))
    starts = moment("2026-03-04 10:00:00") if finest == "hour(at)" else moment(lower)
    assert found.lower in (moment(lower), starts)
    assert found.upper == moment(upper)


@pytest.mark.parametrize("order", [1, -1])
def test_a_day_s_run_replaces_only_that_day_if_partitioned_by_year_and_day(order):
    spec = spec_of(*["year(at)", "day(at)"][::order])
    whole = widened(ONE_DAY, spec)
    replaces = replaced_by_interval(spec, whole, "timestamp")
    names = {"at_year": "2026"}
    day = {f.name for f in _fields(spec)} - {"at_year"}
    assert len(day) == 1, day
    [name] = day
    for text, gone in (
        ("2026-03-03", False), ("2026-03-04", True), ("2026-03-05", False), ("2026-12-31", False),
    ):  # fmt: skip
        assert replaces(file(**names, **{name: text})) == gone, text
    assert not replaces(file(**names, **{name: None}))


def _fields(spec):
    from extract_jobs.transform.columns import partition_fields

    return partition_fields(spec)


def test_a_full_run_replaces_the_partitions_that_it_wrote_and_no_other():
    spec = spec_of("region", mode="full")
    replaces = replaced_by_snapshot(spec, date(2026, 3, 4), [file(region="eu"), file(region=None)])
    assert replaces(file(region="eu"))
    assert replaces(file(region=None))
    assert not replaces(file(region="us"))
    assert not replaces(file(region="None"))


def test_a_full_run_of_two_partition_columns_goes_by_both():
    spec = spec_of("region", "kind", mode="full")
    replaces = replaced_by_snapshot(spec, date(2026, 3, 4), [file(region="eu", kind="a")])
    assert replaces(file(kind="a", region="eu"))  # in whatever order they stand
    assert not replaces(file(region="eu", kind="b"))
    assert not replaces(file(region="us", kind="a"))


def test_a_snapshot_replaces_all_of_its_own_day_and_nothing_of_another():
    spec = spec_of("extract_date", "region", mode="full")
    replaces = replaced_by_snapshot(
        spec, date(2026, 3, 4), [file(extract_date="2026-03-04", region="eu")]
    )
    assert replaces(file(extract_date="2026-03-04", region="eu"))
    assert replaces(file(extract_date="2026-03-04", region="us"))
    assert not replaces(file(extract_date="2026-03-03", region="eu"))


def test_a_snapshot_that_its_run_names_too_replaces_no_other_run_of_the_day():
    spec = spec_of("extract_date", "run_id", mode="full")
    replaces = replaced_by_snapshot(spec, date(2026, 3, 4), [])
    assert replaces(file(extract_date="2026-03-04", run_id=spec.run_id))
    assert not replaces(file(extract_date="2026-03-04", run_id="another"))
    assert not replaces(file(extract_date="2026-03-03", run_id=spec.run_id))


def test_a_full_run_that_wrote_nothing_replaces_nothing():
    spec = spec_of("region", mode="full")
    assert not replaced_by_snapshot(spec, date(2026, 3, 4), [])(file(region="eu"))
