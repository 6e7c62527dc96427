"""The report: the JSON that a worker leaves for the status handler and for a person.

It is written last and always, even on failure and SIGTERM. It is under 200 KB and never holds
credentials or row data.
"""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from extract_jobs.errors import ConfigError, ExtractError
from extract_jobs.reporting.html import html_facts

if TYPE_CHECKING:
    from extract_jobs.spec.extract_spec import ExtractSpec

MAX_REPORT_BYTES = 200_000
FIRST_RUN = "this is the first run"
"""Why a first run keeps nothing."""
Raw = bytes | str
_MAX_MESSAGE = 4_000


class ReportedError(BaseModel):
    """What failed: the error's class by name, its message, and whether a retry may help."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    class_name: str = Field(alias="class")
    message: str
    retryable: bool


ChangeKind = Literal[
    "added", "dropped", "widened", "narrowed", "reordered", "nullability", "masked"
]


class SchemaChange(BaseModel):
    """One difference between a table's columns and those of its last commit.

    ``before`` and ``after`` are types, except that ``reordered`` has the names that moved,
    ``nullability`` has ``NULL`` or ``NOT NULL``, and ``masked`` has masks. ``effect`` describes the
    effect on the files.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    kind: ChangeKind
    column: str | None = None
    before: str | None = Field(None, alias="from")
    after: str | None = Field(None, alias="to")
    effect: str = ""

    @property
    def difference(self) -> str:
        """What changed, without its effect."""
        what = f"column {self.column}" if self.column is not None else "columns"
        both = " to ".join(filter(None, (self.before, self.after)))
        if self.kind in ("added", "dropped"):
            return f"{what} {self.kind} ({both})"
        return f"{what} {self.kind}: {both}"

    def __str__(self) -> str:
        return f"{self.difference}; {self.effect}" if self.effect else self.difference


class Report(BaseModel):
    """The result of one attempt.

    Attributes:
        rows, bytes, files: What the run read and wrote.
        kept_rows, kept_bytes, kept_files: What a full extract kept of the last commit because it
            has not changed (``reuse: auto``), in ``kept_ranges`` beside the ``splits`` that were
            read.
        not_reused: Why such an extract kept nothing.
        resumed_splits: How many of the ``splits`` an earlier attempt had read.
        inserted_rows, updated_rows: With ``write_mode: merge``, how many of the ``rows`` had new
            keys, and how many replaced a row.
        deleted_rows, missing_rows: With ``deletes: detect``, rows that were gone from the source,
            and rows of the source that are not in the table, because no interval has had them yet.
        rewritten_rows, rewritten_bytes, rewritten_files: The unchanged rows of files that a merge
            rewrote. ``rows``, ``bytes`` and ``files`` do not include them.
        repeated_rows: Rows that were read and not written, because they are already committed.
        rejected_rows: Rows that did not parse and were set aside below the state's ``rejected``
            folder.
        null_watermark_rows: Rows without a watermark: those extracted, in a full extract or a first
            run; those left out, in other runs.
        source_rows: The source's own count in the same snapshot; None if it was not requested.
        reconciled: Whether both counts were compared.
        cut_to_microseconds: By column, how many timestamps lost their digits below microseconds,
            because ``files.nanoseconds`` allowed it.
        nulled, as_text: By column, how many values became NULL, and which columns arrived as the
            source's own text, because ``lossy_types`` allowed it.
        catalog_error, catalog_retryable: Why the catalog ``failed`` although the data is published,
            and whether a retry may help.
        timings: Seconds by phase.
        read_from: The database: whether it was a standby (``in_recovery``, ``lag_seconds``),
            whether policies hid rows (``row_security``), what about the server was not verified
            (``unverified``), who waited behind the reader's locks (``waited_behind``). For MySQL,
            whether all rows come from one snapshot (``one_snapshot``) and why not
            (``one_snapshot_missing``), or why all splits were read over one connection
            (``one_connection``).

    Example:
        >>> report = Report(
        ...     status="succeeded", run_id="1", attempt=1, source_name="shop",
        ...     extract_table="orders", target_uri="lake/orders", rows=3,
        ... )
        >>> Report.parse(report.to_json()).rows
        3
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    status: Literal["succeeded", "failed"]
    run_id: str
    attempt: int
    source_name: str
    extract_table: str
    target_uri: str
    interval: dict[str, Any] | None = None
    watermark: dict[str, str] | None = None
    rows: int = 0
    bytes: int = 0
    files: int = 0
    splits: int = 0
    source_rows: int | None = None
    reconciled: bool = False
    columns: list[dict[str, Any]] = Field([], alias="schema")
    schema_changes: list[SchemaChange] = []
    fidelity: dict[str, str] = {}
    as_text: list[str] = []
    nulled: dict[str, int] = {}
    null_watermark_rows: int = 0
    repeated_rows: int = 0
    rejected_rows: int = 0
    kept_rows: int = 0
    kept_bytes: int = 0
    kept_files: int = 0
    kept_ranges: int = 0
    resumed_splits: int = 0
    not_reused: str = ""
    inserted_rows: int = 0
    updated_rows: int = 0
    deleted_rows: int = 0
    missing_rows: int = 0
    rewritten_files: int = 0
    rewritten_rows: int = 0
    rewritten_bytes: int = 0
    cut_to_microseconds: dict[str, int] = {}
    timings: dict[str, float] = {}
    commit_seq: int | None = None
    catalog: Literal["none", "updated", "failed"] = "none"
    catalog_error: str | None = None
    catalog_retryable: bool = False
    error: ReportedError | None = None
    versions: dict[str, str] = {}
    read_from: dict[str, Any] = {}
    truncated: bool = False

    @property
    def table_rows(self) -> int:
        """Rows that were written, and those that were kept of the last commit."""
        return self.rows + self.kept_rows

    @property
    def table_bytes(self) -> int:
        """Bytes of the same files."""
        return self.bytes + self.kept_bytes

    @property
    def table_files(self) -> int:
        """Number of the same files."""
        return self.files + self.kept_files

    @property
    def merged_text(self) -> str:
        """What was merged, in words; empty if nothing was."""
        counts = [
            (self.inserted_rows, "inserted"),
            (self.updated_rows, "updated"),
            (self.deleted_rows, "deleted"),
            (self.rewritten_rows, "unchanged but rewritten"),
            (self.missing_rows, "of the source not in the table"),
        ]
        return ", ".join(f"{count:,} {what}" for count, what in counts if count)

    @field_validator("schema_changes", mode="before")
    @classmethod
    def _without_sentences(cls, value: Any) -> Any:
        """Drop changes kept as text, which commits of an unreleased version have."""
        return [v for v in value if not isinstance(v, str)] if isinstance(value, list) else value

    def to_json(self) -> str:
        """Return one line of JSON, under `MAX_REPORT_BYTES`.

        A very wide table's report leaves out the per-column parts and sets ``truncated``.
        """
        text = self.model_dump_json(by_alias=True)
        if len(text.encode()) > MAX_REPORT_BYTES:
            slim = {
                "fidelity": {},
                "columns": [],
                "as_text": [],
                "schema_changes": self.schema_changes[:100],
            }
            text = self.model_copy(update={**slim, "truncated": True}).model_dump_json(
                by_alias=True
            )
        return text

    def _repr_html_(self) -> str:
        """Return what notebooks show."""
        return html_facts(
            f"{self.source_name}/{self.extract_table}: {self.status}",
            [
                ("run", f"{self.run_id}, attempt {self.attempt}"),
                ("error", self.error and f"{self.error.class_name}: {self.error.message}"),
                ("rows", f"{self.rows:,}"),
                ("rows kept", f"{self.kept_rows:,}" if self.kept_rows else None),
                ("nothing kept", self.not_reused or None),
                ("merged", self.merged_text or None),
                ("bytes", f"{self.bytes:,}"),
                ("files", self.files),
                ("source rows", None if self.source_rows is None else f"{self.source_rows:,}"),
                ("watermark", self.watermark and self.watermark["text"]),
                ("commit", self.commit_seq),
                ("catalog", None if self.catalog == "none" else self.catalog),
                ("seconds", ", ".join(f"{k} {v:.2f}" for k, v in self.timings.items()) or None),
                ("schema changes", "; ".join(map(str, self.schema_changes)) or None),
            ],
        )

    @classmethod
    def parse(cls, raw: Raw, where: str = "report") -> Report:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: It is not a report.
        """
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise ConfigError(f"{where} is not a report of an extract") from error


def catalog_failure(report: Report) -> str:
    """Return the error message for a published report whose catalog is not up to date."""
    return (
        f"{report.extract_table}: the data is published, and the catalog table is not up to date: "
        f"{report.catalog_error}. The next run updates it, even if it finds no new rows"
    )


def reported(error: BaseException) -> ReportedError:
    """Return how a report describes an error.

    The text of an error that is not an `ExtractError` may hold anything, so only its class is
    reported.
    """
    if isinstance(error, ExtractError):
        return ReportedError(
            class_name=type(error).__name__,
            message=str(error)[:_MAX_MESSAGE],
            retryable=error.retryable,
        )
    return ReportedError(
        class_name="ExtractError",
        message=f"unexpected {type(error).__name__}: a defect in extract-jobs; the worker's log "
        "has the traceback",
        retryable=False,
    )


def failed_report(
    spec: ExtractSpec, error: ReportedError, timings: dict[str, float] | None = None
) -> Report:
    """Return the report of an attempt that failed, by its spec."""
    return Report(
        **identity(spec),
        status="failed",
        error=error,
        timings=timings or {},
        versions=versions(),
    )


def identity(spec: ExtractSpec) -> dict[str, Any]:
    """Return the fields of a report that name the attempt."""
    return {
        "run_id": spec.run_id,
        "attempt": spec.attempt,
        "source_name": spec.source_name,
        "extract_table": spec.extract_table,
        "target_uri": spec.target.uri,
    }


def versions() -> dict[str, str]:
    """Return the versions of extract-jobs, Python, DuckDB, psycopg, pyarrow and Spark."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    """Look them up once per process: each lookup parses a package's metadata, which takes 5 ms."""
    found = {"python": platform.python_version()}
    for package in ("extract-jobs", "duckdb", "psycopg", "pyarrow", "pyspark"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
