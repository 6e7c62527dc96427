"""`ExtractSpec`: everything that one extract of one table needs, validated.

A spec holds names of secrets, never a secret. It is frozen, refuses unknown keys, and reports all
its problems at once.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from extract_jobs.errors import ConfigError
from extract_jobs.spec_rules import PARTITION_FUNCTIONS, RUN_PARTITIONS, mode_problems

SourceType = Literal["postgres"]
JobType = Literal["glue", "emr", "ecs"]

XMIN = "xmin"
"""What snapshot mode orders rows by. No column of a PostgreSQL table can have this name."""

_BYTE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
               "kib": 2**10, "mib": 2**20, "gib": 2**30}  # fmt: skip
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_bytes(value: Any) -> Any:
    """Turn ``"256MB"`` or ``"64 MiB"`` into bytes; other values pass through."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+)\s*([a-z]*)\s*", value.lower())
        if not match or match[2] not in _BYTE_UNITS:
            raise ValueError(f"{value!r} is not a size such as 268435456, 256MB or 256MiB")
        return int(match[1]) * _BYTE_UNITS[match[2]]
    return value


def parse_duration(value: Any) -> Any:
    """Turn ``"90s"``, ``"1m"``, ``"2h"`` or ``"1d"`` into a timedelta; others pass through."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+)\s*([smhd])\s*", value.lower())
        if not match:
            raise ValueError(f"{value!r} is not a duration such as 90s, 1m, 2h or 1d")
        return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    return value


def not_negative(value: timedelta | int) -> timedelta | int:
    """Refuse a lag that would skip rows; whole numbers stay numbers."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 0:
        raise ValueError("must not be negative: rows would be skipped")
    return value


Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
]
Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(lambda d: f"{int(d.total_seconds())}s", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+\s*[smhd]\s*$"}),
]
Lag = Annotated[Duration | int, AfterValidator(not_negative)]
Name = Annotated[str, StringConstraints(min_length=1)]


class SpecPart(BaseModel):
    """Base of the spec's parts: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=False)


class ConnectionSpec(SpecPart):
    """How to reach a database, and where its credentials are; never the credentials.

    ``secret_id`` names a Secrets Manager secret with the keys that RDS writes (``host``, ``port``,
    ``username``, ``password``, ``dbname``). ``url`` is ``postgresql://user@host:port/database``
    without a password, which ``password_env`` names the environment variable of. ``url_env`` names
    a variable that holds the whole URL. Single fields override what the secret or URL says.
    """

    secret_id: Name | None = None
    url: Name | None = None
    url_env: Name | None = None
    password_env: Name | None = None
    host: Name | None = None
    port: int | None = Field(None, ge=1, le=65535)
    database: Name | None = None
    user: Name | None = None
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None = Field(
        None, description="Default: require, or prefer where the host is local."
    )
    sslrootcert: Name | None = None
    pooled: bool = Field(
        False, description="Behind a pooler or proxy that may switch node or session: one split."
    )
    connect_timeout_seconds: int = Field(10, ge=1, le=300)

    @model_validator(mode="after")
    def _has_no_password(self) -> Self:
        # Up to the last @: a password may hold a slash or an @ that somebody forgot to encode.
        if self.url and re.match(r"^[^:/@]+://[^@]*:.*@", self.url, re.DOTALL):
            raise ValueError(
                "url holds a password; leave it out and name its environment variable in "
                "password_env, or use secret_id"
            )
        if self.url and re.search(r"[?&]password=", self.url, re.IGNORECASE):
            raise ValueError("url holds a password parameter; use password_env or secret_id")
        if not (self.secret_id or self.url or self.url_env or self.host):
            raise ValueError("one of secret_id, url, url_env or host is needed")
        if sum(bool(x) for x in (self.secret_id, self.url, self.url_env)) > 1:
            raise ValueError("only one of secret_id, url and url_env can be given")
        return self


class WatermarkSpec(SpecPart):
    """Which column orders the rows of an incremental table, and how its interval is cut."""

    column: Name | None = None
    snapshot: bool = Field(
        False,
        description="No column: rows by the transaction that wrote them. PostgreSQL tables only.",
    )
    lag: Lag | None = Field(
        None, description="How far below the watermark the next interval starts over."
    )
    delay: Duration | None = Field(
        None, description="How far behind the source's clock the upper bound stays."
    )
    initial: str | int | None = Field(None, description="Lower bound of the first interval.")
    lower: str | int | None = Field(None, description="Explicit lower bound, exclusive: backfill.")
    upper: str | int | None = Field(None, description="Explicit upper bound, inclusive: backfill.")
    nulls: Literal["include", "exclude", "refuse"] = Field(
        "include", description="Rows whose watermark is NULL; include takes them in the first run."
    )
    duplicates: Literal["refuse", "accept"] = Field(
        "refuse",
        description="Rows of ground that was committed already: told apart by columns.key, or "
        "accepted as doubles.",
    )

    @property
    def orders_by(self) -> str | None:
        """The column that orders rows; in snapshot mode PostgreSQL's own system column."""
        return XMIN if self.snapshot else self.column


class ColumnsSpec(SpecPart):
    """Which columns are extracted, and under which names and types.

    ``include`` and ``exclude`` are globs over source names, ``exclude`` wins. ``rename``, ``cast``
    and ``mask`` are keyed by source name. ``key`` names the columns that tell rows apart, so that a
    row that is read again is known again.
    """

    include: tuple[Name, ...] | None = None
    exclude: tuple[Name, ...] = ()
    rename: dict[Name, Name] = {}
    cast: dict[Name, Name] = Field(
        {}, description="Column to type: string, int32, int64, float64, decimal(p,s), …"
    )
    mask: dict[Name, Literal["redact", "null"]] = {}
    key: tuple[Name, ...] = Field(
        (), description="Columns, never NULL, that tell rows apart: the source's own key."
    )

    @model_validator(mode="after")
    def _key_tells_rows_apart(self) -> Self:
        if len(set(self.key)) != len(self.key):
            raise ValueError(f"key names one column twice: {list(self.key)}")
        masked = [name for name in self.key if name in self.mask]
        if masked:
            raise ValueError(f"key holds {', '.join(masked)}, which mask makes the same everywhere")
        return self


class SplitSpec(SpecPart):
    """How the source is read in parallel."""

    strategy: Literal["auto", "ctid", "range", "none"] = "auto"
    column: Name | None = Field(None, description="Column for the strategy range.")
    target_bytes: Bytes = Field(128 * 2**20, ge=2**13, description="Size of one split.")
    max_connections: int = Field(8, ge=1, le=1000, description="Splits read at the same time.")

    @model_validator(mode="after")
    def _range_has_column(self) -> Self:
        if self.strategy == "range" and not self.column:
            raise ValueError("strategy range needs split.column")
        return self


class CatalogSpec(SpecPart):
    """The Glue Data Catalog table that points at the target."""

    database: Name
    table: Name


__all__ = ["PARTITION_FUNCTIONS", "RUN_PARTITIONS"]


class TargetSpec(SpecPart):
    """Where and how the Parquet files are written.

    ``partition_by`` takes column names, ``year()``, ``month()``, ``day()``, ``hour()`` of a column,
    and the run's own ``extract_date`` and ``run_id``; ``uri`` is ``s3://…``, ``file:///…`` or a
    plain path.
    """

    uri: Name
    partition_by: tuple[Name, ...] = ()
    write_mode: Literal["append", "overwrite", "overwrite_partitions"] | None = Field(
        None,
        description="append adds to what is there; overwrite replaces it when published; "
        "overwrite_partitions replaces the partitions that the run covers. Default: overwrite in "
        "mode full, append in mode incremental.",
    )
    compression: Literal["zstd", "snappy", "gzip", "none"] = "zstd"
    file_bytes: Bytes = Field(256 * 10**6, ge=10**5, description="Files are rolled at this size.")
    row_group_bytes: Bytes = Field(
        64 * 2**20, ge=10**5, description="Arrow bytes per Parquet row group: bounds memory."
    )
    catalog: CatalogSpec | None = None

    @model_validator(mode="after")
    def _partitions_are_distinct(self) -> Self:
        if len(set(self.partition_by)) != len(self.partition_by):
            raise ValueError(f"partition_by names one partition twice: {list(self.partition_by)}")
        if self.uri.startswith("s3://") and not re.match(r"s3://[^/]+/[^/]", self.uri):
            raise ValueError(f"{self.uri!r} has no path below the bucket: give the table a folder")
        return self


class ExtractSpec(SpecPart):
    """What a worker gets: one extract of one table."""

    version: Literal[1] = 1
    run_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
    attempt: int = Field(1, ge=1)
    source_name: Name
    source_type: SourceType
    connection: ConnectionSpec
    extract_table: Name = Field(
        description="schema.table as the source spells it, or the name of a query."
    )
    query: Name | None = Field(None, description="One SELECT that is extracted in a table's place.")
    job_type: JobType | None = None
    mode: Literal["full", "incremental"] = "full"
    watermark: WatermarkSpec | None = None
    columns: ColumnsSpec = ColumnsSpec()
    where: Name | None = Field(None, description="One boolean expression in the source's dialect.")
    split: SplitSpec = SplitSpec()
    target: TargetSpec
    on_schema_change: Literal["evolve", "fail"] = "evolve"
    on_empty: Literal["schema_file", "nothing"] = "schema_file"
    lossy_types: Literal["refuse", "null"] = "refuse"
    reconcile: bool = True
    reconcile_max_bytes: Bytes = Field(
        10 * 10**9, ge=0, description="Above this size the source is not asked for its own count."
    )
    state_uri: Name = Field(description="Where this table's plans, commits and outcomes are.")
    report_uri: Name
    tracking_table: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _write_mode_by_mode(cls, data: Any) -> Any:
        """A full extract is the table as it is now: run twice, it must not be there twice."""
        if not isinstance(data, dict) or not isinstance(data.get("target"), dict | TargetSpec):
            return data
        target = data["target"]
        if isinstance(target, TargetSpec):
            target = target.model_dump(exclude_unset=True)
        if target.get("write_mode") is None:
            chosen = "append" if data.get("mode") == "incremental" else "overwrite"
            target = {**target, "write_mode": chosen}
        return {**data, "target": target}

    @model_validator(mode="after")
    def _modes_agree(self) -> Self:
        problems = list(mode_problems(self))
        target = self.target.uri.rstrip("/") + "/"
        problems += [
            f"{name} must not lie inside target.uri, where readers list it"
            for name, uri in (("state_uri", self.state_uri), ("report_uri", self.report_uri))
            if (uri.rstrip("/") + "/").startswith(target)
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def table_id(self) -> str:
        """``<source_name>/<extract_table>``, the tracking table's key."""
        return f"{self.source_name}/{self.extract_table}"


def parse_spec(text: str | bytes, where: str = "spec") -> ExtractSpec:
    """Validate a spec given as JSON.

    Args:
        text: One JSON object.
        where: What the error message calls the input, such as its URI.

    Returns:
        The validated spec.

    Raises:
        ConfigError: Not JSON, or any field wrong; the message names every problem at once.
    """
    try:
        return ExtractSpec.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(problems(error))}") from error


def problems(error: ValidationError) -> list[str]:
    """Return every problem of a validation as ``path: what is wrong``, input values left out."""
    return [
        ": ".join(filter(None, (_path(e["loc"]), e["msg"].removeprefix("Value error, "))))
        for e in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))
