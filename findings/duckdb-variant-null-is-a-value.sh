#!/bin/bash
# DuckDB 1.5.5: a VARIANT column in which v IS NULL is written to Parquet without a NULL. The row gets a
# value, the VARIANT null (one byte, 00), so every other reader counts it as there: Arrow's null count is 0,
# Spark 4.1 says `v is null` is false. DuckDB itself reads both as NULL, so a NULL and a JSON null that it
# reads from others cannot be told apart in it either.
#
# Output seen:
#   DuckDB, before and after: [(1, False), (2, True)] [(1, False), (2, True)]
#   pyarrow: 0 NULL, [None, b'\x00']
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check 'pyarrow==25.0.1' 'duckdb==1.5.5'
cd "$folder"
./v/bin/python - <<'PY'
import duckdb
import pyarrow.parquet as pq

duckdb.sql("create table t as select 1 as id, 42::variant as v union all select 2, null::variant")
duckdb.sql("copy (from t order by id) to 'a.parquet'")
asked = "select id, v is null from {} order by id"
before, after = (duckdb.sql(asked.format(name)).fetchall() for name in ("t", "'a.parquet'"))
print("DuckDB, before and after:", before, after)
column = pq.read_table("a.parquet").column("v")
values = [value["value"] for value in column.to_pylist()]
print(f"pyarrow: {column.null_count} NULL, {values}")
assert before == after == [(1, False), (2, True)], "the behaviour has changed"
assert (column.null_count, values) == (0, [None, b"\0"]), "the behaviour has changed"
PY
