"""JDBC databases for tests: those inside Spark's JVM, and access to any other."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from extract_jobs.sources.jdbc.reader import JdbcReader
from extract_jobs.sources.splits import Split
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.debian import jar

PASSWORD = "s3cret-of-jdbc"
SESSION_JARS = ("h2", "postgresql", "mariadb-java-client")
"""On the class path of the tests' session from the start. Derby's is part of Spark; HSQLDB's is
added to the running session when it is used, as ``connection.jars`` does."""


def jdbc_jars() -> list[Path]:
    """Return the drivers that the session has from the start."""
    return [jar(name) for name in SESSION_JARS]


@dataclass(frozen=True)
class Embedded:
    """A database in the memory of Spark's JVM.

    Attributes:
        spark: The session.
        url: Its URL, without credentials.
        source_type: The spec's.
        connection: Further keys of a spec's ``connection``.
    """

    spark: SparkSession
    url: str
    source_type: str = "jdbc"
    connection: dict[str, Any] = field(default_factory=dict)

    def spec(self, folder: Path, table: str, **changes: Any) -> ExtractSpec:
        """Return a spec of a full extract of one table into a folder."""
        connection = {"url": self.url, "user": "sa", "password_env": "JDBC_PASSWORD"}
        given = {
            "run_id": "run-1",
            "source_name": "sales",
            "source_type": self.source_type,
            "connection": connection | self.connection,
            "extract_table": table,
            "target": {"uri": f"{folder}/target"},
            "state_uri": f"{folder}/state",
            "report_uri": f"{folder}/report.json",
        }
        return ExtractSpec.model_validate(given | changes)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        """Open a connection of the JVM."""
        java = self.spark._jvm
        loader = self.spark._jsparkSession.sharedState().jarClassLoader()
        java.java.lang.Thread.currentThread().setContextClassLoader(loader)
        name = next(c for prefix, c in _DRIVERS.items() if self.url.startswith(prefix))
        registry = java.org.apache.spark.sql.execution.datasources.jdbc.DriverRegistry
        registry.register(name)
        properties = java.java.util.Properties()
        properties.setProperty("user", "sa")
        properties.setProperty("password", PASSWORD)
        opened = registry.get(name).connect(self.url, properties)
        try:
            yield opened
        finally:
            opened.close()

    def execute(self, *statements: str) -> None:
        """Run statements, committed."""
        with self.connect() as opened:
            for statement in statements:
                with contextlib.closing(opened.createStatement()) as made:
                    made.execute(statement)

    def insert(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one parametrized statement for each row."""
        with self.connect() as opened, contextlib.closing(opened.prepareStatement(statement)) as p:
            for row in rows:
                for position, value in enumerate(row, start=1):
                    p.setObject(position, value)
                p.addBatch()
            if rows:
                p.executeBatch()


_DRIVERS = {
    "jdbc:h2:": "org.h2.Driver",
    "jdbc:hsqldb:": "org.hsqldb.jdbc.JDBCDriver",
    "jdbc:derby:": "org.apache.derby.jdbc.EmbeddedDriver",
}


def h2(spark: SparkSession, mode: str = "Regular", source_type: str = "jdbc") -> Embedded:
    """Return a new H2 database."""
    url = f"jdbc:h2:mem:{uuid4().hex};DB_CLOSE_DELAY=-1;MODE={mode}"
    return Embedded(spark, url, source_type)


def hsqldb(spark: SparkSession) -> Embedded:
    """Return a new HSQLDB database, whose jar is added to the running session."""
    found = Embedded(
        spark, f"jdbc:hsqldb:mem:{uuid4().hex}", connection={"jars": [str(jar("hsqldb"))]}
    )
    spark._jsparkSession.sessionState().resourceLoader().addJar(str(jar("hsqldb")))
    return found


def derby(spark: SparkSession) -> Embedded:
    """Return a new Derby database."""
    found = Embedded(spark, f"jdbc:derby:memory:{uuid4().hex}")
    with Embedded(spark, f"{found.url};create=true").connect():
        return found


def read_target(folder: Path) -> pa.Table:
    """Return all rows of an extract's target without the audit columns, in order of the first."""
    files = sorted((folder / "target").rglob("*.parquet"))
    table = pa.concat_tables([pq.ParquetFile(file).read() for file in files])
    return table.drop_columns(["_run_id", "_extracted_at"]).sort_by(table.schema.names[0])


def read_split(reader: JdbcReader, spark: SparkSession, split: Split) -> pa.Table:
    """Read one split through Spark, converted on an executor by the pickled reader."""
    conform = reader.conform

    def conformed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found, _ = conform(batch)
            yield pa.record_batch([pa.array([pickle.dumps(found)], pa.binary())], ["batch"])

    rows = reader.dataframe(spark, [split]).mapInArrow(conformed, "batch binary").collect()
    batches = [pickle.loads(bytes(row.batch)) for row in rows]
    return pa.Table.from_batches(batches, reader.schema)
