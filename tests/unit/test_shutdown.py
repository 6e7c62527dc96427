"""How a process ends that was asked to stop."""

from __future__ import annotations

import subprocess
import sys

_LEAVE = """
import threading, time
from extract_jobs.engine.shutdown import Stop

stop = Stop()
{before}
threading.Thread(target=time.sleep, args=({seconds},)).start()
print("said")
stop.leave(75)
"""


def _ended(code: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


def test_a_stopped_process_waits_for_no_thread() -> None:
    code = _LEAVE.format(before="stop.noticed.set()", seconds=600)
    assert _ended(code) == (75, "said\n", "")


def test_another_process_ends_as_usual() -> None:
    code = _LEAVE.format(before="", seconds=0.1)
    assert _ended(code) == (75, "said\n", "")
