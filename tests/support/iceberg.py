"""An Iceberg table extracted from a SQLite file, and other tools that read and write it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow as pa
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.table_log import commit_log
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from infra.local.demo.iceberg import load_extensions
from tests.support.specs import make_spec
from tests.support.sqlite_source import write

AUDIT = {"_run_id", "_extracted_at"}


@dataclass
class IcebergLake:
    """Table ``t`` of a SQLite file, and its Iceberg table in a SQLite catalog."""

    folder: Path

    def source(self, *statements: str) -> None:
        """Run statements on the source."""
        write(self.folder / "shop.db", *statements)

    @property
    def where(self) -> dict[str, str]:
        """The table in its catalog, as a config names it."""
        path = str(self.folder / "catalog.db")
        return {"type": "sqlite", "path": path, "database": "lake", "table": "t"}

    def spec(self, run_id: str, **more: Any) -> ExtractSpec:
        """Return the spec of an extract."""
        target = {"format": "iceberg", "catalog": self.where, **more.pop("target", {})}
        return make_spec(
            self.folder, run_id=run_id, source_type="sqlite", extract_table="t",
            connection={"path": str(self.folder / "shop.db")}, target=target, **more,
        )  # fmt: skip

    def run(self, run_id: str, **more: Any) -> Report:
        """Extract the table."""
        return run_extract(self.spec(run_id, **more))

    def log(self, **more: Any) -> CommitLog:
        """Return the table's commit log."""
        return commit_log(self.spec("any", **more))

    def table(self) -> Table:
        """Return the table as another tool opens it: with pyiceberg's own reading of files."""
        catalog = SqlCatalog("default", uri=f"sqlite:///{self.folder}/catalog.db")
        table = catalog.load_table("lake.t")
        catalog.engine.dispose()
        return table

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as pyiceberg reads them, without the audit columns."""
        return ordered(self.table().scan().to_arrow().to_pylist())

    def rows_by_duckdb(self) -> list[dict[str, Any]]:
        """Return the rows as DuckDB's iceberg extension reads them."""
        return ordered(by_duckdb(self.table().metadata_location))


def lengthen(lake: IcebergLake, count: int) -> None:
    """Give a table earlier snapshots, each like the one that it has."""
    old = Path(lake.table().metadata_location)
    metadata = json.loads(old.read_text())
    [last] = metadata["snapshots"]
    earlier = [
        {**last, "snapshot-id": n + 1, "timestamp-ms": last["timestamp-ms"] - count + n}
        for n in range(count)
    ]
    metadata["snapshots"][:0] = earlier
    keys = ("snapshot-id", "timestamp-ms")
    metadata["snapshot-log"][:0] = [{key: one[key] for key in keys} for one in earlier]
    new = old.with_name(f"00099-{uuid4()}.metadata.json")
    new.write_text(json.dumps(metadata))
    write(lake.folder / "catalog.db",
          f"update iceberg_tables set metadata_location = '{new}'")  # fmt: skip


def glue_catalog(environment: dict[str, str]) -> GlueCatalog:
    """Return Glue's catalog as another tool opens it.

    Args:
        environment: Variables that point an AWS SDK at an emulator.
    """
    keys = {f"{of}.{key}": "test" for of in ("glue", "s3")
            for key in ("access-key-id", "secret-access-key")}  # fmt: skip
    url, region = environment["AWS_ENDPOINT_URL"], environment["AWS_REGION"]
    ends = {f"{of}.{key}": value for of in ("glue", "s3")
            for key, value in (("endpoint", url), ("region", region))}  # fmt: skip
    return GlueCatalog("default", **keys, **ends)


def by_duckdb(metadata: str, query: str = "select * from t") -> list[dict[str, Any]]:
    """Query table ``t`` with DuckDB's iceberg extension.

    Args:
        metadata: The table's metadata file.
        query: The query.
    """
    return list(table_by_duckdb(metadata, query).to_pylist())


def table_by_duckdb(metadata: str, query: str) -> pa.Table:
    """Query table ``t`` as `by_duckdb` does, with moments in UTC."""
    with duckdb.connect() as connection:
        load_extensions(connection, "avro", "iceberg")
        connection.execute(f"create view t as from iceberg_scan('{metadata}')")
        return connection.execute(query).to_arrow_table()


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without the audit columns, in the order of their ids."""
    kept = [{k: v for k, v in row.items() if k not in AUDIT} for row in rows]
    return sorted(kept, key=lambda row: (row["id"] is None, row["id"]))
