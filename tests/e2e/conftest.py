"""Stacks to run executions in, and the table of the paths that they took."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from extract_jobs.tracking.table import TrackedRun
from infra.local.board import Outcome, tracking
from infra.local.stack import DEFINITION, Stack, start_stack
from tests.e2e.paths import required, table, taken
from tests.support.java import QUICK_JAVA_ENVIRONMENT

STUB = (sys.executable, "-S", "-E", str(Path(__file__).with_name("stub_worker.py")))
SECONDS = 120.0
_paths: Counter[tuple[str, str]] = Counter()


@dataclass
class Pipeline:
    """A stack, and what tests do with it."""

    stack: Stack
    executions: list[str] = field(default_factory=list)
    known: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)

    def configure(self, name: str, tables: Mapping[str, Any], **more: Any) -> None:
        """Upload a source config."""
        config = {
            "version": 1,
            "source": {"name": name, "type": "postgres", **more.pop("source", {})},
            "defaults": more.pop("defaults", {}),
            "tables": dict(tables),
        }
        config["source"].setdefault("connection", {"secret_id": f"lake/{name}"})
        config["defaults"].setdefault("target", {"uri": "s3://lake/{source_name}/{schema}/{table}"})
        config["defaults"].setdefault("retry", {"max_attempts": 3, "backoff_seconds": 1})
        self.put_config(name, yaml.safe_dump(config, sort_keys=False))

    def put_config(self, name: str, text: str) -> None:
        """Upload a source config as it is."""
        path = self.stack.directory / f"{name}.yml"
        path.write_text(text)
        self.stack.put_config(path)

    def committed(self, name: str, *tables: str) -> None:
        """Let tables of a source have a small last commit."""
        for one in tables:
            run = TrackedRun(f"{name}/{one}", "before", status="SUCCEEDED", commit_seq=1, bytes=7)
            assert tracking(self.stack).end(run)

    def start(self, event: Mapping[str, Any] | str) -> str:
        """Start an execution."""
        arn = self.stack.start(event)
        self.executions.append(arn)
        return arn

    def wait(self, arn: str, seconds: float = SECONDS) -> Outcome:
        """Wait for an execution's end; count the paths that it took."""
        states = self.stack.client("stepfunctions")
        deadline = time.monotonic() + seconds
        while True:
            described = states.describe_execution(executionArn=arn)
            if described["status"] != "RUNNING":
                break
            assert time.monotonic() < deadline, f"{arn} has not ended in {seconds} s"
            time.sleep(0.1)
        for history in self.histories(arn):
            _paths.update(taken(history))
        return Outcome(
            arn, described["status"], described.get("error", ""), described.get("cause", ""),
            tuple(tracking(self.stack).by_execution(arn)),
        )  # fmt: skip

    def run(self, event: Mapping[str, Any] | str, seconds: float = SECONDS) -> Outcome:
        """Start an execution and wait for its end."""
        return self.wait(self.start(event), seconds)

    def histories(self, arn: str) -> list[list[dict[str, Any]]]:
        """Return the events of an ended execution, then those of each child of its Map."""
        if arn not in self.known:
            self.known[arn] = [self._history(one) for one in (arn, *self._children(arn))]
        return self.known[arn]

    def _children(self, arn: str) -> list[str]:
        states = self.stack.client("stepfunctions")
        return [
            child["executionArn"]
            for run in states.list_map_runs(executionArn=arn)["mapRuns"]
            for page in states.get_paginator("list_executions").paginate(mapRunArn=run["mapRunArn"])
            for child in page["executions"]
        ]

    def _history(self, arn: str) -> list[dict[str, Any]]:
        pages = self.stack.client("stepfunctions").get_paginator("get_execution_history")
        return [e for page in pages.paginate(executionArn=arn) for e in page["events"]]

    def fail(self, *faults: Mapping[str, Any]) -> None:
        """Let services fail; see `infra.local.faults`."""
        (self.stack.directory / "faults.json").write_text(json.dumps(faults))

    def objects(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys of a bucket."""
        pages = self.stack.client("s3").get_paginator("list_objects_v2")
        return [
            o["Key"]
            for page in pages.paginate(Bucket=bucket, Prefix=prefix)
            for o in page.get("Contents", ())
        ]


def runs_of(outcome: Outcome) -> dict[str, TrackedRun]:
    """Return an execution's runs by table."""
    return {run.extract_table: run for run in outcome.runs}


@pytest.fixture(scope="module")
def stubbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline whose jobs are stubs, and whose waits are a hundredth."""
    stack = start_stack(
        tmp_path_factory.mktemp("stubbed"),
        stub=STUB,
        environment={"SFN_WAIT_SCALE": "0.01"},
        job_defaults={},
    )
    yield Pipeline(stack)
    stack.stop()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline with real workers, and waits that are a tenth."""
    stack = start_stack(
        tmp_path_factory.mktemp("real"),
        environment={"SFN_WAIT_SCALE": "0.1", **QUICK_JAVA_ENVIRONMENT},
    )
    yield Pipeline(stack)
    stack.stop()


@pytest.fixture(scope="session")
def definition() -> dict[str, Any]:
    """The state machine's definition."""
    return json.loads(DEFINITION.read_text())


@pytest.fixture(scope="session")
def paths_taken() -> Counter[tuple[str, str]]:
    """How often each path was taken so far."""
    return _paths


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print states × outcomes."""
    if _paths:
        terminalreporter.section("paths of the state machine, with how often each was taken")
        needed = required(json.loads(DEFINITION.read_text()))
        terminalreporter.write_line(table(needed, _paths))
        terminalreporter.write_line(f"{len(needed - set(_paths))} of {len(needed)} never taken")
