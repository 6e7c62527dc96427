"""dlt's sql_table into Parquet files; the backend is the first argument.

`reflection_level="full_with_precision"` is what its documentation names for exact types.
"""

import os
import sys
from pathlib import Path

os.environ.update(RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="CRITICAL")

import dlt
import sqlalchemy as sa
from dlt.sources.sql_database import sql_table
from serve import Job, serve

BACKEND = sys.argv[1]
SCHEMES = {"postgres": "postgresql+psycopg2", "mysql": "mysql+pymysql",
           "mariadb": "mysql+pymysql", "sqlite": ""}  # fmt: skip


def extract(job: Job) -> None:
    # Without a pool: each job has its own engine, and a server's connections are few.
    engine = sa.create_engine(job.uri(SCHEMES[job.database]), poolclass=sa.NullPool)
    options = dict(job.options)
    if cursor := options.pop("incremental", None):
        options["incremental"] = dlt.sources.incremental(**cursor)
    table_format = options.pop("table_format", None)
    table = sql_table(
        credentials=job.uri(SCHEMES[job.database]) if BACKEND == "connectorx" else engine,
        table=job.table,
        included_columns=job.selected,
        backend=BACKEND,
        reflection_level="full_with_precision",
        backend_kwargs=KWARGS.get(BACKEND, {}),
        **options,
    )
    pipeline = dlt.pipeline(
        pipeline_name="fidelity",
        pipelines_dir=f"{job.folder}/_state",
        destination=dlt.destinations.filesystem(bucket_url=f"file://{job.folder}/lake"),
        dataset_name="d",
    )
    kind = {"table_format": table_format} if table_format else {"loader_file_format": "parquet"}
    pipeline.run(table, table_name="extracted", **kind)
    if table_format == "delta":
        import deltalake
        import pyarrow.parquet

        # What the Delta table holds, without the files that it has replaced.
        rows = deltalake.DeltaTable(f"{job.folder}/lake/d/extracted").to_pyarrow_table()
        Path(job.folder, "rows").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(rows, f"{job.folder}/rows/rows.parquet")


KWARGS = {"connectorx": {"return_type": "arrow"}}

serve(extract)
