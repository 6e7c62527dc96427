"""Each table of types in the docs is what the mapping does: type by type, no server asked.

PostgreSQL's and SQLite's tables drive their mapping, and their own tests hold them to real tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.schema import Column, TypeRule
from extract_jobs.sources import open_source
from extract_jobs.sources.files import types as files_types
from extract_jobs.sources.jdbc import dialects
from extract_jobs.sources.jdbc.rules import JDBC_NAMES, TYPE_RULES, Rule
from extract_jobs.sources.jdbc.types import Described, make_column, typed
from extract_jobs.sources.mysql import types as mysql_types
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.types import parse_type


def follows_rule(found: Column | str, rule: TypeRule) -> bool:
    """Return whether a column is read as its row of the docs says."""
    if isinstance(found, str):
        return rule.fidelity in ("refused", "by_permission")
    arrives = rule.arrives_as.replace("(p,s)", "(10,2)").replace("(38,s)", "(38,20)")
    if arrives == "list":
        fits = pa.types.is_list(found.arrow_type)
    elif arrives == "the same" and pa.types.is_nested(found.arrow_type):
        fits = found.source_type == f"parquet {found.arrow_type}"
    else:
        names = [re.sub(r"^the same$", str(found.arrow_type), name) for name in arrives.split(", ")]
        fits = found.arrow_type in [parse_type(n) or _SAME.get(n) for n in names]
    return fits and found.fidelity == rule.fidelity


_SAME = {"bool": pa.bool_(), **{f"int{n}": getattr(pa, f"int{n}")() for n in (8, 16, 32, 64)}}

# JDBC

_DIALECTS = {
    "jdbc": dialects.PLAIN,
    "sqlserver": dialects.SQLSERVER,
    "oracle": dialects.ORACLE,
    "redshift": dialects.REDSHIFT,
}
_CODES = {name: code for code, name in JDBC_NAMES.items()}
_OTHER = 1111
JDBC = [
    pytest.param(source, rule, name, id=f"{source}-{name}")
    for source, dialect in _DIALECTS.items()
    for rule in dialect.rules
    for name in rule.names
]


@pytest.mark.parametrize(("source", "rule", "name"), JDBC)
def test_jdbc(source: str, rule: Rule, name: str) -> None:
    assert rule.row in TYPE_RULES[source]
    by_jdbc = _CODES.get(name, _OTHER) if source == "jdbc" else _OTHER
    code = _CODES[rule.jdbc[0]] if rule.jdbc else by_jdbc
    signed = name != "tinyint"
    precision = 1 if name == "bit" else 10
    described = Described("c", code, name, precision, 2, nullable=True, signed=signed)
    found = typed(described, _DIALECTS[source])
    assert found.rule is rule
    column = make_column(found, _DIALECTS[source], cast=None, lossy="refuse")
    if isinstance(column, str) and rule.row.fidelity == "as_text":
        assert source == "jdbc", "text of such types can be made in no SQL that all databases know"
        return
    if isinstance(column, Column) and rule.expression and rule.kind == "decimal":
        assert column.arrow_type == pa.decimal128(19, 4)
        return
    assert follows_rule(column, rule.row), column


# MySQL

MYSQL = {
    "tinyint": ["tinyint(4)", "tinyint(1)"],
    "tinyint unsigned": ["tinyint(3) unsigned"],
    "smallint": ["smallint(6)"],
    "smallint unsigned": ["smallint unsigned zerofill"],
    "mediumint": ["mediumint(9)", "mediumint unsigned"],
    "int": ["int(11)", "int"],
    "int unsigned": ["int(10) unsigned"],
    "bigint": ["bigint(20)"],
    "bigint unsigned": ["bigint(20) unsigned"],
    "decimal(p,s)": ["decimal(10,2)", "decimal(10,2) unsigned"],
    "decimal(39..65,s)": ["decimal(39,0)", "decimal(65,30)"],
    "float": ["float", "float(7,3)", "float unsigned"],
    "double": ["double", "double(10,2)"],
    "bit(1)": ["bit(1)"],
    "bit(2..63)": ["bit(2)", "bit(63)"],
    "bit(64)": ["bit(64)"],
    "year": ["year(4)"],
    "date": ["date"],
    "datetime(f)": ["datetime", "datetime(6)"],
    "timestamp(f)": ["timestamp", "timestamp(3)"],
    "time(f)": ["time", "time(6)"],
    "char(n)": ["char(3)"],
    "varchar(n)": ["varchar(20)"],
    "tinytext, text, mediumtext, longtext": ["tinytext", "text", "mediumtext", "longtext"],
    "enum": ["enum('a','unsigned')"],
    "set": ["set('a','b')"],
    "json": ["json"],
    "binary(n), varbinary(n)": ["binary(3)", "varbinary(20)"],
    "tinyblob, blob, mediumblob, longblob": ["tinyblob", "blob", "mediumblob", "longblob"],
    "uuid, inet4, inet6": ["uuid", "inet4", "inet6"],
    "vector": ["vector(3)"],
    "geometry, point, …": ["geometry", "point", "polygon"],
}


def test_every_mysql_type_is_tried() -> None:
    assert list(MYSQL) == [rule.source_type for rule in mysql_types.TYPE_RULES]


@pytest.mark.parametrize("rule", mysql_types.TYPE_RULES, ids=lambda rule: rule.source_type)
def test_mysql(rule: TypeRule) -> None:
    assert MYSQL[rule.source_type]
    for printed in MYSQL[rule.source_type]:
        base = re.match(r"\w+", printed)
        assert base is not None
        found = mysql_types.parse_type(base[0], printed, "utf8mb4")
        column = mysql_types.make_column("c", found, nullable=True, cast=None, lossy="refuse")
        assert follows_rule(column, rule), (printed, column)


# Files

_CSV = {
    "csv, json: integers": ["1", "-9223372036854775808"],
    "csv, json: integers beyond 64 bits": ["1", "9223372036854775808"],
    "csv, json: numbers with a fraction or an exponent": ["1.5", "1e3"],
    "csv: numbers with more digits than a double holds": ["1.5", "0.12345678901234567891"],
    "csv, json: true, false": ["true", "false"],
    "csv: YYYY-MM-DD": ["2024-02-29", "0001-01-01"],
    "csv: YYYY-MM-DD hh:mm[:ss[.ffffff]]": ["2024-02-29 01:02", "2024-02-29T01:02:03.5"],
    "csv: YYYY-MM-DD hh:mm[:ss[.ffffff]] with Z or ±hh[:mm]": ["2024-02-29 01:02:03+01:00"],
    "csv: any other text, mixed values": ["007", "1 ", "x"],
}
_JSON = {
    "csv, json: integers": ["1"],
    "csv, json: integers beyond 64 bits": ["9223372036854775808"],
    "csv, json: numbers with a fraction or an exponent": ["1.5"],
    "json: numbers with more digits than a double holds": ["0.12345678901234567891"],
    "csv, json: true, false": ["true"],
    "json: strings": ['"1"', '"2024-02-29"'],
    "json: objects, mixed values": ['{"a": 1}', '"x"'],
    "json: arrays of scalars": ["[1, 2]"],
}
_NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
_PARQUET: dict[str, list[tuple[pa.DataType, Any]]] = {
    "parquet: int8 to int64": [(getattr(pa, f"int{bits}")(), 1) for bits in (8, 16, 32, 64)],
    "parquet: uint8, uint16, uint32": [(pa.uint8(), 1), (pa.uint16(), 1), (pa.uint32(), 1)],
    "parquet: uint64": [(pa.uint64(), 2**64 - 1)],
    "parquet: float16, float32, float64": [(pa.float32(), 1.5), (pa.float64(), 1.5)],
    "parquet: decimal(p,s)": [(pa.decimal128(10, 2), Decimal("1.50"))],
    "parquet: boolean, string, binary": [
        (pa.bool_(), True), (pa.string(), "x"), (pa.binary(), b"x"),
    ],
    "parquet: fixed-length binary": [(pa.binary(2), b"xy")],
    "parquet: uuid": [(pa.uuid(), bytes(16))],
    "parquet: json": [(pa.json_(), '{"a": 1}')],
    "parquet: date": [(pa.date32(), date(2024, 2, 29))],
    "parquet: timestamp": [
        (pa.timestamp("us"), _NOON.replace(tzinfo=None)), (pa.timestamp("ms", "UTC"), _NOON),
    ],
    "parquet: time": [(pa.time64("us"), time(12))],
    "parquet: lists of any of these": [
        (pa.list_(pa.int32()), [1]), (pa.list_(pa.list_(pa.int32())), [[1]]),
    ],
    "parquet: structs and maps of any of these": [
        (pa.struct([("a", pa.list_(pa.int32()))]), {"a": [1]}),
        (pa.map_(pa.string(), pa.int32()), [("a", 1)]),
    ],
    "parquet: geometry, geography": [(pa.opaque(pa.binary(), "GEOMETRY", ""), b"x")],
    "parquet: duration": [(pa.duration("us"), timedelta(1))],
    "parquet: variant": [(pa.opaque(pa.binary(), "VARIANT", ""), b"x")],
    "parquet: interval, geometries inside of others": [
        (pa.opaque(pa.binary(12), "INTERVAL", ""), bytes(12)),
    ],
}  # fmt: skip
_DECLARED = "csv, json: declared in files.types"
_FOLDER = "key=value in the name of a folder"


def test_every_rule_of_files_is_tried() -> None:
    tried = {*_CSV, *_JSON, *_PARQUET, _DECLARED, _FOLDER}
    assert tried == {rule.source_type for rule in files_types.TYPE_RULES}


def _files(rule: TypeRule, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write files that a rule is about, and yield their globs with what else tells of them."""
    name = rule.source_type
    if name in _CSV:
        (folder / "x.csv").write_text("\n".join(["c", *_CSV[name], ""]))
        yield "x.csv", {}
    if name in _JSON:
        (folder / "x.jsonl").write_text("".join(f'{{"c": {v}}}\n' for v in _JSON[name]))
        yield "x.jsonl", {}
    for number, (kind, value) in enumerate(_PARQUET.get(name, ())):
        table = pa.table({"c": pa.array([value], kind)})
        pq.write_table(table, folder / f"{number}.parquet")
        yield f"{number}.parquet", {}
    if name == _DECLARED:
        (folder / "d.csv").write_text("c\n1\n")
        yield "d.csv", {"types": {"c": "int16"}}
    if name == _FOLDER:
        (folder / "c=1").mkdir()
        (folder / "c=1" / "f.csv").write_text("n\n1\n")
        yield "c=*/f.csv", {}


@pytest.mark.parametrize("rule", files_types.TYPE_RULES, ids=lambda rule: rule.source_type)
def test_files(rule: TypeRule, tmp_path: Path) -> None:
    files = list(_files(rule, tmp_path))
    assert files, f"no file has a column of {rule.source_type}"
    for glob, more in files:
        spec = ExtractSpec.model_validate({
            "run_id": "r", "source_name": "s", "source_type": "files", "extract_table": "t",
            "connection": {"uri": str(tmp_path)}, "files": {"glob": glob} | more,
            "target": {"uri": f"{tmp_path}/target"}, "state_uri": f"{tmp_path}/state",
            "report_uri": f"{tmp_path}/report",
            "columns": {"cast": {"c": "json"}} if rule.source_type == "parquet: variant" else {},
        })  # fmt: skip
        if rule.fidelity == "refused":
            with pytest.raises(TypeNotRepresentable):
                open_source(spec).describe()
            continue
        [column] = [c for c in open_source(spec).describe().columns if c.name == "c"]
        if rule.source_type == _DECLARED:
            assert (column.arrow_type, column.fidelity) == (pa.int16(), rule.fidelity)
        else:
            assert follows_rule(column, rule), (glob, column)
