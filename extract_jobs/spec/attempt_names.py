"""Names of an attempt's files, so that others can find them."""

from __future__ import annotations

import re
import uuid


def file_prefix(run_id: str, attempt: int) -> str:
    """Return the prefix of all files that one worker of an attempt stages.

    ``-<split>-<token>.parquet`` follows. Two workers on the same attempt never share a prefix: its
    last part is new at every call.
    """
    return f"{run_id}-{attempt}-{uuid.uuid4().hex[:8]}"


def is_of_attempt(name: str, run_id: str, attempt: int) -> bool:
    """Return whether a file is from any worker of an attempt; ``name`` has no folder.

    Run ``r-1`` is not confused with attempt 1 of run ``r``: parts are counted from the end.
    """
    return _is_file(name, re.escape(f"{run_id}-{attempt}"))


def is_of_run(name: str, run_id: str) -> bool:
    """Return whether a file is from any attempt of a run; ``name`` has no folder."""
    return _is_file(name, re.escape(run_id) + r"-\d+")


def _is_file(name: str, own: str) -> bool:
    return bool(re.fullmatch(rf"{own}-[0-9a-f]{{8}}-\d{{5,}}-[0-9a-f]{{8}}\.parquet", name))


def report_name(attempt: int) -> str:
    """Return the name of an attempt's report: one file per attempt, so none is overwritten."""
    return f"attempt-{attempt}.json"


def report_of(report_uri: str, attempt: int) -> str:
    """Return the URI of an attempt's report, which lies beside any other attempt's."""
    return f"{report_uri.rpartition('/')[0]}/{report_name(attempt)}"
