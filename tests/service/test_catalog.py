"""The Glue Data Catalog after extracts, on moto."""

from __future__ import annotations

from argparse import Namespace
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import awswrangler
import boto3
import pytest
from pydantic import ValidationError

from extract_jobs.attempt.dry_run import Planned, planned
from extract_jobs.catalog import athena_type
from extract_jobs.cli import recover
from extract_jobs.cli.one_table import worst
from extract_jobs.errors import EXIT_CATALOG, CatalogFailed, ConfigError
from extract_jobs.reporting.metrics import attempt_metrics
from extract_jobs.reporting.progress import Progress
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.parts import SchemaChangeSpec
from tests.support.crash import Lake, bucket_of
from tests.support.emulators import MotoServer, set_environment
from tests.support.ports import free_port
from tests.support.postgres import Server
from tests.support.specs import make_spec


class Scene:
    def __init__(self, server: Server, lake: Lake, database: str) -> None:
        self.server, self.lake = server, lake
        self.where = {"database": database, "table": "orders"}

    def spec(self, run_id: str, state: str = "", **target: Any) -> ExtractSpec:
        target = {"partition_by": ["country"], "catalog": self.where, **target}
        split = {"strategy": "none"}
        spec = self.lake.spec(self.server, run_id, target=target, split=split)
        return ExtractSpec.model_validate({**spec, "state_uri": spec["state_uri"] + state})

    def run(self, run_id: str, **target: Any) -> Report:
        return run_extract(self.spec(run_id, **target))

    def plan(self, run_id: str, **target: Any) -> Planned:
        return planned(self.spec(run_id, **target), datetime.now(UTC))

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


def test_the_table_has_the_wider_type_of_new_files(scene: Scene) -> None:
    def run(run_id: str) -> Report:
        spec = scene.spec(run_id, write_mode="append")
        widened = SchemaChangeSpec(widened="new_files")
        return run_extract(spec.model_copy(update={"on_schema_change": widened}))

    scene.server.execute("insert into t (id, country, amount) values (1, 'de', 1.25)")
    run("a")
    scene.server.execute(
        "alter table t alter id type bigint, alter amount type numeric(18,2)",
        "insert into t (id, country, amount) values (1099511627776, 'fr', 9999999999999999.25)",
    )
    assert run("b").catalog == "updated"
    assert scene.columns()["id"] == "bigint"
    assert scene.columns()["amount"] == "decimal(18,2)"


def test_partitions_that_an_overwrite_leaves_no_file_in_are_dropped(scene: Scene) -> None:
    scene.server.execute("insert into t (id, country) values (1, 'de'), (2, 'fr')")
    scene.run("a", write_mode="overwrite")
    assert scene.partitions() == [["de"], ["fr"]]
    scene.server.execute("delete from t where country = 'fr'")
    scene.run("b", write_mode="overwrite")
    assert scene.partitions() == [["de"]]


def test_a_partition_with_kept_files_stays_when_it_loses_others(scene: Scene) -> None:
    scene.server.execute(  # four rows a page
        "insert into t (id, country, tags) select i, case when i < 6 then 'de' else 'fr' end,"
        " array[repeat('x', 1900)] from generate_series(1, 8) i"
    )

    def run(run_id: str) -> Report:
        split = {"target_bytes": 8192, "max_connections": 1}
        fields = scene.spec(run_id, write_mode="overwrite").model_dump()
        return run_extract(
            ExtractSpec.model_validate(
                fields | {"split": split, "reuse": "auto", "engine": "processes"}
            )
        )

    run("a")
    scene.server.execute("delete from t where id = 5")
    report = run("b")
    assert not report.not_reused
    assert (report.kept_ranges, report.rows, report.catalog) == (1, 3, "updated")
    assert scene.partitions() == [["de"], ["fr"]]
    scene.server.execute("delete from t where id < 6")
    assert run("c").kept_ranges == 1
    assert scene.partitions() == [["fr"]]


def test_a_failure_is_reported_the_data_published_and_the_next_run_mends_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.server.execute("insert into t (id, country) values (1, 'de')")
    with monkeypatch.context() as cut_off:
        cut_off.setenv("AWS_ENDPOINT_URL_GLUE", f"http://127.0.0.1:{free_port()}")
        report = scene.run("a", catalog_wait_seconds=0)
    assert (report.status, report.rows, report.catalog) == ("succeeded", 1, "failed")
    assert report.catalog_retryable
    assert len(scene.lake.visible()) == 1
    assert attempt_metrics(report)["CatalogFailed"] == 1
    line, code = worst([(report, EXIT_CATALOG)], 1, "a")
    assert code == 73
    assert line.startswith("CatalogFailed: public.t: the data is published")
    mended = scene.run("b", write_mode="overwrite")
    assert mended.catalog == "updated"
    assert attempt_metrics(mended)["CatalogFailed"] == 0
    assert scene.partitions() == [["de"]]


def test_names_that_the_catalog_cannot_have_are_refused_before_a_row_is_read(scene: Scene) -> None:
    scene.server.execute(
        "insert into t (id, country) values (1, 'de')",
        'alter table t add column "Up Per" int, add column "a-b" int, add column "é" int',
    )
    with pytest.raises(ConfigError) as refused:
        scene.run("a")
    for name in ("'Up Per'", "'a-b'", "'é'"):
        assert f"column {name}: " in str(refused.value)
    assert scene.lake.visible() == []
    for where in ({"database": "Lake"}, {"table": "or-ders"}):
        with pytest.raises(ValidationError, match=r"target\.catalog\..*is not valid for Athena"):
            scene.run("a", catalog={**scene.where, **where})
    with pytest.raises(ValidationError, match=r"columns\.rename\.id 'i d' is not a valid name"):
        make_spec(target={"catalog": scene.where}, columns={"rename": {"id": "i d"}})


def glue_table(scene: Scene, **changes: Any) -> dict[str, Any]:
    """Make the catalog's table as somebody else has it, and return what Glue then holds."""
    with closing(boto3.client("glue")) as glue:
        with suppress(glue.exceptions.AlreadyExistsException):
            glue.create_database(DatabaseInput={"Name": scene.where["database"]})
        given = {
            "Name": scene.where["table"],
            "TableType": "EXTERNAL_TABLE",
            "StorageDescriptor": {
                "Columns": [{"Name": "theirs", "Type": "int"}],
                "Location": "s3://their-bucket/orders/",
                "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            },
        }
        glue.create_table(DatabaseName=scene.where["database"], TableInput={**given, **changes})
    return seen(scene)


def seen(scene: Scene) -> dict[str, Any]:
    with closing(boto3.client("glue")) as glue:
        table = glue.get_table(DatabaseName=scene.where["database"], Name=scene.where["table"])
    found: dict[str, Any] = table["Table"]
    return found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "was created by someone else"),
        ({"TableType": "VIRTUAL_VIEW", "ViewOriginalText": "/* x */"}, "is a view"),
        ({"StorageDescriptor": {"InputFormat": "org.apache.hadoop.mapred.TextInputFormat"}},
         "is not a table of Parquet"),
        ({"Parameters": {"extract_table": "other/public.t"}}, "belongs to other/public.t"),
    ],
)  # fmt: skip
def test_a_catalog_table_of_somebody_else_is_not_touched(
    scene: Scene, changes: dict[str, Any], message: str
) -> None:
    scene.server.execute("insert into t (id, country) values (1, 'de')")
    before = glue_table(scene, **changes)
    for look in (scene.run, scene.plan):
        with pytest.raises(ConfigError, match=message):
            look("a")
    assert seen(scene) == before
    assert scene.lake.visible() == []


def test_another_state_s_table_of_the_same_name_is_not_touched(scene: Scene) -> None:
    scene.server.execute("insert into t (id, country) values (1, 'de')")
    scene.run("a")
    before = seen(scene)
    # Another server, as that of a test system with the same config.
    parameters = {**before["Parameters"], "extract_source": "{}"}
    with closing(boto3.client("glue")) as glue:
        given = {k: before[k] for k in ("Name", "StorageDescriptor", "PartitionKeys", "TableType")}
        glue.update_table(
            DatabaseName=scene.where["database"], TableInput={**given, "Parameters": parameters}
        )
    with pytest.raises(ConfigError, match=r"belongs to .* with state .* creates it again"):
        scene.run("b", uri=f"{scene.lake.target}-2", state="2")


def test_a_table_that_moves_takes_its_catalog_table_with_it(scene: Scene) -> None:
    scene.server.execute("insert into t (id, country) values (1, 'de'), (2, 'fr')")
    scene.run("a")
    scene.server.execute("delete from t where country = 'fr'", "alter table t drop column amount")
    moved = f"{scene.lake.target}-2"
    assert scene.run("b", uri=moved, state="2").catalog == "updated"
    assert seen(scene)["StorageDescriptor"]["Location"] == f"{moved}/"
    assert "amount" not in scene.columns()
    located = awswrangler.catalog.get_partitions(**scene.where)
    assert located == {f"{moved}/country=de/": ["de"]}
    # Who still runs at the old place is told, and changes nothing.
    with pytest.raises(ConfigError, match="belongs to"):
        scene.run("c")
    scene.server.execute("insert into t (id, country) values (3, 'it')")
    assert scene.run("d", uri=moved, state="2").catalog == "updated"
    assert scene.partitions() == [["de"], ["it"]]


class _CutOff(Progress):
    """Takes Glue away once the data is about to be published."""

    def __init__(self, environment: pytest.MonkeyPatch) -> None:
        self.environment = environment

    def phase(self, name: str) -> None:
        if name == "publish":
            url = f"http://127.0.0.1:{free_port()}"
            self.environment.setenv("AWS_ENDPOINT_URL_GLUE", url)


def test_partitions_of_deleted_files_are_repaired_by_a_run_without_new_rows(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.server.execute("insert into t (id, country) values (1, 'de')")
    snapshot: dict[str, Any] = {"write_mode": "overwrite", "partition_by": ["run_id"]}
    scene.run("a", **snapshot)
    with monkeypatch.context() as environment:
        spec = scene.spec("b", **snapshot, catalog_wait_seconds=0)
        report = run_extract(spec, progress=_CutOff(environment))
    assert (report.status, report.catalog) == ("succeeded", "failed")
    assert scene.partitions() == [["a"]]  # whose files are gone
    # The same run once more, as the state machine tries it again, has nothing to extract.
    again = scene.run("b", **snapshot)
    assert (again.commit_seq, again.catalog) == (report.commit_seq, "updated")
    assert scene.partitions() == [["b"]]


def test_recover_repairs_the_catalog_without_a_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.server.execute("insert into t (id, country) values (1, 'de')")
    spec = scene.spec("a", catalog_wait_seconds=0)
    monkeypatch.setattr(recover, "selected_specs", lambda _: [spec])
    asked = Namespace(abandon_after=None, dry_run=False, traceback=False)
    with monkeypatch.context() as environment:
        assert run_extract(spec, progress=_CutOff(environment)).catalog == "failed"
        with pytest.raises(CatalogFailed, match="is not up to date"):
            recover.command(asked)
    assert recover.command(Namespace(abandon_after=None, dry_run=True, traceback=False)) == 0
    assert "up to date" not in capsys.readouterr().out
    assert recover.command(asked) == 0
    assert f"{scene.where['database']}.orders is up to date" in capsys.readouterr().out
    assert scene.partitions() == [["de"]]


def test_the_next_increment_repairs_the_catalog_though_it_finds_nothing_new(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.server.execute("insert into t (id, country, at) values (1, 'de', now())")

    def increment(run_id: str, progress: Progress | None = None) -> Report:
        spec = scene.spec(run_id, write_mode="append", catalog_wait_seconds=0).model_dump()
        spec |= {"mode": "incremental", "watermark": {"column": "at"}}
        return run_extract(ExtractSpec.model_validate(spec), progress=progress)

    with monkeypatch.context() as environment:
        assert increment("a", _CutOff(environment)).catalog == "failed"
    again = increment("b")
    assert (again.rows, again.commit_seq, again.catalog) == (0, None, "updated")
    assert scene.partitions() == [["de"]]


def test_a_move_that_failed_is_made_by_the_next_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.server.execute("insert into t (id, country) values (1, 'de')")
    scene.run("a")
    place: dict[str, Any] = {"uri": f"{scene.lake.target}-2", "state": "2"}
    with monkeypatch.context() as environment:
        spec = scene.spec("b", **place, catalog_wait_seconds=0)
        report = run_extract(spec, progress=_CutOff(environment))
    assert (report.status, report.catalog) == ("succeeded", "failed")
    assert seen(scene)["StorageDescriptor"]["Location"] == f"{scene.lake.target}/"
    assert scene.plan("c", **place).plan.is_first is False
    assert scene.run("c", write_mode="overwrite", **place).catalog == "updated"
    assert seen(scene)["StorageDescriptor"]["Location"] == f"{place['uri']}/"
    assert scene.partitions() == [["de"]]
    with pytest.raises(ConfigError, match="belongs to"):
        scene.run("d")


def test_a_state_that_never_was_to_take_the_table_over_does_not(scene: Scene) -> None:
    scene.server.execute("insert into t (id, country) values (1, 'de')")
    scene.run("a")
    elsewhere: dict[str, Any] = {"uri": f"{scene.lake.target}-2", "state": "2"}
    scene.run("b", catalog=None, **elsewhere)
    with pytest.raises(ConfigError, match="belongs to"):
        scene.run("c", **elsewhere)


def test_other_partitions_are_refused_before_a_row_is_read(scene: Scene) -> None:
    scene.server.execute("insert into t (id, country) values (1, 'de')")
    scene.run("a")
    before = scene.lake.visible()
    for look in (scene.run, scene.plan):
        with pytest.raises(ConfigError, match=r"partitioned by country, the target by id"):
            look("b", partition_by=["id"])
    assert scene.lake.visible() == before
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
