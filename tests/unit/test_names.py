"""Names of what attempts leave behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from extract_jobs.config.model import JobSettings
from extract_jobs.engine.shutdown import drop_staged
from extract_jobs.sources.sql.names import readings
from extract_jobs.spec.attempt_names import file_prefix, is_of_attempt, report_name
from extract_jobs.storage import join
from extract_jobs.storage.local import LocalStorage
from extract_jobs.tracking.map_item import first_item, next_item
from tests.support.specs import make_spec

RUNS = [("r", 1), ("r", 2), ("r", 11), ("r-1", 1), ("r-1", 2), ("r-1-1", 1), ("r-11", 1)]


def staged_name(run_id: str, attempt: int, split: int) -> str:
    return f"{file_prefix(run_id, attempt)}-{split:05d}-0123abcd.parquet"


@pytest.mark.parametrize("split", [0, 7, 123_456])
def test_a_file_is_one_attempts_and_no_others(split: int) -> None:
    for own in RUNS:
        name = staged_name(*own, split)
        assert [run for run in RUNS if is_of_attempt(name, *run)] == [own]


def test_a_stop_drops_only_its_own_attempts_files(tmp_path: Path) -> None:
    target, storage = str(tmp_path / "t"), LocalStorage()
    for run_id, attempt in RUNS:
        name = staged_name(run_id, attempt, 0)
        writer = storage.stage(join(target, name), join(target, ""), "token")
        writer.write(b"rows")
        writer.close()
    spec = make_spec(tmp_path, run_id="r", attempt=1, target={"uri": target})
    assert drop_staged(spec) == 1
    assert len(list(storage.abandoned(join(target, "")))) == len(RUNS) - 1
    assert drop_staged(spec) == 0


def test_every_attempt_of_a_run_reports_in_the_same_form() -> None:
    spec = make_spec(report_uri=f"s3://b/reports/{report_name(1)}")
    item = first_item(
        spec,
        JobSettings(job_type="glue"),
        spec_uri="s3://b/s",
        execution_id="e",
        generation=1,
        job_defaults={},
    )
    uris = [item["report_uri"]]
    for _ in range(2):
        item = next_item(item, counted=True, bigger=False)
        uris.append(item["report_uri"])
    assert uris == [f"s3://b/reports/attempt-{n}.json" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("name", "mark", "read"),
    [
        ('sales."Order Items"', '"', ("sales", "Order Items")),
        ('"sales".orders', '"', ("sales", "orders")),
        ('"sa.les"."a""b"', '"', ("sa.les", 'a"b')),
        ('"orders"', '"', (None, "orders")),
        ("sales.orders", '"', None),
        ('sales."a"b', '"', None),
        ('a.b."c"', '"', None),
        ('"a', '"', None),
        ("shop.`Order Items`", "`", ("shop", "Order Items")),
        ('shop."x"', "`", None),
    ],
)
def test_either_part_of_a_name_may_be_quoted(
    name: str, mark: str, read: tuple[str | None, str] | None
) -> None:
    found = readings(name, mark)
    assert found[-1] == (None, name)
    assert read is None or found[0] == read
