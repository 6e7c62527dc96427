"""Worker on ECS: PID 1 of the container, which starts Spark inside itself where it needs it.

SIGTERM is this process's to handle: it stops, aborts what it has staged, reports `Interrupted` and
exits 75, all well within the 30 seconds that ECS gives. Exit codes are those of
`extract_jobs.errors`.
"""

from __future__ import annotations

import sys

from extract_jobs.logs import log_json_lines
from extract_jobs.stop import interrupt_on_sigterm
from extract_jobs.worker import main

if __name__ == "__main__":
    log_json_lines()
    stop = interrupt_on_sigterm()
    sys.exit(main(sys.argv[1:], stop=stop))
