"""Worker on EMR: run by EMR Serverless, as a step of a cluster, or by hand.

::

    spark-submit entrypoints/emr.py --spec_uri s3://bucket/specs/orders.json
    spark-submit entrypoints/emr.py --spec_uri '{"version": 1, "run_id": "by-hand", …}'

`extract-jobs spec CONFIG TABLE` prints the spec of a table. ``--spec_uri`` is its URI, or the JSON
itself; ``--report_uri`` is where the report goes, ``--attempt`` the number of the attempt. The
other arguments are the state machine's; unknown ones are ignored, because Spark adds its own.

The Spark session, with spark-submit's settings, is made only when there is more than one split.
Exit codes are those of `extract_jobs.errors`.
"""

from __future__ import annotations

import sys

from extract_jobs.engine.shutdown import interrupt_on_sigterm, interrupt_when_orphaned
from extract_jobs.worker import begin_log, main

if __name__ == "__main__":
    if "--help" in sys.argv[1:]:
        print(__doc__)
        sys.exit()
    begin_log(sys.argv[1:])
    stop = interrupt_on_sigterm()
    interrupt_when_orphaned()
    stop.leave(main(sys.argv[1:], stop=stop))
