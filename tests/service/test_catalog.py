"""The Glue Data Catalog after extracts, on moto."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import awswrangler
import pytest

from extract_jobs.catalog import athena_type
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.crash import Lake, bucket_of
from tests.support.emulators import MotoServer, set_environment
from tests.support.postgres import Server


class Scene:
    def __init__(self, server: Server, lake: Lake, database: str) -> None:
        self.server, self.lake = server, lake
        self.where = {"database": database, "table": "orders"}

    def run(self, run_id: str, **target: Any) -> Report:
        target = {"partition_by": ["country"], "catalog": self.where, **target}
        split = {"strategy": "none"}
        spec = self.lake.spec(self.server, run_id, target=target, split=split)
        return run_extract(ExtractSpec.model_validate(spec))

    def columns(self) -> dict[str, str]:
        return dict(awswrangler.catalog.get_table_types(**self.where))

    def partitions(self) -> list[list[str]]:
        return sorted(awswrangler.catalog.get_partitions(**self.where).values())


@pytest.fixture
def scene(pg_database: Server, moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Scene:
    set_environment(
        {**moto_server.environment(), "CRASH_PASSWORD": pg_database.password}, monkeypatch
    )
    name = f"catalog-{uuid4().hex[:8]}"
    pg_database.execute(
        "create table t (id int, country text, amount numeric(12,2), at timestamptz, tags text[])"
    )
    lake = Lake(bucket_of(moto_server, name), moto_server.environment())
    return Scene(pg_database, lake, name.replace("-", "_"))


def test_a_table_that_begins_empty_has_its_partition_fields(scene: Scene) -> None:
    assert scene.run("a").catalog == "updated"
    assert scene.columns() == {
        "id": "int",
        "amount": "decimal(12,2)",
        "at": "timestamp",
        "tags": "array<string>",
        "_run_id": "string",
        "_extracted_at": "timestamp",
        "country": "string",
    }
    assert scene.partitions() == []
    scene.server.execute("insert into t (id, country) values (1, 'de'), (2, null), (3, 'fr')")
    assert scene.run("b").catalog == "updated"
    assert scene.partitions() == [["__HIVE_DEFAULT_PARTITION__"], ["de"], ["fr"]]


def test_columns_evolve_and_dropped_ones_stay(scene: Scene) -> None:
    scene.server.execute("insert into t (id, country) values (1, 'de')")
    scene.run("a")
    scene.server.execute("alter table t drop column amount", "alter table t add column note text")
    assert scene.run("b").catalog == "updated"
    assert scene.columns()["amount"] == "decimal(12,2)"
    assert scene.columns()["note"] == "string"


def test_partitions_that_an_overwrite_leaves_no_file_in_are_dropped(scene: Scene) -> None:
    scene.server.execute("insert into t (id, country) values (1, 'de'), (2, 'fr')")
    scene.run("a", write_mode="overwrite")
    assert scene.partitions() == [["de"], ["fr"]]
    scene.server.execute("delete from t where country = 'fr'")
    scene.run("b", write_mode="overwrite")
    assert scene.partitions() == [["de"]]


def test_a_failure_is_reported_the_data_published_and_the_next_run_mends_it(scene: Scene) -> None:
    scene.server.execute(
        "insert into t (id, country) values (1, 'de')",
        'alter table t add column "Up Per" int',
    )
    report = scene.run("a")
    assert (report.status, report.rows, report.catalog) == ("succeeded", 1, "failed")
    assert len(scene.lake.visible()) == 1
    scene.server.execute('alter table t drop column "Up Per"')
    assert scene.run("b", write_mode="overwrite").catalog == "updated"
    assert scene.partitions() == [["de"]]


@pytest.mark.parametrize(
    ("arrow", "athena"),
    [
        ("bool", "boolean"),
        ("int16", "smallint"),
        ("timestamp[us, tz=UTC]", "timestamp"),
        ("decimal128(38, 0)", "decimal(38,0)"),
        ("list<element: list<item: int64 not null>>", "array<array<bigint>>"),
        ("date32[day]", "date"),
    ],
)
def test_athena_types(arrow: str, athena: str) -> None:
    assert athena_type(arrow) == athena


def test_a_type_that_athena_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="time64"):
        athena_type("time64[us]")
