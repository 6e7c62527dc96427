#!/bin/bash
# PyMySQL 1.2.4, asked for nothing about TLS, encrypts where the server can and verifies nobody. It
# still loads the system's certificate authorities for every connection, before it connects: with a
# usual bundle some 70 ms of CPU each, more than logging in. A context of one's own, made once, or
# ssl_disabled=True avoids it.
#
# Output seen:
#   3 connections: authorities loaded 3 times, verification CERT_NONE
#   3 connections without TLS: authorities loaded 0 times
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check 'PyMySQL==1.2.4'
"$folder/v/bin/python" - <<'PY'
import ssl

import pymysql

loaded = []
load = ssl.SSLContext.load_default_certs


def counted(self, *arguments):
    loaded.append(self)
    return load(self, *arguments)


ssl.SSLContext.load_default_certs = counted
made = [pymysql.Connection(host="localhost", user="u", defer_connect=True) for _ in range(3)]
modes = {connection.ctx.verify_mode.name for connection in made}
print(f"3 connections: authorities loaded {len(loaded)} times, verification {', '.join(modes)}")
first = len(loaded)
for _ in range(3):
    pymysql.Connection(host="localhost", user="u", defer_connect=True, ssl_disabled=True)
second = len(loaded) - first
print(f"3 connections without TLS: authorities loaded {second} times")
raise SystemExit((first, modes, second) != (3, {"CERT_NONE"}, 0))
PY
