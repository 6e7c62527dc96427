"""Starts and stops an AWS emulator (ministack) in its own process, on 127.0.0.1 only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

REGION = "us-east-1"
START_SECONDS = 30.0
STOP_SECONDS = 10.0

# What a server inherits from the process that starts it. Everything else (proxies, AWS profiles and
# endpoints, another emulator's settings) would change where its calls go or what it writes.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "SYSTEMROOT")


class EmulatorFailed(RuntimeError):
    """The emulator did not start; the message ends with its last log lines."""


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running emulator; a context manager that stops it.

    Attributes:
        endpoint_url: ``http://127.0.0.1:<port>``.
        data_dir: Where it writes its log, its workers' logs and its temporary files.
        pid: Its process, which leads a session with every process that it starts.
        process: The child, or None if another process started it.
    """

    endpoint_url: str
    data_dir: Path
    pid: int
    process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        """Return the variables that point an AWS SDK at the emulator."""
        return aws_environment(self.endpoint_url)

    def stop(self) -> None:
        """End the emulator and every process that it started; a second call does nothing."""
        stop_session(self.pid)
        if self.process is not None:
            if self.process.stdin is not None:
                self.process.stdin.close()
            self.process.wait()

    def __enter__(self) -> Self:
        """Return the emulator itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the emulator."""
        self.stop()


def aws_environment(endpoint_url: str) -> dict[str, str]:
    """Return the variables that point an AWS SDK at ``endpoint_url`` with test credentials."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def start_emulator(
    data_dir: Path,
    *,
    port: int = 0,
    detached: bool = False,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Emulator:
    """Start ministack and wait until it answers.

    It listens on 127.0.0.1 only, keeps its state in memory and writes only below ``data_dir``,
    except for bytecode of its imports. It ends when this process ends, however that happens, unless
    it is ``detached``.

    Args:
        data_dir: Created if missing; `server.log` and `tmp` in it are the emulator's.
        port: Port to listen on; 0 takes a free port.
        detached: Let it outlive this process; `Emulator.stop` or `stop_session` ends it.
        options: Further arguments of ``python -m infra.local.server``.
        environment: Further variables of the server, and so of the workers that it starts.

    Returns:
        The running emulator.

    Raises:
        EmulatorFailed: It ended, or did not answer within `START_SECONDS`.
    """
    data_dir = data_dir.resolve()
    (data_dir / "tmp").mkdir(parents=True, exist_ok=True)
    ready = data_dir / "server.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "infra.local.server", str(data_dir), "--port", str(port)]
    command += ["--detached"] if detached else []
    with (data_dir / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, *options],
            cwd=Path(__file__).parents[2],
            env=_server_environment(data_dir) | dict(environment or {}),
            # The server reads this pipe: its end of file means that this process is gone.
            stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        url = _wait_until_ready(process, ready)
    except BaseException:
        Emulator("", data_dir, process.pid, process).stop()
        raise
    return Emulator(url, data_dir, process.pid, process)


def stop_session(leader: int, *, seconds: float = STOP_SECONDS) -> None:
    """End a server and every process of its session: SIGTERM first, SIGKILL after ``seconds``.

    Worker groups leave the server's process group (Spark's Python daemons do), but not its session.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(leader, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    members = session_members(leader)
    # The server ends its own; nobody waits for what outlives it.
    while any(member.pid == leader for member in members) and time.monotonic() < deadline:
        psutil.wait_procs(members, timeout=0.1)
        members = session_members(leader)
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(members, timeout=seconds)


def session_members(leader: int) -> list[psutil.Process]:
    """Return the living processes of the session that ``leader`` leads, itself included."""
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return members


def _server_environment(data_dir: Path) -> dict[str, str]:
    """Return the server's whole environment: inherited basics and ministack's settings."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    temporary = str(data_dir / "tmp")
    return inherited | {
        "TMPDIR": temporary,
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "LAMBDA_EXECUTOR": "local",
        "PERSIST_STATE": "0",
        "STATE_DIR": f"{temporary}/state",
        "S3_PERSIST": "0",
        "S3_DATA_DIR": f"{temporary}/s3",
        "LOG_LEVEL": "WARNING",
        # Its other listeners, and the containers that it would search for and remove.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": f"unix://{temporary}/no-docker.sock",
    }


def _wait_until_ready(process: subprocess.Popen[bytes], ready: Path) -> str:
    """Return the URL that the server wrote to ``ready``, once its health page answers there."""
    deadline = time.monotonic() + START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EmulatorFailed(
                f"the emulator ended with code {process.returncode} instead of starting\n"
                f"{_tail(ready.with_name('server.log'))}"
            )
        if ready.exists():
            url = str(json.loads(ready.read_text())["endpoint_url"])
            try:
                with opener.open(f"{url}/_ministack/health", timeout=2):
                    return url
            except OSError:
                pass
        time.sleep(0.02)
    raise EmulatorFailed(
        f"the emulator did not answer within {START_SECONDS:.0f} s\n"
        f"{_tail(ready.with_name('server.log'))}"
    )


def _tail(log: Path, lines: int = 20) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
