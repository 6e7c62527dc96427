"""Worker on ECS: PID 1 of the container, which starts Spark inside itself where it needs it.

SIGTERM is this process's to handle: it stops, aborts what it has staged, reports `Interrupted` and
exits 75, all well within the 30 seconds that ECS gives. Exit codes are those of
`extract_jobs.errors`.
"""

from __future__ import annotations

import sys

from extract_jobs.engine.shutdown import interrupt_on_sigterm
from extract_jobs.worker import begin_log, main

if __name__ == "__main__":
    begin_log(sys.argv[1:])
    stop = interrupt_on_sigterm()
    sys.exit(main(sys.argv[1:], stop=stop))
