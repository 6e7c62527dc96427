"""awswrangler's read_sql_query, with Arrow behind its data frame as its documentation advises."""

import awswrangler as wr
from serve import Job, serve


def extract(job: Job) -> None:
    module = wr.postgresql if job.database == "postgres" else wr.mysql
    with connect(job) as connection:
        frame = module.read_sql_query(job.query, con=connection, dtype_backend="pyarrow")
    frame.to_parquet(job.file, index=False)


def connect(job: Job):
    if job.database == "postgres":
        import pg8000

        return pg8000.connect(
            user=job.user, password=job.password, host=job.host, port=job.port, database=job.name
        )
    import pymysql

    return pymysql.connect(
        user=job.user, password=job.password, host=job.host, port=job.port, database=job.name
    )


serve(extract)
