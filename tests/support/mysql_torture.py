"""Every type of MySQL and MariaDB at its extremes: what is inserted, and what it arrives as."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import pyarrow as pa

from extract_jobs.sources.mysql.types import TYPE_RULES
from tests.support.mysql_servers import MysqlServer, quoted


class Torture(NamedTuple):
    """One column: its type, literals to insert, and the Arrow type that it arrives as."""

    type: str
    values: tuple[str, ...]
    arrow: pa.DataType


_EMOJI = "_utf8mb4 x'c3bc20e29883f09f9880'"

COLUMNS: dict[str, Torture] = {
    "ti": Torture("tinyint", ("-128", "127", "0"), pa.int8()),
    "ti1": Torture("tinyint(1)", ("-128", "127", "2"), pa.int8()),
    "flag": Torture("boolean", ("true", "false"), pa.int8()),
    "tiu": Torture("tinyint unsigned", ("0", "255"), pa.int16()),
    "si": Torture("smallint", ("-32768", "32767"), pa.int16()),
    "siu": Torture("smallint unsigned", ("65535", "0"), pa.int32()),
    "mi": Torture("mediumint", ("-8388608", "8388607"), pa.int32()),
    "miu": Torture("mediumint unsigned", ("16777215",), pa.int32()),
    "i": Torture("int", ("-2147483648", "2147483647"), pa.int32()),
    "iu": Torture("int unsigned", ("4294967295", "0"), pa.int64()),
    "iz": Torture("int(9) unsigned zerofill", ("42", "4294967295"), pa.int64()),
    "bi": Torture("bigint", ("-9223372036854775808", "9223372036854775807"), pa.int64()),
    "biu": Torture("bigint unsigned", ("18446744073709551615", "0"), pa.decimal128(20, 0)),
    "d5": Torture("decimal(5,2)", ("-999.99", "999.99", "0.01", "-0.00"), pa.decimal128(5, 2)),
    "d38": Torture("decimal(38,10)", (f"-{'9' * 28}.{'9' * 10}", "1e-10"), pa.decimal128(38, 10)),
    "d3838": Torture("decimal(38,38)", ("0." + "9" * 38, "-1e-38"), pa.decimal128(38, 38)),
    "d65": Torture("decimal(65,30)", (f"-{'9' * 35}.{'9' * 30}", "1e-30"), pa.string()),
    "du": Torture("decimal(10,3) unsigned zerofill", ("1.5", "0"), pa.decimal128(10, 3)),
    "f": Torture("float", ("3.4028234e38", "-1.17549435e-38", "1.4e-45", "0.1", "16777217", "-0e0"),
                 pa.float32()),
    "f72": Torture("float(7,2)", ("12345.67", "-0.01"), pa.float32()),
    "db": Torture("double", ("1.7976931348623157e308", "-2.2250738585072014e-308", "5e-324", "0.1",
                             "-0e0", "123456789.123456789"), pa.float64()),
    "db2": Torture("double(20,3)", ("12345678901234.567", "-0.001"), pa.float64()),
    "b1": Torture("bit(1)", ("b'0'", "b'1'"), pa.bool_()),
    "b8": Torture("bit(8)", ("b'11111111'", "b'0'"), pa.int64()),
    "b63": Torture("bit(63)", (f"b'{'1' * 63}'",), pa.int64()),
    "b64": Torture("bit(64)", (f"b'{'1' * 64}'", "b'0'"), pa.decimal128(20, 0)),
    "y": Torture("year", ("1901", "2155", "0000"), pa.int16()),
    "da": Torture("date", ("'0001-01-01'", "'9999-12-31'", "'1582-10-10'", "'1969-12-31'"),
                  pa.date32()),
    "dt": Torture("datetime", ("'0001-01-01 00:00:00'", "'9999-12-31 23:59:59'"),
                  pa.timestamp("us")),
    "dt6": Torture("datetime(6)", ("'9999-12-31 23:59:59.999999'", "'1500-02-28 00:00:00.000001'"),
                   pa.timestamp("us")),
    "dt3": Torture("datetime(3)", ("'1969-12-31 23:59:59.999'",), pa.timestamp("us")),
    "ts": Torture("timestamp null", ("'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"),
                  pa.timestamp("us", "UTC")),
    "ts6": Torture("timestamp(6) null", ("'2038-01-19 03:14:07.999999'",
                                         "'2024-03-31 02:30:00.123456'"),
                   pa.timestamp("us", "UTC")),
    "t": Torture("time", ("'-838:59:59'", "'838:59:59'", "'00:00:00'"), pa.string()),
    "t6": Torture("time(6)", ("'-838:59:59.999999'", "'24:00:00.000001'"), pa.string()),
    "c": Torture("char(10)", ("'a  '", "''", "'  b'"), pa.string()),
    "v": Torture("varchar(255)", ("'a  '", "''", "'back\\\\slash'", "'tab\\tline\\nnul\\0'",
                                  "'NULL'", _EMOJI, "'\\'\"`'", f"'{'x' * 250}'", f"'{'y' * 251}'"),
                 pa.string()),
    "v3": Torture("varchar(50) charset utf8mb3", ("_utf8mb4 x'c3bce29883'", "''"), pa.string()),
    "vl": Torture("varchar(50) charset latin1", ("_utf8mb4 x'c3bce282ac'", "'a'",
                                                 "_latin1 x'8180ff00'"), pa.string()),
    "vs": Torture("varchar(50) charset sjis", ("_utf8mb4 x'e697a5e69cac3f'", "'?'"), pa.string()),
    "v16": Torture("varchar(50) charset utf16", (_EMOJI, "''"), pa.string()),
    "v2": Torture("varchar(50) charset ucs2 collate ucs2_bin", ("_utf8mb4 x'e29883'",),
                  pa.string()),
    "va": Torture("varchar(50) charset ascii", ("'a'",), pa.string()),
    "tt": Torture("tinytext", ("'t'", f"'{'z' * 255}'"), pa.string()),
    "tx": Torture("text", (f"repeat({_EMOJI}, 6000)", "''"), pa.string()),
    "mt": Torture("mediumtext", ("repeat('m', 70000)",), pa.string()),
    "lt": Torture("longtext charset latin1", ("repeat(_latin1 x'fc', 70000)",), pa.string()),
    "e": Torture("enum('a,b', 'it''s', '', 'ü ☃')", ("'a,b'", "'it''s'", "''", "4"), pa.string()),
    "st": Torture("set('a','b','ü')", ("'a,b,ü'", "''", "'b'"), pa.string()),
    "j": Torture("json", ("'{\"a\": [1, 2.50, \"ü\\\\n\"]}'", "'null'"), pa.string()),
    "u": Torture("uuid", ("'123e4567-e89b-12d3-a456-426655440000'",), pa.string()),
    "i4": Torture("inet4", ("'255.255.255.255'",), pa.string()),
    "i6": Torture("inet6", ("'2001:db8::ff00:42:8329'", "'::'"), pa.string()),
    "bn": Torture("binary(4)", ("x'00'", "x'ff27225c'"), pa.binary()),
    "vb": Torture("varbinary(300)", ("x'00ff'", "''", "x'fb'", "x'0500000100fe00000200'"),
                  pa.binary()),
    "tb": Torture("tinyblob", ("x'fe'",), pa.binary()),
    "bl": Torture("blob", ("repeat(x'ff00', 30000)",), pa.binary()),
    "mb": Torture("mediumblob", ("repeat(x'fbfcfdfe', 20000)",), pa.binary()),
    "lb": Torture("longblob", ("repeat(x'00', 100000)",), pa.binary()),
    "g": Torture("int as (i + 1) virtual", (), pa.int32()),
    "g2": Torture("varchar(300) as (concat(v, '!')) stored", (), pa.string()),
    "inv": Torture("int invisible default 7", ("1",), pa.int32()),
    "un": Torture("int", (), pa.int32()),
}  # fmt: skip

MARIADB_ALONE = ("d3838", "u", "i4", "i6")
"""MySQL's decimals have at most 30 digits after the point, and it lacks the other types."""
MYSQL_ALONE: dict[str, Torture] = {
    "vec": Torture("vector(2)", ("string_to_vector('[1.5,-0.25]')",), pa.binary()),
}

ROWS = max(len(column.values) for column in COLUMNS.values()) + 1
"""Each column's values, the last of them repeated, then a row of NULLs."""


def columns_of(server: MysqlServer) -> dict[str, Torture]:
    """Return the columns whose types a server has."""
    if server.is_mariadb:
        return COLUMNS
    return {k: v for k, v in COLUMNS.items() if k not in MARIADB_ALONE} | MYSQL_ALONE


def make(server: MysqlServer, table: str = "torture") -> None:
    """Create the table, with a last row of NULLs."""
    columns = columns_of(server)
    listed = ", ".join(f"{quoted(name)} {column.type}" for name, column in columns.items())
    key = "id int not null auto_increment primary key"
    server.execute(
        f"create table {quoted(table)} ({key}, {listed}) engine=innodb row_format=dynamic"
    )
    filled = {name: column.values for name, column in columns.items() if column.values}
    names = ", ".join(quoted(name) for name in filled)
    for row in range(ROWS - 1):
        given = ", ".join(values[min(row, len(values) - 1)] for values in filled.values())
        server.execute(f"insert into {quoted(table)} ({names}) values ({given})")
    nothing = ", ".join("null" for _ in filled)
    server.execute(f"insert into {quoted(table)} ({names}) values ({nothing})")


def client_prints(server: MysqlServer) -> dict[str, list[bytes | None]]:
    """Return each column of the table as the client prints it.

    Floats are printed in full, which the server would shorten; bits and years as numbers.
    """

    def shown(name: str, kind: str) -> str:
        if kind.startswith(("float", "double")):
            return f"{quoted(name)} * 1e0"
        as_number = kind.startswith("bit") or "zerofill" in kind or kind == "year"
        return f"{quoted(name)} + 0" if as_number else quoted(name)

    columns = columns_of(server)
    listed = ", ".join(shown(name, column.type) for name, column in columns.items())
    rows = server.client(f"select {listed} from torture order by id")
    return dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))


def printed(value: Any, kind: str) -> bytes | None:
    """Print an extracted value as the database's own client prints it."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return bytes([value])
    if isinstance(value, datetime):
        digits = int(kind.split("(")[1][0]) if "(" in kind else 0
        text = value.astimezone(UTC) if value.tzinfo else value
        shown = f"{text.year:04}-" + text.strftime("%m-%d %H:%M:%S.%f")
        return shown[: 19 + (digits and digits + 1)].encode()
    if isinstance(value, date):
        return value.isoformat().encode()
    if isinstance(value, Decimal):
        return f"{value:f}".encode()
    return str(value).encode()


COLUMNS_OF_RULES: dict[str, tuple[str, ...]] = {
    "tinyint": ("ti", "ti1", "flag"),
    "tinyint unsigned": ("tiu",),
    "smallint": ("si",),
    "smallint unsigned": ("siu",),
    "mediumint": ("mi", "miu"),
    "int": ("i", "g", "inv", "un"),
    "int unsigned": ("iu", "iz"),
    "bigint": ("bi",),
    "bigint unsigned": ("biu",),
    "decimal(p,s)": ("d5", "d38", "d3838", "du"),
    "decimal(39..65,s)": ("d65",),
    "float": ("f", "f72"),
    "double": ("db", "db2"),
    "bit(1)": ("b1",),
    "bit(2..63)": ("b8", "b63"),
    "bit(64)": ("b64",),
    "year": ("y",),
    "date": ("da",),
    "datetime(f)": ("dt", "dt3", "dt6"),
    "timestamp(f)": ("ts", "ts6"),
    "time(f)": ("t", "t6"),
    "char(n)": ("c",),
    "varchar(n)": ("v", "v3", "vl", "vs", "v16", "v2", "va", "g2"),
    "tinytext, text, mediumtext, longtext": ("tt", "tx", "mt", "lt"),
    "enum": ("e",),
    "set": ("st",),
    "json": ("j",),
    "binary(n), varbinary(n)": ("bn", "vb"),
    "tinyblob, blob, mediumblob, longblob": ("tb", "bl", "mb", "lb"),
    "uuid, inet4, inet6": ("u", "i4", "i6"),
    "vector": ("vec",),
}
"""The columns that cover each rule of `extract_jobs.sources.mysql.types.TYPE_RULES`."""


def coverage() -> list[str]:
    """Return a Markdown table: how many values of each type are read from each server."""
    lines = ["| type | MySQL | MariaDB |", "| --- | --- | --- |"]
    for rule in TYPE_RULES:
        names = COLUMNS_OF_RULES.get(rule.source_type, ())
        on_mysql = [n for n in names if n not in MARIADB_ALONE]
        on_mariadb = [n for n in names if n not in MYSQL_ALONE]
        cells = (_covered(on_mysql), _covered(on_mariadb)) if names else ("refused", "refused")
        lines.append(f"| {rule.source_type} | {cells[0]} | {cells[1]} |")
    return lines


def _covered(names: list[str]) -> str:
    columns = COLUMNS | MYSQL_ALONE
    values = sum(len(columns[name].values) for name in names)
    return str(values) if names else "-"
