"""Increments after a full run: where they go on, and that they lose and repeat nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

import extract_jobs.run
from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.planning.full_watermark import after_reading
from extract_jobs.reporting.report import Report
from extract_jobs.sources import ReadRequest
from extract_jobs.watermark import Interval, WatermarkValue
from tests.support.memory_source import MemorySnapshot, MemorySource
from tests.support.memory_storage import Bucket
from tests.unit.test_commit_protocol import TARGET, extract, spec_for, visible


class Table:
    """A table of ids that are its watermark, extracted run after run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source = MemorySource([])
        self.bucket = Bucket()
        self.runs = 0
        monkeypatch.setattr(extract_jobs.run, "open_source", lambda *_: self.source)

    def run(self, mode: str, **more: Any) -> Report:
        self.runs += 1
        write_mode = "overwrite" if mode == "full" else "append"
        return extract(
            self.bucket,
            spec_for(
                f"run-{self.runs}", mode=mode, watermark={"column": "id"},
                **{"target": {"uri": TARGET, "write_mode": write_mode}, **more},
            ),
        )  # fmt: skip

    def ids(self) -> list[int]:
        return sorted(visible(self.bucket))


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    return Table(monkeypatch)


def number(value: int) -> WatermarkValue:
    return WatermarkValue("integer", str(value))


def inserted_meanwhile(
    table: Table, monkeypatch: pytest.MonkeyPatch, row: int, *, shared: bool
) -> None:
    """Insert a row after planning and before reading."""
    look = table.source.snapshot

    @contextmanager
    def later(request: ReadRequest) -> Iterator[MemorySnapshot]:
        table.source.rows.append(row)
        with look(request) as found:
            yield replace(found, shared=shared)

    monkeypatch.setattr(table.source, "snapshot", later)


def test_the_next_increment_reads_what_is_newer(table: Table) -> None:
    table.source.rows = [1, 2, 3]
    assert table.run("full").watermark == number(3).to_json()
    table.source.rows = [1, 2, 3, 4, 5]
    report = table.run("incremental")
    assert (report.rows, report.repeated_rows) == (2, 0)
    assert report.interval == Interval(number(3), number(5)).to_json()
    assert table.ids() == [1, 2, 3, 4, 5]


def test_a_row_that_comes_between_planning_and_the_snapshot_is_read_once(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.source.rows = [1, 2, 3]
    with monkeypatch.context() as patch:
        inserted_meanwhile(table, patch, 9, shared=True)
        assert table.run("full").watermark == number(9).to_json()
    table.source.rows.append(10)
    assert table.run("incremental").rows == 1
    assert table.ids() == [1, 2, 3, 9, 10]


def test_a_condition_on_the_clock_selects_other_rows_in_each_split(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.source.rows = [1, 2, 3]
    inserted_meanwhile(table, monkeypatch, 9, shared=True)
    report = table.run("full", where="due_at <= now()")
    assert (report.rows, report.watermark) == (4, number(3).to_json())


def test_without_one_snapshot_the_watermark_is_from_before_the_first_read(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row below the greatest one may have come after its split was read."""
    table.source.rows = [1, 2, 3]
    with monkeypatch.context() as patch:
        inserted_meanwhile(table, patch, 9, shared=False)
        assert table.run("full").watermark == number(3).to_json()
    table.source.rows.append(4)
    with pytest.raises(ConfigError, match=r"overlaps what commits hold already \(\(3, 9\]\)"):
        table.run("incremental")
    report = table.run("incremental", columns={"key": ["id"]})
    assert (report.rows, report.repeated_rows) == (1, 1)
    table.source.rows.append(10)
    assert table.run("incremental").rows == 1
    assert table.ids() == [1, 2, 3, 4, 9, 10]


def test_values_that_started_over_are_not_hidden_by_the_watermark_of_replaced_rows(
    table: Table,
) -> None:
    table.source.rows = [998, 999, 1000]
    table.run("incremental")
    table.source.rows = [1, 2]
    assert table.run("full").watermark == number(2).to_json()
    table.source.rows = [1, 2, 3]
    assert table.run("incremental").rows == 1
    assert table.ids() == [1, 2, 3]


def test_an_emptied_table_has_no_watermark(table: Table) -> None:
    table.source.rows = [998]
    table.run("incremental")
    table.source.rows = []
    assert table.run("full", empty_source="accept").watermark is None
    table.source.rows = [5]
    assert table.run("incremental").rows == 1
    assert table.ids() == [5]


def test_rows_that_stay_beside_a_full_run_keep_their_watermark(table: Table) -> None:
    table.source.rows = [1, 2]
    target = {"uri": TARGET, "write_mode": "append"}
    assert table.run("full", target=target).watermark == number(2).to_json()
    table.source.rows = [1]
    assert table.run("full", target=target).watermark == number(2).to_json()
    table.source.rows = [1, 3]
    with pytest.raises(ConfigError, match="overlaps"):
        table.run("incremental")


def test_a_masked_column_leaves_no_watermark_which_would_show_a_value(table: Table) -> None:
    table.source.rows = [1, 998_877]
    report = table.run("full", columns={"mask": {"id": "null"}})
    assert (report.rows, report.watermark) == (2, None)
    kept = {uri: data for uri, (data, _) in table.bucket.objects.items()}
    assert any("/commits/" in uri for uri in kept)
    assert not [uri for uri, data in kept.items() if b"998877" in data]


def test_a_value_that_no_increment_could_follow_does_not_fail_a_full_run(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def infinite(*_: object, **__: object) -> None:
        raise TypeNotRepresentable("infinity")

    table.source.rows = [1]
    monkeypatch.setattr(table.source, "highest", infinite)
    assert table.run("full").rows == 1


@pytest.mark.parametrize(
    ("planned", "read", "one_moment", "watermark", "covers"),
    [
        (5, [7, None, 3], True, 7, 7),
        (5, [7, None, 3], False, 5, 7),
        (5, [4], False, 4, 4),
        (5, [4], True, 4, 4),
        (None, [4], False, None, 4),
        (None, [4], True, 4, 4),
        (5, [None], False, None, None),
        (5, [], True, None, None),
    ],
)
def test_the_watermark_is_never_above_what_was_surely_read(
    planned: int | None, read: list[int | None], one_moment: bool,
    watermark: int | None, covers: int | None,
) -> None:  # fmt: skip
    found = after_reading(
        None if planned is None else number(planned),
        [None if value is None else number(value) for value in read],
        one_moment=one_moment,
    )
    assert found == (
        None if watermark is None else number(watermark),
        Interval() if covers is None else Interval(None, number(covers)),
    )
