"""PostgreSQL as production runs it: a primary with a hot standby, and PgBouncer in front of either.

::

    with run_nodes() as nodes:
        nodes.primary.execute("insert into t values (1)")
        nodes.catch_up()
        nodes.pause()                    # the standby stops replaying
        nodes.promote()                  # and is a primary from here on

PostgreSQL is Debian's 15, or the version in TEST_POSTGRES; PgBouncer is Debian's, unpacked by
`tests.support.debian`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from infra.local.postgres import ENVIRONMENT, installation, readable_by_all
from tests.support import debian
from tests.support.ports import free_port
from tests.support.postgres import (
    PASSWORD,
    Cluster,
    Server,
    cluster_folder,
    die_with_parent,
    servers_folder,
)

PoolMode = Literal["session", "transaction", "statement"]

NODES_VERSION = int(os.environ.get("TEST_POSTGRES", "15"))
"""Major version of primary and standby."""


def nodes_since(version: int) -> pytest.MarkDecorator:
    """Mark a test of what only later versions have."""
    return pytest.mark.skipif(version > NODES_VERSION, reason=f"PostgreSQL has it since {version}")


STANDBY_SETTINGS = {
    "wal_level": "replica",
    "max_wal_senders": "5",
    "hot_standby": "on",
    "jit": "off",
    # Commits reach the standby at once; nothing is flushed to disk.
    "synchronous_commit": "on",
    "wal_receiver_status_interval": "1s",
}
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Nodes:
    """A primary and its hot standby; both are reached with the same login."""

    primary: Server
    standby: Server

    def pause(self) -> None:
        """Stop the standby's replay until `resume`."""
        self.standby.execute("select pg_wal_replay_pause()")
        if NODES_VERSION >= 14:
            _until(self.standby, "select pg_get_wal_replay_pause_state() = 'paused'")

    def resume(self) -> None:
        """Resume the standby's replay."""
        self.standby.execute("select pg_wal_replay_resume()")

    def catch_up(self) -> None:
        """Wait until the standby has replayed all that the primary has committed."""
        with self.primary.connect() as connection:
            row = connection.execute("select pg_current_wal_lsn()::text").fetchone()
        assert row is not None
        _until(self.standby, f"select pg_last_wal_replay_lsn() >= '{row[0]}'::pg_lsn")

    def disconnect(self) -> None:
        """Stop the standby from receiving anything."""
        self.standby.execute("alter system set primary_conninfo = ''", "select pg_reload_conf()")
        _until(self.standby, "select not exists (select from pg_stat_wal_receiver)")

    def promote(self) -> None:
        """Promote the standby; the old primary continues separately."""
        self.standby.execute("select pg_promote()")
        _until(self.standby, "select not pg_is_in_recovery()")

    def on(self, database: str) -> Nodes:
        """Return the same nodes as seen from another database."""
        return Nodes(
            replace(self.primary, database=database), replace(self.standby, database=database)
        )


@contextlib.contextmanager
def run_nodes(**settings: str) -> Iterator[Nodes]:
    """Run a primary and a hot standby until the context ends; nothing of them stays behind.

    Args:
        **settings: Settings of both beyond the tests' own.
    """
    given = STANDBY_SETTINGS | settings
    with (
        cluster_folder(NODES_VERSION) as first,
        cluster_folder(NODES_VERSION) as second,
        contextlib.ExitStack() as servers,
    ):
        first.initialize()
        primary = servers.enter_context(first.serving(**given))
        copy_of(first, second)
        standby = servers.enter_context(second.serving(**given))
        yield Nodes(primary, standby)


def copy_of(primary: Cluster, standby: Cluster) -> None:
    """Create the data directory of a standby from a running primary.

    Some packages of the server lack pg_basebackup. A newer one copies older servers too.
    """
    program, environment = standby.binaries / "pg_basebackup", {"PGPASSWORD": PASSWORD}
    if not program.exists():
        newest = readable_by_all(installation(), standby.directory)
        program = newest / "bin" / program.name
        environment["LD_LIBRARY_PATH"] = ""
    standby.run(
        program, "--pgdata", standby.data, "--write-recovery-conf", "--checkpoint=fast",
        "--wal-method=stream", "--no-sync", "--host=127.0.0.1", f"--port={primary.port}",
        "--username=postgres", **environment,
    )  # fmt: skip
    # What a newer program writes down has parameters that an older server does not know.
    login = make_conninfo(host="127.0.0.1", port=primary.port, user="postgres", password=PASSWORD)
    with (standby.data / "postgresql.auto.conf").open("a", encoding="utf-8") as settings:
        quoted = login.replace("\\", "\\\\").replace("'", "''")
        settings.write(f"primary_conninfo = '{quoted}'\n")


@contextlib.contextmanager
def run_pooler(server: Server, mode: PoolMode, **settings: str) -> Iterator[Server]:
    """Run PgBouncer in front of a server until the context ends.

    Args:
        server: The server, with the login that it uses there. Callers may log in as any user, with
            ``server``'s own password.
        mode: Its pool mode.
        **settings: Settings of its section ``[pgbouncer]``, beyond the tests' own.

    Yields:
        The pooler as a server.
    """
    with servers_folder() as (directory, identity):
        root = debian.readable_root(directory)
        port = free_port()
        (directory / "users.txt").write_text(
            "".join(f'"{user}" {_quoted(server.password)}\n' for user in (server.user, "reader")),
            encoding="utf-8",
        )
        given = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(port),
            "unix_socket_dir": "",
            "pool_mode": mode,
            "auth_type": "scram-sha-256",
            "auth_file": str(directory / "users.txt"),
            "admin_users": server.user,
            "default_pool_size": "10",
            "query_wait_timeout": "60",
        } | settings
        (directory / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={server.host} port={server.port}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in given.items())
        )
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [root / "usr/sbin/pgbouncer", directory / "pgbouncer.ini"],
                stdout=log, stderr=log, env=ENVIRONMENT | debian.environment(root), cwd=directory,
                **identity, preexec_fn=die_with_parent,  # noqa: PLW1509 - one call of libc
            )  # fmt: skip
        try:
            _until_listening(port, process, directory / "log")
            yield replace(server, port=port, directory=directory)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _until_listening(port: int, process: subprocess.Popen[Any], log: Path) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")
                raise RuntimeError(f"PgBouncer did not start:\n{said}") from None
            time.sleep(0.05)


def _until(server: Server, question: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    with server.connect() as connection:
        while True:
            row = connection.execute(question.encode()).fetchone()
            if row is not None and row[0]:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"in {_WAIT_SECONDS:.0f} s it did not become true: {question}")
            time.sleep(0.02)


@pytest.fixture(scope="session")
def pg_nodes() -> Iterator[Nodes]:
    """One primary with a standby for the whole session; nobody promotes it."""
    with run_nodes() as nodes:
        yield nodes


@pytest.fixture
def nodes(pg_nodes: Nodes) -> Iterator[Nodes]:
    """A database of the test's own on the session's primary and standby, which replays."""
    name = f"test {os.urandom(6).hex()}"
    pg_nodes.primary.execute(f'create database "{name}"')
    pg_nodes.catch_up()
    yield pg_nodes.on(name)
    with contextlib.suppress(psycopg.Error):
        pg_nodes.resume()
    pg_nodes.primary.execute(f'drop database "{name}" with (force)')
