"""The emulator's process: ministack's application on 127.0.0.1.

Started by `infra.local.emulator`, which sets ministack's environment before this module imports it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

HOST = "127.0.0.1"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, or until the starter's end of the standard input closes."""
    options = _parse(arguments)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, options.port))
    listener.listen(512)
    port = listener.getsockname()[1]
    # ministack reads its port at import and hands it to what it starts.
    os.environ["GATEWAY_PORT"] = str(port)
    _write_whole(
        options.data_dir / "server.json",
        json.dumps({"pid": os.getpid(), "endpoint_url": f"http://{HOST}:{port}"}),
    )
    if not options.detached:
        threading.Thread(target=_end_with_starter, name="starter", daemon=True).start()
    asyncio.run(_serve(listener))
    # ministack leaves threads behind that wait on things; nothing of theirs is worth a wait.
    os._exit(0)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="infra.local.server")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--detached", action="store_true")
    return parser.parse_args(arguments)


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
    await serve(app, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]


def _end_with_starter() -> None:
    """Wait for the end of the standard input, then stop this server."""
    while sys.stdin.buffer.read(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or none."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main())
