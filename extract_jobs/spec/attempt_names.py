"""Names of what an attempt leaves behind, which others find it by."""

from __future__ import annotations

import re
import uuid


def file_prefix(run_id: str, attempt: int) -> str:
    """Return what the name of each file begins with that one worker of an attempt stages.

    It goes on with ``-<split>-<token>.parquet``. Two workers on one attempt never share a prefix:
    its last part is new at every call.
    """
    return f"{run_id}-{attempt}-{uuid.uuid4().hex[:8]}"


def is_of_attempt(name: str, run_id: str, attempt: int) -> bool:
    """Return whether any worker of an attempt has named a file so; ``name`` is without its folder.

    Run ``r-1`` is not taken for attempt 1 of run ``r``: what follows is counted from the end.
    """
    own = re.escape(f"{run_id}-{attempt}")
    return bool(re.fullmatch(rf"{own}-[0-9a-f]{{8}}-\d{{5,}}-[0-9a-f]{{8}}\.parquet", name))


def report_name(attempt: int) -> str:
    """Return the name of an attempt's report: one file each, so that none overwrites another's."""
    return f"attempt-{attempt}.json"
