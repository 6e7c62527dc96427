"""The demo's Iceberg table, as two other tools open it: pyiceberg and DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from infra.local.emulator import REGION
from infra.local.stack import Stack

if TYPE_CHECKING:
    from pyiceberg.table import Table

DATABASE = "lake_shop"
"""Its database in the Glue Data Catalog."""
_KEY = "test"


def open_table(stack: Stack, name: str) -> Table:
    """Return a table of the Glue Data Catalog; files are read by pyiceberg's own means."""
    from pyiceberg.catalog.glue import GlueCatalog

    files = {
        "s3.endpoint": stack.endpoint_url, "s3.region": REGION,
        "s3.access-key-id": _KEY, "s3.secret-access-key": _KEY,
    }  # fmt: skip
    return GlueCatalog("demo", stack.client("glue"), **files).load_table((DATABASE, name))


@contextmanager
def duckdb_on(stack: Stack) -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect to a DuckDB that reads Iceberg tables in the stack's S3."""
    with duckdb.connect() as connection:
        load_extensions(connection, "httpfs", "avro", "iceberg")
        endpoint = stack.endpoint_url.removeprefix("http://")
        connection.execute(
            f"create secret (type s3, key_id '{_KEY}', secret '{_KEY}', region '{REGION}', "
            f"endpoint '{endpoint}', url_style 'path', use_ssl false)"
        )
        yield connection


def load_extensions(connection: duckdb.DuckDBPyConnection, *names: str) -> None:
    """Load extensions of DuckDB from their wheels, which hold them for the version that is pinned.

    An extension that needs others comes after them.
    """
    connection.execute("set autoinstall_known_extensions = false; set timezone = 'UTC'")
    for name in names:
        wheel: Any = __import__(f"duckdb_extension_{name}")
        [file] = Path(wheel.__path__[0]).rglob(f"{name}.duckdb_extension")
        connection.execute(f"load '{file}'")
