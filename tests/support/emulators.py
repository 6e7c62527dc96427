"""AWS emulators for tests: ministack, which the laptop pipeline runs on, and moto, the second one.

Both listen only on 127.0.0.1, keep everything in memory, and end with the test process, however
that ends. Nothing is set in this process's environment: see `use`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pytest

from infra.local.emulator import Emulator, aws_environment, start_emulator

# One thread: moto looks for an object and then writes it, and only in one thread can two such
# conditional writes be distinguished. The server ends when its standard input does, which the
# operating system closes for a test process that was killed.
_MOTO = """
import os, sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from moto.server import MotoRequestHandler

def end():
    sys.stdin.buffer.read()
    os._exit(0)

threading.Thread(target=end, daemon=True).start()
app = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, app, threaded=False, request_handler=MotoRequestHandler)
print(server.server_port, flush=True)
server.serve_forever()
"""


class AnyEmulator(Protocol):
    """What tests need from an emulator."""

    @property
    def endpoint_url(self) -> str:
        """``http://127.0.0.1:<port>``."""

    def environment(self) -> dict[str, str]:
        """Return the variables that point an AWS SDK at it."""


@dataclass(frozen=True)
class MotoServer:
    """A running moto server."""

    endpoint_url: str

    def environment(self) -> dict[str, str]:
        """Return the variables that point an AWS SDK at it."""
        return aws_environment(self.endpoint_url)


def use(emulator: AnyEmulator, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    """Point this process at an emulator, until the test ends.

    Args:
        emulator: The emulator.
        monkeypatch: The test's.
        more: Further variables, such as ``AWS_MAX_ATTEMPTS="2"``.
    """
    set_environment({**emulator.environment(), **more}, monkeypatch)


def set_environment(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Set variables of this process until the test ends."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A ministack server of this test session."""
    with start_emulator(tmp_path_factory.mktemp("ministack")) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    """A moto server of this test session."""
    log = tmp_path_factory.mktemp("moto") / "server.log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", _MOTO],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip().decode()
            assert port, f"moto did not start: {log.read_text()}"
            yield MotoServer(f"http://127.0.0.1:{port}")
        finally:
            process.kill()
