#!/bin/bash
# pyiceberg 0.12.0: `Transaction.table_metadata` is a property that copies the metadata deeply each time it is
# read, with every snapshot of the table, and one append reads it some twenty times. So an append to a table
# with a long history spends nearly all of its time on copies.
#
# Output seen:
#   one append to a table of 51 snapshots copied 1175 snapshots
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check 'pyiceberg[sql-sqlite]==0.12.0' 'pyarrow==25.0.0'
cd "$folder"
"$folder/v/bin/python" - <<'PY'
import pathlib

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table.snapshots import Snapshot

folder = pathlib.Path.cwd()
catalog = SqlCatalog("c", uri=f"sqlite:///{folder}/c.db", warehouse=f"file://{folder}/w")
catalog.create_namespace("n")
rows = pa.table({"x": [1]})
table = catalog.create_table("n.t", rows.schema)
for _ in range(51):
    table.append(rows)
copies, copy = 0, Snapshot.__deepcopy__


def counted(self, memo=None):
    global copies
    copies += 1
    return copy(self, memo)


Snapshot.__deepcopy__ = counted
table.append(rows)
print(f"one append to a table of 51 snapshots copied {copies} snapshots")
assert copies > 10 * 51
PY
