"""A real MariaDB server for tests: Debian's, unpacked by `tests.support.debian`, over TCP.

The data folder is made once a session, by the server itself (``--bootstrap``) from Debian's own
scripts. ``mariadbd`` runs as root only where it is told to, which a throw-away server may be.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pymysql
import pytest

from tests.support.debian import ROOT, environment, program
from tests.support.ports import free_port

PASSWORD = "p'4 ss\\w%rd\"é"
"""Every character here has broken a client once."""

_SCRIPTS = ("mysql_system_tables.sql", "mysql_performance_tables.sql",
            "mysql_system_tables_data.sql", "maria_add_gis_sp_bootstrap.sql")  # fmt: skip
_SETTINGS = {
    "innodb-buffer-pool-size": "128M",
    "innodb-log-file-size": "64M",
    "innodb-flush-log-at-trx-commit": "0",
    "innodb-flush-method": "nosync",
    "innodb-doublewrite": "0",
    "innodb-stats-auto-recalc": "0",
    "skip-log-bin": "",
    "skip-name-resolve": "",
    "performance-schema": "0",
    "character-set-server": "utf8mb4",
    "collation-server": "utf8mb4_general_ci",
    # Not the default, so that a session that forgets to set its own is noticed.
    "default-time-zone": "+05:30",
    "sql-mode": "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,PAD_CHAR_TO_FULL_LENGTH",
    "lower-case-table-names": "0",
    "max-connections": "60",
    "local-infile": "0",
    "bind-address": "127.0.0.1",
}


@dataclass(frozen=True)
class MariaServer:
    """One database of a running server, as tests address it."""

    host: str
    port: int
    user: str
    password: str
    database: str
    directory: Path

    @property
    def url(self) -> str:
        """The database's URL without its password."""
        return f"mysql://{quote(self.user)}@{self.host}:{self.port}/{quote(self.database)}"

    @property
    def uri(self) -> str:
        """The database's URL with its password."""
        return self.url.replace("@", f":{quote(self.password, safe='')}@", 1)

    def connect(self, **kwargs: Any) -> pymysql.Connection[Any]:
        """Open an autocommitting connection in UTC, with a lenient ``sql_mode``."""
        arguments: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            # Text would be sent in Latin-1.
            "password": self.password.encode(),
            "database": self.database,
            "charset": "utf8mb4",
            "autocommit": True,
            "sql_mode": "ALLOW_INVALID_DATES",
            "init_command": "set time_zone = '+00:00'",
            "local_infile": False,
        }
        return pymysql.connect(**arguments | kwargs)

    def execute(self, *statements: str) -> None:
        """Run statements, each on its own, in one session."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def rows(self, statement: str) -> Sequence[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def insert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows to a table, in one transaction."""
        listed = list(rows)
        if not listed:
            return
        marks = ", ".join(["%s"] * len(listed[0]))
        # A name may hold a percent sign, which PyMySQL would take for a mark.
        statement = f"insert into {quoted(table).replace('%', '%%')} values ({marks})"
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            connection.begin()
            cursor.executemany(statement, listed)
            connection.commit()

    def client(self, statement: str) -> list[list[bytes | None]]:
        """Return what the database's own client prints, value by value, in UTC.

        The client prints NULL as it prints the text ``NULL``: either comes out as None.
        """
        done = subprocess.run(
            [
                program("mariadb"), "--no-defaults", "--batch", "--skip-column-names",
                "--default-character-set=utf8mb4", f"--host={self.host}", f"--port={self.port}",
                f"--user={self.user}", "--protocol=tcp", "--quick",
                "--init-command=set time_zone='+00:00', sql_mode=''", self.database,
            ],
            check=True, capture_output=True, input=statement.encode(),
            env=environment() | {"MYSQL_PWD": self.password},
        )  # fmt: skip
        lines = done.stdout.split(b"\n")[:-1]
        return [[_unescape(field) for field in line.split(b"\t")] for line in lines]


def _unescape(field: bytes) -> bytes | None:
    if field == b"NULL":
        return None
    shown = {b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}
    return re.sub(rb"\\([nt0\\])", lambda found: shown[found[1]], field)


def quoted(name: str) -> str:
    """Quote an identifier."""
    return "`" + name.replace("`", "``") + "`"


@contextlib.contextmanager
def run_server(**settings: str) -> Iterator[MariaServer]:
    """Run a fresh server until the context ends; nothing of it stays behind.

    Args:
        **settings: Options of mariadbd beyond the tests' own, underscores for hyphens.
    """
    directory = Path(tempfile.mkdtemp(prefix="mariadb-", dir="/tmp"))
    given = {name.replace("_", "-"): value for name, value in settings.items()}
    try:
        _initialize(directory, given)
        with _serving(directory, given) as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _command(directory: Path, settings: dict[str, str]) -> list[str]:
    flags = [f"--{name}={value}" if value else f"--{name}" for name, value in settings.items()]
    # Run as root or as anybody: the folder is the caller's own.
    user = ["--user=root"] if os.geteuid() == 0 else []
    return [
        str(program("mariadbd")), "--no-defaults", *user, f"--datadir={directory / 'data'}",
        f"--tmpdir={directory}", f"--lc-messages-dir={ROOT / 'usr/share/mysql'}",
        f"--character-sets-dir={ROOT / 'usr/share/mysql/charsets'}",
        f"--plugin-dir={ROOT / 'usr/lib/mysql/plugin'}",
        f"--pid-file={directory / 'pid'}", *flags,
    ]  # fmt: skip


def _initialize(directory: Path, settings: dict[str, str]) -> None:
    (directory / "data" / "mysql").mkdir(parents=True)
    scripts = [(ROOT / "usr/share/mysql" / name).read_text("utf-8") for name in _SCRIPTS]
    password = PASSWORD.replace("\\", "\\\\").replace("'", "''")
    statements = [
        "create database if not exists mysql;\nuse mysql;\nset sql_mode='';\n",
        *scripts,
        "set sql_mode='';\nflush privileges;\n",
        f"set names utf8mb4;\ncreate user 'tester'@'%' identified by '{password}';\n",
        "grant all on *.* to 'tester'@'%' with grant option;\n",
        "create database test;\n",
    ]
    kept = {k: v for k, v in (_SETTINGS | settings).items() if k.startswith(("innodb", "lower"))}
    done = subprocess.run(
        [*_command(directory, kept), "--bootstrap", "--skip-log-bin", "--log-warnings=0"],
        input="\n".join(statements).encode(), capture_output=True, env=environment(),
        cwd=directory, check=False,
    )  # fmt: skip
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise RuntimeError(f"MariaDB's data folder could not be made:\n{said[-3000:]}")


@contextlib.contextmanager
def _serving(directory: Path, settings: dict[str, str]) -> Iterator[MariaServer]:
    port = free_port()
    flags = _SETTINGS | {"port": str(port), "socket": str(directory / "socket")} | settings
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            _command(directory, flags), stdout=log, stderr=log, env=environment(), cwd=directory,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one call of libc, no locks
        )  # fmt: skip
    server = MariaServer("127.0.0.1", port, "tester", PASSWORD, "test", directory)
    try:
        _wait_until_ready(server, process)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Let the kernel stop the server when the tests' process is killed, which runs no clean-up."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_until_ready(server: MariaServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            server.connect(connect_timeout=5).close()
            return
        except pymysql.OperationalError as error:
            if process.poll() is not None or error.args[0] == 1045 or time.monotonic() > deadline:
                text = (server.directory / "log").read_text(errors="replace")
                raise RuntimeError(f"MariaDB did not start:\n{text[-3000:]}") from None
            time.sleep(0.05)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaServer]:
    """One server for the whole test session."""
    with run_server() as server:
        yield server


@pytest.fixture
def mariadb_database(mariadb: MariaServer) -> Iterator[MariaServer]:
    """A database of its own for the test, dropped afterwards."""
    name = f"test {uuid4().hex[:12]}"
    mariadb.execute(f"create database `{name}`")
    yield replace(mariadb, database=name)
    mariadb.execute(f"drop database `{name}`")
