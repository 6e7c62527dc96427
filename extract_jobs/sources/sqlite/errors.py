"""Maps errors of Python's ``sqlite3`` to `extract_jobs.errors`, without row data."""

from __future__ import annotations

import re
import sqlite3

from extract_jobs.errors import (
    ConfigError,
    ExtractError,
    SourceQueryFailed,
    SourceUnavailable,
    TypeNotRepresentable,
    WorkerOutOfMemory,
)

RAISED = (sqlite3.Error, sqlite3.Warning, MemoryError)
"""Exceptions of the module; before Python 3.12 a second statement raises `sqlite3.Warning`."""

_NOT_UTF8 = re.compile(r"Could not decode to UTF-8 column 'c(\d+)'")
_QUOTE = re.compile("[\"'`]")
_LOCKED = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
_PASSES = ("SQLITE_IOERR", "SQLITE_INTERRUPT", "SQLITE_SCHEMA")
_CRASHED = ("SQLITE_READONLY_ROLLBACK", "SQLITE_READONLY_RECOVERY", "SQLITE_READONLY_CANTLOCK")


def name_of(error: BaseException) -> str:
    """Return SQLite's own name of an error, such as ``SQLITE_BUSY``; empty without one."""
    return str(getattr(error, "sqlite_errorname", ""))


def sqlite_error(error: BaseException, what: str, path: str) -> ExtractError:
    """Return the error to raise.

    Args:
        error: One of `RAISED`.
        what: What was being done, such as ``counting orders``.
        path: The database's file.
    """
    name = name_of(error)
    if isinstance(error, MemoryError) or name == "SQLITE_NOMEM":
        return WorkerOutOfMemory(f"{what} took more memory than the worker has")
    if name.startswith(_LOCKED):
        return SourceUnavailable(
            f"{what} failed: {path} is locked by a writer ({name}) for longer than "
            "connection.connect_timeout_seconds; run again, or allow more time"
        )
    if name.startswith(_CRASHED):
        return SourceUnavailable(
            f"{what} failed: a writer of {path} crashed in the middle of a transaction ({name}), "
            "which only a process that may write can roll back: open the file once with its "
            "application, or with the sqlite3 shell, then run again"
        )
    if name == "SQLITE_NOTADB":
        return ConfigError(
            f"connection.path: {path} is not a SQLite database, or is encrypted ({name})"
        )
    if name.startswith("SQLITE_CANTOPEN"):
        return ConfigError(
            f"{what} failed: {path} cannot be opened ({name}). A database in WAL mode needs its "
            "-wal and -shm files next to it, or a folder in which they can be created"
        )
    if name.startswith(("SQLITE_PERM", "SQLITE_AUTH", "SQLITE_READONLY")):
        return ConfigError(f"{what} failed: {path} cannot be read this way ({name})")
    if name.startswith(_PASSES):
        return SourceUnavailable(f"{what} failed: {name} on {path}; run again")
    if name.startswith("SQLITE_CORRUPT"):
        return SourceQueryFailed(
            f"{what} failed: {path} is damaged ({name}); check it with pragma integrity_check"
        )
    return SourceQueryFailed(f"{what} failed: {scrub(str(error))} ({name or 'no SQLite code'})")


def refused_text(error: BaseException) -> str:
    """Return why a user's statement does not parse; no row has been read by then."""
    text = " ".join(str(error).split())[:300]
    return text if name_of(error) else f"{text} (one statement, without a semicolon inside)"


def scrub(text: str) -> str:
    """Keep a message up to its first quote: quoted text may be row data."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    found = _QUOTE.search(line)
    return (line[: found.start()] + "…" if found else line)[:300]


def undecodable(error: BaseException) -> int | None:
    """Return the position of the column whose text is not UTF-8; None for other errors."""
    found = _NOT_UTF8.match(str(error))
    return int(found[1]) if found and isinstance(error, sqlite3.OperationalError) else None


def not_faithful(name: str, source_type: str, rule: str, value: str) -> TypeNotRepresentable:
    """Return the error for a column that holds a value without a faithful form.

    Args:
        name: The column's.
        source_type: As it is declared.
        rule: How its type arrives.
        value: What it holds, such as ``a value of storage class text``.
    """
    return TypeNotRepresentable(
        f"column {name} ({source_type or 'no type'}) holds {value}: {rule}. Set lossy_types: null "
        f"to write NULL for it, set columns: {{cast: {{{name}: string}}}} to read every value as "
        "text, or leave such rows out with where and typeof()"
    )
