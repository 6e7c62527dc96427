"""Metrics in CloudWatch's embedded metric format: lines of the log that CloudWatch counts.

The metrics' dimensions are the pipeline (the name of the stack and of its tracking table) and the
source. Run, table and attempt are searchable fields of the line: as dimensions they would make
every table a billed metric.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from extract_jobs.reporting.report import Report

NAMESPACE = "ExtractJobs"
_UNITS = {"Bytes": "Bytes"}


def metrics_line(
    values: Mapping[str, float], *, pipeline: str, source_name: str, now: datetime, **fields: Any
) -> str:
    """Return the JSON line that records some values.

    Args:
        values: By name of the metric; names that end in ``Seconds`` are in seconds.
        pipeline: The tracking table's name.
        source_name: The source.
        now: The present, UTC.
        fields: Further fields of the line, such as run and table.
    """
    metrics = [{"Name": name, "Unit": _unit(name)} for name in values]
    line = {
        "_aws": {
            "Timestamp": int(now.timestamp() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": NAMESPACE,
                    "Dimensions": [["Pipeline"], ["Pipeline", "source_name"]],
                    "Metrics": metrics,
                }
            ],
        },
        "Pipeline": pipeline,
        "source_name": source_name,
        **fields,
        **values,
    }
    return json.dumps(line, ensure_ascii=False)


def attempt_metrics(report: Report) -> dict[str, float]:
    """Return the metrics of an attempt's report.

    ``Rows``, ``Bytes`` and ``Files`` as the report has them, ``CatalogFailed`` (1 if the catalog is
    not up to date), ``Retries`` (1 if there was an earlier attempt), and ``<Phase>Seconds`` for
    each phase.
    """
    return {
        "Rows": report.rows,
        "Bytes": report.bytes,
        "Files": report.files,
        "CatalogFailed": int(report.catalog == "failed"),
        "Retries": int(report.attempt > 1),
        **{f"{phase.capitalize()}Seconds": spent for phase, spent in report.timings.items()},
    }


def _unit(name: str) -> str:
    return "Seconds" if name.endswith("Seconds") else _UNITS.get(name, "Count")
