"""Rules between the parts of a spec: what would destroy or duplicate data is refused."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from datetime import timedelta

from extract_jobs.spec.globs import glob_reaches
from extract_jobs.spec.parts import SpecFields, WatermarkSpec
from extract_jobs.spec.source import connection_problem
from extract_jobs.spec.source_types import registration
from extract_jobs.spec.uris import is_inside, scheme_problem

PARTITION_FUNCTIONS = ("year", "month", "day", "hour")
RUN_PARTITIONS = ("extract_date", "run_id")
_PARTITION_FUNCTION = re.compile(rf"({'|'.join(PARTITION_FUNCTIONS)})\((.+)\)", re.DOTALL)


_MOST_COPIED = 4 * 2**30
"""Bytes; a file may become a row group larger than ``target.file_bytes``."""


def default_write_mode(mode: str, partition_by: Container[str]) -> str:
    """Return the write mode of a table that gives none."""
    if mode == "incremental":
        return "append"
    by_run = any(name in partition_by for name in RUN_PARTITIONS)
    return "overwrite_partitions" if by_run else "overwrite"


def broken_rules(spec: SpecFields) -> Iterator[str]:
    """Yield every rule that a spec breaks, as a message that says what to change."""
    yield from _mode_problems(spec)
    yield from _catalog_problems(spec)
    yield from _keeping_problems(spec)
    yield from _iceberg_problems(spec)
    yield from _merge_problems(spec)
    wrong = connection_problem(spec.source_type, spec.connection)
    if wrong:
        yield f"connection: {wrong}"
    if spec.row_security != "refuse" and spec.source_type not in ("postgres", "jdbc"):
        yield "source.row_security is for sources of type postgres and jdbc"
    if spec.max_lag is not None and spec.source_type != "postgres":
        yield "source.max_lag is for sources of type postgres"
    if spec.on_waiting_ddl != "wait" and spec.source_type != "postgres":
        yield "source.on_waiting_ddl is for sources of type postgres"
    yield from _statement_problems(spec)
    if spec.engine == "processes" and registration(spec.source_type).on_spark:
        yield (
            f"engine processes: sources of type {spec.source_type} are read by Spark; leave it out"
        )
    if problem := scheme_problem(spec.state_uri):
        yield f"state_uri: {problem}"
    for name, uri in (("state_uri", spec.state_uri), ("report_uri", spec.report_uri)):
        if is_inside(uri, spec.target.uri):
            yield f"{name} must not be inside target.uri, where readers would list it"


def _keeping_problems(spec: SpecFields) -> Iterator[str]:
    if spec.keep_retired is None or spec.target.is_iceberg:
        return  # an Iceberg table keeps the files in its snapshots
    if spec.state_uri.startswith("s3://") != spec.target.uri.startswith("s3://"):
        yield "keep_retired needs state_uri and target.uri both in S3, or both in local folders"
    if spec.target.file_bytes > _MOST_COPIED:
        yield "keep_retired: S3 copies files of 5 GiB at most; lower target.file_bytes"


_PROPERTIES = (
    "commit.manifest", "history.expire.", "read.", "write.delete.", "write.distribution-mode",
    "write.merge.", "write.metadata.metrics.", "write.parquet.", "write.summary.", "write.update.",
)  # fmt: skip
"""How properties begin that neither name code to load nor where or in which form files are."""


def _iceberg_problems(spec: SpecFields) -> Iterator[str]:
    """Yield partitions that Iceberg does not allow beside each other, and properties that fail."""
    if not spec.target.is_iceberg:
        if spec.target.properties:
            yield "target.properties are those of an Iceberg table: set target.format: iceberg"
        return
    for name in spec.target.properties or ():
        if not name.startswith(_PROPERTIES):
            yield (
                f"target.properties.{name}: only properties that begin with "
                f"{', '.join(_PROPERTIES)} can be set"
            )
    times: dict[str, str] = {}
    for text in spec.target.partition_by:
        found = _PARTITION_FUNCTION.fullmatch(text)
        if found and (other := times.setdefault(found[2].strip(), text)) != text:
            yield (
                f"target.partition_by has {other} and {text}: in an Iceberg table, one of them is "
                "enough, since readers derive the coarser one"
            )


_KEYED = ("postgres", "mysql", "sqlite")
"""Types of sources that can read the keys of all rows in the snapshot of an increment."""


def _merge_problems(spec: SpecFields) -> Iterator[str]:
    """Yield what rows cannot be merged by, and where deletes cannot be found."""
    merges, detects = spec.target.merges, spec.deletes == "detect"
    if merges and not spec.target.is_iceberg:
        yield (
            "target.write_mode merge needs target.format: iceberg: rows of a folder of Parquet "
            "files cannot be replaced at one instant"
        )
    if merges and not spec.columns.key:
        yield "target.write_mode merge needs columns.key, the source's own key"
    if merges and spec.source_type == "files":
        yield "target.write_mode merge is not for files: nothing orders the versions of a row"
    if not detects:
        return
    if spec.limit is not None:
        yield "limit and deletes: detect exclude each other: rows beyond a sample are not gone"
        return
    if not spec.target.is_iceberg:
        yield "deletes: detect needs target.format: iceberg"
    elif spec.mode == "incremental" and not merges:
        yield "deletes: detect needs target.write_mode: merge"
    elif spec.mode == "full" and spec.target.write_mode != "overwrite":
        yield "deletes: detect needs target.write_mode: merge, or overwrite with mode full"
    if spec.source_type not in _KEYED:
        yield (
            f"deletes: detect is for sources of type {', '.join(_KEYED)}, where keys are read "
            f"in the snapshot of the increment; this one is of type {spec.source_type}"
        )


def _statement_problems(spec: SpecFields) -> Iterator[str]:
    limit = spec.statement_timeout
    if limit is None:
        return
    if spec.source_type not in ("postgres", "mysql"):
        yield "source.statement_timeout is for sources of type postgres and mysql"
    if limit < timedelta(seconds=1):
        yield "source.statement_timeout must be 1s or more; leave it out for no limit"
    if limit > timedelta(days=24):
        yield "source.statement_timeout must be 24d or less, which is what PostgreSQL can count"


def _mode_problems(spec: SpecFields) -> Iterator[str]:
    """Yield what would destroy or duplicate data, and what a person would wrongly rely on."""
    mode, target, key, watermark = spec.mode, spec.target, spec.columns.key, spec.watermark
    column = watermark.column if watermark else None
    if spec.source_type == "files" or spec.files is not None:
        yield from _files_problems(spec)
    elif spec.where is not None and registration(spec.source_type).where is None:
        yield f"where is not for sources of type {spec.source_type}"
    elif watermark and watermark.snapshot:
        yield from _snapshot_problems(spec, watermark)
    elif mode == "incremental" and not column:
        yield "mode incremental needs watermark.column"
    if mode == "incremental" and target.write_mode == "overwrite":
        yield "write_mode overwrite needs mode full: an increment would replace the whole table"
    if mode == "incremental" and spec.limit is not None:
        yield "limit needs mode full: the watermark would pass the rows that are left out"
    if mode == "full" and watermark and (watermark.lower, watermark.upper) != (None, None):
        yield "watermark.lower and upper need mode incremental: in mode full all rows are extracted"
    yield from _split_problems(spec)
    if mode == "incremental" and column in spec.columns.mask:
        yield (
            f"watermark.column {column} is masked, but its greatest value is kept in the commit "
            "log and shown in reports: order rows by a column that is not masked"
        )
    if target.write_mode == "overwrite_partitions":
        yield from _overwrite_problems(spec, column)
    if mode == "full" or watermark is None or target.write_mode != "append":
        return
    if watermark.lag and not key and watermark.duplicates == "refuse":
        yield (
            "watermark.lag with write_mode append reads rows again: name their key "
            "in columns.key, or accept duplicates with watermark.duplicates: accept"
        )


def _split_problems(spec: SpecFields) -> Iterator[str]:
    if spec.split.column in spec.columns.mask:
        yield f"split.column {spec.split.column} is masked, but statements would show its values"
    if spec.split.one_snapshot != "auto" and spec.source_type != "mysql":
        yield (
            "split.one_snapshot is for sources of type mysql: splits of postgres and sqlite always "
            "share a snapshot, those of others never do"
        )


def _catalog_problems(spec: SpecFields) -> Iterator[str]:
    """Yield what the catalog of a spec cannot be, and names that it or Athena cannot have."""
    catalog = spec.target.catalog
    if catalog is None:
        if spec.target.is_iceberg:
            yield (
                "target.format iceberg needs target.catalog: an Iceberg table is found through "
                "its catalog"
            )
        return
    if catalog.type != "glue" and not spec.target.is_iceberg:
        yield (
            f"target.catalog.type {catalog.type} is for target.format iceberg; folders of Parquet "
            "files are registered in Glue"
        )
    for kind, name in (("database", catalog.database), ("table", catalog.table)):
        if not re.fullmatch(r"[a-z0-9_]{1,255}", name):
            yield (
                f"target.catalog.{kind} {name!r} is not valid for Athena: use only lower-case "
                "letters, digits and _"
            )
    for column, name in spec.columns.rename.items():
        if not re.fullmatch(r"[A-Za-z0-9_]{1,255}", name):
            yield (
                f"columns.rename.{column} {name!r} is not a valid name for the catalog: use only "
                "letters, digits and _"
            )


def _files_problems(spec: SpecFields) -> Iterator[str]:
    if spec.source_type != "files":
        yield f"files is for sources of type files; this one is of type {spec.source_type}"
        return
    if spec.files is None:
        yield "a source of type files needs files.glob for each table"
    elif spec.files.encoding.lower() != "utf-8" and spec.files.format == "parquet":
        yield "files.encoding is for text, not for Parquet"
    if spec.connection.uri is None:
        yield "a source of type files needs connection.uri, the folder that globs start from"
    elif spec.files is not None:
        for name in ("target.uri", "state_uri", "report_uri"):
            folder = spec.target.uri if name == "target.uri" else getattr(spec, name)
            if glob_reaches(spec.connection.uri, spec.files.glob, folder):
                yield (
                    f"files.glob {spec.files.glob} may match what is written to {name}, {folder}: "
                    "narrow it, or write elsewhere"
                )
    if spec.watermark is not None:
        yield (
            "watermark is not for files: mode incremental extracts the files that are new or were "
            "replaced, whatever is in them"
        )
    if spec.query is not None or spec.where is not None:
        yield "query and where are not for files: no server filters rows, so all are extracted"
    if spec.mode == "incremental" and spec.target.write_mode == "overwrite_partitions":
        yield (
            "write_mode overwrite_partitions needs mode full for files: a partition may hold rows "
            "of files that were read before, which would be lost"
        )


def _snapshot_problems(spec: SpecFields, watermark: WatermarkSpec) -> Iterator[str]:
    names = ("column", "lag", "delay", "initial", "lower", "upper")
    given = [f"watermark.{name}" for name in names if getattr(watermark, name) is not None]
    if given:
        yield (
            f"watermark.snapshot cannot be combined with {', '.join(given)}: its bounds are "
            "transaction numbers of the source"
        )
    if spec.query is not None:
        yield "watermark.snapshot needs a table: rows of a query do not record their transaction"
    if spec.connection.pooled:
        yield (
            "watermark.snapshot cannot work behind a pooler, which may answer from another node: "
            "connect to the primary itself, without connection.pooled"
        )
    if spec.target.write_mode == "overwrite_partitions":
        yield (
            "watermark.snapshot needs write_mode append, or overwrite with mode full: the rows of "
            "its interval may belong to any partition"
        )


def _overwrite_problems(spec: SpecFields, column: str | None) -> Iterator[str]:
    if not spec.target.partition_by:
        yield "write_mode overwrite_partitions needs target.partition_by"
    elif spec.mode == "incremental" and column is not None:
        if not any(derives_from(text, column) for text in spec.target.partition_by):
            yield (
                "write_mode overwrite_partitions in mode incremental needs the watermark column in "
                f"target.partition_by, such as day({column}): other partitions may hold rows "
                "outside the interval, which would be lost"
            )
        if column in spec.columns.cast:
            yield (
                f"write_mode overwrite_partitions in mode incremental needs {column} as it is: "
                "take it out of columns.cast"
            )


def derives_from(partition: str, column: str) -> bool:
    """Return whether a partition is a column's own value, or its year, month, day or hour."""
    if partition in RUN_PARTITIONS:
        return False
    found = _PARTITION_FUNCTION.fullmatch(partition)
    return (found[2].strip() if found else partition) == column
