"""The image of ECS, built and run: read-only, without capabilities, as PID 1 and as nobody.

It takes minutes to build, so `make test-image` runs these tests and `make test` does not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from packaging.utils import canonicalize_name

from extract_jobs import __version__
from extract_jobs.errors import EXIT_CONFIG, EXIT_RETRY
from extract_jobs.reporting.report import Report
from extract_jobs.storage.contract import PROBE
from extract_jobs.tracking.table import Tracking, create_table, utc_now
from infra.locked import ROOT
from tests.support.containers import Image
from tests.support.crash import Lake, bucket_of, s3_client
from tests.support.debian import jar
from tests.support.emulators import Emulator
from tests.support.postgres import Server

pytestmark = pytest.mark.image

ROWS = 20_000
PYTHON = "/opt/environment/bin/python"
SITE = "/opt/environment/lib/python3.11/site-packages"


@dataclass
class Task:
    """One table, and the containers that extract it as ECS starts them."""

    image: Image
    server: Server
    lake: Lake
    tracking: Tracking
    emulator: Emulator
    folder: Path

    def spec(self, **changes):
        """Put a spec where the config manager puts it."""
        given = self.lake.spec(self.server, "run-1", **changes)
        given["connection"] = {"secret_id": "lake/sales", **changes.get("connection", {})}
        self.put("spec.json", json.dumps(given).encode())

    def put(self, name, body):
        bucket, _, key = f"{self.lake.uri}/{name}".removeprefix("s3://").partition("/")
        s3_client(self.lake.environment).put_object(Bucket=bucket, Key=key, Body=body)

    def arguments(self):
        given = {
            "run_id": "run-1", "attempt": "1", "generation": "1",
            "execution_id": "arn:execution:1", "source_name": "s", "source_type": "postgres",
            "extract_table": "public.t", "job_type": "ecs",
            "spec_uri": f"{self.lake.uri}/spec.json",
            "report_uri": f"{self.lake.state}/reports/run-1/1.json",
            "tracking_table": self.tracking.table,
        }  # fmt: skip
        return [word for name, value in given.items() for word in (f"--{name}", value)]

    def start(self, arguments=None, *, entrypoint=None, spill=None):
        if spill is None:
            spill = self.folder / "spill"
            spill.mkdir(exist_ok=True)
        os.chown(spill, 10001, 10001)
        return self.image.start(
            self.folder / uuid.uuid4().hex,
            self.arguments() if arguments is None else arguments,
            environment=self.emulator.environment(),
            spill=spill,
            entrypoint=entrypoint,
        )

    def run(self, arguments=None, **more):
        with self.start(arguments, **more) as container:
            code, stdout, stderr = container.ended(180)
        assert self.server.password not in stdout + stderr
        return code, stdout, stderr

    def python(self, program):
        """Run a program with the image's Python and return what it printed."""
        code, stdout, stderr = self.run([program], entrypoint=[PYTHON, "-c"])
        assert code == 0, stderr
        return stdout

    def report(self):
        return Report.parse(json.dumps(self.lake.report("run-1")).encode())


@pytest.fixture
def task(image, pg_database, ministack, tmp_path):
    given = ministack.environment()
    client = {
        "endpoint_url": ministack.endpoint_url, "region_name": given["AWS_DEFAULT_REGION"],
        "aws_access_key_id": given["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": given["AWS_SECRET_ACCESS_KEY"],
    }  # fmt: skip
    dynamodb, secrets = boto3.client("dynamodb", **client), boto3.client("secretsmanager", **client)
    name = f"tracking-{uuid.uuid4().hex[:8]}"
    create_table(dynamodb, name)
    secret = {
        "host": pg_database.host, "port": pg_database.port, "dbname": pg_database.database,
        "username": pg_database.user, "password": pg_database.password,
    }  # fmt: skip
    secrets.create_secret(Name="lake/sales", SecretString=json.dumps(secret))
    pg_database.execute(
        "create table t (id int primary key, name text)",
        f"insert into t select n, 'name ' || n from generate_series(1, {ROWS}) n",
        # Tells when its rows were read.
        "create view v as "
        f"select n as id, clock_timestamp() as at from generate_series(1, {ROWS}) n",
    )
    lake = Lake(bucket_of(ministack, f"work-{uuid.uuid4().hex[:8]}") + "/x", given)
    yield Task(image, pg_database, lake, Tracking(dynamodb, name, utc_now), ministack, tmp_path)
    secrets.delete_secret(SecretId="lake/sales", ForceDeleteWithoutRecovery=True)
    dynamodb.close()
    secrets.close()


def all_json(lines):
    """Assert that every line of a log is an object with a message or metrics; return them."""
    found = [json.loads(line) for line in lines.splitlines()]
    assert [line for line in found if not {"message", "_aws"} & set(line)] == []
    return found


def failed(result, code, name):
    """Assert that a worker failed, that its log is JSON, and return its last line."""
    returned, stdout, stderr = result
    assert returned == code, stdout + stderr
    all_json(stdout)
    *others, last = stderr.splitlines()
    all_json("\n".join(others))
    assert last.startswith(f"{name}: "), stderr
    return last


def test_a_table_arrives(task):
    task.spec()
    code, stdout, stderr = task.run()
    assert (code, stderr) == (0, ""), stdout + stderr
    assert f"public.t: {ROWS} rows in 1 files" in [x.get("message") for x in all_json(stdout)]
    assert task.lake.read() == list(range(1, ROWS + 1))
    assert task.lake.staged() == []
    report = task.report()
    assert (report.status, report.rows, report.reconciled) == ("succeeded", ROWS, True)
    run = task.tracking.read("s/public.t", "run-1")
    assert (run.status, run.execution_id) == ("RUNNING", "arn:execution:1")
    assert list((task.folder / "spill").iterdir()) == []


def test_several_splits_arrive(task):
    task.spec(split={"strategy": "range", "column": "id", "target_bytes": 100_000})
    code, stdout, stderr = task.run()
    assert code == 0, stdout + stderr
    all_json(stdout + stderr)
    assert task.report().splits > 1
    assert task.lake.read() == list(range(1, ROWS + 1))


def test_the_first_row_is_read_within_two_seconds(task):
    """Of a table, on an idle machine; one whose cores are shared is given as much more time."""
    seconds = []
    for number in range(3):
        lake = Lake(f"{task.lake.uri}/{number}", task.lake.environment)
        attempt = Task(task.image, task.server, lake, task.tracking, task.emulator, task.folder)
        attempt.spec(extract_table="public.v")
        arguments = [*attempt.arguments(), "--tracking_table", ""]
        started = time.time()
        code, stdout, stderr = attempt.run(arguments)
        assert code == 0, stdout + stderr
        seconds.append(min(at.timestamp() for at in lake.read("at")) - started)
    print("first row after", *(f"{x:.2f} s" for x in sorted(seconds)))
    share = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert min(seconds) < 2 * share, (seconds, share)


def test_a_table_arrives_over_jdbc(task):
    spill = task.folder / "spill"
    spill.mkdir()
    shutil.copyfile(jar("postgresql"), spill / "postgresql.jar")
    server = task.server
    task.spec(
        source_type="jdbc",
        connection={
            "url": f"jdbc:postgresql://{server.host}:{server.port}/"
                   f"{server.database.replace(' ', '%20')}?sslmode=disable",
            "jars": ["/spill/postgresql.jar"],
        },
        split={"strategy": "range", "column": "id", "target_bytes": 100_000, "max_connections": 2},
    )  # fmt: skip
    code, stdout, stderr = task.run()
    assert code == 0, stdout + stderr
    all_json(stdout + stderr)
    assert task.lake.read() == list(range(1, ROWS + 1))
    assert task.report().splits > 1


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_sigterm_aborts_reports_and_exits(task):
    # Enough bytes for a file to be uploaded, although DuckDB reads ten vectors ahead; then a wait.
    task.spec(
        query="select n as id, "
              "(select string_agg(md5((n + k / 99.0)::text), '') from generate_series(1, 120) k)"
              " as x, "
              "case when n > 40960 then pg_sleep(0.05)::text end as s "
              "from generate_series(1, 100000) n",
        target={"file_bytes": 6_000_000},
    )  # fmt: skip

    def is_staging():
        return any(PROBE not in name for name in task.lake.staged())

    with task.start() as container:
        wait_until(lambda: is_staging() or container.process.poll() is not None)
        container.stop()
        stopped = time.monotonic()
        result = container.ended(60)
    assert time.monotonic() - stopped < 25
    assert "stopped by SIGTERM" in failed(result, EXIT_RETRY, "Interrupted")
    report = task.report()
    assert (report.status, report.error.class_name) == ("failed", "Interrupted")
    assert report.error.retryable
    assert task.lake.staged() == []
    assert task.lake.visible() == []


def test_sigterm_is_heard_from_the_first_moment(task):
    task.spec()
    with task.start() as container:
        # Once runc knows the container, its program has been started.
        wait_until(lambda: _state(container.name) == "running")
        time.sleep(0.3)
        container.stop()
        code, _, stderr = container.ended(30)
    assert code == EXIT_RETRY, stderr
    assert stderr.splitlines()[-1].startswith("Interrupted: ")


def _state(name):
    ended = subprocess.run(["runc", "state", name], capture_output=True, text=True, check=False)
    return json.loads(ended.stdout)["status"] if ended.returncode == 0 else ""


def test_the_health_check_passes_for_a_worker_that_is_well(task):
    task.spec(query="select n as id, pg_sleep(60)::text from generate_series(1, 2) n")
    with mounted(task.folder / "small", "16m") as spill, task.start(spill=spill) as container:
        wait_until(lambda: reading(task.server) or container.process.poll() is not None)
        check = task.image.health
        assert container.execute(check) == (0, "")
        container.signal("STOP")
        assert container.execute(check) == (1, "the worker is stopped\n")
        container.signal("CONT")
        assert container.execute(check) == (0, "")
        with (spill / "full").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 65536):
                pass
        said = "/spill cannot be written: No space left on device\n"
        assert container.execute(check) == (1, said)
        assert [path.name for path in spill.iterdir() if path.name.startswith("tmp")] == []


def reading(server):
    with server.connect() as connection:
        [[count]] = connection.execute(
            "select count(*) from pg_stat_activity where query like '%pg_sleep%' "
            "and state = 'active' and pid <> pg_backend_pid()"
        ).fetchall()
    return count


def test_a_secret_that_is_missing_is_reported(task):
    task.spec(connection={"secret_id": "lake/absent"})
    line = failed(task.run(), EXIT_CONFIG, "ConfigError")
    assert "lake/absent" in line
    assert task.report().error.class_name == "ConfigError"


@contextmanager
def mounted(folder, size):
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_spill_volume_fails_the_run_and_publishes_nothing(task):
    # Rows of thousands of partitions wait on disk.
    task.spec(
        query="select n as id, n % 3000 as part, repeat(md5(n::text), 30) as x "
              "from generate_series(1, 300000) n",
        target={"partition_by": ["part"]},
    )  # fmt: skip
    with mounted(task.folder / "small", "64m") as spill:
        line = failed(task.run(spill=spill), EXIT_RETRY, "WriteFailed")
        assert list(spill.iterdir()) == []
    assert "/spill has 64 MiB free" in line
    assert task.report().error.class_name == "WriteFailed"
    assert task.lake.visible() == []
    assert task.lake.staged() == []


def test_nothing_of_the_build_is_left(image):
    for gone in ("build", "root/.cache", "run/secrets", "etc/pip.conf", "usr/share/python-wheels"):
        assert not (image.root / gone).exists(), gone
    site = image.root / SITE.lstrip("/")
    names = {path.name for path in site.iterdir()}
    assert not {"pip", "setuptools", "wheel", "_distutils_hack"} & names
    assert sorted(p.name for p in (site.parents[2] / "bin").iterdir()) == [
        "python", "python3", "python3.11",
    ]  # fmt: skip
    left = [p for top in ("opt", "usr/lib/python3", "usr/lib/python3.11", "usr/bin")
            for p in (image.root / top).rglob("*")
            if p.suffix == ".whl" or p.name in {"ensurepip", "pip", "pip3"}]  # fmt: skip
    assert left == []


def test_everything_that_a_worker_imports_is_there_and_compiled(task):
    """Every module of the package, and Spark's and AWS's that it imports late."""
    found = task.python(
        "import importlib, pkgutil, sys, extract_jobs\n"
        "for m in pkgutil.walk_packages(extract_jobs.__path__, 'extract_jobs.'):\n"
        "    if not m.name.endswith('__main__'):\n"
        "        importlib.import_module(m.name)\n"
        "import awswrangler, boto3, duckdb, pymysql, psycopg, pyspark.sql, pyarrow.dataset\n"
        "import pyiceberg.catalog.glue\n"
        "from pathlib import Path\n"
        "for m in list(sys.modules.values()):\n"
        "    file, cached = getattr(m, '__file__', None), getattr(m, '__cached__', None)\n"
        "    frozen = getattr(getattr(m, '__spec__', None), 'origin', '') == 'frozen'\n"
        "    if (file and file.endswith('.py') and not frozen\n"
        "            and not (cached and Path(cached).is_file())):\n"
        "        print('not compiled:', file)\n"
        "for service in ('dynamodb', 'glue', 'rds', 'redshift', 'redshift-serverless', 's3',\n"
        "                'secretsmanager', 'ssm', 'sso', 'sso-oidc', 'sts'):\n"
        "    boto3.client(service)\n"
        "print('extract_jobs' in sys.modules, 'pip' in sys.modules)\n"
    )
    assert found == "True False\n"


def test_no_bytecode_depends_on_times(image):
    compiled = [path.read_bytes()[4:8] for path in (image.root / "opt").rglob("*.pyc")]
    assert len(compiled) > 1000
    assert set(compiled) == {b"\1\0\0\0"}  # checked against nothing, PEP 552


def test_the_stage_of_emr_builds_and_its_python_imports_the_package(builder):
    """Over Debian with EMR's user and Python: EMR's own base is in a registry of AWS."""
    builder.base(
        "localhost/emr-base:test", "sh", "-c",
        "groupadd --gid 999 hadoop && useradd --uid 999 --gid 999 hadoop",
    )  # fmt: skip
    tag = "localhost/extract-jobs-emr:test"
    builder.build("emr", tag, "--build-arg", "EMR_IMAGE=localhost/emr-base:test")
    image = builder.image(tag)
    python = image.environment()["PYSPARK_PYTHON"]
    assert image.config["User"] == "hadoop:hadoop"
    assert image.config.get("Entrypoint") is None
    ended = subprocess.run(
        ["/usr/sbin/chroot", "--userspec=999:999", image.root, python, "-c",
         "import duckdb, extract_jobs, pyarrow.parquet; print(extract_jobs.__version__)"],
        env={"PATH": "/usr/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.stdout, ended.stderr) == (f"{__version__}\n", "")


def test_a_release_changes_only_the_last_layer(builder, image, tmp_path):
    """Where the layers of the release before are at hand, as in a builder's cache."""
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in ("extract_jobs", "entrypoints", "asl", "infra", "docs"):
        shutil.copytree(ROOT / name, sources / name)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copyfile(ROOT / name, sources / name)
    for name in ("extract_jobs/__init__.py", "pyproject.toml"):
        text = (sources / name).read_text()
        assert text.count(f'"{__version__}"') == 1
        (sources / name).write_text(text.replace(f'"{__version__}"', '"9.9.9"'))
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "build", "--quiet", "--wheel", "--out-dir", tmp_path / "next", sources], check=True
    )
    [wheel] = (ROOT / "dist").glob("extract_jobs-*.whl")
    try:
        wheel.rename(tmp_path / wheel.name)
        [newer] = (tmp_path / "next").glob("*.whl")
        shutil.copyfile(newer, wheel.with_name(newer.name))
        builder.build(
            "ecs", "localhost/extract-jobs:next", "--build-arg", "VERSION=9.9.9",
            "--build-arg", "CREATED=2030-01-01T00:00:00Z",
        )  # fmt: skip
    finally:
        wheel.with_name(newer.name).unlink(missing_ok=True)
        (tmp_path / wheel.name).rename(wheel)
    released = builder.image("localhost/extract-jobs:next")
    assert released.config["Labels"]["org.opencontainers.image.version"] == "9.9.9"
    assert len(image.layers) > 3
    assert released.layers[:-1] == image.layers[:-1]
    assert released.layers[-1] != image.layers[-1]
    assert (released.root / "opt/extract_jobs/lib/extract_jobs-9.9.9.dist-info").is_dir()


def test_the_bill_of_materials_lists_what_the_image_holds(image, task):
    """Python's packages are those that the image's Python finds, Debian's those that dpkg lists."""
    bom = json.loads((image.root / "opt/extract_jobs/sbom.cdx.json").read_text())
    assert (bom["bomFormat"], bom["metadata"]["component"]["version"]) == ("CycloneDX", __version__)
    listed = {each.get("purl", each["bom-ref"]).partition("?")[0] for each in bom["components"]}
    python = json.loads(task.python(
        "import json, importlib.metadata as m\n"
        "print(json.dumps([[d.metadata['Name'], d.version] for d in m.distributions()]))"
    ))  # fmt: skip
    # The package itself is not on PyPI.
    assert ["extract-jobs", __version__] in python
    expected = {f"pkg:pypi/{canonicalize_name(name)}@{version}" for name, version in python}
    expected -= {f"pkg:pypi/extract-jobs@{__version__}"}
    assert len(expected) > 30
    assert {each for each in listed if each.startswith("pkg:pypi/")} == expected
    jars = {path.name for path in image.root.joinpath(SITE[1:], "pyspark/jars").glob("*.jar")}
    refs = {each["bom-ref"] for each in bom["components"]}
    assert {ref.removeprefix("jar:") for ref in refs if ref.startswith("jar:")} == jars
    assert "pkg:maven/com.fasterxml.jackson.core/jackson-databind@2.15.2" in listed
    debian = subprocess.run(
        ["dpkg-query", "--admindir", image.root / "var/lib/dpkg", "-W", "-f", "${Package}\n"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    names = {each["name"] for each in bom["components"] if "pkg:deb/" in each["bom-ref"]}
    assert names == set(debian)
    assert {"openjdk", "cpython"} <= refs


def test_labels_name_the_version_and_the_commit(image):
    prefix = "org.opencontainers.image."
    labels = image.config["Labels"]
    assert labels[f"{prefix}version"] == __version__
    assert labels[f"{prefix}title"] == "extract-jobs"
    assert labels[f"{prefix}licenses"] == "Apache-2.0"
    assert len(labels[f"{prefix}revision"].removesuffix("-changed")) == 40
    assert labels[f"{prefix}created"].endswith("Z")
