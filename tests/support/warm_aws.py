"""The AWS CLI, imported once: a command ``aws`` whose calls fork from a prepared process.

A call of the CLI spends its first second on imports, and a deployment makes twenty calls. Here the
CLI's own Python (`_SERVER`) imports it and forks for each call; the command sends its arguments,
environment, folder and standard streams, and ends with the exit code that it receives.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SERVER = """
import json, os, select, signal, socket, sys, traceback
import awscli.clidriver

awscli.clidriver.create_clidriver()  # imports what it needs

def answer(caller):
    text, streams, *_ = socket.recv_fds(caller, 1 << 16, 3)
    while not text.endswith(b"\\n"):
        text += caller.recv(1 << 16)
    given = json.loads(text)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    data_path = os.environ["AWS_DATA_PATH"]  # set when the CLI was imported
    os.environ.clear()
    os.environ.update(given["environment"] | {"AWS_DATA_PATH": data_path})
    os.chdir(given["folder"])
    sys.argv = ["aws", *given["arguments"]]
    try:
        return awscli.clidriver.main() or 0
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(16)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
while 0 not in (ready := select.select([0, listener], [], [])[0]):
    caller, _ = listener.accept()
    with caller:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            code = 255
            try:
                code = answer(caller)
            except BaseException:
                traceback.print_exc()
            finally:
                caller.send(bytes([code]))
                os._exit(0)
"""
_COMMAND = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    given = {{"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}}
    text = json.dumps(given).encode() + b"\\n"
    server.sendall(text[socket.send_fds(server, [text], [0, 1, 2]):])
    sys.exit((server.recv(1) or b"\\xff")[0])
"""


@contextmanager
def warm_aws(program: Path) -> Iterator[str]:
    """Start a server for an installed CLI, and yield the path of a command ``aws`` that uses it."""
    with tempfile.TemporaryDirectory() as folder:  # a socket's path is short
        socket, command = f"{folder}/socket", Path(folder, "aws")
        with subprocess.Popen(
            [program.with_name("python"), "-c", _SERVER, socket],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as server:  # fmt: skip
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            command.write_text(_COMMAND.format(python=sys.executable, path=socket))
            command.chmod(0o755)
            yield str(command)
            assert server.stdin is not None
            server.stdin.close()  # which ends it
