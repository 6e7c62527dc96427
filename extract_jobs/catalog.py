"""The Glue Data Catalog: a table over the target's folder and its partitions, through awswrangler.

Outside the commit's outcome and repeatable: what one run could not do, the next one mends.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Literal

from extract_jobs.commit import Commit, CommitLog
from extract_jobs.spec import CatalogSpec, ExtractSpec
from extract_jobs.storage import WrittenFile, join

logger = logging.getLogger(__name__)

_ATHENA_TYPES = {
    "bool": "boolean", "int8": "tinyint", "int16": "smallint", "int32": "int", "int64": "bigint",
    "float": "float", "double": "double", "string": "string", "binary": "binary",
    "date32[day]": "date",
}  # fmt: skip


def update_catalog(
    spec: ExtractSpec, log: CommitLog, commit: Commit
) -> Literal["none", "updated", "failed"]:
    """Create or evolve the catalog table, and add the partitions of this commit.

    Args:
        spec: Names the catalog table; without one nothing is done.
        log: Gives the live files, whose partitions an overwrite leaves as the only ones.
        commit: The commit just published.

    Returns:
        ``none`` without a catalog table, ``updated``, or ``failed`` where anything went wrong:
        the data is published all the same, and the reason is in the log.
    """
    if spec.target.catalog is None:
        return "none"
    try:
        _update(spec.target.catalog, spec.target.uri, log.live_files(commit), commit)
    except Exception as error:  # noqa: BLE001 - nothing here may fail a published extract
        logger.warning(
            "catalog table %s.%s was not brought up to date (%s: %s); the data is published, and "
            "the next run mends the catalog",
            spec.target.catalog.database,
            spec.target.catalog.table,
            type(error).__name__,
            error,
        )
        return "failed"
    return "updated"


def athena_type(arrow_type: str) -> str:
    """Return Athena's name of an Arrow type, given as pyarrow prints it.

    Raises:
        ValueError: Athena has none.
    """
    if arrow_type in _ATHENA_TYPES:
        return _ATHENA_TYPES[arrow_type]
    if arrow_type.startswith("timestamp["):
        return "timestamp"
    if match := re.fullmatch(r"decimal128\((\d+), (\d+)\)", arrow_type):
        return f"decimal({match[1]},{match[2]})"
    if match := re.fullmatch(r"list<\w+: (.+?)( not null)?>", arrow_type):
        return f"array<{athena_type(match[1])}>"
    raise ValueError(f"Athena has no type for {arrow_type}")


def _update(
    catalog: CatalogSpec, target_uri: str, live: Sequence[WrittenFile], commit: Commit
) -> None:
    import awswrangler

    database, table = catalog.database, catalog.table
    awswrangler.catalog.create_database(name=database, exist_ok=True)
    awswrangler.catalog.create_parquet_table(
        database=database,
        table=table,
        path=join(target_uri, ""),
        columns_types={_column(name): athena_type(t) for name, t in commit.columns.items()},
        partitions_types=dict.fromkeys(map(_column, commit.partition_by), "string"),
        compression=None,
        parameters={"extract_run_id": commit.run_id, "extract_commit": str(commit.seq)},
        mode="append"
        if awswrangler.catalog.does_table_exist(database=database, table=table)
        else "overwrite",
    )
    partitions = {
        f.staged.uri.rsplit("/", 1)[0] + "/": [
            "__HIVE_DEFAULT_PARTITION__" if v is None else v for v in f.partition.values()
        ]
        for f in live
        if f.partition
    }
    if commit.retire:
        stale = [
            values
            for values in awswrangler.catalog.get_partitions(
                database=database, table=table
            ).values()
            if values not in partitions.values()
        ]
        if stale:
            awswrangler.catalog.delete_partitions(
                database=database, table=table, partitions_values=stale
            )
    if partitions:
        awswrangler.catalog.add_parquet_partitions(
            database=database, table=table, partitions_values=partitions
        )


def _column(name: str) -> str:
    """Return a column's name in the catalog: its own in lower case, as Athena reads Parquet.

    Raises:
        ValueError: The catalog can have no such name, so that readers would find no values.
    """
    import awswrangler

    found: str = awswrangler.catalog.sanitize_column_name(name)
    if found != name.lower():
        raise ValueError(f"column {name!r} cannot be named in the catalog: see columns.rename")
    return found
