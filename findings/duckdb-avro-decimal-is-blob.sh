#!/bin/bash
# DuckDB 1.5.5 and its Avro extension: a decimal that is stored as bytes, which is what most writers make of
# one, comes as the BLOB of its digits without a word; the same decimal stored as fixed comes as DECIMAL. A
# timestamp-micros, which is an instant, comes as TIMESTAMP without a zone, and local-timestamp-millis as the
# same type, so that the two cannot be told apart; local-timestamp-micros is refused.
#
# Output seen:
#   decimal, bytes: BLOB b'\x00\x96'
#   decimal, fixed: DECIMAL(9,2) 1.50
#   timestamp-micros: TIMESTAMP 2024-01-01 00:00:00
#   local-timestamp-millis: TIMESTAMP 2024-01-01 00:00:00
#   local-timestamp-micros: NotImplementedException
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check 'duckdb==1.5.5' 'duckdb-extension-avro==1.5.5' \
  'fastavro==1.13.1'
cd "$folder"
./v/bin/python - <<'PY'
import datetime
import decimal
import pathlib

import duckdb
import duckdb_extension_avro
import fastavro

connection = duckdb.connect()
[extension] = pathlib.Path(duckdb_extension_avro.__path__[0]).rglob("*.duckdb_extension")
connection.execute(f"load '{extension}'")
DECIMAL = {"logicalType": "decimal", "precision": 9, "scale": 2}
CASES = {
    "decimal, bytes": ({"type": "bytes", **DECIMAL}, decimal.Decimal("1.50")),
    "decimal, fixed": ({"type": "fixed", "name": "f", "size": 4, **DECIMAL}, decimal.Decimal("1.50")),
    **{
        name: ({"type": "long", "logicalType": name}, datetime.datetime(2024, 1, 1, tzinfo=zone))
        for name, zone in (
            ("timestamp-micros", datetime.timezone.utc),
            ("local-timestamp-millis", None),
            ("local-timestamp-micros", None),
        )
    },
}
found = {}
for number, (name, (kind, value)) in enumerate(CASES.items()):
    schema = {"type": "record", "name": "r", "fields": [{"name": "x", "type": kind}]}
    with open(f"{number}.avro", "wb") as file:
        fastavro.writer(file, fastavro.parse_schema(schema), [{"x": value}])
    try:
        [row] = connection.sql(f"select typeof(x), x from read_avro('{number}.avro')").fetchall()
        found[name] = f"{row[0]} {row[1]}"
    except duckdb.Error as error:
        found[name] = type(error).__name__
    print(f"{name}: {found[name]}")
assert list(found.values()) == [
    r"BLOB b'\x00\x96'", "DECIMAL(9,2) 1.50", "TIMESTAMP 2024-01-01 00:00:00",
    "TIMESTAMP 2024-01-01 00:00:00", "NotImplementedException",
], "the behaviour has changed"
PY
