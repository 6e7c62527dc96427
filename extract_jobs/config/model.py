"""What a source config may say: the models, and the JSON Schema made from them.

``python -m extract_jobs.config.model`` writes the schema that ships with the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from extract_jobs.config.worker_sizes import (
    EMR_MOST_GB,
    GlueWorker,
    emr_problem,
    fargate_problem,
)
from extract_jobs.spec.engines import Engine
from extract_jobs.spec.parts import (
    DELETES_ABOUT,
    EMPTY_SOURCE_ABOUT,
    ENGINE_ABOUT,
    REUSE_ABOUT,
    ColumnsSpec,
    Deletes,
    EmptySource,
    JobType,
    LossyTypes,
    Reuse,
    RowSecurity,
    SchemaChangeSpec,
    SchemaPolicy,
    SplitSpec,
    TargetSpec,
    WaitingDdl,
    WatermarkSpec,
)
from extract_jobs.spec.source import ConnectionSpec, FilesSpec, connection_problem
from extract_jobs.spec.source_types import SourceType
from extract_jobs.spec.values import Bytes, Duration, Name, SpecPart

SCHEMA_PATH = Path(__file__).with_name("source_config.schema.json")
_TIMEOUT = "The state machine stops the job after this long."


class SourceSettings(SpecPart):
    """The source that the tables come from."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")] = Field(
        description="Its name in paths and in the tracking table; also the name of this file."
    )
    type: SourceType = Field(description="Its kind.")
    connection: ConnectionSpec
    max_connections: int = Field(
        40,
        ge=2,
        le=10_000,
        description="The source's whole budget, over all tables of an execution. A table uses one "
        "connection more than it reads splits at a time.",
    )
    event_overrides: tuple[Name, ...] | None = Field(
        None, description="Keys of a table that the event of an execution may override."
    )
    row_security: RowSecurity = Field(
        "refuse",
        description="PostgreSQL tables whose policies hide rows from the reader: refuse them, or "
        "apply the policies and extract the visible rows.",
    )
    max_lag: Duration | None = Field(
        None, description="How far a PostgreSQL standby may lag behind its primary; default: any."
    )
    statement_timeout: Duration | None = Field(
        None,
        description="How long one statement may take in PostgreSQL or MySQL, reading a split "
        "included; default: no limit.",
    )
    on_waiting_ddl: WaitingDdl = Field(
        "wait",
        description="When ALTER TABLE and the like wait behind the reader of a PostgreSQL table: "
        "let them wait, or yield, which ends the attempt and retries it.",
    )

    @field_validator("connection")
    @classmethod
    def _suits_the_type(cls, connection: ConnectionSpec, info: ValidationInfo) -> ConnectionSpec:
        problem = connection_problem(info.data["type"], connection) if "type" in info.data else None
        if problem:
            raise ValueError(problem)
        return connection


class GlueSettings(SpecPart):
    """How a table's job runs on AWS Glue."""

    job_name: Name = "extract-jobs"
    worker_type: GlueWorker = "G.1X"
    number_of_workers: int = Field(2, ge=2, le=299)
    timeout_minutes: int = Field(480, ge=1, le=10_080, description=_TIMEOUT)


CodeUri = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9+.-]*://[^\s,#]+$")]
"""Where code is. It becomes a part of spark-submit's parameters, which blanks and commas cut."""


class EmrSettings(SpecPart):
    """How a table's job runs on EMR: Serverless by application, or a step on a running cluster."""

    application_id: Name | None = Field(None, description="EMR Serverless application.")
    cluster_id: Name | None = Field(
        None, description="Running cluster, to run a step on it instead."
    )
    execution_role_arn: Name | None = Field(None, description="Role of a Serverless job.")
    entry_point: CodeUri | None = Field(None, description="URI of emr.py.")
    archive: CodeUri | None = Field(None, description="URI of the packed Python environment.")
    driver_memory_gb: int = Field(4, ge=1, le=EMR_MOST_GB)
    executor_memory_gb: int = Field(4, ge=1, le=EMR_MOST_GB)
    executor_cores: int = Field(2, ge=1, le=16)
    executors: int = Field(2, ge=1, le=1000)
    timeout_minutes: int = Field(480, ge=5, le=10_080, description=_TIMEOUT)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.application_id and self.cluster_id:
            raise ValueError(
                "application_id and cluster_id are both given; set the one not meant to null"
            )
        problem = emr_problem(self.executor_memory_gb, self.executor_cores)
        if problem and not self.cluster_id:
            raise ValueError(problem)
        return self


class EcsSettings(SpecPart):
    """How a table's job runs on ECS Fargate."""

    cluster: Name = "extract-jobs"
    task_definition: Name = "extract-jobs"
    container_name: Name = "extract-jobs"
    cpu: int = Field(1024, ge=256, le=16_384, description="CPU units; 1024 are one vCPU.")
    memory: int = Field(4096, ge=512, le=122_880, description="MiB.")
    subnets: tuple[Name, ...] = ()
    security_groups: tuple[Name, ...] = ()
    assign_public_ip: Literal["ENABLED", "DISABLED"] = "DISABLED"
    timeout_minutes: int = Field(480, ge=1, le=10_080, description=_TIMEOUT)

    @model_validator(mode="after")
    def _is_sold(self) -> Self:
        problem = fargate_problem(self.cpu, self.memory)
        if problem:
            raise ValueError(problem)
        return self


class RetrySettings(SpecPart):
    """How often a failed table is tried again, where its error says that trying again may help."""

    max_attempts: int = Field(3, ge=1, le=20, description="Number of attempts, the first included.")
    backoff_seconds: int = Field(
        60, ge=0, le=86_400, description="Wait before the second attempt; doubled each time."
    )


Batch = Literal["none", "small"]


class JobSettings(SpecPart):
    """What the state machine needs to run one table; every section is always there."""

    job_type: JobType
    glue: GlueSettings = GlueSettings()
    emr: EmrSettings = EmrSettings()
    ecs: EcsSettings = EcsSettings()
    retry: RetrySettings = RetrySettings()
    batch: Batch = "none"


class TableConfig(SpecPart):
    """One table: its own values over ``defaults``, what neither gives as documented here."""

    tags: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")], ...] = Field(
        (), description="Words that select tables: `--tag daily`, or `tag:daily` in an event."
    )
    exclude: tuple[Name, ...] = Field(
        (),
        description="Names and globs of tables to leave out, in an entry whose name is a pattern.",
    )
    job_type: JobType = Field("glue", description="Where the job runs on AWS.")
    batch: Batch = Field(
        "none",
        description="With small, the table shares a job of the pipeline with other tables of the "
        "source while its commits are small.",
    )
    mode: Literal["full", "incremental"] = "full"
    watermark: WatermarkSpec | None = None
    columns: ColumnsSpec = ColumnsSpec()
    where: Name | None = Field(None, description="One boolean expression in the source's dialect.")
    query: Name | None = Field(None, description="One SELECT that is extracted instead of a table.")
    files: FilesSpec | None = Field(
        None, description="The table's files, for sources of type files."
    )
    split: SplitSpec = SplitSpec()
    max_connections: int | None = Field(
        None, ge=1, le=1000, description="Short for split.max_connections."
    )
    engine: Engine = Field("auto", description=ENGINE_ABOUT)
    target: TargetSpec
    on_schema_change: SchemaChangeSpec | SchemaPolicy = Field(
        "evolve", description="One policy for all kinds of change, or one for each."
    )
    reuse: Reuse = Field("never", description=REUSE_ABOUT)
    deletes: Deletes = Field("ignore", description=DELETES_ABOUT)
    keep_retired: Duration | None = Field(
        None,
        description="How long files that a run replaces are kept for extract-jobs rollback, and "
        "snapshots of an Iceberg table; default: files are deleted at once, and snapshots stay.",
    )
    spill_folder: Name | None = Field(
        None, description="Folder where rows are buffered on disk; default: the temporary one."
    )
    on_empty: Literal["schema_file", "nothing"] = "schema_file"
    empty_source: EmptySource = Field("refuse", description=EMPTY_SOURCE_ABOUT)
    lossy_types: LossyTypes | dict[Name, LossyTypes] = Field(
        "refuse", description="For all columns, or by column; columns not named refuse."
    )
    max_value_bytes: Bytes = Field(
        256 * 2**20, ge=1024, description="Largest value in bytes; a larger one fails the run."
    )
    row_security: RowSecurity | None = Field(
        None, description="As source.row_security, which is the default."
    )
    max_lag: Duration | None = Field(None, description="As source.max_lag, which is the default.")
    statement_timeout: Duration | None = Field(
        None, description="As source.statement_timeout, which is the default."
    )
    on_waiting_ddl: WaitingDdl | None = Field(
        None, description="As source.on_waiting_ddl, which is the default."
    )
    reconcile: bool = True
    reconcile_max_bytes: Bytes = Field(
        10 * 10**9, ge=0, description="Above this size the source is not asked for its own count."
    )
    state_uri: Name | None = Field(
        None,
        description="Base of the state; a table's own is at <base>/<source_name>/<table>. "
        "Default: _extract at the root of the target's bucket, or beside the target's folder.",
    )
    glue: GlueSettings = GlueSettings()
    emr: EmrSettings = EmrSettings()
    ecs: EcsSettings = EcsSettings()
    retry: RetrySettings = RetrySettings()


class ConfigModel(SpecPart):
    """A source config: one YAML file for one source."""

    version: Literal[1]
    source: SourceSettings
    defaults: TableConfig | None = Field(None, description="Values that every table starts from.")
    tables: dict[Name, TableConfig | None] = Field(
        description="By schema.table as the source spells it, or by your own name for a query. "
        "A pattern such as public.* takes every table that has no entry of its own."
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a source config, for editors.

    It matches the models, except that a table may leave out what ``defaults`` gives, and that
    ``null`` takes a value back to what it is without the config.
    """
    schema: dict[str, Any] = _without_titles(ConfigModel.model_json_schema())
    definitions = schema["$defs"]
    for name in ("TableConfig", *_parts_of(definitions, "TableConfig")):
        part = definitions[name]
        part.pop("required", None)
        part["properties"] = {k: _or_null(v) for k, v in part["properties"].items()}
    definitions["TableConfig"]["properties"]["query"]["description"] += " Not in defaults."
    mask = definitions["ColumnsSpec"]["properties"]["mask"]["anyOf"][0]
    mask["additionalProperties"] = _or_null(mask["additionalProperties"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _parts_of(definitions: dict[str, Any], name: str) -> set[str]:
    """Return the names of all definitions that ``name`` refers to, however deeply."""
    found = {part.split('"', 1)[0] for part in json.dumps(definitions[name]).split("#/$defs/")[1:]}
    return found.union(*(_parts_of(definitions, part) for part in found))


def _without_titles(schema: Any) -> Any:
    """Drop the titles that pydantic makes of field names: editors show the names anyway."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        k: _without_titles(v)
        for k, v in schema.items()
        if not (k == "title" and isinstance(v, str))
    }


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    if {"type": "null"} in field.get("anyOf", ()):
        return field
    about = {k: v for k, v in field.items() if k in ("description", "default")}
    bare = {k: v for k, v in field.items() if k not in about}
    options = bare["anyOf"] if set(bare) == {"anyOf"} else [bare]
    return {"anyOf": [*options, {"type": "null"}], **about}


def schema_text() -> str:
    """Return the file's text of `json_schema`."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
