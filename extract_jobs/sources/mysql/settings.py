"""Every variable of a MySQL or MariaDB session that changes which rows or values a SELECT returns.

A server, an account or ``init_connect`` may have set any of them. Each gets one fixed value here; a
session sets those that its server has.
"""

from __future__ import annotations

from dataclasses import dataclass

LOCK_TIMEOUT_SECONDS = 60
"""How long any statement waits for a lock, such as an ALTER TABLE's."""
_IDLE_SECONDS = 24 * 3600
_ALL = 2**64 - 1


@dataclass(frozen=True)
class Setting:
    """A session variable that is set before anything is read.

    Attributes:
        name: The variable's name.
        value: SQL of its new value.
        what: What it could change otherwise.
    """

    name: str
    value: str
    what: str


SETTINGS = (
    Setting("sql_select_limit", str(_ALL), "how many rows any SELECT returns"),
    Setting("max_join_size", str(_ALL), "refuses what looks like many rows"),
    Setting("sql_big_selects", "1", "refuses what looks like many rows"),
    Setting("sql_auto_is_null", "0", "`where id is null` finds the row inserted last"),
    Setting("system_versioning_asof", "default", "rows of another time, in MariaDB's versions"),
    Setting("max_recursive_iterations", str(2**32 - 1), "where MariaDB ends a recursive query"),
    Setting("cte_max_recursion_depth", str(2**32 - 1), "where MySQL stops a recursive query"),
    Setting("standard_compliant_cte", "1", "which recursive queries MariaDB accepts"),
    Setting("use_secondary_engine", "'OFF'", "rows of a copy that may lag (HeatWave)"),
    Setting("query_cache_type", "0", "rows of an earlier query, from MariaDB's cache"),
    Setting("timestamp", "default", "the time that `now()` returns"),
    Setting("time_zone", "'+00:00'", "the wall clock of `timestamp` columns and of `now()`"),
    # Empty: backslashes escape, double quotes are strings, || is or, CHAR is not padded, and dates
    # with zeros can be compared.
    Setting("sql_mode", "''", "padding, quotes, backslashes, `||`, zero dates"),
    Setting("old_mode", "'UTF8_IS_UTF8MB3'", "how MariaDB reads `utf8` and zero times"),
    Setting("new_mode", "''", "changes in later versions of MariaDB"),
    Setting("group_concat_max_len", str(2**30), "where `group_concat` is cut"),
    Setting("div_precision_increment", "4", "digits of a quotient"),
    Setting("default_week_format", "0", "the number of a week"),
    Setting("lc_time_names", "'en_US'", "names of days and months"),
    Setting("block_encryption_mode", "'aes-128-ecb'", "what `aes_decrypt` gives"),
    Setting("default_regex_flags", "''", "what a regular expression finds"),
    Setting("windowing_use_high_precision", "1", "sums of floats in windows"),
    # With Latin-1 and the like the server would send ``?`` for what it cannot convert.
    Setting("character_set_results", "null", "the character set that text is sent in"),
    Setting("collation_connection", "utf8mb4_general_ci", "how two literals compare"),
    Setting("character_set_collations", "''", "how converted text compares, in MariaDB"),
    Setting("information_schema_stats_expiry", "0", "sizes of tables from a day ago"),
    Setting(
        "show_gipk_in_create_table_and_information_schema", "1",
        "hides a generated primary key and its column",
    ),
    Setting("explain_format", "'TRADITIONAL'", "the form of the plans that splits are based on"),
    Setting("max_statement_time", "0", "ends a long statement, in MariaDB"),
    Setting("max_execution_time", "0", "ends a long statement, in MySQL"),
    Setting("lock_wait_timeout", str(LOCK_TIMEOUT_SECONDS), "how long to wait for a lock"),
    Setting("innodb_lock_wait_timeout", str(LOCK_TIMEOUT_SECONDS), "how long to wait for a lock"),
    # A reader with a slow writer stops taking rows: by default the server hangs up after 60 s.
    Setting("net_write_timeout", str(_IDLE_SECONDS), "hangs up on a slow reader"),
    Setting("net_read_timeout", str(_IDLE_SECONDS), "hangs up on a slow reader"),
    Setting("wait_timeout", str(_IDLE_SECONDS), "hangs up on a waiting session"),
    Setting("idle_transaction_timeout", "0", "hangs up on a waiting session of MariaDB"),
    Setting("idle_readonly_transaction_timeout", "0", "hangs up on a waiting session of MariaDB"),
    Setting("sql_buffer_result", "0", "fills the server's disk with the result first"),
    Setting("sql_notes", "0", "notes among the warnings that are checked after a read"),
)  # fmt: skip
"""In the order of the page on sources. ``transaction_isolation`` and ``transaction_read_only`` are
set by a separate statement."""
