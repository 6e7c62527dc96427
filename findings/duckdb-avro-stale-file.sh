#!/bin/bash
# DuckDB 1.5.5 and its Avro extension: a local file that is read, and overwritten by one of the same size within
# the same second, is never read again: read_avro returns its old rows, also seconds later. The external file
# cache behind it seems to compare times of modification by the second; read_csv and read_json, tried in the
# same way, return the new rows, and so does read_avro with enable_external_file_cache off.
#
# Output seen:
#   read_csv: [(1,)] [(2,)]
#   read_avro: [(1,)] [(1,)]
#   read_avro, three seconds later: [(1,)]
#   read_avro, without the cache: [(2,)]
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check 'duckdb==1.5.5' 'duckdb-extension-avro==1.5.5' \
  'fastavro==1.13.1'
cd "$folder"
./v/bin/python - <<'PY'
import pathlib
import time

import duckdb
import duckdb_extension_avro
import fastavro

connection = duckdb.connect()
[extension] = pathlib.Path(duckdb_extension_avro.__path__[0]).rglob("*.duckdb_extension")
connection.execute(f"load '{extension}'")
SCHEMA = {"type": "record", "name": "r", "fields": [{"name": "x", "type": "long"}]}


def put(value):
    pathlib.Path("a.csv").write_text(f"x\n{value}\n")
    with open("a.avro", "wb") as file:
        fastavro.writer(file, SCHEMA, [{"x": value}])


def rows(call):
    return connection.sql(f"select x from {call}").fetchall()


time.sleep(1 - time.time() % 1)  # all of it happens within one second
put(1)
before = rows("read_csv('a.csv')"), rows("read_avro('a.avro')")
put(2)
after = rows("read_csv('a.csv')"), rows("read_avro('a.avro')")
time.sleep(3)
later = rows("read_avro('a.avro')")
connection.execute("set enable_external_file_cache = false")
uncached = rows("read_avro('a.avro')")
print("read_csv:", before[0], after[0])
print("read_avro:", before[1], after[1])
print("read_avro, three seconds later:", later)
print("read_avro, without the cache:", uncached)
assert (after, later, uncached) == (([(2,)], [(1,)]), [(1,)], [(2,)]), "the behaviour has changed"
PY
