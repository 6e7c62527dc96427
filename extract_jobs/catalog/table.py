"""The catalog's table: create, check and evolve it, and mark it with the last commit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from extract_jobs.commit.record import Commit
from extract_jobs.errors import ConfigError
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.parts import CatalogSpec
from extract_jobs.spec.uris import normal_uri
from extract_jobs.storage import join

_COMMIT = "extract_commit"
_TABLE = "extract_table"
_STATE = "extract_state"
_SOURCE = "extract_source"


def read_table(glue: Any, catalog: CatalogSpec) -> dict[str, Any] | None:
    """Return the table as Glue has it, or None. Read-only.

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
    catalog: CatalogSpec,
    target_uri: str,
    columns: Mapping[str, str],
    folders: list[str],
    owner: Mapping[str, str],
) -> None:
    """Create the table, and its database if needed; an existing table stays.

    Args:
        catalog: Names both.
        target_uri: The table's folder.
        columns: Athena's type of each column.
        folders: Partition fields, which are text: what a folder's name holds.
        owner: From `owner_of`.
    """
    import awswrangler

    from extract_jobs.storage.aws_errors import session_without_foreign_answers

    session = session_without_foreign_answers()
    awswrangler.catalog.create_database(name=catalog.database, exist_ok=True, boto3_session=session)
    awswrangler.catalog.create_parquet_table(
        database=catalog.database,
        table=catalog.table,
        path=join(target_uri, ""),
        columns_types=dict(columns),
        partitions_types=dict.fromkeys(folders, "string"),
        compression=None,
        parameters={"EXTERNAL": "TRUE", **owner},
        boto3_session=session,
        mode="append",  # another run may have created it in the meantime; nothing is lost
    )


def owner_of(spec: ExtractSpec, fingerprint: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that identify the owner of a catalog table.

    Args:
        spec: Of the extracted table.
        fingerprint: Of its source.
    """
    source = json.dumps(dict(fingerprint), sort_keys=True, ensure_ascii=False)
    return {_TABLE: spec.table_id, _STATE: spec.state_uri, _SOURCE: source}


def state_of(found: Mapping[str, Any]) -> str:
    """Return the state folder that a catalog table belongs to; empty if it names none."""
    return str(found.get("Parameters", {}).get(_STATE, ""))


def is_moved(
    found: Mapping[str, Any], spec: ExtractSpec, fingerprint: Mapping[str, str], *, first: bool
) -> bool:
    """Check that a catalog table is ours, and return whether it has an older location.

    A table has moved if its state is new and without a commit, and the catalog's table belonged to
    the same table of the same source before.

    Args:
        found: The catalog's table.
        spec: Of the extracted table.
        fingerprint: Of its source.
        first: Whether the state has no earlier commit.

    Returns:
        False if it has this state and this location.

    Raises:
        ConfigError: It is a view, not Parquet, or belongs to someone else.
    """
    catalog = spec.target.catalog
    assert catalog is not None
    name = f"catalog table {catalog.database}.{catalog.table}"
    way_out = "choose another name in target.catalog, or drop it in the catalog if nobody needs it"
    descriptor = found.get("StorageDescriptor", {})
    if found.get("TableType") == "VIRTUAL_VIEW":
        raise ConfigError(f"{name} is a view: {way_out}")
    serde = descriptor.get("SerdeInfo", {}).get("SerializationLibrary", "")
    if "parquet" not in f"{descriptor.get('InputFormat', '')} {serde}".lower():
        raise ConfigError(f"{name} is not a table of Parquet files: {way_out}")
    given, own = found.get("Parameters", {}), owner_of(spec, fingerprint)
    if given.get(_TABLE) != spec.table_id:
        whose = f"belongs to {given[_TABLE]}" if _TABLE in given else "was created by someone else"
        raise ConfigError(f"{name} {whose}, and not for {spec.table_id}: {way_out}")
    location = descriptor.get("Location", "")
    state = given.get(_STATE, spec.state_uri)
    here = normal_uri(location) == normal_uri(spec.target.uri)
    if here and normal_uri(state) == normal_uri(spec.state_uri):
        return False
    if first and given.get(_SOURCE) == own[_SOURCE]:
        return True
    raise ConfigError(
        f"{name} belongs to {spec.table_id} at {location} with state {state}, not at "
        f"{spec.target.uri} with state {spec.state_uri}: {way_out}; the next run then creates it "
        "again"
    )


def move_table(
    glue: Any,
    catalog: CatalogSpec,
    found: Mapping[str, Any],
    *,
    target_uri: str,
    columns: Mapping[str, str],
    owner: Mapping[str, str],
) -> None:
    """Give the table a new location, new columns and a new owner; no commit marks it yet."""
    descriptor = {
        **found["StorageDescriptor"],
        "Location": join(target_uri, ""),
        "Columns": [{"Name": n, "Type": t} for n, t in columns.items()],
    }
    kept = {k: v for k, v in found.get("Parameters", {}).items() if k != _COMMIT}
    parameters = {**kept, **owner}
    _update_table(glue, catalog, found, descriptor, parameters)


def check_keys(found: Mapping[str, Any], folders: list[str]) -> None:
    """Refuse a table with other partition fields: Glue cannot change them.

    Raises:
        ConfigError: They differ; the message names both.
    """
    keys = [key["Name"] for key in found.get("PartitionKeys", [])]
    if keys != folders:
        raise ConfigError(
            f"the catalog's table is partitioned by {', '.join(keys) or 'nothing'}, the target by "
            f"{', '.join(folders) or 'nothing'}: drop the table in the catalog; the next run "
            "creates it again"
        )


def mark_table(
    glue: Any,
    catalog: CatalogSpec,
    found: Mapping[str, Any],
    columns: Mapping[str, str],
    *,
    commit: Commit,
    owner: Mapping[str, str],
) -> None:
    """Update the table's columns, types, and the parameters that name run and schema.

    Columns that the extract no longer has keep their position: older files may hold them.
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
        **owner,
        _COMMIT: str(commit.seq),
        "extract_run_id": commit.run_id,
        "extract_schema": json.dumps(commit.columns, ensure_ascii=False),
    }
    _update_table(glue, catalog, found, {**descriptor, "Columns": kept + new}, parameters)


def _update_table(
    glue: Any,
    catalog: CatalogSpec,
    found: Mapping[str, Any],
    descriptor: Mapping[str, Any],
    parameters: Mapping[str, str],
) -> None:
    taken = (
        "Name", "Description", "Owner", "Retention", "PartitionKeys", "TableType",
        "ViewOriginalText", "ViewExpandedText",
    )  # fmt: skip
    table = {name: found[name] for name in taken if name in found}
    table["StorageDescriptor"] = descriptor
    table["Parameters"] = parameters
    # With the version Glue refuses to overwrite another run's change; archives would pile up.
    version = {"VersionId": found["VersionId"]} if "VersionId" in found else {}
    glue.update_table(DatabaseName=catalog.database, TableInput=table, SkipArchive=True, **version)


def complete_up_to(found: Mapping[str, Any], table_id: str) -> int:
    """Return the commit that the catalog's table was last marked with.

    Returns:
        Its ``seq``; 0 if neither this nor another table's log has marked it.
    """
    parameters = found.get("Parameters", {})
    text = parameters.get(_COMMIT, "")
    return int(text) if parameters.get(_TABLE) == table_id and text.isdecimal() else 0
