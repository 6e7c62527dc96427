"""What stands for a snapshot of a MySQL table: splits that each have one of their own."""

from __future__ import annotations

from extract_jobs.errors import ConfigError
from extract_jobs.sources.mysql import splits as cutting
from extract_jobs.sources.mysql.catalog import Found
from extract_jobs.sources.mysql.reader import MysqlReader
from extract_jobs.sources.mysql.session import execute, session
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.splits import whole
from extract_jobs.sources.sql.statements import select
from extract_jobs.spec.extract_spec import ExtractSpec


class MysqlSnapshot:
    """Splits of one table. Meets `extract_jobs.sources.Snapshot`.

    MySQL cannot hand a snapshot from one session to another without stopping all writes, which a
    user that may only read cannot do. So each split, and the count, reads in a transaction of its
    own: the count need not equal the rows read. Rows that nobody changes while they are read
    arrive once each; a row whose key changes meanwhile may arrive twice or not at all. With one
    split (``split.strategy: none``) all rows are of one moment.

    Attributes:
        reader: Reads its splits.
        shared: False.
    """

    shared = False

    def __init__(self, found: Found, reader: MysqlReader, watermark_column: str | None) -> None:
        """Hold what `MysqlSource.snapshot` found; not for other callers."""
        self._found = found
        self._watermark_column = watermark_column
        self.reader = reader

    def splits(self, spec: ExtractSpec) -> list[Split]:
        """Cut the request into splits. See `extract_jobs.sources.Snapshot.splits`."""
        wanted, found = spec.split, self._found
        if wanted.strategy not in ("auto", "range", "none"):
            raise ConfigError(f"split.strategy {wanted.strategy}: mysql takes auto, range and none")
        size = (found.table and found.table.data_bytes) or 0
        if wanted.strategy == "none" or self.reader.connection.pooled:
            return whole(size)
        if wanted.column is not None and found.type_of(wanted.column).base not in cutting.KEYS:
            raise ConfigError(
                f"split.column {wanted.column} is of type {found.type_of(wanted.column).printed}, "
                f"which cannot be split by range; use one of the types {', '.join(cutting.KEYS)}"
            )
        with session(self.reader.connection, f"cutting {spec.extract_table} into splits") as opened:
            return cutting.cut(
                opened,
                found,
                wanted,
                interval=self.reader.interval,
                watermark_column=self._watermark_column,
            )

    def count(self) -> int:
        """Count the request's rows under the very same predicate, now, in a snapshot of its own."""
        reader = self.reader
        statement = select(["count(*)"], reader.relation, reader.interval)
        with session(reader.connection, reader.what.replace("reading", "counting", 1)) as opened:
            return int(execute(opened, statement)[0][0])

    def check(self) -> None:
        """Do nothing: there is no snapshot that could have been lost."""
