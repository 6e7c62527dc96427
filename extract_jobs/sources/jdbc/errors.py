"""Maps a JDBC driver's exceptions to `extract_jobs.errors`, without credentials or row data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from extract_jobs.errors import (
    ConfigError,
    ExtractError,
    SourceQueryFailed,
    SourceUnavailable,
    WorkerOutOfMemory,
)

_CUT_STATES = ("08", "57P", "HYT", "53")
_PASSING_STATES = ("40001", "40P01", "55P03", "72000", "S1T00")
_LOGIN_STATES = ("28",)
_LOGIN_CODES = {
    "oracle": (1017, 28000, 28001),
    "sqlserver": (18456, 18470, 4060),
    "derby": (40000,),
}
_PASSING_CODES = {
    "oracle": (1033, 1034, 1089, 1555, 3113, 3114, 3135, 12170, 12514, 12528, 12537, 12541, 17002,
               17008, 17410),
    "sqlserver": (1205, 1222, 40197, 40501, 40613, 49918, 49919, 49920),
}  # fmt: skip
_CUT_CLASSES = (
    "SQLNonTransientConnectionException", "SQLTransientConnectionException", "SocketException",
    "SQLRecoverableException", "CommunicationsException", "ConnectException", "EOFException",
    "SocketTimeoutException", "UnknownHostException", "NoRouteToHostException",
    "SQLTimeoutException", "SSLException",
)  # fmt: skip
_LOGIN_CLASSES = ("SQLInvalidAuthorizationSpecException", "InvalidAuthorizationSpecException")
_QUOTE = re.compile("[\"'`«»“”„‘’‹›「\\[({]|\\d{4,}|SQL statement|\n")
_SQL_CLASS = re.compile(
    r"(?:^|: |Caused by: )((?:[\w$]+\.)+([\w$]*(?:Exception|Error)))", re.MULTILINE
)


@dataclass(frozen=True)
class Thrown:
    """An exception of a driver, copied from the JVM.

    Attributes:
        name: The class, without its package.
        names: Its class name and those of its causes.
        state: ``SQLSTATE``; empty if it has none.
        code: The vendor's; 0 if it has none.
        message: The driver's text, which may quote anything.
        product: ``oracle``, ``sqlserver``, ``derby`` or another, from the class's package.
    """

    name: str
    names: tuple[str, ...]
    state: str
    code: int
    message: str
    product: str

    @property
    def condition(self) -> str:
        """The part that is safe to show anywhere."""
        state = f", SQLSTATE {self.state}" if self.state else ""
        return f"({self.name}{state}{f', code {self.code}' if self.code else ''})"

    @property
    def is_login(self) -> bool:
        """Whether the server refused user or password."""
        return (
            self.state.startswith(_LOGIN_STATES)
            or any(name.endswith(_LOGIN_CLASSES) for name in self.names)
            or (self.code in _LOGIN_CODES.get(self.product, ()))
            or (self.product == "derby" and self.state == "08004")
        )

    @property
    def is_cut(self) -> bool:
        """Whether the connection broke or was refused, or the failure is transient."""
        return (
            self.state.startswith(_CUT_STATES)
            or self.state in _PASSING_STATES
            or any(name.endswith(_CUT_CLASSES) for name in self.names)
            or self.code in _PASSING_CODES.get(self.product, ())
        )


def thrown(error: Exception) -> Thrown | None:
    """Return the driver's exception behind one of py4j or PySpark; None if there is none."""
    chain = list(_causes(getattr(error, "java_exception", None) or getattr(error, "_origin", None)))
    sql = next((i for i, (_, java) in enumerate(chain) if is_sql_exception(java)), None)
    if sql is not None:
        name, java = chain[sql]
        names = tuple(found.rpartition(".")[2] for found, _ in chain[sql:])
        return Thrown(
            names[0],
            names,
            str(java.getSQLState() or ""),
            int(java.getErrorCode()),
            str(java.getMessage() or ""),
            _product(name),
        )
    # For a failed task the Spark driver often has only the text. A lost worker's text has an
    # EOFException and nothing about SQL.
    found = _SQL_CLASS.findall(str(error))
    names = tuple(short for long, short in found if not long.startswith("org.apache.spark."))
    known = [name for name in names if "SQL" in name]
    if not known:
        return None
    long = next(long for long, short in found if short == known[0])
    return Thrown(known[0], tuple(dict.fromkeys(names)), "", 0, "", _product(long))


def is_sql_exception(java: Any) -> bool:
    """Return whether an object of the JVM is a ``java.sql.SQLException``."""
    kind = java.getClass()
    while kind is not None:
        if kind.getName() == "java.sql.SQLException":
            return True
        kind = kind.getSuperclass()
    return False


def _causes(java: Any) -> Iterator[tuple[str, Any]]:
    for _ in range(20):
        if java is None:
            return
        yield str(java.getClass().getName()), java
        java = java.getCause()


def _product(name: str) -> str:
    return next((p for p in ("oracle", "sqlserver", "derby") if f".{p}." in f".{name}"), "other")


def connect_error(found: Thrown, place: str, seconds: int) -> ExtractError:
    """Return the error for a failed connection."""
    if found.is_login:
        return ConfigError(
            f"cannot log in to {place}: the server refused user or password {found.condition}"
        )
    if found.state.startswith(("3D", "42")):
        return ConfigError(
            f"cannot connect to {place}: there is no such database, or the user may not use it "
            f"{found.condition}"
        )
    return SourceUnavailable(
        f"cannot connect to {place} within {seconds} s: {scrub(found.message)} {found.condition}; "
        "check host, port, firewall and TLS"
    )


def statement_error(found: Thrown, what: str, *, shows: bool) -> ExtractError:
    """Return the error for a failed statement.

    Args:
        found: The driver's exception.
        what: What was being done, such as ``counting sales.orders``.
        shows: Whether the driver's text may be shown, up to the first part that may be data. If no
            row was read, it shows what is wrong with a query.
    """
    said = f"{scrub(found.message)} " if shows and found.message else ""
    if "SocketTimeoutException" in found.names:
        return SourceUnavailable(
            f"{what} failed: the server has sent nothing for as long as connection.stall_timeout "
            f"allows {found.condition}; run again. If a query takes longer than that before its "
            "first row, raise connection.stall_timeout"
        )
    if found.is_cut:
        return SourceUnavailable(f"{what} failed: {said}{found.condition}; run again")
    if found.state == "42501" and "row-level security" in found.message:
        return ConfigError(
            f"{what} failed: row-level security policies hide rows from the user, which would be "
            "left out unnoticed; give the user BYPASSRLS, or set row_security: apply on the source "
            f"or the table to extract the visible rows only {found.condition}"
        )
    if found.is_login or found.state == "42501":
        return ConfigError(
            f"{what} failed: the user may not do that {found.condition}; grant it SELECT"
        )
    if "OutOfMemoryError" in found.names:
        return WorkerOutOfMemory(f"{what} failed: the JVM ran out of memory")
    if found.state.startswith(("42", "3F", "S0")) and shows:
        return ConfigError(f"{what} failed: {said}{found.condition}")
    hint = "" if said else "; the executors' logs have the server's message"
    return SourceQueryFailed(f"{what} failed: {said}{found.condition}{hint}")


def scrub(text: str) -> str:
    """Keep a message up to its first quote, bracket, long number or line break."""
    cut = _QUOTE.search(text)
    kept = (text[: cut.start()] if cut else text).strip()
    return f"{kept[:300]}…" if cut else kept[:300]
