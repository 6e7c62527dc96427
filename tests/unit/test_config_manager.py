"""The Extract Config Manager: from an event and a config to specs, a list and PENDING items."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest
import yaml

from entrypoints import extract_config_manager as manager
from entrypoints.extract_config_manager import Settings, list_tables, run_id_of
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.errors import ConfigError
from extract_jobs.spec.arguments import NAMES, parse_arguments
from extract_jobs.spec.extract_spec import parse_spec
from extract_jobs.storage import open_storage
from extract_jobs.tracking.map_item import WORKER_ARGUMENTS, worker_arguments
from extract_jobs.tracking.table import Tracking, create_table

EXECUTION = "arn:aws:states:eu-central-1:123456789012:execution:extract:one"
STARTED = "2025-03-01T12:00:00.123Z"


@pytest.fixture
def tracking(ministack):
    given = ministack.environment()
    client = boto3.client(
        "dynamodb",
        endpoint_url=ministack.endpoint_url,
        region_name=given["AWS_DEFAULT_REGION"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
    )
    name = f"tracking-{uuid.uuid4().hex[:8]}"
    create_table(client, name)
    yield Tracking(client, name, lambda: datetime(2025, 3, 1, tzinfo=UTC))
    client.close()


@pytest.fixture
def configured(tmp_path, tracking):
    """A function that lists tables, over a config of three."""
    config = {
        "version": 1,
        "source": {
            "name": "sales",
            "type": "postgres",
            "connection": {"secret_id": "lake/sales"},
            "max_connections": 40,
        },
        "defaults": {"target": {"uri": str(tmp_path / "lake/{schema}/{table}")}},
        "tables": {
            "public.customers": {},
            "public.orders": {"job_type": "ecs", "max_connections": 4, "ecs": {"cpu": 2048}},
            "public.lines": {"job_type": "emr"},
        },
    }
    (tmp_path / "config").mkdir()
    (tmp_path / "config/sales.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    settings = Settings(str(tmp_path / "config"), str(tmp_path / "work"), {})

    def call(given, execution=EXECUTION, started=STARTED, **more):
        return list_tables(
            {"input": given, "execution_id": execution, "execution_started_at": started},
            settings=replace(settings, **more),
            tracking=tracking,
            open_storage=open_storage,
        )

    call.config = tmp_path / "config/sales.yml"
    return call


def items_of(answer):
    return json.loads(open_storage(answer["key"]).read(answer["key"]))


ALL = {"source_name": "sales", "extract_tables": "*"}


def test_one_item_one_spec_and_one_pending_run_a_table(configured, tracking):
    answer = configured(ALL)
    items = items_of(answer)
    assert [item["extract_table"] for item in items] == [
        "public.customers", "public.orders", "public.lines",
    ]  # fmt: skip
    assert answer["table_count"] == 3
    assert answer["tracking_table"] == tracking.table
    assert answer["execution_id"] == EXECUTION
    # 40 connections; the default table reads 8 splits at a time and holds one more.
    assert answer["max_concurrency"] == 4
    for item in items:
        spec = parse_spec(open_storage(item["spec_uri"]).read(item["spec_uri"]))
        assert (spec.run_id, spec.extract_table) == (item["run_id"], item["extract_table"])
        assert (spec.report_uri, spec.state_uri) == (item["report_uri"], item["state_uri"])
        assert spec.tracking_table == tracking.table
    runs = {run.extract_table: run for run in tracking.by_execution(EXECUTION)}
    assert {(t, r.status, r.fence) for t, r in runs.items()} == {
        (item["extract_table"], "PENDING", (1, 1)) for item in items
    }
    assert {r.run_id for r in runs.values()} == {item["run_id"] for item in items}


def test_every_item_has_the_same_keys_whatever_its_job_type(configured):
    def shape(value):
        return {k: shape(v) for k, v in value.items()} if isinstance(value, dict) else None

    items = items_of(configured(ALL))
    assert {item["job_type"] for item in items} == {"glue", "ecs", "emr"}
    assert [shape(item) for item in items[1:]] == [shape(items[0])] * 2


def test_an_item_says_whether_a_catalog_is_updated_after_the_commit(configured):
    config = yaml.safe_load(configured.config.read_text())
    glue = {"database": "lake"}
    config["tables"]["public.orders"]["target"] = {"catalog": {**glue, "table": "orders"}}
    config["tables"]["public.lines"]["target"] = {
        "catalog": {**glue, "table": "lines"}, "format": "iceberg",
    }  # fmt: skip
    configured.config.write_text(yaml.safe_dump(config))
    items = items_of(configured(ALL))
    assert {item["extract_table"] for item in items if item["catalog"]} == {"public.orders"}


def test_an_item_holds_no_null_because_paths_to_null_surprise(configured):
    def nulls(value, path=""):
        if isinstance(value, dict):
            return [p for k, v in value.items() for p in nulls(v, f"{path}.{k}")]
        return [path] if value is None else []

    assert [p for item in items_of(configured(ALL)) for p in nulls(item)] == []


def test_the_worker_understands_the_arguments_of_an_item(configured):
    for item in items_of(configured(ALL)):
        arguments = parse_arguments(worker_arguments(item))
        assert {n: getattr(arguments, n) for n in WORKER_ARGUMENTS} == {
            n: item[n] for n in WORKER_ARGUMENTS
        }
    assert set(WORKER_ARGUMENTS) == NAMES


def test_run_ids_differ_by_execution_start_and_table_and_never_by_call():
    ids = {
        run_id_of(e, s, t) for e in ("e1", "e2") for s in ("s1", "s2") for t in ("t1", "t2")
    }  # fmt: skip
    assert len(ids) == 8
    assert run_id_of("e1", "s1", "t1") in ids
    assert run_id_of("a", "bc", "") != run_id_of("ab", "c", "")


def test_lambda_calling_again_changes_nothing(configured, tracking):
    first = configured(ALL)
    items = items_of(first)
    run = next(iter(tracking.by_execution(EXECUTION)))
    tracking.start(run)
    assert configured(ALL) == first
    assert items_of(first) == items
    assert tracking.read(run.table_id, run.run_id).status == "RUNNING"
    assert len(list(tracking.by_execution(EXECUTION))) == 3


def test_overrides_reach_every_spec_and_job(configured):
    overrides = {"max_connections": 1, "job_type": "ecs"}
    answer = configured({**ALL, "overrides": overrides}, event_overrides=tuple(overrides))
    for item in items_of(answer):
        spec = parse_spec(open_storage(item["spec_uri"]).read(item["spec_uri"]))
        assert (spec.split.max_connections, item["job_type"]) == (1, "ecs")
    assert answer["max_concurrency"] == 20


def test_the_deployment_fills_in_what_the_config_leaves_out(configured):
    defaults = {
        "ecs": {"cpu": 512, "memory": 4096, "subnets": ["subnet-1"]},
        "emr": {
            "application_id": "app",
            "entry_point": "s3://code/emr.py",
            "archive": "s3://code/env.tar.gz",
        },
        "retry": {"max_attempts": 5},
    }
    by_table = {i["extract_table"]: i for i in items_of(configured(ALL, job_defaults=defaults))}
    ecs = by_table["public.orders"]["ecs"]
    assert (ecs["cpu"], ecs["memory"], ecs["subnets"]) == (2048, 4096, ["subnet-1"])
    emr = by_table["public.lines"]["emr"]
    assert emr["application_id"] == "app"
    assert "spark.archives=s3://code/env.tar.gz#environment" in emr["spark_submit_parameters"]
    assert by_table["public.lines"]["retry"]["max_attempts"] == 5


def test_spark_encrypts_what_its_processes_say_to_each_other(configured):
    """Tasks go from the driver to executors with the source's password in them."""
    defaults = {"emr": {"application_id": "app", "entry_point": "s3://code/emr.py"}}
    by_table = {i["extract_table"]: i for i in items_of(configured(ALL, job_defaults=defaults))}
    item = by_table["public.lines"]
    serverless = item["emr"]["spark_submit_parameters"].split()
    assert "spark.ssl.internode.enabled=true" in serverless
    cluster = item["emr_cluster"]["command"]
    assert {"spark.authenticate=true", "spark.network.crypto.enabled=true"} <= set(cluster)
    # The service of the cluster, which all applications share, knows no secret of one.
    assert "spark.shuffle.service.enabled=false" in cluster


def test_wrong_defaults_of_the_deployment_are_reported(configured):
    with pytest.raises(ConfigError, match="JOB_DEFAULTS of the deployment: ecs"):
        configured(ALL, job_defaults={"ecs": {"cpus": 1}})


@pytest.mark.parametrize("place", ["application_id", "cluster_id"])
def test_emr_without_a_program_is_refused_before_any_job_starts(configured, tracking, place):
    with pytest.raises(
        ConfigError, match=r"public\.lines: emr\.entry_point is given neither"
    ) as message:
        configured(ALL, job_defaults={"emr": {place: "where-it-would-run"}})
    assert "where-it-would-run would have no program" in str(message.value)
    assert list(tracking.by_execution(EXECUTION)) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "input is a NoneType"),
        ([], "input is a list"),
        ({}, "lacks source_name, extract_tables"),
        ({"source_name": "sales"}, "lacks extract_tables"),
        ({**ALL, "tables": []}, r"unknown keys \['tables'\]"),
        ({**ALL, "source_name": "../secrets"}, r"source_name is '../secrets'"),
        ({**ALL, "source_name": 7}, "source_name is 7"),
        ({**ALL, "source_name": "other"}, "other.yml: there is no such config"),
        ({**ALL, "overrides": []}, "overrides is a list"),
        ({**ALL, "overrides": ["x"]}, "overrides is a list"),
        ({**ALL, "overrides": {"mod": "full"}}, "mod"),
        ({**ALL, "extract_tables": []}, "empty list"),
        ({**ALL, "extract_tables": "public.orders"}, "extract_tables is 'public.orders'"),
        ({**ALL, "extract_tables": ["public.orders"] * 2}, "given twice"),
        ({**ALL, "extract_tables": ["public.order"]}, "public.orders"),
        ({"rerun_failed_of": ""}, "rerun_failed_of is ''"),
        ({"rerun_failed_of": EXECUTION, "source_name": "sales"}, "unknown keys"),
        ({"rerun_failed_of": "arn:nobody"}, "has no table of arn:nobody"),
    ],
)
def test_a_wrong_event_is_refused_before_anything_is_announced(
    configured, tracking, given, message
):
    with pytest.raises(ConfigError, match=message):
        configured(given)
    assert list(tracking.by_execution(EXECUTION)) == []


def test_invalid_yaml_is_refused(configured):
    configured.config.write_text("tables: [")
    with pytest.raises(ConfigError, match=r"sales\.yml"):
        configured(ALL)


def test_a_config_of_another_source_is_refused(configured):
    text = configured.config.read_text()
    configured.config.write_text(text.replace("name: sales", "name: stocks"))
    with pytest.raises(ConfigError, match="is the config of source 'stocks', not of 'sales'"):
        configured(ALL)


LATER = EXECUTION.replace(":one", ":two")


def end(tracking, **statuses):
    for run in tracking.by_execution(EXECUTION):
        status = statuses[run.extract_table.removeprefix("public.")]
        if status != "PENDING":
            assert tracking.end(replace(run, status=status))


def test_a_rerun_takes_just_the_failed_tables_with_the_same_overrides(configured, tracking):
    configured({**ALL, "overrides": {"max_connections": 2}})
    end(tracking, customers="SUCCEEDED", orders="FAILED", lines="FAILED")
    items = items_of(configured({"rerun_failed_of": EXECUTION}, LATER, "2025-03-02T00:00:00Z"))
    assert [item["extract_table"] for item in items] == ["public.orders", "public.lines"]
    assert {item["generation"] for item in items} == {2}
    for item in items:
        spec = parse_spec(open_storage(item["spec_uri"]).read(item["spec_uri"]))
        assert spec.split.max_connections == 2
    assert {r.fence for r in tracking.by_execution(LATER)} == {(2, 1)}
    statuses = {r.extract_table: r.status for r in tracking.by_execution(EXECUTION)}
    assert statuses == {
        "public.customers": "SUCCEEDED", "public.orders": "FAILED", "public.lines": "FAILED",
    }  # fmt: skip


def test_a_rerun_of_what_succeeded_is_refused(configured, tracking):
    configured(ALL)
    end(tracking, customers="SUCCEEDED", orders="SUCCEEDED", lines="SUCCEEDED")
    with pytest.raises(ConfigError, match=r"none of the 3 tables of .* failed"):
        configured({"rerun_failed_of": EXECUTION}, LATER)


def test_a_rerun_of_what_still_runs_is_refused_unless_it_is_given_up_on(configured, tracking):
    configured(ALL)
    end(tracking, customers="SUCCEEDED", orders="PENDING", lines="FAILED")
    with pytest.raises(ConfigError, match=r"1 of 3 tables .* have not ended \(public.orders\)"):
        configured({"rerun_failed_of": EXECUTION}, LATER)
    given = {"rerun_failed_of": EXECUTION, "include_unfinished": True}
    assert configured(given, LATER)["table_count"] == 2
    [lost] = [r for r in tracking.by_execution(EXECUTION) if r.extract_table == "public.orders"]
    assert (lost.status, lost.error_class) == ("FAILED", "NeverReported")
    assert not tracking.start(lost)


def test_a_rerun_without_the_first_event_is_refused(configured, tracking, tmp_path):
    configured(ALL)
    end(tracking, customers="FAILED", orders="FAILED", lines="FAILED")
    [kept] = (tmp_path / "work").rglob("event.json")
    kept.unlink()
    with pytest.raises(ConfigError, match=r"event.json is gone"):
        configured({"rerun_failed_of": EXECUTION}, LATER)


def test_an_event_that_an_older_version_kept_is_read_again_from_the_input(configured, tmp_path):
    first = configured(ALL)
    [kept] = (tmp_path / "work").rglob("event.json")
    kept.write_text(json.dumps({"source_name": "sales", "overrides": {}}))
    assert configured(ALL) == first
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "extract_tables": "*", "new": 1}))
    assert configured(ALL) == first


@pytest.mark.parametrize("damage", ["", "[]", '{"overrides"'])
def test_a_damaged_event_is_reported(configured, tracking, tmp_path, damage):
    configured(ALL)
    end(tracking, customers="FAILED", orders="FAILED", lines="FAILED")
    [kept] = (tmp_path / "work").rglob("event.json")
    kept.write_text(damage)
    for event, execution in ((ALL, {}), ({"rerun_failed_of": EXECUTION}, LATER)):
        given = [event, execution] if execution else [event]
        with pytest.raises(ConfigError, match=r"event.json is damaged"):
            configured(*given)


def spec_of(item):
    return parse_spec(open_storage(item["spec_uri"]).read(item["spec_uri"]))


def publish(item):
    """Let the run of an item have published, whatever the tracking table says."""
    uri = item["state_uri"]
    storage = open_storage(uri)
    log = CommitLog(storage, uri, storage)
    log.plans.pin(item["run_id"], 0, {"any": "plan"})
    log.prepare(Commit(
        commit_id="c", seq=1, parent=0, live_since=1, run_id=item["run_id"], attempt=1,
        table_id="x", target_uri="x", fingerprint={}, interval=None, watermark=None, schema=[],
        files=(), retire=(), report={},
    ))  # fmt: skip
    assert log.publish(log.newest()) == "published"


def test_a_rerun_leaves_out_what_is_published_and_sets_it_right(configured, tracking):
    items = items_of(configured(ALL))
    end(tracking, customers="FAILED", orders="FAILED", lines="FAILED")
    [orders] = [item for item in items if item["extract_table"] == "public.orders"]
    publish(orders)
    again = items_of(configured({"rerun_failed_of": EXECUTION}, LATER))
    assert sorted(item["extract_table"] for item in again) == ["public.customers", "public.lines"]
    statuses = {r.extract_table: r.status for r in tracking.by_execution(EXECUTION)}
    assert statuses["public.orders"] == "SUCCEEDED"


def test_a_rerun_of_what_is_published_after_all_is_refused_with_the_reason(configured, tracking):
    items = items_of(configured({**ALL, "extract_tables": ["public.orders"]}))
    end(tracking, orders="FAILED")
    publish(items[0])
    with pytest.raises(ConfigError, match="have published their rows"):
        configured({"rerun_failed_of": EXECUTION}, LATER)


def test_a_rerun_knows_every_failed_run_before_it(configured, tracking):
    first = items_of(configured({**ALL, "extract_tables": ["public.orders"]}))
    end(tracking, orders="FAILED")
    second = items_of(configured({"rerun_failed_of": EXECUTION}, LATER))
    assert list(spec_of(second[0]).reruns) == [first[0]["run_id"]]
    for run in tracking.by_execution(LATER):
        assert tracking.end(replace(run, status="FAILED"))
    third = items_of(configured({"rerun_failed_of": LATER}, EXECUTION + ":three"))
    assert list(spec_of(third[0]).reruns) == [first[0]["run_id"], second[0]["run_id"]]


def test_a_rerun_continues_without_tables_that_have_left_the_config(configured, tracking):
    configured(ALL)
    end(tracking, customers="SUCCEEDED", orders="FAILED", lines="FAILED")
    text = configured.config.read_text()
    configured.config.write_text(text.replace("public.orders", "public.others"))
    answer = configured({"rerun_failed_of": EXECUTION}, LATER)
    assert [item["extract_table"] for item in items_of(answer)] == ["public.lines"]
    assert answer["note"] == (
        "1 failed tables are not in the config any more and were left out: public.orders"
    )


def test_a_rerun_of_nothing_but_tables_that_have_left_is_refused(configured, tracking):
    configured(ALL)
    end(tracking, customers="SUCCEEDED", orders="FAILED", lines="SUCCEEDED")
    text = configured.config.read_text()
    configured.config.write_text(text.replace("public.orders", "public.others"))
    with pytest.raises(ConfigError, match=r"not in the config any more: public\.orders|any more: "):
        configured({"rerun_failed_of": EXECUTION}, LATER)


def test_a_config_that_changes_between_two_calls_changes_nothing(configured, tracking):
    first = items_of(configured(ALL))
    configured.config.write_text(configured.config.read_text().replace("public.orders", "public.x"))
    assert items_of(configured(ALL)) == first
    assert len(list(tracking.by_execution(EXECUTION))) == 3


def test_a_config_that_was_wrong_may_be_corrected_for_a_redrive(configured):
    good = configured.config.read_text()
    configured.config.write_text("tables: [")
    with pytest.raises(ConfigError):
        configured(ALL)
    configured.config.write_text(good)
    assert configured(ALL)["table_count"] == 3


def test_the_handler_reads_its_environment(configured, tracking, ministack, monkeypatch, tmp_path):
    from tests.support.emulators import use

    use(ministack, monkeypatch, CONFIG_URI=str(tmp_path / "config"),
        WORK_URI=str(tmp_path / "work"), TRACKING_TABLE=tracking.table)  # fmt: skip
    manager._client.cache_clear()
    event = {"input": ALL, "execution_id": EXECUTION, "execution_started_at": STARTED}
    assert manager.handler(event, None)["table_count"] == 3
    manager._client.cache_clear()
    for name in ("CONFIG_URI", "TRACKING_TABLE"):
        monkeypatch.delenv(name)
        with pytest.raises(ConfigError, match=f"lacks {name}|lacks TRACKING_TABLE"):
            manager.handler(event, None)


def test_s3_uris_become_bucket_and_key():
    assert manager._bucket_and_key("s3://work/a/b.json") == ("work", "a/b.json")


@pytest.mark.parametrize("module", ["extract_config_manager", "handle_extract_job_run_status"])
def test_a_lambda_imports_nothing_heavy(module):
    code = (
        f"import sys, entrypoints.{module}\n"
        "heavy = {'pyspark', 'duckdb', 'pyarrow', 'pandas', 'awswrangler', 'psycopg', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.stdout.strip() == "[]", ended.stderr


HARMLESS = {
    "mode": "incremental",
    "watermark": {"lower": "2026-01-01", "upper": "2026-02-01"},
    "split": {"strategy": "none", "max_connections": 2},
    "max_connections": 2,
    "target": {"file_bytes": "64MB"},
    "reconcile": False,
    "retry": {"max_attempts": 1},
    "glue": {"worker_type": "G.2X", "number_of_workers": 3},
    "emr": {"executors": 3},
    "ecs": {"memory": 8192},
}


def test_an_event_may_say_bounds_mode_splits_and_sizes(configured):
    text = configured.config.read_text()
    configured.config.write_text(text.replace("defaults:", "defaults:\n  watermark: {column: u}"))
    [item, *_] = items_of(configured({**ALL, "overrides": HARMLESS}))
    spec = parse_spec(open_storage(item["spec_uri"]).read(item["spec_uri"]))
    assert (spec.mode, spec.watermark.lower, spec.split.max_connections) == (
        "incremental", "2026-01-01", 2,
    )  # fmt: skip
    assert (item["glue"]["worker_type"], item["ecs"]["memory"]) == ("G.2X", 8192)


HARMFUL = [
    {"emr": {"entry_point": "s3://theirs/emr.py"}},
    {"emr": {"archive": "s3://theirs/x --conf spark.jars=s3://theirs/x.jar"}},
    {"emr": {"application_id": "a"}},
    {"emr": {"cluster_id": "j"}},
    {"emr": {"execution_role_arn": "arn:theirs"}},
    {"emr": None},
    {"glue": {"job_name": "theirs"}},
    {"ecs": {"subnets": ["subnet-1"]}},
    {"ecs": {"security_groups": []}},
    {"ecs": {"assign_public_ip": "ENABLED"}},
    {"ecs": {"task_definition": "theirs"}},
    {"columns": {"mask": None}},
    {"columns": {"mask": {"email": "null"}}},
    {"columns": {"exclude": None}},
    {"columns": {"mask_key": {"env": "PATH"}}},
    {"columns": None},
    {"where": None},
    {"where": "true"},
    {"query": "select * from secrets"},
    {"files": {"glob": "**"}},
    {"target": {"uri": "s3://theirs/x"}},
    {"target": {"catalog": None}},
    {"target": {"catalog": {"database": "theirs"}}},
    {"target": None},
    {"state_uri": "s3://theirs/state"},
    {"spill_folder": "/dev/shm"},
]


@pytest.mark.parametrize("overrides", HARMFUL, ids=json.dumps)
def test_an_event_never_says_code_network_columns_sql_or_places(configured, tracking, overrides):
    with pytest.raises(ConfigError, match=r"overrides\..*no event can override|list the keys"):
        configured({**ALL, "overrides": overrides})
    assert list(tracking.by_execution(EXECUTION)) == []


@pytest.mark.parametrize(
    "overrides",
    [
        {"target": {"write_mode": "overwrite"}},
        {"target": {"partition_by": []}},
        {"lossy_types": "null"},
        {"on_schema_change": {"narrowed": "evolve"}},
        {"on_schema_change": "evolve"},
        {"watermark": {"column": "x"}},
        {"watermark": None},
        {"job_type": "emr"},
    ],
    ids=json.dumps,
)
def test_the_rest_is_the_deployment_s_or_the_config_s_to_allow(configured, overrides):
    def key(values, above=""):
        [(name, value)] = values.items()
        return key(value, f"{above}{name}.") if isinstance(value, dict) else f"{above}{name}"

    given = {**ALL, "overrides": overrides}
    with pytest.raises(ConfigError) as refused:
        configured(given)
    assert f"overrides.{key(overrides)}: may not be overridden" in str(refused.value)
    assert "source.event_overrides" in str(refused.value)
    assert "EventOverrides" in str(refused.value)
    assert configured(given, event_overrides=(key(overrides), "mode"))["table_count"] == 3
    config = yaml.safe_load(configured.config.read_text())
    config["source"]["event_overrides"] = ["reconcile"]
    configured.config.write_text(yaml.safe_dump(config, sort_keys=False))
    with pytest.raises(ConfigError, match="may not be overridden"):  # the config has the last word
        configured(given, LATER, event_overrides=(key(overrides),))
    config["source"]["event_overrides"] = [key(overrides)]
    configured.config.write_text(yaml.safe_dump(config, sort_keys=False))
    assert configured(given, LATER)["table_count"] == 3


def test_nobody_can_allow_what_no_event_may_override(configured):
    with pytest.raises(
        ConfigError, match=r"EVENT_OVERRIDES of the deployment: emr\.archive decides"
    ):
        configured(ALL | {"overrides": {"mode": "full"}}, event_overrides=("emr.archive",))
    config = yaml.safe_load(configured.config.read_text())
    config["source"]["event_overrides"] = ["mode", "where", "target", "emr", "nope", "columns.mask"]
    configured.config.write_text(yaml.safe_dump(config, sort_keys=False))
    with pytest.raises(ConfigError) as refused:
        configured(ALL)
    message = str(refused.value)
    for number, text in enumerate(
        [
            "where is SQL",
            "target contains target.uri",
            "emr decides",
            "nope is not a key",
            "columns.mask",
        ],
        1,
    ):
        assert f"source.event_overrides[{number}]: {text}" in message


def test_the_overrides_of_a_rerun_are_checked_again(configured, tracking, tmp_path):
    configured({**ALL, "overrides": {"max_connections": 2}})
    for run in tracking.by_execution(EXECUTION):
        tracking.end(replace(run, status="FAILED"))
    [kept] = tmp_path.glob("work/sales/*/event.json")
    kept.write_text(json.dumps({"source_name": "sales", "overrides": {"where": "true"}}))
    with pytest.raises(ConfigError, match="where is SQL"):
        configured({"rerun_failed_of": EXECUTION}, execution=EXECUTION + "2")


def test_the_keys_are_read_from_the_environment():
    given = {"CONFIG_URI": "s3://b/c", "WORK_URI": "s3://b/w"}
    assert Settings.from_environment(given).event_overrides is None
    assert Settings.from_environment({**given, "EVENT_OVERRIDES": ""}).event_overrides is None
    found = Settings.from_environment({**given, "EVENT_OVERRIDES": "mode, target.write_mode"})
    assert found.event_overrides == ("mode", "target.write_mode")


@pytest.mark.parametrize(
    "uri", ["s3://b/x --conf a=b", "s3://b/x,s3://c/y", "s3://b/x#y", "x.py", ""]
)
@pytest.mark.parametrize("key", ["entry_point", "archive"])
def test_code_is_named_by_a_uri_without_blanks_in_configs_and_deployments_too(configured, key, uri):
    with pytest.raises(ConfigError, match=rf"JOB_DEFAULTS of the deployment: emr\.{key}: "):
        configured(ALL, job_defaults={"emr": {key: uri}})
    text = configured.config.read_text()
    job = f"    job_type: emr\n    emr: {{{key}: {json.dumps(uri)}}}"
    configured.config.write_text(text.replace("    job_type: emr", job))
    with pytest.raises(ConfigError, match=rf"tables\.public\.lines\.emr\.{key}"):
        configured(ALL)


# --- patterns ------------------------------------------------------------------------------------


@pytest.fixture
def patterned(tmp_path, configured):
    """The same function over a SQLite file, of whose tables one has an entry of its own."""
    shop = tmp_path / "shop.db"

    def execute(*statements):
        with closing(sqlite3.connect(shop, isolation_level=None)) as database:
            for statement in statements:
                database.execute(statement)

    execute(*(f"create table {name} (id int)" for name in ("orders", "lines", "load_tmp")))
    config = {
        "version": 1,
        "source": {"name": "sales", "type": "sqlite", "connection": {"path": str(shop)}},
        "defaults": {"target": {"uri": str(tmp_path / "lake/{table}")}},
        "tables": {
            "orders": {"job_type": "ecs"},
            "*": {"exclude": ["*_tmp"], "tags": ["daily"], "batch": "small"},
        },
    }
    configured.config.write_text(yaml.safe_dump(config, sort_keys=False))
    configured.execute = execute
    return configured


def tables_in(answer):
    return [item["extract_table"] for item in items_of(answer)]


def test_patterns_are_refused_where_sources_may_not_be_reached(patterned):
    with pytest.raises(ConfigError, match=r"sales\.yml: \*: the config manager may not connect .*"):
        patterned(ALL)
    assert Settings.from_environment({"CONFIG_URI": "c", "WORK_URI": "w"}).list_tables is False
    given = {"CONFIG_URI": "c", "WORK_URI": "w", "LIST_TABLES": "yes"}
    assert Settings.from_environment(given).list_tables is True


def test_every_call_and_rerun_of_an_execution_sees_the_tables_that_the_first_call_saw(
    patterned, tracking
):
    first = patterned(ALL, list_tables=True)
    assert tables_in(first) == ["orders", "lines"]
    patterned.execute("create table parts (id int)", "drop table lines")
    assert tables_in(patterned(ALL, list_tables=True)) == ["orders", "lines"], "a retry"
    by_table = {run.extract_table: run for run in tracking.by_execution(EXECUTION)}
    for run in by_table.values():
        ended = replace(run, status="FAILED", error_class="SourceUnavailable")
        assert tracking.end(ended)
    again = patterned({"rerun_failed_of": EXECUTION}, execution=f"{EXECUTION}-2", list_tables=False)
    assert tables_in(again) == ["orders", "lines"]
    assert again["note"] == ""
    new = patterned(ALL, execution=f"{EXECUTION}-3", list_tables=True)
    assert tables_in(new) == ["orders", "parts"]
    assert new["note"] == (
        "1 table is new in the source: parts. 1 table is gone from the source, with files and "
        "state kept: lines"
    )
    assert patterned(ALL, execution=f"{EXECUTION}-4", list_tables=True)["note"] == ""


def test_a_table_with_brackets_in_its_name_is_excluded_by_its_name(patterned):
    patterned.execute('create table "copy[1]" (id int)')
    config = yaml.safe_load(patterned.config.read_text())
    config["tables"]["*"]["exclude"].append("copy[1]")
    patterned.config.write_text(yaml.safe_dump(config, sort_keys=False))
    assert tables_in(patterned(ALL, list_tables=True)) == ["orders", "lines"]


def test_tags_select_tables_of_patterns(patterned):
    given = {"source_name": "sales", "extract_tables": ["tag:daily"]}
    assert tables_in(patterned(given, list_tables=True)) == ["lines"]


def test_too_many_tables_are_refused(patterned, monkeypatch):
    monkeypatch.setattr(manager, "MOST_LISTED", 1)
    with pytest.raises(ConfigError, match="its patterns match more than 1 tables"):
        patterned(ALL, list_tables=True)


def test_a_damaged_list_of_tables_is_refused(patterned):
    patterned(ALL, list_tables=True)
    [listed] = patterned.config.parents[1].glob("work/sales/*/listed_tables.json")
    listed.write_text("{")
    with pytest.raises(ConfigError, match=r"listed_tables\.json is damaged"):
        patterned(ALL, list_tables=True)


def test_the_listing_needs_no_arrow():
    """Arrow alone would be larger than Lambda allows."""
    code = (
        "import sys; sys.modules['pyarrow'] = sys.modules['duckdb'] = None\n"
        "import entrypoints.extract_config_manager\n"
        "from extract_jobs.spec.source_types import BUILT_IN\n"
        "assert sum(k.lists is not None and bool(k.lister()) for k in BUILT_IN.values()) == 3"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
