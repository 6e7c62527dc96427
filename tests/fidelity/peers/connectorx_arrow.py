"""ConnectorX into Arrow, by the binary protocol that is its default."""

import connectorx
import pyarrow.parquet
from serve import Job, serve


def extract(job: Job) -> None:
    table = connectorx.read_sql(job.uri(), job.query, return_type="arrow", **job.options)
    pyarrow.parquet.write_table(table, job.file)


serve(extract)
