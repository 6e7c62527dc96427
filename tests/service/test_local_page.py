"""The page that the local pipeline writes about an execution, out of reports in its S3."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import boto3
import pytest

from extract_jobs.reporting.report import Report
from extract_jobs.tracking.item import TrackedRun
from infra.local.pages import write_execution_page
from infra.local.stack import Stack
from tests.support.emulators import Emulator, set_environment


def test_the_page_shows_each_table_s_newest_run(
    ministack: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(ministack.environment(), monkeypatch)
    bucket = f"reports-{uuid4().hex[:8]}"
    report = Report(
        status="succeeded", run_id="r", attempt=1, source_name="sales", extract_table="orders",
        target_uri="lake", rows=20, bytes=2_000_000, timings={"plan": 1.0, "extract": 4.0},
        watermark={"type": "date", "text": "2026-01-31"},
    )  # fmt: skip
    with closing(boto3.client("s3", endpoint_url=ministack.endpoint_url)) as client:
        client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key="orders.json", Body=report.to_json().encode())
    first = TrackedRun(
        "sales/orders", "r1", status="SUCCEEDED", extract_table="orders", rows=10,
        report_uri=f"s3://{bucket}/orders.json", updated_at="2026-02-01T10:00:00.000+00:00",
    )  # fmt: skip
    second = replace(first, run_id="r2", rows=20, updated_at="2026-02-01T11:00:00.000+00:00")
    lost = replace(
        first, table_id="sales/gone", extract_table="gone", status="FAILED",
        error_class="Interrupted", error_message="the worker was lost",
        report_uri=f"s3://{bucket}/nothing.json",
    )  # fmt: skip
    stack = Stack(tmp_path, ministack.endpoint_url, 1)
    page = write_execution_page(tmp_path / "new" / "page.html", "sales", stack,
                                [second, lost, first])  # fmt: skip
    assert page == tmp_path / "new" / "page.html"
    text = page.read_text()
    assert 'aria-label="orders: plan: 1.0 s, extract: 4.0 s"' in text
    assert 'aria-label="rows of the last commits: 10, 20"' in text
    assert "Interrupted: the worker was lost" in text
    assert "2026-01-31" in text
