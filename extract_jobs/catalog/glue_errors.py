"""Errors of Glue: which ones are transient, how long to retry, and their messages."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from extract_jobs.catalog.partitions import NotDropped
from extract_jobs.errors import ConfigError

_LONGEST_REASON = 500
_LONGEST_SLEEP = 20.0
_PASSING = (
    # Another writer interfered.
    "ConcurrentModification", "VersionMismatch",
    # Too many requests, from whoever in the account sends them.
    "Throttl", "TooManyRequests", "RequestLimitExceeded", "SlowDown",
    # Glue itself is at fault:
    # https://docs.aws.amazon.com/glue/latest/webapi/API_BatchCreatePartition.html (Errors)
    "OperationTimeout", "InternalService", "InternalServer", "InternalFailure",
    "ServiceUnavailable",
)  # fmt: skip


def patiently(update: Callable[[], None], seconds: float) -> None:
    """Repeat an update while its errors are transient.

    The whole update is repeated, because the table may have changed by then.

    Args:
        update: Safe to repeat.
        seconds: No try starts later than this. The first one always runs.
    """
    deadline = time.monotonic() + seconds
    for number in range(1_000):
        try:
            return update()
        except Exception as error:
            wait = random.uniform(0.5, 1.0) * min(_LONGEST_SLEEP, 0.2 * 2 ** min(number, 10))  # noqa: S311 - no secret
            if not is_passing(error) or time.monotonic() + wait > deadline:
                raise
            time.sleep(wait)
    return None


def is_passing(error: Exception) -> bool:
    """Return whether the same call may succeed later without any change."""
    from botocore.exceptions import ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as NotConnected

    from extract_jobs.storage.aws_errors import passes

    if isinstance(error, ClientError) and passes(error):
        return True
    if isinstance(error, HTTPClientError | NotConnected):
        return True
    # awswrangler and `NotDropped` give the codes of single partitions as text.
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", "")) or str(error)
    return any(word in code for word in _PASSING)


def reason(error: Exception) -> str:
    """Describe an error without AWS's own text, which may quote partition values."""
    from botocore.exceptions import ClientError

    if isinstance(error, ClientError):
        code = error.response["Error"].get("Code", "?")
        said = f"Glue refused {error.operation_name} ({code})"
        if code == "AccessDeniedException":
            said += f": the role needs glue:{error.operation_name}"
    elif isinstance(error, ValueError | ConfigError):
        said = str(error)
    elif isinstance(error, NotDropped):
        said = f"Glue kept partitions that no longer have files ({error})"
    else:
        said = type(error).__name__
    return said[:_LONGEST_REASON]
