"""Ctrl-C in the middle of a call to storage that does not answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.crash import bucket_of
from tests.support.emulators import AnyEmulator
from tests.support.fault_proxy import FaultProxy, Request
from tests.support.postgres import Server

ROOT = Path(__file__).parents[2]
CONFIG = """\
version: 1
source: {{name: shop, type: postgres, connection: {{url: "{url}", password_env: SHOP_PASSWORD}}}}
defaults: {{target: {{uri: "{lake}/raw/{{table}}"}}, state_uri: "{lake}/_extract"}}
tables: {{customers: }}
"""


def is_commit(request: Request) -> bool:
    return request.operation == "PutObject" and "/reports/" not in request.path


def is_report(request: Request) -> bool:
    return request.operation == "PutObject" and "/reports/" in request.path


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def proxy(ministack: AnyEmulator) -> Iterator[FaultProxy]:
    with FaultProxy(ministack.endpoint_url) as proxy:
        yield proxy


@contextmanager
def held_at_the_commit(
    proxy: FaultProxy, server: Server, ministack: AnyEmulator, folder: Path
) -> Iterator[subprocess.Popen[str]]:
    """Run the command until it waits for the answer to its commit."""
    server.execute("create table customers as select g as id from generate_series(1, 10) g")
    lake = bucket_of(ministack, f"stop-{uuid.uuid4().hex[:8]}")
    (folder / "shop.yml").write_text(CONFIG.format(url=server.url, lake=lake))
    proxy.fail(1, "hold", only=is_commit)
    environment = {
        **os.environ, **proxy.environment(), "PYTHONPATH": str(ROOT),
        "SHOP_PASSWORD": server.password,
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "extract_jobs.cli", "run", "shop.yml"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            wait_until(lambda: any(map(is_commit, proxy.requests)) or process.poll() is not None)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_call_is_heard_and_the_call_not_made_again(
    proxy: FaultProxy, pg_database: Server, ministack: AnyEmulator, tmp_path: Path, number: int
) -> None:
    with held_at_the_commit(proxy, pg_database, ministack, tmp_path) as process:
        asked = len(proxy.requests)
        process.send_signal(number)
        started = time.monotonic()
        _, stderr = process.communicate(timeout=40)
    assert time.monotonic() - started < 5
    assert process.returncode == 75, stderr
    by = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert (
        stderr.splitlines()[-1]
        == f"Interrupted: stopped by {by}; staged files are dropped unless a commit names them"
    )
    # The report is left, and read for what is shown.
    later = proxy.requests[asked:]
    assert [r.operation for r in later if "/reports/" not in r.path] == []
    assert any(map(is_report, later))


def test_a_second_ctrl_c_kills(
    proxy: FaultProxy, pg_database: Server, ministack: AnyEmulator, tmp_path: Path
) -> None:
    proxy.fail(1, "hold", only=is_report)
    with held_at_the_commit(proxy, pg_database, ministack, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        wait_until(lambda: any(map(is_report, proxy.requests)) or process.poll() is not None)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
