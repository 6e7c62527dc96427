"""Types of a query's columns, from the server's description of its result.

A query is not in the catalogue, so a type is derived from the protocol's numbers.
https://dev.mysql.com/doc/dev/mysql-server/latest/field__types_8h.html
"""

from __future__ import annotations

from extract_jobs.sources.mysql.driver import Connection
from extract_jobs.sources.mysql.session import execute
from extract_jobs.sources.mysql.types import MysqlType
from extract_jobs.sources.mysql.wire import Field, fields_of

_NAMES = {
    0: "decimal", 1: "tinyint", 2: "smallint", 3: "int", 4: "float", 5: "double", 6: "null",
    7: "timestamp", 8: "bigint", 9: "mediumint", 10: "date", 11: "time", 12: "datetime",
    13: "year", 14: "date", 15: "varchar", 16: "bit", 242: "vector", 245: "json", 246: "decimal",
    247: "enum", 248: "set", 249: "tinyblob", 250: "mediumblob", 251: "longblob", 252: "blob",
    253: "varchar", 254: "char", 255: "geometry",
}  # fmt: skip
_TEXT_OF = {
    "varchar": "varbinary", "char": "binary", "tinytext": "tinyblob", "text": "blob",
    "mediumtext": "mediumblob", "longtext": "longblob",
}  # fmt: skip
_BLOB_OF = {binary: text for text, binary in _TEXT_OF.items()}
_UNSIGNED, _ZEROFILL, _ENUM, _SET, _NOT_NULL = 32, 64, 256, 2048, 1
_BINARY_CHARSET = 63
_NO_FIXED_SCALE = 31


def result_types(opened: Connection, statement: str) -> list[tuple[str, bool, MysqlType]]:
    """Return name, nullability and type of each column of a SELECT.

    Args:
        opened: A connection.
        statement: One SELECT with ``limit 0``.
    """
    fields = fields_of(opened, statement)
    wanted = sorted({field.charset for field in fields} - {_BINARY_CHARSET})
    charsets: dict[int, str] = {}
    if wanted:
        numbers = ", ".join(map(str, wanted))
        charsets = {
            int(number): name
            for number, name in execute(opened, _COLLATIONS.format(numbers=numbers))
        }
    return [
        (field.name, not field.flags & _NOT_NULL, _type_of(field, charsets.get(field.charset)))
        for field in fields
    ]


_COLLATIONS = (
    "select id, character_set_name from information_schema.collations where id in ({numbers})"
)


def _type_of(field: Field, charset: str | None) -> MysqlType:
    unsigned = bool(field.flags & _UNSIGNED)
    base = _NAMES.get(field.type_code, f"type {field.type_code}")
    is_binary = field.charset == _BINARY_CHARSET
    if field.flags & _ENUM:
        base = "enum"
    elif field.flags & _SET:
        base = "set"
    elif base in _BLOB_OF and not is_binary:
        base = _BLOB_OF[base]
    elif base in _TEXT_OF and is_binary:
        base = _TEXT_OF[base]
    elif base == "null":
        base, charset = "varchar", "utf8mb4"
    precision, scale, printed = 0, 0, base
    if base == "decimal":
        scale = field.decimals
        precision = max(1, field.length - bool(scale) - (not unsigned))
        printed = f"decimal({precision},{scale})"
    elif base == "bit":
        precision = field.length
        printed = f"bit({precision})"
    elif base in ("float", "double") and field.decimals < _NO_FIXED_SCALE:
        printed = f"{base}({field.length},{field.decimals})"
    if unsigned and base not in ("year", "bit", "timestamp"):
        printed += " unsigned"
    return MysqlType(
        printed,
        base,
        precision,
        scale,
        unsigned=unsigned,
        zerofill=bool(field.flags & _ZEROFILL) and base != "year",
        charset=None if is_binary else charset,
    )
