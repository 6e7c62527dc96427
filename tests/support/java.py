"""Java for tests: quick to start, because no test runs long enough for its optimizing compiler.

Before its first job, Spark's JVM spends half of its time loading classes. ``python -m
tests.support.java`` runs Spark once and archives its classes in the JVM's memory layout; a JVM that
gets this archive maps it. One whose jars or options differ silently does without.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from extract_jobs.spark.java import bundled_java_home

ARCHIVE = Path(sys.prefix) / "spark.jsa"
"""The classes of this environment's Spark; the Makefile creates it, and tests also run without."""
_UNARCHIVED = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
# A JVM with other jars, such as spark-submit's launcher, would warn on standard output.
_ARCHIVED = f"-XX:SharedArchiveFile={ARCHIVE} -Xlog:cds=off -Xlog:cds+dynamic=off"
QUICK_JAVA = f"{_UNARCHIVED} {_ARCHIVED}" if ARCHIVE.exists() else _UNARCHIVED
QUICK_JAVA_ENVIRONMENT = {"JAVA_TOOL_OPTIONS": QUICK_JAVA}
"""The same for every JVM that a process starts; each prints a note on standard error."""

_PROGRAM = """
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
rows = spark.sparkContext.parallelize(range(9), 2).map(lambda n: (n, str(n), n / 2)).collect()
frame = spark.createDataFrame(rows, ["n", "text", "half"])
frame.write.partitionBy("n").parquet(sys.argv[1])
read = spark.read.parquet(sys.argv[1]).selectExpr("n", "cast(half as decimal(9, 2))", "text")
read.groupBy("n").count().orderBy("n").collect()
read.join(frame, "n").rdd.map(tuple).collect()
assert read.count() == 9
spark.stop()
"""


def make_archive() -> None:
    """Run Spark once, and archive the classes that it loaded."""
    home = bundled_java_home()
    assert home is not None
    # The runtime has no archive of its own classes, which the other one is based on.
    subprocess.run([home / "bin" / "java", "-Xshare:dump"], check=True, capture_output=True)
    options = f"{_UNARCHIVED} -XX:ArchiveClassesAtExit={ARCHIVE}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "program.py").write_text(_PROGRAM)
        (Path(folder) / "events").mkdir()
        command = [
            Path(sys.executable).with_name("spark-submit"), "--master", "local[2]",
            "--driver-java-options", options, "--conf", "spark.ui.enabled=false",
            "--conf", "spark.eventLog.enabled=true",
            "--conf", f"spark.eventLog.dir={(Path(folder) / 'events').as_uri()}",
            "--conf", f"spark.sql.warehouse.dir={folder}/warehouse",
            "--conf", f"spark.local.dir={folder}/local", "program.py", f"{folder}/rows",
        ]  # fmt: skip
        environment = os.environ | {
            "JAVA_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1",
        }  # fmt: skip
        ended = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    if ended.returncode or not ARCHIVE.exists():
        sys.exit(f"Spark's classes are not archived: {ended.stdout[-2000:]}{ended.stderr[-2000:]}")


if __name__ == "__main__":
    make_archive()
