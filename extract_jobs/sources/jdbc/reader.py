"""Reads splits through Spark's JDBC source: one query, one Spark partition and one connection each.

The password is passed to Spark as the option ``password``, which Spark never prints: not in plans,
the event log or the UI. The URL, which Spark may print, has no password.

https://spark.apache.org/docs/latest/sql-data-sources-jdbc.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow.types import is_decimal

from extract_jobs.errors import ExtractError, SourceQueryFailed
from extract_jobs.schema import Column
from extract_jobs.sources.jdbc.conform import JdbcConform
from extract_jobs.sources.jdbc.dialects import PLAIN
from extract_jobs.sources.jdbc.drivers import driver_properties, url_for_spark
from extract_jobs.sources.jdbc.errors import connect_error, statement_error, thrown
from extract_jobs.sources.jdbc.jvm import Jvm
from extract_jobs.sources.jdbc.sql import Relation
from extract_jobs.sources.jdbc.types import quote_name, spark_type
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.statements import in_parentheses, select

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_MOST_ROWS = 10_000
_BATCH_BYTES = 16 * 2**20


@dataclass(frozen=True)
class JdbcReader:
    """Reads splits of one table. Implements `extract_jobs.sources.DataFrameReader`.

    Attributes:
        jvm: Has the driver.
        relation: What is read, with the spec's condition.
        interval: The interval's condition; None reads all rows.
        columns: What is read of each row, in the order of the batches.
        fetch_rows: Rows that the driver fetches at a time.
        row_bytes: Estimated size of a large row.
        null_what_fails: Columns whose values without a faithful form become NULL.
        what: What is read, for messages.
    """

    jvm: Jvm
    relation: Relation
    interval: str | None
    columns: tuple[Column, ...]
    fetch_rows: int
    row_bytes: int
    null_what_fails: frozenset[str]
    what: str

    @property
    def conform(self) -> JdbcConform:
        """What executors do with each batch."""
        return JdbcConform(self.columns, self.null_what_fails)

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch after conversion."""
        return pa.schema([pa.field(c.name, c.arrow_type, c.nullable) for c in self.columns])

    @property
    def batch_rows(self) -> int:
        """Rows per batch and per fetch, so that both are bounded by bytes."""
        return max(64, min(_MOST_ROWS, _BATCH_BYTES // max(1, self.row_bytes)))

    def dataframe(self, spark: SparkSession, splits: Sequence[Split]) -> DataFrame:
        """Return the rows of splits. See `extract_jobs.sources.DataFrameReader.dataframe`."""
        self.jvm.use_added_jars()
        # A session with its own settings: the caller's stays unchanged.
        session = spark.newSession()
        session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(self.batch_rows))
        session.conf.set("spark.sql.session.timeZone", "UTC")
        session.conf.set("spark.sql.caseSensitive", "false")
        frames = [
            session.read.format("jdbc").options(**self._options(split)).load() for split in splits
        ]
        return reduce(lambda one, other: one.unionAll(other), frames)

    def _options(self, split: Split) -> dict[str, str]:
        jvm, connection = self.jvm, self.jvm.connection
        names = [f"c{i}" for i in range(len(self.columns))]
        # An unknown driver's scale may be less than its values', which Spark would round to it.
        exact = self.relation.dialect is not PLAIN
        types = (
            spark_type(column.arrow_type)
            if exact or not is_decimal(column.arrow_type)
            else "string"
            for column in self.columns
        )
        options = {
            "url": url_for_spark(jvm.url),
            "driver": jvm.driver_class,
            "dbtable": self._relation_of(split),
            "fetchsize": str(min(self.fetch_rows, self.batch_rows)),
            # Explicit types, because versions of Spark map the driver's types differently.
            "customSchema": ", ".join(f"{n} {t}" for n, t in zip(names, types, strict=True)),
            **({"sessionInitStatement": jvm.session_init} if jvm.session_init else {}),
        }
        return driver_properties(connection, jvm.driver) | options | jvm.login()

    def statements(self, split: Split) -> list[str]:
        """Return the statement that reads a split. See `extract_jobs.sources.SqlReader`."""
        expressions = [column.expression for column in self.columns]
        return [select(expressions, self.relation, self.interval, split.predicate)]

    def _relation_of(self, split: Split) -> str:
        """Return a split's rows as SQL for a FROM clause."""
        [text] = self.statements(split)
        return f"{in_parentheses(text)} {quote_name('split', self.relation.dialect)}"

    def error(self, error: Exception) -> ExtractError | None:
        """Return what an exception means. See `extract_jobs.sources.DataFrameReader.error`."""
        found = thrown(error)
        if found is not None:
            connection = self.jvm.connection
            if found.is_login:
                return connect_error(found, connection.place, connection.connect_timeout_seconds)
            return statement_error(found, self.what, shows=False)
        if "UnknownReason" not in str(error):
            return None
        return self._by_asking()

    def _by_asking(self) -> ExtractError | None:
        """Connect again and return why the source cannot answer.

        If the driver's jar was added to a running session, Spark cannot deserialize its exceptions
        from executors, and only reports that a task failed.
        """
        try:
            with self.jvm.connect(self.what) as opened:
                opened.rows(
                    f"select 1{self.relation.dialect.one_row}"
                    if self.relation.dialect.one_row
                    else "select 1"
                )
        except ExtractError as found:
            return found
        return SourceQueryFailed(
            f"{self.what} failed: the executors' logs have the server's message, which Spark could "
            "not return because the JDBC driver was added to a running session"
        )
