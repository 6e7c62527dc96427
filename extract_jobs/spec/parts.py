"""The fields of a spec and its parts, each checked separately.

`extract_jobs.spec.extract_spec` adds what holds between them.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from extract_jobs.spec.engines import Engine
from extract_jobs.spec.source import ConnectionSpec, FilesSpec
from extract_jobs.spec.source_types import SourceType
from extract_jobs.spec.uris import address_problem, scheme_problem
from extract_jobs.spec.values import Bytes, Duration, Lag, Name, SpecPart

JobType = Literal["glue", "emr", "ecs"]
RowSecurity = Literal["refuse", "apply"]
WaitingDdl = Literal["wait", "yield"]
ENGINE_ABOUT = (
    "What runs splits: processes of the job's own machine, or Spark. auto takes Spark where one is "
    "set up (Glue, EMR, spark-submit, a session of the caller) and for sources read by JDBC."
)

XMIN = "xmin"
"""What snapshot mode orders rows by. No column of a PostgreSQL table can have this name."""


class WatermarkSpec(SpecPart):
    """Which column orders the rows of an incremental table, and how its interval is cut."""

    column: Name | None = None
    snapshot: bool = Field(
        False,
        description="Uses no column: rows by the transaction that wrote them. PostgreSQL only.",
    )
    lag: Lag | None = Field(
        None, description="How far below the watermark the next interval starts."
    )
    delay: Duration | None = Field(
        None, description="How far behind the source's clock the upper bound stays."
    )
    initial: str | int | None = Field(None, description="Lower bound of the first interval.")
    lower: str | int | None = Field(None, description="Explicit lower bound, exclusive: backfill.")
    upper: str | int | None = Field(None, description="Explicit upper bound, inclusive: backfill.")
    nulls: Literal["include", "exclude", "refuse"] = Field(
        "include",
        description="Rows whose watermark is NULL: include extracts them in the first run.",
    )
    duplicates: Literal["refuse", "accept"] = Field(
        "refuse",
        description="Rows of intervals that are already committed, if no columns.key identifies "
        "them: refuse the run, or accept duplicates.",
    )

    @property
    def orders_by(self) -> str | None:
        """The column that orders rows; in snapshot mode PostgreSQL's own system column."""
        return XMIN if self.snapshot else self.column


Mask = Literal["hash", "redact", "null"]


class SecretSpec(SpecPart):
    """Where a secret is; never the secret. Exactly one is given."""

    secret_id: Name | None = None
    ssm_parameter: Name | None = None
    env: Name | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(map(bool, (self.secret_id, self.ssm_parameter, self.env))) != 1:
            raise ValueError("exactly one of secret_id, ssm_parameter and env is needed")
        return self


class MaskKeySpec(SecretSpec):
    """Where the key of the mask ``hash`` is; never the key. Exactly one is given."""


class ColumnsSpec(SpecPart):
    """Which columns are extracted, and under which names and types.

    ``include`` and ``exclude`` are globs over source names, ``exclude`` wins. ``rename``, ``cast``
    and ``mask`` are keyed by source name. ``key`` names the columns that identify a row, so that a
    repeated row is recognized.
    """

    include: tuple[Name, ...] | None = None
    exclude: tuple[Name, ...] = ()
    rename: dict[Name, Name] = Field({}, description="New name by column.")
    cast: dict[Name, Name] = Field(
        {}, description="Type by column: string, int32, int64, float64, decimal(p,s), …"
    )
    mask: dict[Name, Mask] = Field(
        {}, description="hash: keyed SHA-256; redact: the same text everywhere; null."
    )
    mask_key: MaskKeySpec | None = Field(None, description="Key of the mask hash.")
    key: tuple[Name, ...] = Field(
        (), description="Columns, never NULL, that identify a row: the source's own key."
    )

    @model_validator(mode="after")
    def _key_identifies_rows(self) -> Self:
        if len(set(self.key)) != len(self.key):
            raise ValueError(f"key names one column twice: {list(self.key)}")
        if "hash" in self.mask.values() and self.mask_key is None:
            raise ValueError(
                "mask hash needs mask_key: without a key, common values can be guessed"
            )
        masked = [name for name in self.key if self.mask.get(name, "hash") != "hash"]
        if masked:
            raise ValueError(
                f"key contains {', '.join(masked)}, which mask replaces by one constant"
            )
        return self


OneSnapshot = Literal["auto", "require", "never"]


class SplitSpec(SpecPart):
    """How the source is read in parallel."""

    strategy: Literal["auto", "ctid", "range", "rowid", "hash", "none"] = Field(
        "auto", description="The source decides which are available; auto takes the best."
    )
    column: Name | None = Field(None, description="Column for the strategies range and hash.")
    target_bytes: Bytes = Field(
        128 * 2**20, ge=2**13, description="Size of one split; smaller if cores would be idle."
    )
    max_connections: int = Field(8, ge=1, le=1000, description="Splits read at the same time.")
    one_snapshot: OneSnapshot = Field(
        "auto",
        description="MySQL: whether the table is locked for a moment, so that all splits share one "
        "snapshot. auto locks if it can, else the report says why not; require fails instead.",
    )
    fetch_rows: int = Field(
        10_000, ge=1, le=10**6, description="Rows that a JDBC driver fetches at a time."
    )

    @model_validator(mode="after")
    def _range_has_column(self) -> Self:
        if self.strategy in ("range", "hash") and not self.column:
            raise ValueError(f"strategy {self.strategy} needs split.column")
        return self


SchemaPolicy = Literal["evolve", "freeze", "fail"]
WideningPolicy = Literal["evolve", "new_files", "freeze", "fail"]


class SchemaChangeSpec(SpecPart):
    """What happens for each kind of change since the table's last commit.

    ``evolve`` accepts it, ``freeze`` keeps the columns as they were, ``fail`` refuses it. With
    ``new_files`` a column may have the wider type in new files beside older ones.
    """

    added: SchemaPolicy = "evolve"
    dropped: SchemaPolicy = "evolve"
    widened: WideningPolicy = "evolve"
    narrowed: SchemaPolicy = "fail"
    reordered: SchemaPolicy = "evolve"
    nullability: SchemaPolicy = "evolve"


class CatalogSpec(SpecPart):
    """The catalog's table that points at the target."""

    type: Literal["glue", "sqlite", "rest"] = Field(
        "glue",
        description="glue: the Glue Data Catalog. For Iceberg tables also sqlite: a local file, "
        "for one machine; and rest: a catalog that speaks Iceberg's REST protocol.",
    )
    path: Name | None = Field(None, description="The file of a catalog of type sqlite.")
    url: Name | None = Field(
        None, description="Address of a catalog of type rest, https unless it is on this machine."
    )
    warehouse: Name | None = Field(
        None, description="Which of its warehouses; for Glue's own endpoint the account number."
    )
    sign: Literal["glue", "execute-api"] | None = Field(
        None, description="The AWS service that requests are signed for, with the worker's role."
    )
    token: SecretSpec | None = Field(None, description="A bearer token for a catalog of type rest.")
    credential: SecretSpec | None = Field(
        None, description="client_id:client_secret, which OAuth 2 exchanges for a token."
    )
    oauth_url: Name | None = Field(
        None, description="Where credential is exchanged; default: the catalog's own."
    )
    scope: Name | None = Field(None, description="Scope of that token; default: catalog.")
    database: Name
    table: Name

    @model_validator(mode="after")
    def _has_its_place(self) -> Self:
        if (self.type == "sqlite") != (self.path is not None):
            raise ValueError("path is for type sqlite, which needs it")
        if (self.type == "rest") != (self.url is not None):
            raise ValueError("url is for type rest, which needs it")
        ways = [name for name in ("sign", "token", "credential") if getattr(self, name)]
        given = [
            *ways,
            *(name for name in ("warehouse", "oauth_url", "scope") if getattr(self, name)),
        ]
        if given and self.type != "rest":
            raise ValueError(f"{given[0]} is for type rest")
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(ways)} exclude each other")
        if self.credential is None and (self.oauth_url or self.scope):
            raise ValueError("oauth_url and scope are for credential")
        if "s3tables" in f"{self.url} {self.warehouse}":
            raise ValueError(
                "S3 Tables cannot be written: it decides where a table lies, and allows neither to "
                "list nor to delete objects, which recovery from a crash needs. Take a table of "
                "the Glue Data Catalog, or of a REST catalog over a bucket of your own"
            )
        for name in ("url", "oauth_url"):
            if problem := address_problem(getattr(self, name)):
                raise ValueError(f"{name} {problem}")
        return self


Format = Literal["parquet", "iceberg"]


class TargetSpec(SpecPart):
    """Where and how the Parquet files are written.

    ``partition_by`` takes column names, ``year()``, ``month()``, ``day()``, ``hour()`` of a column,
    and the run's own ``extract_date`` and ``run_id``; ``uri`` is ``s3://…``, ``file:///…`` or a
    plain path.
    """

    uri: Name
    format: Format = Field(
        "parquet",
        description="parquet: a folder of Parquet files. iceberg: an Apache Iceberg table, whose "
        "readers see a commit at one instant; it needs target.catalog and "
        "extract-jobs[iceberg].",
    )
    partition_by: tuple[Name, ...] = ()
    write_mode: Literal["append", "overwrite", "overwrite_partitions", "merge"] | None = Field(
        None,
        description="append adds rows; overwrite replaces all files when it is published; "
        "overwrite_partitions replaces the partitions that the run covers; merge, for an Iceberg "
        "table, replaces rows by columns.key, and all rows in mode full. Default: append in mode "
        "incremental; in mode full overwrite_partitions where partition_by has extract_date or "
        "run_id, so that earlier runs stay, and overwrite elsewhere.",
    )
    compression: Literal["zstd", "snappy", "gzip", "none"] = "zstd"
    file_bytes: Bytes = Field(256 * 10**6, ge=10**5, description="Files are rolled at this size.")
    row_group_bytes: Bytes = Field(
        64 * 2**20, ge=10**5, description="Arrow bytes per Parquet row group: bounds memory."
    )
    max_open_partitions: int = Field(
        64,
        ge=1,
        le=1000,
        description="Partitions written at a time; rows of others are buffered on disk.",
    )
    catalog: CatalogSpec | None = None
    properties: dict[Name, Name] | None = Field(
        None,
        description="Properties of an Iceberg table, such as write.metadata.metrics.default, set "
        "by each commit.",
    )
    catalog_wait_seconds: int = Field(
        300,
        ge=0,
        le=3600,
        description="How long a run keeps trying to update the catalog while Glue is throttling or "
        "unreachable, after its data is published.",
    )

    @model_validator(mode="after")
    def _partitions_are_distinct(self) -> Self:
        if len(set(self.partition_by)) != len(self.partition_by):
            raise ValueError(f"partition_by names one partition twice: {list(self.partition_by)}")
        if problem := scheme_problem(self.uri):
            raise ValueError(problem)
        if self.uri.startswith("s3://") and not re.match(r"s3://[^/]+/[^/]", self.uri):
            raise ValueError(f"{self.uri!r} has no path below the bucket: give the table a folder")
        return self

    @property
    def files_uri(self) -> str:
        """The folder that the files are below: an Iceberg table's metadata is beside it."""
        return f"{self.uri.rstrip('/')}/data" if self.is_iceberg else self.uri

    @property
    def merges(self) -> bool:
        """Whether rows are replaced by their key."""
        return self.write_mode == "merge"

    @property
    def is_iceberg(self) -> bool:
        """Whether the target is an Iceberg table."""
        return self.format == "iceberg"


RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


Reuse = Annotated[
    Literal["auto", "reread", "never"],
    # YAML 1.1 reads a plain off as false.
    BeforeValidator(lambda value: "never" if value is False or value == "off" else value),
]
REUSE_ABOUT = (
    "auto: a full extract with write_mode overwrite keeps the files of parts of a PostgreSQL "
    "table, of files in S3 or of a SQLite database that have not changed since the last commit, "
    "and reads the rest; reread reads everything, and notes it for the next run with auto; never "
    "reads everything."
)

LossyTypes = Literal["refuse", "null", "string"]
"""What becomes of values that have no faithful form."""

Deletes = Literal["ignore", "detect"]
DELETES_ABOUT = (
    "detect: a run with write_mode merge reads the keys of all rows of the source too, and deletes "
    "the rows whose keys are gone. PostgreSQL, MySQL and SQLite."
)

EmptySource = Literal["refuse", "accept"]
EMPTY_SOURCE_ABOUT = (
    "What a run does that finds no row in the source and would leave the table without any, though "
    "it has some: refuse fails, accept empties the table. Of write_mode overwrite and deletes: "
    "detect."
)


class SpecFields(SpecPart):
    """Every field of `ExtractSpec`, before the rules between them are checked."""

    version: Literal[1] = 1
    run_id: RunId
    attempt: int = Field(1, ge=1)
    source_name: Name
    source_type: SourceType
    connection: ConnectionSpec
    extract_table: Name = Field(
        description="schema.table as the source spells it, or the name of a query."
    )
    query: Name | None = Field(None, description="One SELECT that is extracted instead of a table.")
    job_type: JobType | None = None
    mode: Literal["full", "incremental"] = "full"
    watermark: WatermarkSpec | None = None
    columns: ColumnsSpec = ColumnsSpec()
    where: Name | None = Field(None, description="One boolean expression in the source's dialect.")
    files: FilesSpec | None = None
    split: SplitSpec = SplitSpec()
    engine: Engine = Field("auto", description=ENGINE_ABOUT)
    target: TargetSpec
    on_schema_change: SchemaChangeSpec | SchemaPolicy = "evolve"
    reuse: Reuse = Field("never", description=REUSE_ABOUT)
    deletes: Deletes = Field("ignore", description=DELETES_ABOUT)
    keep_retired: Duration | None = None
    spill_folder: Name | None = None
    on_empty: Literal["schema_file", "nothing"] = "schema_file"
    empty_source: EmptySource = Field("refuse", description=EMPTY_SOURCE_ABOUT)
    lossy_types: LossyTypes | dict[Name, LossyTypes] = Field(
        "refuse", description="For all columns, or by column; one that is not named refuses."
    )
    max_value_bytes: Bytes = Field(
        256 * 2**20, ge=1024, description="Size of the largest value; a larger one fails the run."
    )
    row_security: RowSecurity = "refuse"
    max_lag: Duration | None = None
    statement_timeout: Duration | None = None
    on_waiting_ddl: WaitingDdl = "wait"
    reconcile: bool = True
    reconcile_max_bytes: Bytes = Field(
        10 * 10**9, ge=0, description="Above this size the source is not asked for its own count."
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="Maximum number of rows, for a sample in a scratch folder; never in a config.",
    )
    state_uri: Name = Field(description="Where this table's plans, commits and outcomes are.")
    report_uri: Name
    tracking_table: Name | None = None
    reruns: tuple[RunId, ...] = Field(
        (),
        description="Failed runs of the table that this one replaces. They are fenced "
        "off first; whatever one of them has committed counts as this run's.",
    )
