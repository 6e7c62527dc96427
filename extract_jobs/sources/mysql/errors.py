"""Maps what PyMySQL raises to `extract_jobs.errors`, without credentials or row data.

Numbers: https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html and
https://mariadb.com/kb/en/mariadb-error-codes/.
"""

from __future__ import annotations

import re
import ssl

import pymysql

from extract_jobs.connections import WHERE_LOGINS_COME_FROM, DatabaseConnection
from extract_jobs.errors import ConfigError, ExtractError, SourceQueryFailed, SourceUnavailable

_LOGIN = {
    1044: "the user may not use that database",
    1045: "the server refused user or password",
    1049: "there is no such database; check connection.database",
    1130: "the server does not admit this host",
    1227: "the user lacks a privilege that the login needs",
    1251: "the server requires an authentication that the client does not support",
    1275: "the server requires an authentication that the client does not support",
    1698: "the server refused user or password",
    1820: "the user's password has expired",
    1862: "the user's password has expired",
    2026: "the server has no TLS, or not as connection.sslmode and sslrootcert require",
    2059: "the server requires an authentication that the client does not support",
    3118: "the user's account is locked",
    3159: "the server accepts TLS connections only; set connection.sslmode",
    4151: "the user's account is locked",
}
_REFUSED = (1045, 1698)
_CUT = {
    1053, 1077, 1078, 1079, 1080, 1152, 1153, 1158, 1159, 1160, 1161, 1184, 1189, 1190, 1218, 1927,
    2002, 2003, 2006, 2012, 2013, 2014, 2055, 3032, 3169, 4031,
}  # fmt: skip
"""The connection is gone, or the server is shutting down."""
_PASSES = {
    1021: "the server's disk is full",
    1037: "the server is out of memory",
    1038: "the server is out of memory for sorting",
    1040: "the server has too many connections",
    1041: "the server is out of memory",
    1135: "the server cannot start a thread",
    1203: "the user has too many connections",
    1205: "somebody held a lock on a table for too long",
    1213: "deadlock",
    1226: "the user has reached a resource limit",
    1317: "the statement was stopped",
    1412: "the table was altered or truncated meanwhile",
    1836: "the server is in read-only mode",
    3572: "somebody holds a lock on a table",
    8: "the server is starting",
}
_TOOK_TOO_LONG = (1969, 3024)
_DENIED = {1142, 1143, 1370, 1410, 1449, 1356}
_CONFIG = {1046, 1051, 1052, 1054, 1060, 1064, 1109, 1146, 1149, 1222, 1241, 1242, 1248, 1305,
           1327, 1328, 1400, 1582, 1583, 1630, 1792, 3065, 4078}  # fmt: skip
_QUOTE = re.compile("[\"'`«»“”„‘’‹›「]")
_MAY_BE_DATA = re.compile(rf"{_QUOTE.pattern}|\d{{4,}}")


def number(error: BaseException) -> int | None:
    """Return the number of a server's or client's error; None without one."""
    first = error.args[0] if error.args else None
    return first if isinstance(first, int) else None


def connect_error(error: Exception, connection: DatabaseConnection) -> ExtractError:
    """Return what a failed connection means; without the text of the original."""
    found = number(error) if isinstance(error, pymysql.Error) else None
    cause = error.__context__ if found in (2003, 2013) else error
    if isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY" in str(error):
        reason = "is not trusted, or is for another host"
        return ConfigError(
            f"cannot log in to {connection.place}: the server's certificate {reason}; set "
            "connection.sslrootcert, or a connection.sslmode that does not verify it"
        )
    if found in _LOGIN:
        reason = _LOGIN[found]
        if found in _REFUSED and connection.password is None and connection.iam is None:
            reason += f". No password is configured: {WHERE_LOGINS_COME_FROM}"
        elif found in _REFUSED and connection.sslmode == "disable":
            reason += (
                ", or it accepts that user over TLS only, which gives the same error: "
                "connection.sslmode is disable"
            )
        elif found in _REFUSED and connection.certificate is None:
            reason += (
                ", or it requires a client certificate of that user, which gives the same error: "
                "connection.sslcert and sslkey"
            )
        return ConfigError(f"cannot log in to {connection.place}: {reason}")
    reason = _PASSES.get(found or 0) or _os_reason(error)
    return SourceUnavailable(
        f"cannot connect to {connection.place} within {connection.connect_timeout_seconds} s per "
        f"address: {reason}; check host, port and firewall"
    )


def _os_reason(error: BaseException) -> str:
    for found in (error, error.__context__):
        if isinstance(found, TimeoutError):
            return "no answer"
        if isinstance(found, OSError) and found.strerror:
            return found.strerror.lower()
    return f"error {number(error) or type(error).__name__}"


def statement_error(error: Exception, what: str) -> ExtractError:
    """Return what a failed statement means, going by its number.

    Args:
        error: What was raised.
        what: What was being done, such as ``counting shop.orders``.
    """
    found = number(error)
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return SourceUnavailable(
            f"{what} failed: the server has sent nothing for as long as connection.stall_timeout "
            "allows, though the connection is up; run again. If a query takes longer than that "
            "before its first row, raise connection.stall_timeout"
        )
    if not isinstance(error, pymysql.Error) or found in _CUT or found in (None, 0):
        return SourceUnavailable(
            f"{what} failed: the connection was lost or refused ({found or type(error).__name__}); "
            "run again"
        )
    if found in _PASSES:
        return SourceUnavailable(f"{what} failed: {_PASSES[found]} (error {found}); run again")
    if found in _TOOK_TOO_LONG:
        return SourceQueryFailed(
            f"{what} failed: a statement took longer than source.statement_timeout (error {found});"
            " raise it, or make each split smaller with split.target_bytes"
        )
    if found in _DENIED:
        return ConfigError(
            f"{what} failed: {scrub(message(error))} (error {found}); grant the user SELECT on it, "
            "or EXECUTE if it is a function"
        )
    if found in _CONFIG:
        return ConfigError(f"{what} failed: {scrub(message(error))} (error {found})")
    return SourceQueryFailed(f"{what} failed: {scrub(message(error))} (error {found})")


def message(error: BaseException) -> str:
    """Return the server's own text, which may quote rows."""
    return str(error.args[1]) if len(error.args) > 1 else type(error).__name__


def scrub(text: str) -> str:
    """Keep a message up to its first quote or long number: those may be row data."""
    line = text.strip().splitlines()[0].strip() if text.strip() else ""
    found = _MAY_BE_DATA.search(line)
    return (line[: found.start()] + "…" if found else line)[:500]
