"""Maps what psycopg and DuckDB raise to `extract_jobs.errors`, without credentials or row data."""

from __future__ import annotations

import re

import psycopg

from extract_jobs.connections import PostgresConnection
from extract_jobs.errors import (
    ConfigError,
    ExtractError,
    SourceQueryFailed,
    SourceUnavailable,
    TypeNotRepresentable,
)

_REFUSED_LOGIN = (
    ("password authentication failed", "the server refused user or password"),
    ("no password supplied", "the server asks for a password and none is configured"),
    ("authentication failed", "the server refused the login"),
    ("no pg_hba.conf entry", "the server's pg_hba.conf does not admit this host, user or TLS mode"),
    ("pg_hba.conf rejects", "the server's pg_hba.conf rejects this host, user or TLS mode"),
    ("server does not support SSL", "the server has no TLS; set connection.sslmode to allow that"),
    ("certificate verify failed", "the server's certificate is not trusted; set sslrootcert"),
    ("root certificate file", "there is no file of trusted certificates; set sslrootcert"),
    ("does not match host name", "the server's certificate is for another host"),
    ("permission denied for database", "the user may not connect to the database"),
    ("is not permitted to log in", "the user may not log in"),
)  # fmt: skip
_MISSING = re.compile(r"FATAL:\s+(?:database|role) .* does not exist", re.DOTALL)
_CUT = (
    "unable to connect", "could not connect", "connection to server", "connection refused",
    "server closed the connection", "terminating connection", "connection not open",
    "no connection to the server", "could not receive data", "could not send data",
    "ssl syscall error", "ssl error", "ssl connection has been closed", "timeout expired",
    "connection timed out", "connection reset", "connection bad", "broken pipe",
    "too many clients", "remaining connection slots", "is starting up", "is shutting down",
    "in recovery mode", "conflict with recovery", "lost synchronization", "out of shared memory",
)  # fmt: skip
_SNAPSHOT_GONE = ("invalid snapshot identifier", "could not import the requested snapshot",
                  'snapshot "', "snapshot too old")  # fmt: skip
_NOT_UTF8 = ("invalid byte sequence for encoding", "has no equivalent in encoding")
_NOT_UTF8_CODES = ("22021", "22P05")
_RETRYABLE_CLASSES = ("08", "53", "57P")
_RETRYABLE_CODES = ("40001", "40P01", "55P03", "72000")


def connect_error(error: psycopg.Error, connection: PostgresConnection) -> ExtractError:
    """Return what a failed connection means. libpq's text never holds the password."""
    text = str(error)
    lowered = text.lower()
    for needle, reason in _REFUSED_LOGIN:
        if needle.lower() in lowered:
            return ConfigError(f"cannot log in to {connection.place}: {reason}")
    if _MISSING.search(text):
        return ConfigError(
            f"cannot connect to {connection.place}: {_reason(text)}; check connection.database "
            "and connection.user"
        )
    return SourceUnavailable(
        f"cannot connect to {connection.place} within "
        f"{connection.connect_timeout_seconds} s per address: {_reason(text)}; check host, port "
        "and firewall"
    )


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    # libpq adds hints on lines of their own, and one line for each address it tried.
    reasons = [line for line in lines if "failed: " in line] or lines or ["no reason given"]
    return reasons[-1].split("failed: ")[-1]


def statement_error(error: psycopg.Error, what: str) -> ExtractError:
    """Return what a failed statement means, by its SQLSTATE.

    Args:
        error: What psycopg raised.
        what: What was being done, such as ``counting public.orders``.
    """
    state = error.sqlstate
    if state is None or state.startswith(_RETRYABLE_CLASSES) or state in _RETRYABLE_CODES:
        if state is None and not isinstance(error, psycopg.OperationalError):
            return SourceQueryFailed(f"{what} failed: {type(error).__name__}")
        return SourceUnavailable(
            f"{what} failed: the connection was lost or refused ({state or 'no SQLSTATE'})"
        )
    if state in _NOT_UTF8_CODES:
        return _not_utf8(what)
    if state == "42501":
        return ConfigError(f"{what} failed: {primary(error)}; grant the user SELECT on it")
    if state.startswith(("42", "3F", "3D")):
        return ConfigError(f"{what} failed: {primary(error)} (SQLSTATE {state})")
    return SourceQueryFailed(f"{what} failed: {scrub(primary(error))} (SQLSTATE {state})")


def _not_utf8(what: str) -> TypeNotRepresentable:
    return TypeNotRepresentable(
        f"{what} failed: a column holds text that is not valid in the database's encoding, or has "
        "no UTF-8 form; convert it in a query, for example with convert_from(…), or exclude it"
    )


def primary(error: psycopg.Error) -> str:
    """Return the server's first message line. DETAIL, which quotes rows, is left out."""
    return error.diag.message_primary or type(error).__name__


def scrub(text: str) -> str:
    """Keep the first line of a message and hide what it quotes, which may be row data."""
    line = next((part for part in text.strip().splitlines() if part.strip()), "").strip()
    return re.sub(r"\"[^\"]*\"|'[^']*'", '"…"', line)[:500]


def reading_error(text: str, what: str) -> ExtractError:
    """Return what the text of a DuckDB error means. Its own words are shown only scrubbed.

    DuckDB passes libpq's messages on without their SQLSTATE, and quotes statements and
    connection strings around them.
    """
    lowered = text.lower()
    if any(needle in lowered for needle in _SNAPSHOT_GONE):
        return SourceUnavailable(
            f"{what} failed: the snapshot can no longer be joined, because the connection that "
            "exported it was lost; run again"
        )
    for needle, reason in _REFUSED_LOGIN:
        if needle.lower() in lowered:
            return ConfigError(f"{what} failed: {reason}")
    if any(needle in lowered for needle in _CUT):
        return SourceUnavailable(f"{what} failed: the connection was lost or refused; run again")
    if any(needle in lowered for needle in _NOT_UTF8):
        return _not_utf8(what)
    if "timestamp out of range" in lowered:
        return TypeNotRepresentable(
            f"{what} failed: a timestamp lies outside years 1 to 9999; set lossy_types: null, or "
            "exclude the column"
        )
    server = re.search(r"ERROR:\s+(.*)", text)
    return SourceQueryFailed(f"{what} failed: {scrub(server[1] if server else text)}")
