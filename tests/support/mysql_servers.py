"""Real MySQL and MariaDB servers for tests: Debian's, unpacked by `tests.support.debian`, over TCP.

`mysql_database` runs a test on each of `SERVERS`. A test session starts each server at most once,
with settings that a client must not rely on. The servers run as root only if the tests do, which is
fine for throw-away servers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pymysql
import pytest

from extract_jobs.sources.mysql.driver import Connection
from tests.support import debian
from tests.support.database_server import DatabaseServer
from tests.support.memory_folder import make_folder
from tests.support.ports import free_port

PASSWORD = "p'4 ss\\w%rd\"é"
"""Each of these characters has broken a client before."""

OLDEST_MYSQL = (9, 7)
"""Debian's sid changes; its release must be at least the one that this was written for."""

_SCRIPTS = ("system_tables.sql", "performance_tables.sql", "system_tables_data.sql")
_SETTINGS = {
    "innodb-buffer-pool-size": "128M",
    "innodb-flush-log-at-trx-commit": "0",
    "innodb-flush-method": "nosync",
    "innodb-doublewrite": "0",
    "innodb-stats-auto-recalc": "0",
    "skip-log-bin": "",
    "skip-name-resolve": "",
    "performance-schema": "0",
    "character-set-server": "utf8mb4",
    # Not the default, so that a session that forgets to set its own is noticed.
    "default-time-zone": "+05:30",
    "sql-mode": "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,PAD_CHAR_TO_FULL_LENGTH",
    "lower-case-table-names": "0",
    "max-connections": "60",
    "local-infile": "0",
    "bind-address": "127.0.0.1",
}


@dataclass(frozen=True)
class Flavour:
    """One kind of server.

    Attributes:
        name: Its name in the names of tests.
        root: Its packages.
        daemon: Its program.
        client: The program of its own client.
        messages: The folder of its messages and character sets, below usr/share.
        initialize: Creates its data folder, for a `MysqlServer` with the session's settings.
        settings: Its own options.
    """

    name: str
    root: debian.Root
    daemon: str
    client: str
    messages: str
    initialize: Callable[[Flavour, Path, dict[str, str]], None]
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def is_mariadb(self) -> bool:
        """Whether it is MariaDB and not MySQL."""
        return self.daemon == "mariadbd"

    def command(self, directory: Path, settings: dict[str, str]) -> list[str]:
        """Return how to start the server in a folder."""
        flags = [f"--{name}={value}" if value else f"--{name}" for name, value in settings.items()]
        # Run as root or as anybody: the folder belongs to the caller.
        user = ["--user=root"] if os.geteuid() == 0 else []
        share = self.root.path / "usr/share" / self.messages
        return [
            *self.root.command(self.daemon), "--no-defaults", *user,
            f"--basedir={self.root.path / 'usr'}", f"--datadir={directory / 'data'}",
            f"--tmpdir={directory}", f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
            f"--plugin-dir={self.root.path / 'usr/lib/mysql/plugin'}",
            f"--pid-file={directory / 'pid'}", *flags,
        ]  # fmt: skip


@dataclass(frozen=True)
class MysqlServer(DatabaseServer):
    """One database of a running server, as tests address it."""

    scheme = "mysql"

    flavour: Flavour

    @property
    def is_mariadb(self) -> bool:
        """Whether it is MariaDB and not MySQL."""
        return self.flavour.is_mariadb

    def connect(self, **kwargs: Any) -> Connection:
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
            "init_command": f"set {_PLAIN}",
            "local_infile": False,
        }
        return Connection(**arguments | kwargs)

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
        # A name may contain a percent sign, which PyMySQL would take for a placeholder.
        statement = f"insert into {quoted(table).replace('%', '%%')} values ({marks})"
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            connection.begin()
            cursor.executemany(statement, listed)
            connection.commit()

    def client(self, statement: str) -> list[list[bytes | None]]:
        """Return what the database's own client prints, value by value, in UTC.

        The client prints NULL like the text ``NULL``: both are returned as None.
        """
        done = subprocess.run(
            [
                *self.flavour.root.command(self.flavour.client), "--no-defaults", "--batch",
                "--skip-column-names",
                "--default-character-set=utf8mb4", f"--host={self.host}", f"--port={self.port}",
                f"--user={self.user}", "--protocol=tcp", "--quick",
                f"--init-command=set {_PLAIN}, sql_mode=''", self.database,
            ],
            check=True, capture_output=True, input=statement.encode(),
            env=self.flavour.root.environment | {"MYSQL_PWD": self.password},
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


_HOSTILE = "set global sql_select_limit = 100;\n"
"""Seen on servers in production, and not available as a server option."""
_PLAIN = "time_zone = '+00:00', sql_select_limit = 18446744073709551615"
"""Settings of the tests' own sessions, where the server's default differs."""


def numbers(count: int) -> str:
    """Return a table of the numbers from 1 in a column ``seq``, for a FROM clause."""
    digits = " union all ".join(f"select {digit} as n" for digit in range(10))
    places = range(len(str(count)))
    added = " + ".join(f"{10**place} * d{place}.n" for place in places)
    tables = ", ".join(f"({digits}) as d{place}" for place in places)
    return f"(select 1 + {added} as seq from {tables} having seq <= {count}) as numbers"


@contextlib.contextmanager
def run_server(flavour: Flavour, **settings: str) -> Iterator[MysqlServer]:
    """Run a fresh server until the context ends; nothing of it stays behind.

    Args:
        flavour: The kind of server.
        **settings: Options of the server beyond the tests' own, underscores for hyphens.
    """
    directory = make_folder(f"{flavour.daemon}-")
    given = {name.replace("_", "-"): value for name, value in settings.items()}
    flags = _SETTINGS | flavour.settings | given
    kept = {k: v for k, v in flags.items() if k.startswith(("innodb", "lower"))}
    try:
        flavour.initialize(flavour, directory, kept)
        with _serving(flavour, directory, flags) as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _statements() -> list[str]:
    """Return the statements that create the tests' user and database."""
    password = PASSWORD.replace("\\", "\\\\").replace("'", "''")
    return [
        f"create user 'tester'@'%' identified by '{password}';\n",
        "grant all on *.* to 'tester'@'%' with grant option;\n",
        "create database test;\n",
    ]


def _initialize_mariadb(flavour: Flavour, directory: Path, settings: dict[str, str]) -> None:
    (directory / "data" / "mysql").mkdir(parents=True)
    share = flavour.root.path / "usr/share" / flavour.messages
    prefix = f"{flavour.messages}_"
    scripts = [f"{prefix}{name}" for name in _SCRIPTS] + ["maria_add_gis_sp_bootstrap.sql"]
    statements = [
        "create database if not exists mysql;\nuse mysql;\nset sql_mode='';\n",
        *((share / name).read_text("utf-8") for name in scripts),
        "set sql_mode='';\nflush privileges;\nset names utf8mb4;\n",
        *_statements(),
    ]
    _made(
        [*flavour.command(directory, settings), "--bootstrap", "--skip-log-bin",
         "--log-warnings=0"],
        flavour, directory, "\n".join(statements).encode(),
    )  # fmt: skip


def _initialize_mysql(flavour: Flavour, directory: Path, settings: dict[str, str]) -> None:
    first = directory / "first.sql"
    first.write_text("".join(_statements()), "utf-8")
    command = flavour.command(directory, settings)
    _made([*command, "--initialize-insecure", f"--init-file={first}"], flavour, directory)


def _made(command: list[str], flavour: Flavour, directory: Path, given: bytes = b"") -> None:
    done = subprocess.run(
        command, input=given, capture_output=True, env=flavour.root.environment, cwd=directory,
        check=False,
    )  # fmt: skip
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise RuntimeError(f"the data folder of {flavour.name} could not be made:\n{said[-3000:]}")


MARIADB = Flavour(
    "mariadb", debian.SYSTEM, "mariadbd", "mariadb", "mysql", _initialize_mariadb,
    {"collation-server": "utf8mb4_general_ci", "innodb-log-file-size": "64M"},
)  # fmt: skip
"""MariaDB 10.11, as the system's Debian has it."""
LATER_MARIADB = Flavour(
    "mariadb-later", debian.MARIADB, "mariadbd", "mariadb", "mariadb", _initialize_mariadb,
    {"innodb-log-file-size": "64M"},
)  # fmt: skip
"""MariaDB 11.8 or later, with the collation that it has by default."""
MYSQL = Flavour(
    "mysql", debian.MYSQL, "mysqld", "mysql", "mysql", _initialize_mysql,
    {"innodb-redo-log-capacity": "64M", "mysqlx": "OFF", "secure-file-priv": "NULL"},
)  # fmt: skip
"""MySQL 9.7 or later, with the collation that it has by default."""
SERVERS = {flavour.name: flavour for flavour in (MYSQL, MARIADB)}
"""What the whole suite runs on."""
FLAVOURS = SERVERS | {LATER_MARIADB.name: LATER_MARIADB}
"""What there is."""


@contextlib.contextmanager
def _serving(flavour: Flavour, directory: Path, settings: dict[str, str]) -> Iterator[MysqlServer]:
    port = free_port()
    (directory / "hostile.sql").write_text(_HOSTILE)
    own = {"port": str(port), "socket": str(directory / "socket")}
    flags = settings | own | {"init-file": str(directory / "hostile.sql")}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            flavour.command(directory, flags), stdout=log, stderr=log, cwd=directory,
            env=flavour.root.environment,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one call of libc, no locks
        )  # fmt: skip
    server = MysqlServer("127.0.0.1", port, "tester", PASSWORD, "test", directory, flavour)
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
    """Let the kernel stop the server if the tests' process is killed, which runs no clean-up."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_until_ready(server: MysqlServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            server.connect(connect_timeout=5).close()
            return
        except pymysql.OperationalError as error:
            if process.poll() is not None or error.args[0] == 1045 or time.monotonic() > deadline:
                text = (server.directory / "log").read_text(errors="replace")
                name = server.flavour.name
                raise RuntimeError(f"{name} did not start:\n{text[-3000:]}") from None
            time.sleep(0.05)


@pytest.fixture(scope="session")
def mysql_servers() -> Iterator[Callable[[str], MysqlServer]]:
    """Return servers by their flavour's name; each is started once per session, on first use."""
    started: dict[str, MysqlServer] = {}
    with contextlib.ExitStack() as running:

        def give(name: str) -> MysqlServer:
            if name not in started:
                server = running.enter_context(run_server(FLAVOURS[name]))
                _check_version(server)
                started[name] = server
            return started[name]

        yield give


def _check_version(server: MysqlServer) -> None:
    [[version]] = server.rows("select version()")
    found = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if not server.is_mariadb and found < OLDEST_MYSQL:
        raise RuntimeError(f"Debian has MySQL {version}, which is older than {OLDEST_MYSQL}")


@contextlib.contextmanager
def database_of(server: MysqlServer) -> Iterator[MysqlServer]:
    """Create a database, dropped afterwards."""
    name = f"test {uuid4().hex[:12]}"
    server.execute(f"create database `{name}`")
    yield replace(server, database=name)
    server.execute(f"drop database `{name}`")


@pytest.fixture(params=SERVERS)
def mysql_database(
    mysql_servers: Callable[[str], MysqlServer], request: pytest.FixtureRequest
) -> Iterator[MysqlServer]:
    """The test's own database on each of `SERVERS`."""
    with database_of(mysql_servers(request.param)) as server:
        yield server


@pytest.fixture
def mariadb_database(mysql_servers: Callable[[str], MysqlServer]) -> Iterator[MysqlServer]:
    """The test's own database on MariaDB, if one server is enough."""
    with database_of(mysql_servers("mariadb")) as server:
        yield server
