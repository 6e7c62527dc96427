"""Spark's own JDBC source into Parquet, with `preferTimestampNTZ` for local times."""

from serve import Job, serve
from spark_start import started


def extract(job: Job) -> None:
    reader = started(job).read.format("jdbc").options(**job.jdbc, preferTimestampNTZ="true")
    if parts := job.options.get("partitions"):
        reader = reader.option("dbtable", job.table).options(**parts)
    else:
        reader = reader.option("query", job.query)
    reader.load().write.mode("overwrite").parquet(f"{job.folder}/lake")


serve(extract)
