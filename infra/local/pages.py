"""The page about an execution, or about several, as `extract-jobs report` writes it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from extract_jobs.cli.report import write_page
from extract_jobs.tracking.execution_page import table_runs
from extract_jobs.tracking.item import TrackedRun
from infra.local.stack import Stack


def write_execution_page(path: Path, title: str, stack: Stack, runs: Iterable[TrackedRun]) -> Path:
    """Write a page about each table's newest run of some executions.

    Args:
        path: The page's file; its folder is made.
        title: The page's heading.
        stack: Where the reports are.
        runs: Runs of one execution or of several.

    Returns:
        Where it is, as an absolute path.
    """
    client = stack.client("s3")

    def read(uri: str) -> bytes | None:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            raw: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except client.exceptions.NoSuchKey:
            return None
        return raw

    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(path, title, table_runs(runs, read), datetime.now(UTC))
    return path.absolute()
