"""dlt's sql_table into Parquet files; the backend is the first argument.

`reflection_level="full_with_precision"` is what its documentation names for exact types.
"""

import os
import sys
import uuid

os.environ.update(RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="CRITICAL")

import dlt
import sqlalchemy as sa
from dlt.sources.sql_database import sql_table
from serve import Job, serve

BACKEND = sys.argv[1]
SCHEMES = {"postgres": "postgresql+psycopg2", "mysql": "mysql+pymysql",
           "mariadb": "mysql+pymysql", "sqlite": ""}  # fmt: skip


def extract(job: Job) -> None:
    engine = sa.create_engine(job.uri(SCHEMES[job.database]))
    table = sql_table(
        credentials=job.uri(SCHEMES[job.database]) if BACKEND == "connectorx" else engine,
        table=job.table,
        included_columns=job.selected,
        backend=BACKEND,
        reflection_level="full_with_precision",
        backend_kwargs=KWARGS.get(BACKEND, {}),
    )
    pipeline = dlt.pipeline(
        pipeline_name=f"fidelity_{uuid.uuid4().hex[:12]}",
        pipelines_dir=f"{job.folder}/_state",
        destination=dlt.destinations.filesystem(bucket_url=f"file://{job.folder}/lake"),
        dataset_name="d",
    )
    pipeline.run(table, table_name="extracted", loader_file_format="parquet")


KWARGS = {"connectorx": {"return_type": "arrow"}}

serve(extract)
