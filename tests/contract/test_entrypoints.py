"""One behaviour of the three workers, each run as the process that its service starts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import boto3
import psutil
import pytest

from extract_jobs.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_RETRY
from extract_jobs.reporting.report import Report
from extract_jobs.spark.java import bundled_java_home
from extract_jobs.tracking.table import TrackedRun, Tracking, create_table, utc_now
from tests.support.crash import Lake, bucket_of
from tests.support.emulators import Emulator
from tests.support.fault_proxy import FaultProxy
from tests.support.java import QUICK_JAVA_ENVIRONMENT
from tests.support.postgres import Server
from tests.support.sampling import pairs, sample

ROOT = Path(__file__).parents[2]
WORKERS = ("glue", "emr", "ecs")
ROWS = 1_000


@dataclass
class Bench:
    """A source with one table, a lake in a bucket, a tracking table, and workers to start."""

    server: Server
    lake: Lake
    tracking: Tracking
    emulator: Emulator
    folder: Path

    def spec(self, **more):
        spec = self.lake.spec(self.server, self.run_id, **more)
        path = self.folder / "spec.json"
        path.write_text(json.dumps(spec))
        return str(path)

    @property
    def run_id(self):
        return "run-1"

    @property
    def report_uri(self):
        return str(self.folder / "report.json")

    def report(self):
        return Report.parse(Path(self.report_uri).read_bytes())

    def arguments(self, **more):
        given = {
            "run_id": self.run_id,
            "attempt": "1",
            "generation": "1",
            "execution_id": "arn:execution:1",
            "source_name": "s",
            "source_type": "postgres",
            "extract_table": "public.t",
            "job_type": "ecs",
            "spec_uri": str(self.folder / "spec.json"),
            "report_uri": self.report_uri,
            "tracking_table": self.tracking.table,
            **more,
        }
        return [text for key, value in given.items() for text in (f"--{key}", value)]

    def environment(self):
        kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "TZ"}}
        return {
            **kept,
            **self.emulator.environment(),
            "CRASH_PASSWORD": self.server.password,
            "PYTHONPATH": str(ROOT),
            "JAVA_HOME": str(bundled_java_home()),
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "TMPDIR": str(self.folder),
            **QUICK_JAVA_ENVIRONMENT,
        }

    def start(self, worker, arguments, *, command=(sys.executable,), **more):
        return subprocess.Popen(
            [*command, str(ROOT / f"entrypoints/{worker}.py"), *arguments],
            env={**self.environment(), **more},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, worker, arguments, **more):
        with self.start(worker, arguments, **more) as process:
            stdout, stderr = ended(process, 120)
        assert self.server.password not in stdout + stderr
        return process.returncode, stdout, stderr

    def tracked(self, attempt=1, **fields):
        return TrackedRun(
            table_id="s/public.t", run_id=self.run_id, attempt=attempt,
            execution_id="arn:execution:1", source_name="s", extract_table="public.t", **fields,
        )  # fmt: skip

    def read_tracked(self):
        return self.tracking.read("s/public.t", self.run_id)


@pytest.fixture
def bench(pg_database, ministack, tmp_path):
    pg_database.execute(
        "create table t (id int primary key, name text)",
        f"insert into t select n, 'name ' || n from generate_series(1, {ROWS}) n",
    )
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
    lake = Lake(bucket_of(ministack, f"work-{uuid.uuid4().hex[:8]}") + "/x", given)
    yield Bench(pg_database, lake, Tracking(client, name, utc_now), ministack, tmp_path)
    client.close()


def ended(process, seconds):
    """Return a process's output, once it has ended by itself."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"still running after {seconds} s: {process.communicate()}")


def last_line(stderr):
    return [line for line in stderr.splitlines() if line.strip()][-1]


def failed_as(worker, code, name, result):
    """Assert that a worker failed as its service expects it."""
    returned, _, stderr = result
    # Glue wants an exception, and Python ends with 1 then; it spells the class with its module.
    assert returned == (EXIT_FAILED if worker == "glue" else code), stderr
    line = last_line(stderr)
    assert line.removeprefix("extract_jobs.errors.").startswith(f"{name}: "), stderr
    return line


@pytest.mark.parametrize("worker", WORKERS)
def test_a_table_is_extracted_reported_and_tracked(bench, worker):
    bench.spec()
    code, stdout, stderr = bench.run(worker, bench.arguments())
    assert code == 0, stdout + stderr
    lines = [json.loads(line) for line in stdout.splitlines()]
    shown = {"source_name": "s", "extract_table": "public.t", "run_id": "run-1", "attempt": 1}
    assert [line for line in lines if not line.items() >= shown.items()] == []
    *_, done, counted = lines
    assert done["message"] == f"public.t: {ROWS} rows in 1 files"
    report = bench.report()
    assert (counted["Rows"], counted["Bytes"]) == (ROWS, report.bytes)
    [directive] = counted["_aws"]["CloudWatchMetrics"]
    assert {m["Name"] for m in directive["Metrics"]} == {
        "Rows", "Bytes", "Files", "Retries", "CatalogFailed",
        *(f"{phase.capitalize()}Seconds" for phase in report.timings),
    }  # fmt: skip
    assert bench.lake.read() == list(range(1, ROWS + 1))
    assert (report.status, report.rows, report.attempt) == ("succeeded", ROWS, 1)
    run = bench.read_tracked()
    assert (run.status, run.fence, run.execution_id) == ("RUNNING", (1, 1), "arn:execution:1")
    assert bench.lake.staged() == []


@pytest.mark.parametrize("worker", sample(WORKERS, 1))
def test_both_spellings_unknown_arguments_and_repetitions(bench, worker):
    bench.spec()
    arguments = [
        "--JOB_NAME", "extract-jobs", "--job-bookmark-option", "job-bookmark-disable",
        "--enable-metrics", "--TempDir=s3://nowhere/", "stray",
        f"--spec_uri={bench.folder}/none.json", "--attempt=1",
        f"--report_uri={bench.folder}/r=2.json",
        "--spec_uri", f"{bench.folder}/spec.json", "--attempt", "2",
    ]  # fmt: skip
    code, stdout, stderr = bench.run(worker, arguments)
    assert code == 0, stdout + stderr
    report = Report.parse((bench.folder / "r=2.json").read_bytes())
    assert (report.rows, report.attempt) == (ROWS, 2)
    assert bench.read_tracked() is None


@pytest.mark.parametrize("worker", sample(WORKERS, 1))
def test_a_spec_given_in_place_needs_nothing_else(bench, worker):
    spec = Path(bench.spec()).read_text()
    code, stdout, stderr = bench.run(worker, ["--spec_uri", spec])
    assert code == 0, stdout + stderr
    assert bench.lake.read() == list(range(1, ROWS + 1))


@pytest.mark.parametrize(
    ("worker", "case"),
    pairs(
        WORKERS,
        [(None, "there is no spec"), ("{", "JSON"), ('{"run_id": "run-1"}', "source_name")],
    ),
)
def test_a_spec_that_cannot_be_read_is_reported(bench, worker, case):
    text, shown = case
    bench.spec()
    path = bench.folder / "spec.json"
    path.unlink() if text is None else path.write_text(text)
    line = failed_as(worker, EXIT_CONFIG, "ConfigError", bench.run(worker, bench.arguments()))
    assert shown in line
    report = bench.report()
    assert (report.status, report.run_id, report.attempt) == ("failed", "run-1", 1)
    assert (report.error.class_name, report.error.retryable) == ("ConfigError", False)
    assert shown in report.error.message


@pytest.mark.parametrize("worker", sample(WORKERS, 1))
def test_the_spec_of_another_run_is_refused(bench, worker):
    bench.spec()
    result = bench.run(worker, bench.arguments(run_id="run-2"))
    line = failed_as(worker, EXIT_CONFIG, "ConfigError", result)
    assert "is the spec of run run-1, and --run_id says run-2" in line
    assert bench.lake.visible() == []


@pytest.mark.parametrize(("worker", "status"), pairs(WORKERS, ["RUNNING", "SUCCEEDED", "FAILED"]))
def test_an_outdated_attempt_does_nothing(bench, worker, status):
    bench.spec()
    later = bench.tracked(attempt=2 if status == "RUNNING" else 1)
    assert bench.tracking.start(later)
    if status != "RUNNING":
        assert bench.tracking.end(replace(later, status=status))
    before = bench.read_tracked()
    code, _, stderr = bench.run(worker, bench.arguments())
    assert code == EXIT_FAILED
    assert "generation 1, attempt 1 of run run-1 (s/public.t) is outdated" in last_line(stderr)
    assert bench.read_tracked() == before
    assert bench.lake.visible() == []
    assert not Path(bench.report_uri).exists()


@pytest.mark.parametrize("worker", sample(WORKERS, 1))
def test_a_tracking_table_that_is_absent_is_reported(bench, worker):
    bench.spec()
    result = bench.run(worker, bench.arguments(tracking_table="absent"))
    failed_as(worker, EXIT_CONFIG, "ConfigError", result)
    assert "tracking table absent" in bench.report().error.message


@pytest.mark.parametrize("worker", sample(WORKERS, 1))
def test_a_source_that_is_away_may_be_tried_again(bench, worker):
    spec = json.loads(Path(bench.spec()).read_text())
    spec["connection"]["url"] = spec["connection"]["url"].replace(str(bench.server.port), "9")
    (bench.folder / "spec.json").write_text(json.dumps(spec))
    failed_as(worker, EXIT_RETRY, "SourceUnavailable", bench.run(worker, bench.arguments()))
    assert bench.report().error.retryable


@pytest.mark.parametrize(
    ("worker", "case"),
    pairs(
        WORKERS,
        [([], "--spec_uri is missing"), (["--spec_uri"], "--spec_uri has no value"),
         (["--spec_uri", "x", "--attempt", "one"], "--attempt is 'one'")],
    ),
)  # fmt: skip
def test_a_wrong_command_line_is_reported(bench, worker, case):
    arguments, shown = case
    assert shown in failed_as(worker, EXIT_CONFIG, "ConfigError", bench.run(worker, arguments))


@pytest.mark.spark
@pytest.mark.parametrize("worker", sample(["glue", "emr"], 1))
def test_spark_submit_runs_it_by_hand_on_several_splits(bench, worker):
    bench.spec(split={"strategy": "range", "column": "id", "target_bytes": 8192})
    submit = shutil.which("spark-submit", path=str(Path(sys.executable).parent))
    events = bench.folder / "events"
    events.mkdir()
    command = (
        submit, "--master", "local[2]", "--name", "by hand", "--conf", "spark.ui.enabled=false",
        "--conf", "spark.eventLog.enabled=true", "--conf", "spark.eventLog.compress=false",
        "--conf", f"spark.eventLog.dir={events.as_uri()}",
    )  # fmt: skip
    code, stdout, stderr = bench.run(worker, bench.arguments(), command=command)
    assert code == 0, stdout + stderr
    assert f"public.t: {ROWS} rows" in stdout
    files = [path for path in events.rglob("*") if path.is_file()]  # Spark 4 rolls its log
    # What spark-submit was told holds: above all the master, which is a cluster elsewhere.
    lines = [line for path in files for line in path.read_text().splitlines()]
    [log] = [line for line in lines if '"SparkListenerEnvironmentUpdate"' in line]
    settings = json.loads(log)["Spark Properties"]
    assert (settings["spark.master"], settings["spark.app.name"]) == ("local[2]", "by hand")
    assert bench.lake.read() == list(range(1, ROWS + 1))
    assert bench.report().splits > 1


@pytest.mark.spark
@pytest.mark.any_spark
def test_spark_submit_passes_the_exit_code_on(bench):
    submit = shutil.which("spark-submit", path=str(Path(sys.executable).parent))
    code, _, stderr = bench.run("emr", bench.arguments(), command=(submit,))
    assert code == EXIT_CONFIG, stderr


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def reading(bench, what):
    with bench.server.connect() as connection:
        found = connection.execute(
            "select 1 from pg_stat_activity where query like %s and state = 'active' "
            "and pid <> pg_backend_pid()", (f"%{what}%",),
        ).fetchall()  # fmt: skip
    return bool(found)


def test_sigterm_is_heard_while_the_ecs_worker_is_still_being_imported(tmp_path):
    package = tmp_path / "extract_jobs"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import sys, time\nprint('importing', flush=True)\ntime.sleep(60)"
    )
    shutil.copyfile(ROOT / "entrypoints" / "ecs.py", tmp_path / "ecs.py")
    # What is ignored stays so in a new program, as every signal without a handler is for PID 1.
    ignored = "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.execv("
    with subprocess.Popen(
        [sys.executable, "-c", f"{ignored}sys.executable, ['python', 'ecs.py'])"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == "importing\n"
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == EXIT_RETRY
    assert stderr == "Interrupted: stopped by SIGTERM before the extract began\n"


SLOW = {
    "row by row": "select n as id, repeat('x', 100000) as x, pg_sleep(0.01)::text as s "
                  "from generate_series(1, 100000) n",
    "no row yet": "select 1 as id, pg_sleep(600)::text as s",
}  # fmt: skip


def end_by_sigterm(process):
    """Stop a worker in the midst of its extract, and check that it ends in time and says why."""
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    _, stderr = ended(process, 40)
    assert time.monotonic() - started < 25
    assert process.returncode == EXIT_RETRY, stderr
    assert last_line(stderr).startswith("Interrupted: stopped by SIGTERM")


@pytest.mark.parametrize(("worker", "kind"), pairs(["emr", "ecs"], list(SLOW)))
def test_sigterm_stops_drops_and_reports(bench, worker, kind):
    bench.spec(query=SLOW[kind])
    with bench.start(worker, bench.arguments()) as process:
        wait_until(lambda: reading(bench, "pg_sleep") or process.poll() is not None)
        end_by_sigterm(process)
    report = bench.report()
    assert (report.status, report.error.class_name) == ("failed", "Interrupted")
    assert report.error.retryable
    assert bench.lake.staged() == []
    assert bench.lake.visible() == []


def test_sigterm_ends_the_worker_processes_of_the_ecs_worker(bench):
    bench.server.execute(
        "insert into t select n, repeat('x', 1000) from generate_series(10000, 12000) n",
        "analyze t",
    )
    slow = "length(repeat(name, 20000)) > 0"
    bench.spec(where=slow, split={"target_bytes": 65536, "max_connections": 2})
    with bench.start("ecs", bench.arguments()) as process:

        def workers():
            children = psutil.Process(process.pid).children(recursive=True)
            return [child for child in children if "extract_jobs.engine.worker_server"
                    in child.cmdline()]  # fmt: skip

        wait_until(lambda: process.poll() is not None or len(workers()) == 3)
        wait_until(lambda: process.poll() is not None or reading(bench, "repeat(name"))
        server_and_workers = workers()
        end_by_sigterm(process)
    assert bench.report().error.class_name == "Interrupted"
    assert len(server_and_workers) == 3
    psutil.wait_procs(server_and_workers, timeout=10)
    assert not [process for process in server_and_workers if process.is_running()]
    assert bench.lake.staged() == []
    assert bench.lake.visible() == []


@pytest.mark.parametrize(
    ("worker", "held"),
    pairs(
        ["emr", "ecs"],
        [
            ("GetObject", "spec.json"),  # reading the spec, before the core is there
            ("ListObjectsV2", "_extract"),
            ("PutObject", "_extract"),  # the commit itself
            ("HeadObject", "raw/t/run-1-"),  # publishing
        ],
    ),
)
def test_sigterm_during_a_call_is_heard_and_nothing_more_is_asked(bench, worker, held):
    call, about = held
    spec_uri = f"{bench.lake.uri}/spec.json"
    bucket, _, key = spec_uri.removeprefix("s3://").partition("/")
    body = Path(bench.spec()).read_bytes()
    bench.lake._s3().put_object(Bucket=bucket, Key=key, Body=body)
    with FaultProxy(bench.emulator.endpoint_url) as proxy:
        proxy.fail(1, "hold", only=lambda r: r.operation == call and about in r.path + r.query)
        arguments = bench.arguments(spec_uri=spec_uri, tracking_table="")
        with bench.start(worker, arguments, **proxy.environment()) as process:
            wait_until(lambda: any(r.fault for r in proxy.requests) or process.poll() is not None)
            asked = len(proxy.requests)
            process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            _, stderr = ended(process, 40)
        assert time.monotonic() - started < 5
        assert process.returncode == EXIT_RETRY, stderr
        assert last_line(stderr).startswith("Interrupted: stopped by SIGTERM")
        assert proxy.operations()[asked:] == []
    assert bench.report().error.class_name == "Interrupted"


@pytest.mark.spark
@pytest.mark.any_spark
@pytest.mark.parametrize("worker", sample(["glue", "emr"], 1))
def test_a_worker_whose_spark_submit_is_ended_ends_too(bench, worker):
    bench.spec(query=SLOW["row by row"])
    submit = shutil.which("spark-submit", path=str(Path(sys.executable).parent))
    with bench.start(worker, bench.arguments(), command=(submit,)) as process:
        wait_until(lambda: reading(bench, "pg_sleep") or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        ended(process, 40)
    # What was the JVM is gone, and Python runs on by itself until it has cleaned up.
    wait_until(Path(bench.report_uri).exists)
    assert bench.report().error.class_name == "Interrupted"
    assert bench.lake.staged() == []
    wait_until(lambda: not reading(bench, "pg_sleep"))


@pytest.mark.spark
@pytest.mark.parametrize(
    "library", ["present", pytest.param("absent", marks=pytest.mark.any_spark)]
)
def test_glue_runs_with_and_without_its_library(bench, library):
    bench.spec()
    path = str(ROOT)
    if library == "absent":
        shadow = bench.folder / "shadow/awsglue"
        shadow.mkdir(parents=True)
        (shadow / "__init__.py").write_text("raise ImportError('there is no awsglue')")
        path = f"{shadow.parent}{os.pathsep}{ROOT}"
    submit = shutil.which("spark-submit", path=str(Path(sys.executable).parent))
    command = (submit, "--master", "local[1]", "--conf", "spark.ui.enabled=false")
    code, stdout, stderr = bench.run("glue", bench.arguments(), command=command, PYTHONPATH=path)
    assert code == 0, stdout + stderr
    assert bench.lake.read() == list(range(1, ROWS + 1))
    # The library needs a JVM that only Glue has; without it the worker says so and goes on.
    assert ("awsglue without Glue's JVM" in stdout + stderr) == (library == "present")


def test_the_session_is_glues_where_there_is_glue(monkeypatch):
    from entrypoints import glue

    class Context:
        spark_session = "glue's"

        def __init__(self, context):
            assert context == "context"

    monkeypatch.setitem(sys.modules, "awsglue", type(sys)("awsglue"))
    module = type(sys)("awsglue.context")
    module.GlueContext = Context
    monkeypatch.setitem(sys.modules, "awsglue.context", module)
    monkeypatch.setattr("pyspark.SparkContext.getOrCreate", lambda: "context")
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    assert glue.glue_session() is None
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    assert glue.glue_session() == "glue's"
