"""The EMR archive on a Spark standalone cluster: nothing but it is on the workers' Python path."""

from __future__ import annotations

import json
import subprocess
import tarfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from extract_jobs import __version__
from tests.support.crash import Lake, bucket_of, s3_client
from tests.support.debian import jar
from tests.support.java import QUICK_JAVA
from tests.support.spark_cluster import SPARK, Cluster, run_cluster

pytestmark = pytest.mark.image

ROWS = 5_000
SPLIT = {"strategy": "range", "column": "id", "target_bytes": 20_000, "max_connections": 2}


@dataclass(frozen=True)
class Submitter:
    """Submits the worker as EMR does: by archive, from a folder that holds nothing else."""

    cluster: Cluster
    archive: Path
    script: Path
    python: Path
    """Of the archive, unpacked for the driver."""
    folder: Path

    def start(self, spec, **environment):
        conf = {
            "spark.archives": f"{self.archive}#environment",
            "spark.pyspark.python": "./environment/bin/python",
            "spark.pyspark.driver.python": str(self.python),
            "spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false",
            "spark.executor.memory": "512m", "spark.executor.cores": "1",
            "spark.driver.extraJavaOptions": QUICK_JAVA,
            "spark.executor.extraJavaOptions": QUICK_JAVA,
        }  # fmt: skip
        options = [word for name, value in conf.items() for word in ("--conf", f"{name}={value}")]
        return subprocess.Popen(
            [str(SPARK / "bin" / "spark-submit"), "--master", self.cluster.url,
             "--driver-memory", "512m", *options, str(self.script), "--spec_uri", json.dumps(spec)],
            cwd=self.folder, env=self.cluster.environment | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, spec, **environment):
        with self.start(spec, **environment) as process:
            try:
                said, _ = process.communicate(timeout=240)
            finally:
                process.kill()
        assert process.returncode == 0, said[-6000:]
        return said


@pytest.fixture(scope="module")
def submitter(tmp_path_factory, ministack, built):
    folder = tmp_path_factory.mktemp("cluster")
    dist = built("wheel", "scripts", "emr")
    archive = dist / f"extract_jobs-{__version__}-emr.tar.gz"
    environment, driver = folder / "environment", folder / "driver"
    with tarfile.open(archive) as opened:
        opened.extractall(environment, filter="fully_trusted")
    driver.mkdir()
    with run_cluster(folder, ministack.environment()) as cluster:
        yield Submitter(
            cluster, archive, dist / "entrypoints" / "emr.py", environment / "bin/python", driver
        )


@pytest.fixture
def lake(ministack):
    return Lake(
        bucket_of(ministack, f"work-{uuid.uuid4().hex[:8]}") + "/x", ministack.environment()
    )


def arrived(lake):
    """Assert that every row arrived once, and that nothing is left over."""
    assert lake.read() == list(range(1, ROWS + 1))
    assert lake.staged() == []
    report = lake.report("run-1")
    assert (report["status"], report["rows"]) == ("succeeded", ROWS)
    assert report["splits"] >= 2


def postgres_table(database):
    database.execute(
        "create table t (id int primary key, name text)",
        f"insert into t select n, md5(n::text) from generate_series(1, {ROWS}) n",
        "analyze t",
    )


def test_postgres(submitter, pg_database, lake):
    postgres_table(pg_database)
    spec = lake.spec(pg_database, "run-1", split=SPLIT)
    submitter.run(spec, CRASH_PASSWORD=pg_database.password)
    arrived(lake)
    # Each worker unpacked the archive into its own folder, and ran its Python there.
    for worker in submitter.cluster.workers:
        assert list(worker.folder.glob("app-*/*/environment/bin/python")), worker.folder


def test_mysql(submitter, mariadb_database, lake):
    server = mariadb_database
    server.execute(
        "create table t (id int primary key, name varchar(40))",
        f"insert into t select seq, md5(seq) from seq_1_to_{ROWS}",
        "analyze table t",
    )
    spec = lake.spec(server, "run-1", table="t", source_type="mysql", split=SPLIT)
    submitter.run(spec, CRASH_PASSWORD=server.password)
    arrived(lake)


def test_files(submitter, lake):
    bucket, _, prefix = f"{lake.uri}/in".removeprefix("s3://").partition("/")
    for number in range(4):
        step = ROWS // 4
        rows = range(number * step + 1, (number + 1) * step + 1)
        body = "id,name\n" + "".join(f"{n},name {n}\n" for n in rows)
        s3_client(lake.environment).put_object(
            Bucket=bucket, Key=f"{prefix}/{number}.csv", Body=body.encode()
        )
    spec = {
        "run_id": "run-1", "source_name": "s", "source_type": "files", "extract_table": "t",
        "connection": {"uri": f"{lake.uri}/in"}, "files": {"glob": "*.csv"},
        "target": {"uri": lake.target}, "state_uri": lake.state,
        "report_uri": f"{lake.state}/reports/run-1/1.json",
        "split": {"target_bytes": 20_000, "max_connections": 2},
    }  # fmt: skip
    submitter.run(spec)
    arrived(lake)


def test_jdbc(submitter, pg_database, lake):
    postgres_table(pg_database)
    server = pg_database
    connection = {
        "url": f"jdbc:postgresql://{server.host}:{server.port}/"
               f"{server.database.replace(' ', '%20')}?sslmode=disable",
        "user": server.user, "password_env": "CRASH_PASSWORD",
        "jars": [str(jar("postgresql"))],
    }  # fmt: skip
    spec = lake.spec(server, "run-1", source_type="jdbc", split=SPLIT) | {"connection": connection}
    submitter.run(spec, CRASH_PASSWORD=server.password)
    arrived(lake)


def reading(database):
    with database.connect() as connection:
        [[count]] = connection.execute(
            "select count(*) from pg_stat_activity where query like '%slow%' "
            "and state = 'active' and pid <> pg_backend_pid()"
        ).fetchall()
    return count


def test_a_worker_that_is_killed_in_the_middle_loses_and_doubles_nothing(
    submitter, pg_database, lake, tmp_path
):
    """On a cluster of its own, since the others' would lack a worker afterwards."""
    postgres_table(pg_database)
    pg_database.execute("create view slow as select *, pg_sleep(0.002)::text as s from t")
    spec = lake.spec(pg_database, "run-1", table="public.slow", split=SPLIT)
    with run_cluster(tmp_path, lake.environment) as cluster:
        own = Submitter(
            cluster, submitter.archive, submitter.script, submitter.python, submitter.folder
        )
        with own.start(spec, CRASH_PASSWORD=pg_database.password) as process:
            deadline = time.monotonic() + 180
            while reading(pg_database) < 2 and process.poll() is None:
                assert time.monotonic() < deadline, "the workers never read together"
                time.sleep(0.02)
            assert process.poll() is None, process.stdout.read()[-6000:]
            cluster.workers[0].kill()
            said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said[-6000:]
    assert list(cluster.workers[0].folder.glob("app-*")), "it had no part in the extract"
    arrived(lake)
