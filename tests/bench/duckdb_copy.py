"""One side of the comparison: DuckDB copies a table from PostgreSQL to Parquet by itself.

No snapshot is kept, nothing is reconciled or committed: the floor under what an extract that is
safe can take. Run as a process of its own; the password comes from ``PGPASSWORD``.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Read the arguments and copy the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("host", "port", "user", "database", "schema", "table", "target"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()

    import duckdb
    import duckdb_extension_postgres_scanner

    package = Path(duckdb_extension_postgres_scanner.__path__[0])
    (extension,) = package.rglob("postgres_scanner.duckdb_extension")

    target = Path(arguments.target)
    target.mkdir(parents=True)
    with duckdb.connect() as connection:
        connection.execute(f"load '{extension}'")
        connection.execute(
            f"attach 'host={arguments.host} port={arguments.port} user={arguments.user} "
            f"dbname={arguments.database}' as source (type postgres, read_only)"
        )
        connection.execute(
            f'copy (from source."{arguments.schema}"."{arguments.table}") '
            f"to '{target / 'data.parquet'}' (format parquet, compression zstd)"
        )


if __name__ == "__main__":
    main()
