"""Whole extracts in this process: awkward tables, faulty storage, bad input, secrets."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pytest

from extract_jobs.errors import (
    ConfigError,
    ExtractError,
    SourceUnavailable,
    TypeNotRepresentable,
    WriteFailed,
)
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from infra.local.emulator import Emulator
from tests.support.crash import Lake, bucket_of
from tests.support.emulators import set_environment
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import Server


@dataclass
class Scene:
    server: Server
    lake: Lake

    def spec(self, run_id: str = "r", attempt: int = 1, **more: Any) -> ExtractSpec:
        return ExtractSpec.model_validate(
            self.lake.spec(self.server, run_id, attempt, **{"split": {"strategy": "none"}} | more)
        )


@pytest.fixture(params=["s3", "local"])
def scene(
    request: pytest.FixtureRequest,
    pg_database: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Scene:
    monkeypatch.setenv("CRASH_PASSWORD", pg_database.password)
    if request.param == "local":
        return Scene(pg_database, Lake(str(tmp_path / "lake")))
    return s3_scene(request.getfixturevalue("ministack"), pg_database, monkeypatch)


def s3_scene(emulator: Emulator, server: Server, monkeypatch: pytest.MonkeyPatch) -> Scene:
    set_environment({**emulator.environment(), "CRASH_PASSWORD": server.password}, monkeypatch)
    uri = bucket_of(emulator, f"extract-{uuid4().hex[:8]}") + "/x"
    return Scene(server, Lake(uri, emulator.environment()))


@pytest.fixture
def on_s3(ministack: Emulator, pg_database: Server, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return s3_scene(ministack, pg_database, monkeypatch)


def test_a_table_without_a_key(scene: Scene) -> None:
    scene.server.execute("create table t (id int)", "insert into t values (1), (1), (null)")
    assert run_extract(scene.spec()).rows == 3
    values = [v for uri in scene.lake.visible() for v in scene.lake.table(uri)["id"].to_pylist()]
    assert sorted(values, key=str) == [1, 1, None]


def test_a_partitioned_table_of_the_source(scene: Scene) -> None:
    scene.server.execute(
        "create table t (id int, at date) partition by range (at)",
        "create table t_1 partition of t for values from ('2026-01-01') to ('2026-02-01')",
        "create table t_2 partition of t for values from ('2026-02-01') to ('2026-03-01')",
        "insert into t select g, '2026-01-01'::date + g % 59 from generate_series(1, 1000) g",
    )
    report = run_extract(scene.spec(split={}, target={"partition_by": ["month(at)"]}))
    assert (report.rows, report.source_rows) == (1000, 1000)
    assert scene.lake.read() == list(range(1, 1001))
    folders = {uri.rsplit("/", 2)[1] for uri in scene.lake.visible()}
    assert folders == {"at_month=2026-01", "at_month=2026-02"}


def test_an_empty_table(scene: Scene) -> None:
    scene.server.execute("create table t (id int, at timestamptz)")
    report = run_extract(scene.spec())
    assert (report.rows, report.files, report.source_rows) == (0, 1, 0)
    [uri] = scene.lake.visible()
    assert scene.lake.table(uri).schema.names == ["id", "at", "_run_id", "_extracted_at"]


def test_twenty_values_of_twenty_megabytes(pg_database: Server, tmp_path: Path) -> None:
    """In a process of its own, whose peak memory the kernel keeps.

    `getrusage` would give the peak of the process that started it, where that was larger.
    """
    pg_database.execute(
        "create table t (id int, body text)",
        "alter table t alter body set storage external",
        "insert into t select g, repeat(chr(64 + g), 20000000) from generate_series(1, 20) g",
    )
    lake = Lake(str(tmp_path))
    spec = ExtractSpec.model_validate(lake.spec(pg_database, "r", split={"strategy": "none"}))
    code = (
        "import sys; from pathlib import Path; from extract_jobs.run import run_extract;"
        "from extract_jobs.spec.extract_spec import parse_spec;"
        "assert run_extract(parse_spec(sys.argv[1])).rows == 20;"
        "lines = Path('/proc/self/status').read_text().splitlines();"
        "print(*(int(line.split()[1]) // 1024 for line in lines if line.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, spec.model_dump_json()],
        env={"CRASH_PASSWORD": pg_database.password, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 800  # the table is 400 MB, and Arrow and Python would each copy it
    found = duckdb.sql(f"select id, length(body), body[1] from '{tmp_path}/raw/t/**/*.parquet'")
    assert sorted(found.fetchall()) == [(g, 20_000_000, chr(64 + g)) for g in range(1, 21)]


@pytest.mark.parametrize(
    "name",
    ['Up Per.Dot"quote', "sélect ☃", "a;drop table b;--", "order", "per%cent=1", "back\\slash"],
)
def test_hostile_names_of_tables_and_columns(scene: Scene, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    scene.server.execute(
        f"create schema {quoted}",
        f"create table {quoted}.{quoted} (id int, {quoted} text)",
        f"insert into {quoted}.{quoted} values (1, 'x'), (2, null)",
    )
    report = run_extract(
        scene.spec(extract_table=f"{name}.{name}", target={"partition_by": [name]})
    )
    assert report.rows == 2
    assert scene.lake.read() == [1, 2]


def test_a_query_and_a_view(scene: Scene) -> None:
    scene.server.execute(
        "create table base (id int)",
        "insert into base select generate_series(1, 10)",
        "create view t as select id from base where id <= 7",
    )
    assert run_extract(scene.spec()).rows == 7
    other = Lake(scene.lake.uri + "-q", scene.lake.environment)
    spec = Scene(scene.server, other).spec(
        extract_table="odd", query="select id from base where id % 2 = 1; "
    )
    assert run_extract(spec).rows == 5
    assert other.read() == [1, 3, 5, 7, 9]


def test_overwrite_replaces_and_append_adds(scene: Scene) -> None:
    scene.server.execute("create table t (id int)", "insert into t values (1), (2)")
    for run_id in "ab":
        run_extract(scene.spec(run_id, target={"write_mode": "append"}))
    assert scene.lake.read() == [1, 1, 2, 2]
    scene.server.execute("delete from t where id = 1")
    for run_id in "cd":  # the default of mode full: extracted twice, it is there once
        run_extract(scene.spec(run_id))
        assert scene.lake.read() == [2]


# --- faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_storage_that_fails_at_random_costs_nothing_but_time(
    on_s3: Scene, ministack: Emulator, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    on_s3.server.execute("create table t (id int)", "insert into t select generate_series(1, 1000)")
    with FaultProxy(ministack.endpoint_url) as proxy:
        set_environment(proxy.environment(), monkeypatch)
        proxy.fail_at_random(seed=seed, probability=0.05 + 0.1 * (seed % 4))
        try:
            report = run_extract(on_s3.spec())
        except WriteFailed:
            rows = on_s3.lake.read()
            assert rows in ([], list(range(1, 1001)))  # all of the one commit, or none of it
        else:
            assert report.rows == 1000
    set_environment(ministack.environment(), monkeypatch)
    assert run_extract(on_s3.spec(attempt=2)).rows == 1000
    assert on_s3.lake.read() == list(range(1, 1001))


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"extract_table": "public.tt"}, ConfigError, r"public\.tt.*public\.t"),
        ({"columns": {"include": ["idd"]}}, ConfigError, r"idd.*id"),
        ({"target": {"partition_by": ["day(att)"]}}, ConfigError, r"att.*at"),
        ({"columns": {"rename": {"id": "AT"}}}, ConfigError, r"AT"),
        ({"extract_table": "public.bad"}, TypeNotRepresentable, r"m.*money"),
    ],
)
def test_bad_input_is_reported_and_nothing_is_written(
    scene: Scene, change: dict[str, Any], error: type[ExtractError], said: str
) -> None:
    scene.server.execute(
        "create table t (id int, at timestamptz)",
        "create table bad (id int, m money)",
        "insert into t values (1, now())",
    )
    with pytest.raises(error, match=said) as caught:
        run_extract(scene.spec(**change))
    assert "\n" not in str(caught.value)
    assert scene.lake.visible() == []
    assert scene.lake.staged() == []
    report = scene.lake.report("r")
    assert report["error"]["class"] == error.__name__
    assert report["status"] == "failed"


def test_a_wrong_password_and_a_closed_port(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = scene.spec()
    monkeypatch.setenv("CRASH_PASSWORD", "wr0ng-and-secret")
    with pytest.raises(ConfigError, match="password") as caught:
        run_extract(spec)
    assert "wr0ng-and-secret" not in "".join(traceback.format_exception(caught.value))
    nobody_listens = {"host": "127.0.0.1", "port": 9, "user": "u", "database": "d"}
    with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1"):
        run_extract(scene.spec(connection=nobody_listens))
    assert scene.lake.visible() == []


def test_a_bucket_that_is_not_there(on_s3: Scene) -> None:
    on_s3.server.execute("create table t (id int)")
    spec = on_s3.spec(target={"uri": "s3://no-such-bucket-here/t"})
    with pytest.raises(ConfigError, match="no-such-bucket-here"):
        run_extract(spec)


def test_a_denied_bucket(
    on_s3: Scene, ministack: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_s3.server.execute("create table t (id int)")
    with FaultProxy(ministack.endpoint_url) as proxy:
        set_environment(proxy.environment(), monkeypatch)
        only = "CreateMultipartUpload"
        proxy.fail(1, "status_403", only=lambda r: r.operation == only)
        with pytest.raises(ConfigError, match=r"(?i)denied.*s3:PutObject|s3:PutObject.*denied"):
            run_extract(on_s3.spec())
    assert on_s3.lake.visible() == []


# --- secrets ---------------------------------------------------------------------------------


def test_the_password_is_nowhere(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In no log, exception, report, plan, commit or object, also when the connection breaks."""
    caplog.set_level(logging.DEBUG)
    password = scene.server.password
    scene.server.execute("create table t (id int)", "insert into t values (1)")
    texts = [run_extract(scene.spec()).to_json()]
    for change in (
        {"where": "id / 0 = 1"},
        {"extract_table": "nope"},
        {"connection": {"url": scene.server.url.replace(str(scene.server.port), "9"),
                        "password_env": "CRASH_PASSWORD"}},
        {"connection": {"url": scene.server.url + "x", "password_env": "CRASH_PASSWORD"}},
    ):  # fmt: skip
        with pytest.raises(ExtractError) as caught:
            run_extract(scene.spec("bad", **change))
        texts.append("".join(traceback.format_exception(caught.value)))
        texts.append(repr(caught.value.__cause__))
    texts.append(caplog.text)
    assert all(password not in text for text in texts)
    if scene.lake.uri.startswith("s3://"):
        return
    for path in Path(scene.lake.uri).rglob("*"):
        if path.is_file():
            assert password.encode() not in path.read_bytes(), path
