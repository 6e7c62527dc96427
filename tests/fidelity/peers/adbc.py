"""ADBC's drivers, through DBAPI, as their quickstarts show."""

import adbc_driver_postgresql.dbapi
import adbc_driver_sqlite.dbapi
import pyarrow.parquet
from serve import Job, serve


def extract(job: Job) -> None:
    driver = adbc_driver_sqlite if job.database == "sqlite" else adbc_driver_postgresql
    where = job.name if job.database == "sqlite" else job.uri()
    with driver.dbapi.connect(where) as connection, connection.cursor() as cursor:
        cursor.execute(job.query)
        pyarrow.parquet.write_table(cursor.fetch_arrow_table(), job.file)


serve(extract)
