"""Maps what psycopg and DuckDB raise to `extract_jobs.errors`, without credentials or row data."""

from __future__ import annotations

import re

import psycopg

from extract_jobs.connections import WHERE_LOGINS_COME_FROM, DatabaseConnection
from extract_jobs.errors import (
    ConfigError,
    ExtractError,
    SourceQueryFailed,
    SourceUnavailable,
    TypeNotRepresentable,
)

_NO_KERBEROS = (
    "the server asks for Kerberos (GSSAPI), which is not supported; have its pg_hba.conf admit the "
    "user by password (scram-sha-256), LDAP or certificate"
)
_ELSEWHERE = "refused user or password, or did not answer; the server's log says which"
_REFUSED_LOGIN = (
    ("password authentication failed", "the server refused user or password"),
    ("no password supplied", f"the server asks for a password: {WHERE_LOGINS_COME_FROM}"),
    ("LDAP authentication failed", f"the server's LDAP {_ELSEWHERE}"),
    ("PAM authentication failed", f"the server's PAM {_ELSEWHERE}"),
    ("RADIUS authentication failed", f"the server's RADIUS {_ELSEWHERE}"),
    ("authentication failed", "the server refused the login"),
    ("no pg_hba.conf entry", "the server's pg_hba.conf does not admit this host, user or TLS mode"),
    ("pg_hba.conf rejects", "the server's pg_hba.conf rejects this host, user or TLS mode"),
    ("server does not support SSL", "the server has no TLS; set connection.sslmode to allow that"),
    ("certificate verify failed", "the server's certificate is not trusted; set sslrootcert"),
    ("root certificate file", "there is no file of trusted certificates; set sslrootcert"),
    ("does not match host name", "the server's certificate is for another host"),
    ("permission denied for database", "the user may not connect to the database"),
    ("is not permitted to log in", "the user may not log in"),
    ("valid client certificate", "it asks for a client certificate; set connection.sslcert"),
    ("alert unknown ca", "the server does not trust the client's certificate, connection.sslcert"),
    ("alert bad certificate", "the server refused the client's certificate, connection.sslcert"),
    ("alert certificate", "the server refused the client's certificate, connection.sslcert"),
    ("no such database", "the pooler has no database of that name; check connection.database"),
    ("no such user", "the pooler does not know the user; check connection.user"),
    ("server requested GSSAPI", _NO_KERBEROS),
    ("server requested SSPI", _NO_KERBEROS),
    (
        "server requested a cleartext password",
        "the server asks for the password in clear text; set connection.sslmode to require",
    ),
    (
        "channel binding",
        "channel binding is required (PGCHANNELBINDING), which needs TLS and a SCRAM password",
    ),
    ("unsupported authentication method", "the server requires a login that is not supported"),
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
                  "snapshot too old")  # fmt: skip
_NOT_UTF8 = ("invalid byte sequence for encoding", "character with byte sequence",
             "invalid unicode")  # fmt: skip
_NOT_UTF8_CODES = ("22021", "22P05")
_CUT_CLASSES = ("08", "57P")
_RETRYABLE_CLASSES = ("53",)
_RETRYABLE_CODES = ("40001", "40P01", "72000")
_PASSES = (
    "deadlock detected", "could not serialize access", "out of memory", "could not extend file",
    "could not write", "could not resize shared memory", "no space left on device", "disk full",
)  # fmt: skip
"""Beginnings of the messages for the same conditions."""
_LOCK_TIMEOUT = "lock timeout, somebody held a lock on a table for too long; run again"
_RAISED = "a function raised an error, whose text is not shown because it may hold rows"
_ECHO = re.compile(r'Failed to \w+ query "(?:BEGIN|set|select pid|select pg_)[^"]*": ')
"""DuckDB's repetition of one of our statements, in front of the error."""
_COPY_ECHO = re.compile(r'^.*?\bFailed to prepare COPY "COPY \(.*?\) TO STDOUT.*?": ?', re.DOTALL)
"""The same, of a statement that DuckDB has put into a COPY."""
_SERVER = re.compile(r"(?:ERROR|FATAL|PANIC):\s+(.*)")
_QUOTE = re.compile("[\"'`«»“”„‘’‹›「]")
_MAY_BE_DATA = re.compile(rf"{_QUOTE.pattern}|\d{{4,}}|\b(?:DETAIL|CONTEXT):")


def connect_error(error: psycopg.Error, connection: DatabaseConnection) -> ExtractError:
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
    if (said := _answered(text)) is not None:
        return SourceUnavailable(f"cannot connect to {connection.place}: {said}")
    return SourceUnavailable(
        f"cannot connect to {connection.place} within "
        f"{connection.connect_timeout_seconds} s per address: {_reason(text)}; check host, port "
        "and firewall"
    )


def _answered(text: str) -> str | None:
    """Return what a server or pooler said when it refused a connection; None if it said nothing.

    libpq's text names hosts, users and databases, but never rows.
    """
    if "FATAL:" not in text:
        return None
    return (
        f"the server refused the connection ({_reason(text).strip()}); run again once it has room"
    )


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    # libpq puts hints on lines of their own, and one line for each address that it tried.
    reasons = [line for line in lines if "failed: " in line] or lines or ["no reason given"]
    return reasons[-1].split("failed: ")[-1]


def statement_error(error: psycopg.Error, what: str) -> ExtractError:
    """Return what a failed statement means, by its SQLSTATE.

    Args:
        error: What psycopg raised.
        what: What was being done, such as ``counting public.orders``.
    """
    state = error.sqlstate
    said = str(error) if state is None else primary(error)
    if (failure := _by_text(said, what)) is not None:
        return failure
    if state is None and not isinstance(error, psycopg.OperationalError):
        return SourceQueryFailed(f"{what} failed: {type(error).__name__}")
    if state is None or state.startswith(_CUT_CLASSES):
        return SourceUnavailable(
            f"{what} failed: the connection was lost or refused ({state or 'no SQLSTATE'}); run "
            "again"
        )
    condition = f"({type(error).__name__}, SQLSTATE {state})"
    if state == "55P03":
        return SourceUnavailable(f"{what} failed: {_LOCK_TIMEOUT} {condition}")
    if state.startswith(_RETRYABLE_CLASSES) or state in _RETRYABLE_CODES:
        return SourceUnavailable(f"{what} failed: {_shown(error)} {condition}; run again")
    if state in _NOT_UTF8_CODES:
        return _not_utf8(what)
    if state == "42501":
        return _denied(_shown(error), what)
    if state.startswith(("42", "3F", "3D")):
        return ConfigError(f"{what} failed: {_shown(error)} {condition}")
    return SourceQueryFailed(f"{what} failed: {_shown(error)} {condition}")


_NAMES_ONLY = ("42703", "42P01", "42704", "3F000")
_NAMES = re.compile(
    r"(?:column|relation|schema|type|role) (?:\"[^\"]*\"|[\w.]+)"
    r"(?: of relation \"[^\"]*\")? does not exist"
)
"""Messages whose quotes are names, never data."""


def _by_text(text: str, what: str) -> ExtractError | None:
    """Return the meaning of a message whose SQLSTATE, if any, is ambiguous.

    Only the text before the first quote counts: the rest may repeat a row.
    """
    words = _QUOTE.split(text, maxsplit=1)[0].lower()
    if "statement pooling mode" in words:
        return ConfigError(
            f"{what} failed: the pooler is in pool mode statement, and an extract needs "
            "transactions: set pool_mode to transaction or session for this database"
        )
    if "query_wait_timeout" in words:
        return SourceUnavailable(
            f"{what} failed: the pooler had no server connection free in time (query_wait_timeout);"
            " a table needs two, one that holds the snapshot and one for each split: raise its "
            "pool size, or lower split.max_connections, and run again"
        )
    if "due to statement timeout" in words:
        return SourceQueryFailed(
            f"{what} failed: a statement took longer than source.statement_timeout; raise it, or "
            "make each split smaller with split.target_bytes"
        )
    if "conflict with recovery" in words:
        return SourceUnavailable(
            f"{what} failed: the standby cancelled it, because it blocked the replay of changes "
            "from the primary (a recovery conflict); run again at a quieter time, with "
            "hot_standby_feedback on, with a greater max_standby_streaming_delay, or from the "
            "primary"
        )
    if found := re.match(r'materialized view "([^"]*)" has not been populated', text):
        return ConfigError(
            f"{what} failed: materialized view {found[1]!r} has no data yet; run REFRESH "
            "MATERIALIZED VIEW in the database"
        )
    return None


def hidden_rows(what: str) -> ConfigError:
    """Return the error for a table whose policies hide rows from the reader."""
    return ConfigError(
        f"{what}: its row-level security policies hide rows from the user, which would be left out "
        "unnoticed; give the user BYPASSRLS, or set row_security: apply on the source or the table "
        "to extract the visible rows only"
    )


def _denied(message: str, what: str) -> ConfigError:
    if "row-level security" in message:
        return hidden_rows(f"{what} failed")
    return ConfigError(
        f"{what} failed: {message}; grant the user SELECT on it, or EXECUTE if it is a function"
    )


def _not_utf8(what: str) -> TypeNotRepresentable:
    return TypeNotRepresentable(
        f"{what} failed: a column holds text that is not valid in the database's encoding, or has "
        "no UTF-8 form; convert it in a query, for example with convert_from(…), or exclude it"
    )


def primary(error: psycopg.Error) -> str:
    """Return the server's first message line. DETAIL, which quotes rows, is left out."""
    return error.diag.message_primary or type(error).__name__


def _shown(error: psycopg.Error) -> str:
    if error.diag.source_function == "exec_stmt_raise" or error.sqlstate == "P0001":
        return _RAISED
    said = primary(error)
    return said if error.sqlstate in _NAMES_ONLY and _NAMES.fullmatch(said) else scrub(said)


def scrub(text: str) -> str:
    """Keep the first line of a message up to its first quote or long number.

    Quoted text may be row data and may itself contain quotes and line breaks, so it is impossible
    to find its end.
    """
    line = next((part for part in text.strip().splitlines() if part.strip()), "").strip()
    found = _MAY_BE_DATA.search(line)
    return (line[: found.start()] + "…" if found else line)[:500]


def _not_connected(text: str, what: str) -> ExtractError | None:
    """Return what DuckDB's message about a connection means; None if it is not about one."""
    words = text.lower()
    for needle, reason in _REFUSED_LOGIN:
        if needle.lower() in words:
            return ConfigError(f"{what} failed: {reason}")
    if "connection to server" in words and (said := _answered(text)) is not None:
        return SourceUnavailable(f"{what} failed: {said}")
    return _connection_lost(what) if any(needle in words for needle in _CUT) else None


def _connection_lost(what: str) -> ExtractError:
    return SourceUnavailable(f"{what} failed: the connection was lost or refused; run again")


def before_any_row(error: ExtractError) -> ExtractError:
    """Add the pooler's likely reason to an error that came before a split's first row.

    A pooler whose pool is full closes the connection, and DuckDB does not pass its message on.
    """
    if type(error) is not SourceUnavailable or "connection was lost" not in str(error):
        return error
    return SourceUnavailable(
        f"{error}. It was lost before the first row: if there is a pooler, its pool may have had "
        "no free connection, and a table needs two, one that holds the snapshot and one for each "
        "split"
    )


def _without_statement(text: str, statement: str) -> str:
    """Drop the statement that DuckDB repeats, with the COPY that it has put around it.

    The quotes of that COPY would hide the server's message, which comes after it. DuckDB also puts
    it around statements of ours that are no part of ``statement``.
    """
    if statement:
        text = text.replace("\0", "").replace(statement, "\0")
    text, copies = _COPY_ECHO.subn("", text, count=1)
    return text.replace("\0", "") if copies else re.sub(r'"[^"\0]*\0[^"]*"|\0', "", text)


def reading_error(text: str, what: str, statement: str = "") -> ExtractError:
    """Return what the text of a DuckDB error means. The text itself is only shown scrubbed.

    DuckDB passes libpq's messages on without their SQLSTATE, and quotes statements and
    connection strings around them.

    Args:
        text: DuckDB's message.
        what: What was being done.
        statement: The statement, whose echo in the message is ignored.
    """
    text = _without_statement(text, statement)
    if not text.strip():  # libpq has no words for a connection that is gone
        return _connection_lost(what)
    text = _ECHO.sub("", text, count=1)
    server = _SERVER.search(text)
    if server and "RAISE" in text[server.end() :]:
        return SourceQueryFailed(f"{what} failed: {_RAISED}")
    logging_in = "connection to server" in (text[: server.start()] if server else text)
    message = server[1] if server else text
    if (failure := _by_text(message, what)) is not None:
        return failure
    # After its first quote a message may repeat a row, which may contain any text.
    words = (text if logging_in else _QUOTE.split(message, maxsplit=1)[0]).lower()
    if words.strip() == "snapshot" or any(needle in words for needle in _SNAPSHOT_GONE):
        return SourceUnavailable(
            f"{what} failed: the snapshot can no longer be joined, because the connection that "
            "exported it was lost, or because this one leads to another node; run again. Behind a "
            "pooler or proxy with several nodes, set connection.pooled: true"
        )
    if (failure := _not_connected(text if logging_in else words, what)) is not None:
        return failure
    if "due to lock timeout" in words:
        return SourceUnavailable(f"{what} failed: {_LOCK_TIMEOUT}")
    if any(needle in words for needle in _PASSES):
        return SourceUnavailable(f"{what} failed: {scrub(message)}; run again")
    if any(needle in words for needle in _NOT_UTF8):
        return _not_utf8(what)
    if "timestamp out of range" in words:
        return TypeNotRepresentable(
            f"{what} failed: a timestamp lies outside years 1 to 9999; set lossy_types: null, or "
            "exclude the column"
        )
    if words.startswith("permission denied for") or "row-level security" in words:
        return _denied(scrub(message), what)
    names = _NAMES.match(message)
    return SourceQueryFailed(f"{what} failed: {names[0] if names else scrub(message)}")
