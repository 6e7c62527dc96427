"""The emulator's process: ministack's application on 127.0.0.1.

Started by `infra.local.emulator`, which sets ministack's environment before this module imports it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from extract_jobs.spark.java import bundled_java_home
from infra.local.emulator import aws_environment, session_members
from infra.local.prepared import Prepared
from infra.local.workers import DEFAULT_WORKERS, Workers

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, or until the process that started it closes the standard input."""
    options = _parse(arguments)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, options.port))
    listener.listen(512)
    port = listener.getsockname()[1]
    # ministack reads its port at import and passes it to what it starts.
    os.environ["GATEWAY_PORT"] = str(port)
    url = f"http://{HOST}:{port}"
    _write_whole(
        options.data_dir / "server.json",
        json.dumps({"pid": os.getpid(), "endpoint_url": url}),
    )
    if not options.detached:
        threading.Thread(target=_end_with_starter, name="starter", daemon=True).start()
    workers = _workers(options, url)
    if options.pipeline:
        _register(workers, options.stub, options.data_dir / "faults.json")
    if os.environ.get("AUTH") == "true":
        from infra.local.permissions import note_calls

        note_calls(options.data_dir / "calls.jsonl")
    asyncio.run(_serve(listener))
    workers.stop()
    _end_session()
    # ministack leaves waiting threads behind; none of them is worth waiting for.
    os._exit(0)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="infra.local.server")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--detached", action="store_true")
    parser.add_argument("--pipeline", action="store_true", help="run Glue, EMR and ECS jobs")
    parser.add_argument("--workers", type=int, default=DEFAULT_WORKERS, help="at once")
    parser.add_argument("--stub", type=shlex.split, help="a command in place of the entrypoints")
    return parser.parse_args(arguments)


def _workers(options: argparse.Namespace, url: str) -> Workers:
    """Return the runner of worker processes, pointed at this emulator."""
    scripts = str(Path(sys.executable).parent)
    environment = dict(os.environ) | aws_environment(url)
    environment |= {
        "PATH": f"{scripts}{os.pathsep}{environment.get('PATH', os.defpath)}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "JAVA_HOME": str(bundled_java_home()),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": HOST,
        "SPARK_LOCAL_DIRS": str(options.data_dir / "tmp"),
        # Otherwise the launcher's JVM would leave a folder in /tmp.
        "SPARK_LAUNCHER_OPTS": "-XX:-UsePerfData",
    }
    directory = options.data_dir / "tmp"
    runs_entrypoints = options.pipeline and not options.stub
    return Workers(
        options.data_dir / "logs",
        environment,
        directory,
        options.workers,
        Prepared(environment, directory) if runs_entrypoints else None,
    )


def _register(workers: Workers, stub: list[str] | None, faults: Path) -> None:
    """Make the emulator's state machines behave as AWS's and run real jobs."""
    from infra.local.faults import inject
    from infra.local.interpreter import correct_interpreter
    from infra.local.jobs import Jobs

    correct_interpreter()
    inject(faults)
    Jobs(workers, tuple(stub) if stub else None).register()


def _end_session() -> None:
    """Kill what is left of this server's session: processes that left their parent's group."""
    if os.getsid(0) != os.getpid():
        return
    for process in session_members(os.getpid()):
        if process.pid != os.getpid():
            process.kill()


async def _serve(listener: socket.socket) -> None:
    """Serve ministack on an open socket until SIGTERM or SIGINT."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.keep_alive_timeout = 75
    config.loglevel = "WARNING"
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    config.graceful_timeout = 1
    config.shutdown_timeout = 2
    await serve(app, config, shutdown_trigger=stop.wait)


def _end_with_starter() -> None:
    """Wait for the end of the standard input, then stop this server."""
    while sys.stdin.buffer.read(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees either all of it or nothing."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main())
