"""The table itself: made, checked, evolved, and marked with the commit it is complete up to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from extract_jobs.commit.log import Commit
from extract_jobs.spec.extract_spec import CatalogSpec
from extract_jobs.storage import join

_COMMIT = "extract_commit"
_TABLE = "extract_table"


def read_table(glue: Any, catalog: CatalogSpec) -> dict[str, Any] | None:
    """Return the table as Glue has it, None where there is none. Read-only.

    Args:
        glue: A boto3 Glue client.
        catalog: Names it.
    """
    try:
        found = glue.get_table(DatabaseName=catalog.database, Name=catalog.table)
    except glue.exceptions.EntityNotFoundException:
        return None
    table: dict[str, Any] = found["Table"]
    return table


def create_table(
    catalog: CatalogSpec, target_uri: str, columns: Mapping[str, str], folders: list[str]
) -> None:
    """Create the table, and its database where there is none; a table that is there stays.

    Args:
        catalog: Names both.
        target_uri: The table's folder.
        columns: Athena's type of each column.
        folders: Partition fields, which are text: what a folder's name holds.

    Raises:
        ValueError: The catalog cannot have such names.
    """
    import awswrangler

    for kind, name in (("database", catalog.database), ("table", catalog.table)):
        # awswrangler would make another name of it, silently.
        if awswrangler.catalog.sanitize_table_name(name) != name:
            raise ValueError(
                f"the catalog cannot have a {kind} {name!r}: it takes lower-case letters, digits "
                "and _ alone; see target.catalog"
            )
    awswrangler.catalog.create_database(name=catalog.database, exist_ok=True)
    awswrangler.catalog.create_parquet_table(
        database=catalog.database,
        table=catalog.table,
        path=join(target_uri, ""),
        columns_types=dict(columns),
        partitions_types=dict.fromkeys(folders, "string"),
        compression=None,
        parameters={"EXTERNAL": "TRUE"},
        mode="append",  # of one that another run has made meanwhile, nothing is lost
    )


def check_keys(found: Mapping[str, Any], folders: list[str]) -> None:
    """Refuse a table whose partition fields are others: Glue cannot change them.

    Raises:
        ValueError: They differ; the message names both.
    """
    keys = [key["Name"] for key in found.get("PartitionKeys", [])]
    if keys != folders:
        raise ValueError(
            f"the catalog's table is partitioned by {', '.join(keys) or 'nothing'}, the target by "
            f"{', '.join(folders) or 'nothing'}: drop the table in the catalog, the next run makes "
            "it anew"
        )


def mark_table(
    glue: Any,
    catalog: CatalogSpec,
    found: Mapping[str, Any],
    columns: Mapping[str, str],
    *,
    commit: Commit,
) -> None:
    """Give the table new columns and new types, and the parameters that name run and schema.

    Columns that the extract no longer has keep their place: older files may hold them.
    """
    descriptor = found["StorageDescriptor"]
    there = {column["Name"] for column in descriptor["Columns"]}
    kept = [
        {**column, "Type": columns.get(column["Name"], column["Type"])}
        for column in descriptor["Columns"]
    ]
    new = [{"Name": n, "Type": t} for n, t in columns.items() if n not in there]
    parameters = {
        **found.get("Parameters", {}),
        _TABLE: commit.table_id,
        _COMMIT: str(commit.seq),
        "extract_run_id": commit.run_id,
        "extract_schema": json.dumps(commit.columns, ensure_ascii=False),
    }
    taken = (
        "Name", "Description", "Owner", "Retention", "PartitionKeys", "TableType",
        "ViewOriginalText", "ViewExpandedText",
    )  # fmt: skip
    table = {name: found[name] for name in taken if name in found}
    table["StorageDescriptor"] = {**descriptor, "Columns": kept + new}
    table["Parameters"] = parameters
    # The version makes Glue refuse what another run has changed meanwhile; archives would pile up.
    version = {"VersionId": found["VersionId"]} if "VersionId" in found else {}
    glue.update_table(DatabaseName=catalog.database, TableInput=table, SkipArchive=True, **version)


def complete_up_to(found: Mapping[str, Any], table_id: str) -> int:
    """Return the commit of an extracted table that the catalog's table was marked with last.

    Returns:
        Its ``seq``; 0 where nothing of ours, or of another table's log, has marked it.
    """
    parameters = found.get("Parameters", {})
    text = parameters.get(_COMMIT, "")
    return int(text) if parameters.get(_TABLE) == table_id and text.isdecimal() else 0
