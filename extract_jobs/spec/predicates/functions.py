"""Functions that a condition must not use, and functions that depend on the clock.

The splits of an attempt, the count that they are reconciled with and a retry all evaluate the same
condition. A function that returns something different each time loses or duplicates rows, and one
with side effects repeats them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot.tokenizer_core import Token

_EVERYWHERE = frozenset({
    "clock_timestamp", "crypt_gen_random", "currval", "dbms_random", "gen_random_bytes",
    "gen_random_uuid", "lastval", "newid", "newsequentialid", "nextval", "rand", "random",
    "random_normal", "randomblob", "setseed", "setval", "sys_guid", "timeofday", "uuid_short",
    "uuidv4", "uuidv7",
})  # fmt: skip
_POSTGRES = frozenset({
    "cursor_to_xml", "cursor_to_xmlschema", "pg_cancel_backend", "pg_current_xact_id", "pg_notify",
    "pg_promote", "pg_reload_conf", "pg_rotate_logfile", "pg_stat_file", "pg_switch_wal",
    "pg_terminate_backend", "query_to_xml", "query_to_xml_and_xmlschema", "query_to_xmlschema",
    "set_config", "ts_stat", "txid_current",
})  # fmt: skip
_MYSQL = frozenset({
    "benchmark", "found_rows", "get_lock", "last_insert_id", "load_file", "master_pos_wait",
    "random_bytes", "release_all_locks", "release_lock", "row_count", "sleep", "sysdate", "uuid",
})  # fmt: skip
_NAMES = {
    "postgres": _POSTGRES,
    "redshift": _POSTGRES,
    "mysql": _MYSQL,
    "sqlite": frozenset({
        "changes", "edit", "last_insert_rowid", "load_extension", "readfile", "total_changes",
        "writefile",
    }),
    "tsql": frozenset({"opendatasource", "openquery", "openrowset"}),
    "oracle": frozenset({"bfilename", "httpuritype", "xmltype"}),
    "generic": _MYSQL,
}  # fmt: skip
_PREFIXES = {
    "postgres": (
        "dblink", "lo_", "pg_advisory_", "pg_create_", "pg_drop_", "pg_file_", "pg_logical_",
        "pg_ls_", "pg_read_", "pg_replication_", "pg_sleep", "pg_try_advisory_", "uuid_generate_",
    ),
    "oracle": ("dbms_", "utl_"),
}  # fmt: skip
_WITHOUT_PARENTHESES = {"oracle": frozenset({"rownum", "nextval", "currval"})}
_CLOCK = frozenset({
    "age", "curdate", "current_date", "current_time", "current_timestamp", "curtime",
    "get_current_time", "get_current_timestamp", "getdate", "getutcdate", "localtime",
    "localtimestamp", "now", "statement_timestamp", "sysdate", "sysdatetime", "sysdatetimeoffset",
    "systimestamp", "sysutcdatetime", "today", "transaction_timestamp", "unix_timestamp",
    "utc_date", "utc_time", "utc_timestamp",
})  # fmt: skip
_CLOCK_ALONE = frozenset({"date", "datetime", "julianday", "time", "unixepoch"})
"""SQLite's functions that return the time when called without arguments."""
_CLOCK_WORDS = frozenset({
    "current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "sysdate",
    "systimestamp",
})  # fmt: skip
"""Names that return the time without parentheses."""
_CLOCK_TEXTS = frozenset({"now", "today", "tomorrow", "yesterday"})
"""Texts that stand for the time: ``'now'::timestamptz``, ``datetime('now')``."""


def effect_in(tokens: Sequence[Token], dialect: str) -> str | None:
    """Return why a condition must not call a function that it calls; None if all are allowed.

    Args:
        tokens: Of the whole text.
        dialect: Whose functions are meant.
    """
    names = _EVERYWHERE | _NAMES[dialect]
    prefixes = _PREFIXES.get("postgres" if dialect == "redshift" else dialect, ())
    bare = _WITHOUT_PARENTHESES.get(dialect, frozenset())
    texts = [token.text.lower() for token in tokens]
    for token, name, sign in zip(tokens, texts, [*texts[1:], ""], strict=False):
        called = sign == "(" and (name in names or name.startswith(prefixes))
        package = sign == "." and dialect == "oracle" and name.startswith(prefixes)
        if _is_name(token) and (called or package or name in bare):
            clock = name in ("clock_timestamp", "timeofday", "sysdate")
            return (
                f"uses {name}, which returns something different each time or has side "
                f"effects{'; there is current_timestamp' if clock else ''}"
            )
        if name == "next value for" or (name == "next" and sign == "value"):
            return "takes the next value of a sequence, which changes the source"
    return None


def clock_in(tokens: Sequence[Token]) -> bool:
    """Return whether a text stands for the time."""
    texts = [token.text.lower() for token in tokens]
    for at, (token, name) in enumerate(zip(tokens, texts, strict=True)):
        if not _is_name(token):
            if name in _CLOCK_TEXTS:
                return True
        elif (
            name in _CLOCK_WORDS
            or (name in _CLOCK and texts[at + 1 : at + 2] == ["("])
            or (name in _CLOCK_ALONE and texts[at + 1 : at + 3] == ["(", ")"])
        ):
            return True
    return False


def _is_name(token: Token) -> bool:
    from sqlglot.tokenizer_core import TokenType

    return token.token_type not in (TokenType.STRING, TokenType.NATIONAL_STRING)
