"""onETL's DBReader, whose data frame Spark writes to Parquet."""

from onetl.connection import MySQL, Postgres
from onetl.db import DBReader
from serve import Job, serve
from spark_start import started


def extract(job: Job) -> None:
    kind, schema = (Postgres, "public") if job.database == "postgres" else (MySQL, job.name)
    connection = kind(
        host=job.host, port=job.port, user=job.user, password=job.password, database=job.name,
        spark=started(job),
    )  # fmt: skip
    reader = DBReader(connection=connection, source=f"{schema}.{job.table}", columns=job.selected)
    reader.run().write.parquet(f"{job.folder}/lake")


serve(extract)
