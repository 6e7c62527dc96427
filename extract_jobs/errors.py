"""All errors, as one tree.

::

    ExtractError
    ├── ConfigError            the person must change configuration        exit 78, never retried
    │   └── TypeNotRepresentable
    ├── SourceUnavailable      the source cannot be reached, or went away  exit 75, retried
    │   └── SourceMoved        it has changed since it was planned         exit 75, replanned
    ├── SourceQueryFailed      the source refused or failed a statement    exit 1
    ├── SchemaChanged          the table changed and the policy refuses    exit 1
    ├── ReconcileFailed        rows written differ from rows read          exit 75, retried
    ├── CommitConflict         another run committed first                 exit 75, retried
    ├── Outdated               the run was given up on, or replaced        exit 1
    ├── WriteFailed            the target or state could not be written    exit 75, retried
    ├── Interrupted            stopped by SIGTERM, SIGINT or a lost driverexit 75, retried
    ├── CatalogFailed          data published, the catalog not up to date  exit 73
    ├── FilesDamaged           files are not as they were committed        exit 1
    └── WorkerOutOfMemory      the worker ran out of memory                exit 75, bigger worker

A message says what happened, the expected and the actual value, and what to do next. It never
holds a credential or row data. Third-party exceptions are mapped once, where they are caught,
with ``from``. The state machine sees the class by its name in the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_RETRY = 75
"""``EX_TEMPFAIL`` of BSD's sysexits.h: a retry may help."""
EXIT_CATALOG = 73
"""``EX_CANTCREAT`` of BSD's sysexits.h: the data is published, the catalog does not show it yet."""
EXIT_CONFIG = 78
"""``EX_CONFIG`` of BSD's sysexits.h: a retry cannot help until something is changed."""
WORST_FIRST = (EXIT_CONFIG, EXIT_RETRY, EXIT_FAILED, EXIT_CATALOG)
"""Which exit code a command ends with whose tables failed in different ways."""


class ExtractError(Exception):
    """Base of every error that an extract raises on purpose.

    Attributes:
        retryable: Whether the same run, unchanged, may succeed when tried again.
        exit_code: Exit code of the process that ran the extract.
    """

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = EXIT_FAILED


class ConfigError(ExtractError):
    """Configuration, credentials, permissions or names are wrong.

    Raised before anything is written. A retry cannot help until a person changes something.
    """

    exit_code = EXIT_CONFIG


class TypeNotRepresentable(ConfigError):
    """A column's type, or a value in it, has no faithful Parquet form under the current policy.

    Raised while planning for types, while reading for values. A retry cannot help; a cast, an
    exclusion or ``lossy_types`` does.
    """


class SourceUnavailable(ExtractError):
    """The source cannot be reached, refused the connection for now, or the connection broke.

    Nothing is committed. A retry is safe and may help.
    """

    retryable = True
    exit_code = EXIT_RETRY


class SourceMoved(SourceUnavailable):
    """The source changed between planning and reading, or while it was read.

    A table was altered, a partition attached or detached, a standby promoted. Nothing is committed.
    A retry makes a new plan.
    """


class SourceQueryFailed(ExtractError):
    """The source rejected a statement, for a reason other than the connection.

    Nothing is committed. A retry is safe but will probably fail the same way.
    """


class SchemaChanged(ExtractError):
    """The table's columns differ from the last commit in a way that ``on_schema_change`` refuses.

    Raised while planning. A retry cannot help.
    """


class ReconcileFailed(ExtractError):
    """Rows written do not equal rows read, or rows the source counted in the same snapshot.

    Raised before the commit: nothing becomes visible. A retry is safe.
    """

    retryable = True
    exit_code = EXIT_RETRY


class CommitConflict(ExtractError):
    """Another run committed to the table after this one had planned.

    This run's uploads were aborted and nothing of it is visible. A retry plans on the new base.
    """

    retryable = True
    exit_code = EXIT_RETRY


class Outdated(ExtractError):
    """The run was given up on, or a later attempt has taken this one's place.

    Nothing that this worker staged becomes visible. A retry cannot help: the replacement decides.
    """


class WriteFailed(ExtractError):
    """Target or state storage failed after its own retries.

    Staged files are invisible; the next attempt publishes or voids a commit that was already
    prepared. A retry is safe.
    """

    retryable = True
    exit_code = EXIT_RETRY


class Interrupted(ExtractError):
    """The worker was asked to stop, or its Spark driver died, before the commit.

    Staged uploads were aborted if there was time. A retry is safe.
    """

    retryable = True
    exit_code = EXIT_RETRY


class CatalogFailed(ExtractError):
    """The data is published, but the Glue Data Catalog could not be updated.

    Readers of the catalog do not see all of it. Once the cause that the message names is fixed, the
    next run of the table updates the catalog, even if it finds no new rows.
    """

    exit_code = EXIT_CATALOG


class FilesDamaged(ExtractError):
    """Files below a target are missing, damaged or foreign, or rows of the source are in none.

    Raised by `extract-jobs verify` alone, which changes nothing. A retry cannot help.
    """


class WorkerOutOfMemory(ExtractError):
    """A worker process ran out of memory.

    Nothing is committed. A retry is safe, and needs a bigger worker.
    """

    retryable = True
    exit_code = EXIT_RETRY


class StopRequested(BaseException):
    """Raised by the signal handler: the process was asked to stop (SIGTERM, SIGINT).

    Not an `Exception`, because it surfaces inside whatever the main thread is doing: libraries
    treat an `Exception` as a failure of their own and retry (botocore does, in the middle of a
    request), and so do we. It never escapes `run_extract`, a worker or the command line: they raise
    `Interrupted` for it.

    Attributes:
        grace_seconds: How long what has begun may go on if a later attempt can use it.
    """

    def __init__(self, message: str, *, grace_seconds: float = 0.0) -> None:
        """Store both."""
        super().__init__(message)
        self.grace_seconds = grace_seconds


def as_reported(error: BaseException) -> BaseException:
    """Return the error to report: `Interrupted` for a signal, `WorkerOutOfMemory` for no memory.

    Libraries that run our code or handle signals wrap what it raises in errors of their own
    (DuckDB's "Query interrupted"), so the whole chain is searched.
    """
    for raised in _chain_of(error):
        if isinstance(raised, MemoryError):
            return WorkerOutOfMemory("the worker ran out of memory; give it a bigger one")
        if isinstance(raised, StopRequested):
            return Interrupted(str(raised))
        if isinstance(raised, KeyboardInterrupt):
            return Interrupted("stopped by the user")
    return error


def _chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what caused it, and what was being handled when it was raised; each once."""
    rest, seen = [error], set[int]()
    while rest:
        found = rest.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        suppressed = found.__cause__ is None and found.__suppress_context__
        rest += [
            e for e in (None if suppressed else found.__context__, found.__cause__) if e is not None
        ]


def printable(text: str) -> str:
    """Return text with its control characters escaped: names may contain terminal control codes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def error_line(error: BaseException) -> str:
    """Return ``<Class>: <message>`` on one line, as logs end with and the state machine matches.

    An error that is not an `ExtractError` is printed as its class and message too; callers decide
    whether that message may be shown.
    """
    return f"{type(error).__name__}: {printable(' '.join(str(error).split()))}"
