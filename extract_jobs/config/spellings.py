"""Types and functions that a table names: those that there are not need no source to be found."""

from __future__ import annotations

import re
from collections.abc import Iterator

from extract_jobs.config.model import TableConfig
from extract_jobs.config.problems import DataProblem, nearest
from extract_jobs.spec.rules import PARTITION_FUNCTIONS

CAST_TYPES = (
    "string", "boolean", "int8", "int16", "int32", "int64", "float32", "float64", "date",
    "timestamp", "timestamptz", "binary", "decimal(p,s)", "json",
)  # fmt: skip
"""As `extract_jobs.transform.types.TYPE_NAMES`, without importing Arrow."""
_DECIMAL = re.compile(r"decimal\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)")
_IN_SQL = {
    "bigint": "int64", "int": "int32", "integer": "int32", "smallint": "int16", "long": "int64",
    "tinyint": "int8", "double": "float64", "float": "float64", "real": "float32",
    "text": "string", "varchar": "string", "str": "string", "bool": "boolean",
    "datetime": "timestamp", "bytes": "binary", "decimal": "decimal(p,s)",
    "numeric": "decimal(p,s)",
}  # fmt: skip
_CALL = re.compile(r"(\w+)\((.*?)(\)?)")


def misspelled(table: TableConfig) -> Iterator[DataProblem]:
    """Yield the types of ``columns.cast`` and functions of ``partition_by`` that do not exist."""
    for column, wanted in table.columns.cast.items():
        if not _is_type(wanted):
            near = _IN_SQL.get(wanted.lower())
            hint = f"; did you mean {near}?" if near else nearest(wanted, CAST_TYPES)
            known = f"; the types are {', '.join(CAST_TYPES)}"
            text = f"{wanted!r}: no such type{hint or known}"
            yield DataProblem(("columns", "cast", column), text)
    for index, given in enumerate(table.target.partition_by):
        problem = _partition_problem(given)
        if problem and given not in (table.columns.include or ()):
            yield DataProblem(("target", "partition_by", index), f"{given!r}: {problem}")


def _is_type(name: str) -> bool:
    digits = _DECIMAL.fullmatch(name)
    if digits:
        return 1 <= int(digits[1]) <= 38 and int(digits[2]) <= int(digits[1])
    return name in CAST_TYPES and name != "decimal(p,s)"


def _partition_problem(given: str) -> str | None:
    call = _CALL.fullmatch(given)
    if call is None:
        return None
    word, closed = call[1].lower(), call[3]
    if word in PARTITION_FUNCTIONS:
        return None if closed and call[1] == word else f"expected {word}(column)"
    if not closed:
        return None
    functions = f"no such function; the functions are {', '.join(PARTITION_FUNCTIONS)}"
    return f'{functions}; for a column of this name, add columns.include: ["*", {given!r}]'
