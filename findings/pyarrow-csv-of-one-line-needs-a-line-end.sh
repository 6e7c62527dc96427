#!/bin/bash
# pyarrow 25.0.1: pyarrow.csv.read_csv takes a file of one line without a line end for an empty file
# if it has to find the columns itself. A header alone is refused, and so is the only row of a file
# with autogenerate_column_names=True; with a line end, or with column_names given, both are read.
#
# Output seen:
#   'a,b\n': 0 rows, 2 columns
#   'a,b': CSV parse error: Empty CSV file or block: cannot infer number of columns
#   '1,2\n' autogenerate_column_names: 1 rows, 2 columns
#   '1,2' autogenerate_column_names: CSV parse error: Empty CSV file or block: cannot infer number of columns
#   '1,2' column_names: 1 rows, 2 columns
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check 'pyarrow==25.0.1'
"$folder/v/bin/python" - <<'PY'
import pyarrow as pa
from pyarrow import csv

cases = [
    (b"a,b\n", {}),
    (b"a,b", {}),
    (b"1,2\n", {"autogenerate_column_names": True}),
    (b"1,2", {"autogenerate_column_names": True}),
    (b"1,2", {"column_names": ["x", "y"]}),
]
found = []
for text, options in cases:
    try:
        table = csv.read_csv(pa.BufferReader(text), read_options=csv.ReadOptions(**options))
        found.append(f"{table.num_rows} rows, {table.num_columns} columns")
    except pa.ArrowInvalid as error:
        found.append(str(error))
    print(" ".join([repr(text.decode()), *options]) + f": {found[-1]}")
refused = "CSV parse error: Empty CSV file or block: cannot infer number of columns"
expected = ["0 rows, 2 columns", refused, "1 rows, 2 columns", refused, "1 rows, 2 columns"]
raise SystemExit(found != expected)
PY
