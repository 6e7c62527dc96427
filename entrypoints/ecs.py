"""Worker on ECS: the container's only program. Splits run on processes that it starts.

Starts Spark itself for sources that are read through JDBC, and if a spec asks for it.

On SIGTERM it stops, aborts what it has staged, reports `Interrupted` and exits 75, all well within
the 30 seconds that ECS gives. Exit codes are those of `extract_jobs.errors`.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType


def _end_before_the_start(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"Interrupted: stopped by SIGTERM before the extract began\n")
    os._exit(75)


# Before every other import, which takes a second: a container may start this as PID 1, for which
# the kernel drops signals without a handler.
signal.signal(signal.SIGTERM, _end_before_the_start)

gc.disable()  # The worker turns it on again, once it has imported all.

from extract_jobs.engine.shutdown import interrupt_on_sigterm  # noqa: E402
from extract_jobs.worker import begin_log, main  # noqa: E402

if __name__ == "__main__":
    begin_log(sys.argv[1:])
    stop = interrupt_on_sigterm()
    stop.leave(main(sys.argv[1:], stop=stop))
