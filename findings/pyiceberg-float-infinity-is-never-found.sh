#!/bin/bash
# pyiceberg 0.12.0 with pyarrow 25.0.0: a filter that compares a column of type float with infinity finds
# no row, although `x > 0` returns the infinite ones. The same filters on a column of type double find
# them. Nothing is raised.
#
# Output seen:
#   float:  x = inf [], x >= inf [], x = -inf [], x > 0 [inf, 1.0]
#   double: x = inf [inf], x >= inf [inf], x = -inf [-inf], x > 0 [inf, 1.0]
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check 'pyiceberg[sql-sqlite]==0.12.0' 'pyarrow==25.0.0'
cd "$folder"
"$folder/v/bin/python" - <<'PY'
import math
import pathlib

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import EqualTo, GreaterThan, GreaterThanOrEqual

INFINITE = {
    "x = inf": EqualTo("x", math.inf),
    "x >= inf": GreaterThanOrEqual("x", math.inf),
    "x = -inf": EqualTo("x", -math.inf),
}
folder = pathlib.Path.cwd()
catalog = SqlCatalog("c", uri=f"sqlite:///{folder}/c.db", warehouse=f"file://{folder}/w")
catalog.create_namespace("n")
results = {}
for kind, name in ((pa.float32(), "float"), (pa.float64(), "double")):
    rows = pa.table({"x": pa.array([math.inf, 1.0, -math.inf], kind)})
    table = catalog.create_table(f"n.{name}", rows.schema)
    table.append(rows)
    filters = INFINITE | {"x > 0": GreaterThan("x", 0.0)}
    found = {text: table.scan(row_filter=one).to_arrow()["x"].to_pylist() for text, one in filters.items()}
    print(f"{name + ':':7}", ", ".join(f"{text} {values}" for text, values in found.items()))
    assert found["x > 0"] == [math.inf, 1.0]
    results[name] = [found[text] for text in INFINITE]
assert results == {"float": [[], [], []], "double": [[math.inf], [math.inf], [-math.inf]]}
PY
