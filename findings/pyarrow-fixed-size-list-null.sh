#!/bin/bash
# pyarrow 25.0.1: a fixed-size list that is NULL is written to Parquet, read by DuckDB, and not read by
# pyarrow itself: ArrowInvalid, "Expected all lists to be of size=2 but index 2 had size=0". The file is
# whole: written with store_schema=False, which leaves only the hint at the list's size out, it reads back.
#
# Output seen:
#   pyarrow, own schema stored: ArrowInvalid
#   pyarrow, store_schema=False: [[1, 2], None, [3, 4]]
#   DuckDB: [[1, 2], None, [3, 4]]
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check 'pyarrow==25.0.1' 'duckdb==1.5.5'
cd "$folder"
./v/bin/python - <<'PY'
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

values = [[1, 2], None, [3, 4]]
table = pa.table({"c": pa.array(values, pa.list_(pa.int32(), 2))})


def read():
    try:
        return pq.read_table("a.parquet").column("c").to_pylist()
    except pa.ArrowInvalid as error:
        assert "Expected all lists to be of size" in str(error), error
        return type(error).__name__


pq.write_table(table, "a.parquet")
own = read()
print("pyarrow, own schema stored:", own)
others = [list(c) if c is not None else None for (c,) in duckdb.sql("from 'a.parquet'").fetchall()]
pq.write_table(table, "a.parquet", store_schema=False)
plain = read()
print("pyarrow, store_schema=False:", plain)
print("DuckDB:", others)
assert (own, plain, others) == ("ArrowInvalid", values, values), "the behaviour has changed"
PY
