"""DuckDB's scanners: ATTACH, and COPY … TO a Parquet file."""

import importlib
from pathlib import Path

import duckdb
from serve import Job, serve

SCANNERS = {"postgres": "postgres_scanner", "mysql": "mysql_scanner", "mariadb": "mysql_scanner",
            "sqlite": "sqlite_scanner"}  # fmt: skip


def extract(job: Job) -> None:
    scanner = SCANNERS[job.database]
    with duckdb.connect() as database:
        wheel = importlib.import_module(f"duckdb_extension_{scanner}")
        [extension] = Path(wheel.__path__[0]).rglob(f"{scanner}.duckdb_extension")
        database.execute(f"load '{extension}'")
        if job.database == "sqlite":
            where, kind = job.name, "sqlite"
        else:
            kind = "postgres" if job.database == "postgres" else "mysql"
            name = "dbname" if kind == "postgres" else "database"
            where = (
                f"host={job.host} port={job.port} user={job.user} password={job.password} "
                f"{name}={job.name}"
            )
        database.execute(f"attach '{where}' as source (type {kind}, read_only)")
        database.execute("use source")
        database.execute(f"copy ({job.query}) to '{job.file}' (format parquet)")


serve(extract)
