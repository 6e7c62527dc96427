"""Worker on AWS Glue: raises on failure, returns on success, which is how Glue distinguishes them.

Glue passes arguments of its own beside ours; they are ignored. awsglue is Glue's own library and
exists in this form nowhere else: with it the session is Glue's, without it Spark's.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from extract_jobs.engine.shutdown import interrupt_on_sigterm, interrupt_when_orphaned
from extract_jobs.errors import ExtractError, Interrupted, StopRequested
from extract_jobs.worker import begin_log, run_attempt

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


def glue_session() -> SparkSession | None:
    """Return the session of Glue's own context, or None if there is no Glue.

    With None, the core starts a session if it needs one.
    """
    try:
        from awsglue.context import GlueContext
    except ImportError:
        return None
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return None
    from pyspark import SparkContext

    try:
        session: SparkSession = GlueContext(SparkContext.getOrCreate()).spark_session
    except (TypeError, AttributeError) as error:
        # The Python half of awsglue is installed, but not the JVM that Glue runs it on.
        logger.info("awsglue without Glue's JVM (%s): using Spark's own session", error)
        return None
    return session


def main() -> None:
    """Run one attempt.

    Raises:
        ExtractError: As in the attempt's report. Its cause is left out, because Glue prints the
            whole chain, and another library's message may contain anything.
    """
    begin_log(sys.argv[1:])
    stop = interrupt_on_sigterm()
    interrupt_when_orphaned()
    try:
        run_attempt(sys.argv[1:], stop=stop, spark=glue_session())
    except ExtractError as error:
        raise error.with_traceback(None) from None
    except StopRequested as signal:
        raise Interrupted(str(signal)) from None


if __name__ == "__main__":
    main()
