"""One side of the comparison: DuckDB copies a table from MySQL or MariaDB to Parquet by itself.

Its scanner's default settings. Nothing is reconciled or committed. Run as a process of its own;
the password comes from ``BENCH_PASSWORD``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def main() -> None:
    """Read the arguments and copy the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("host", "port", "user", "database", "table", "target"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()

    import duckdb
    import duckdb_extension_mysql_scanner

    package = Path(duckdb_extension_mysql_scanner.__path__[0])
    (extension,) = package.rglob("mysql_scanner.duckdb_extension")

    target = Path(arguments.target)
    target.mkdir(parents=True)
    password = os.environ["BENCH_PASSWORD"].replace("'", "''")
    with duckdb.connect(config={"allow_persistent_secrets": False}) as connection:
        connection.execute(f"load '{extension}'")
        connection.execute(
            f"create secret s (type mysql, host '{arguments.host}', port {arguments.port}, "
            f"user '{arguments.user}', password '{password}', database '{arguments.database}')"
        )
        connection.execute("attach '' as source (type mysql, read_only, secret s)")
        connection.execute("set mysql_session_time_zone = '+00:00'")
        connection.execute(
            f'copy (from source."{arguments.database}"."{arguments.table}") '
            f"to '{target / 'data.parquet'}' (format parquet, compression zstd)"
        )


if __name__ == "__main__":
    main()
