"""Which earlier files a run retires: snapshots of every day stay, and `plan` says what goes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from extract_jobs.attempt.dry_run import planned
from extract_jobs.cli.plan import plan_text
from extract_jobs.errors import ConfigError
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.specs import make_spec
from tests.support.sqlite_source import write

Row = tuple[int, str, str]


def day(number: int) -> datetime:
    return datetime(2026, 3, number, 12, tzinfo=UTC)


class Shop:
    """Table ``t`` of a SQLite file, and its extracts on days of March."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows((1, "a"), (2, "b"))

    def rows(self, *rows: tuple[int, str]) -> None:
        values = ", ".join(f"({number}, '{kind}')" for number, kind in rows)
        statements = [f"insert into t values {values}"] if rows else []
        write(
            self.folder / "shop.db",
            "drop table if exists t",
            "create table t (id integer primary key, kind text not null)",
            *statements,
        )

    def spec(self, run_id: str, target: dict[str, Any], **more: Any) -> ExtractSpec:
        return make_spec(
            self.folder, run_id=run_id, source_type="sqlite", extract_table="t",
            connection={"path": str(self.folder / "shop.db")}, target=target, **more,
        )  # fmt: skip

    def run(self, on: int, target: dict[str, Any], **more: Any) -> None:
        spec = self.spec(f"r{on}-{len(more)}-{id(more)}", target, **more)
        run_extract(spec, clock=lambda: day(on))

    def plan(self, on: int, target: dict[str, Any], **more: Any) -> dict[str, str]:
        spec = self.spec("next", target, **more)
        lines = plan_text(spec, planned(spec, day(on))).split("\n\n")[0].splitlines()
        return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}

    def found(self) -> list[tuple[int, str]]:
        """Every live row, with the day that its folder names."""
        table = pq.read_table(self.folder / "target", columns=["id", "extract_date"])
        return sorted((row["id"], str(row["extract_date"])[-2:]) for row in table.to_pylist())


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


DAILY = {"partition_by": ["extract_date"]}


@pytest.mark.parametrize(
    ("mode", "partition_by", "write_mode"),
    [
        ("full", [], "overwrite"),
        ("full", ["kind"], "overwrite"),
        ("full", ["extract_date"], "overwrite_partitions"),
        ("full", ["kind", "run_id"], "overwrite_partitions"),
        ("incremental", ["extract_date"], "append"),
        ("incremental", ["kind"], "append"),
    ],
)
def test_the_default_write_mode(mode: str, partition_by: list[str], write_mode: str) -> None:
    watermark = {"column": "id"} if mode == "incremental" else None
    spec = make_spec(mode=mode, watermark=watermark, target={"partition_by": partition_by})
    assert spec.target.write_mode == write_mode
    assert ExtractSpec.model_validate_json(spec.model_dump_json()) == spec


def test_the_snapshot_of_yesterday_stays(shop: Shop) -> None:
    shop.run(1, DAILY)
    shop.rows((2, "b"), (3, "c"))
    shop.run(2, DAILY)
    assert shop.found() == [(1, "01"), (2, "01"), (2, "02"), (3, "02")]


def test_a_snapshot_taken_again_replaces_all_partitions_of_its_day(shop: Shop) -> None:
    target = {"partition_by": ["extract_date", "kind"]}
    shop.run(1, target)
    shop.run(2, target)
    shop.rows((2, "b"))  # no row of kind a is left: its folder of the second must go
    shop.run(2, target)
    assert shop.found() == [(1, "01"), (2, "01"), (2, "02")]
    shop.rows()
    shop.run(2, target)
    assert shop.found() == [(1, "01"), (2, "01")]


def test_every_run_has_a_snapshot_of_its_own_by_run_id(shop: Shop) -> None:
    target = {"partition_by": ["extract_date", "run_id"]}
    shop.run(1, target)
    shop.run(1, target, on_empty="nothing")
    assert shop.found() == [(1, "01"), (1, "01"), (2, "01"), (2, "01")]


def test_overwrite_by_name_replaces_every_day_and_plan_says_how_much(shop: Shop) -> None:
    assert shop.plan(1, DAILY)["retires"] == "nothing"
    for number in (1, 2, 3):
        shop.run(number, DAILY)
    size = sum(f.stat().st_size for f in shop.folder.glob("target/*/*.parquet"))
    assert size < 10_000
    all_of_them = f"3 files in 3 partitions, {size / 1000:.1f} kB"
    facts = shop.plan(4, {**DAILY, "write_mode": "overwrite"})
    assert (facts["retires"], facts.get("keeps")) == (all_of_them, None)
    facts = shop.plan(4, DAILY)
    assert (facts["retires"], facts["keeps"]) == ("nothing", all_of_them)
    facts = shop.plan(3, DAILY)
    assert facts["retires"].startswith("1 file in 1 partition, ")
    assert facts["keeps"].startswith("2 files in 2 partitions, ")
    shop.run(4, {**DAILY, "write_mode": "overwrite"})
    assert shop.found() == [(1, "04"), (2, "04")]


def test_plan_says_what_depends_on_the_rows_and_what_an_interval_replaces(shop: Shop) -> None:
    target = {"partition_by": ["kind"], "write_mode": "overwrite_partitions"}
    shop.run(1, target)
    facts = shop.plan(2, target)
    assert facts["retires"].startswith("those of 2 files in 2 partitions, ")
    assert facts["retires"].endswith(" whose partitions the run writes")


def test_plan_of_an_interval_says_which_partitions_go(shop: Shop) -> None:
    target = {"partition_by": ["id"], "write_mode": "overwrite_partitions"}
    watermark = {"column": "id"}
    shop.run(1, target, mode="incremental", watermark=watermark)
    bounds = {**watermark, "lower": 1, "upper": 2}
    facts = shop.plan(2, target, mode="incremental", watermark=bounds)
    assert facts["retires"].startswith("1 file in 1 partition, ")
    assert facts["keeps"].startswith("1 file in 1 partition, ")
    facts = shop.plan(2, {"partition_by": ["id"]}, mode="incremental", watermark=watermark)
    assert facts["retires"] == "nothing"


def test_a_snapshot_is_not_put_beside_increments(shop: Shop) -> None:
    shop.run(1, DAILY, mode="incremental", watermark={"column": "id"})
    for target in (DAILY, {**DAILY, "write_mode": "append"}):
        with pytest.raises(ConfigError, match=r"holds? the rows of incremental runs.* overwrite"):
            shop.run(2, target)
    assert shop.found() == [(1, "01"), (2, "01")]
    shop.run(2, {**DAILY, "write_mode": "overwrite"})
    shop.run(3, DAILY)
    assert shop.found() == [(1, "02"), (1, "03"), (2, "02"), (2, "03")]
