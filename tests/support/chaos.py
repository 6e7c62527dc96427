"""The whole pipeline under chaos, and after each round the account: is every verdict true?

``python -m tests.support.chaos --minutes 30 --seed 7`` runs executions of the real state machine on
the emulator, with real workers and functions; with ``--interpreter moto``, moto's interpreter runs
the state machine (tests/support/moto_machine.py says what that cannot do). Meanwhile it

- kills, stops and pauses workers at random moments,
- breaks requests of workers and functions to S3 and DynamoDB, or answers them with HTML,
- lets calls of Lambda and of the job services fail as Step Functions would see it,
- stops executions, so that their workers go on without them,
- calls the reaper, and starts reruns of what failed.

Once all is quiet, each table's rows are in the lake as often as they should be, every run is called
what the commit log says, `LATEST` is the newest commit, nothing is staged, and each rerun took
exactly what had failed. What a seed does depends on how fast the machine is; the account does not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import psutil
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
import yaml

from entrypoints.reap_extract_job_runs import Settings, reap
from extract_jobs.commit.log import CommitLog
from extract_jobs.storage import open_storage
from extract_jobs.tracking.item import TrackedRun
from extract_jobs.tracking.table import Tracking, utc_now
from infra.local.emulator import aws_environment, session_members
from infra.local.stack import TRACKING_TABLE, Stack, start_stack
from tests.support.fault_proxy import PASSING_FAULTS, FaultProxy
from tests.support.java import QUICK_JAVA_ENVIRONMENT
from tests.support.moto_machine import start_machine
from tests.support.ports import free_port
from tests.support.sqlite_source import write
from tests.support.worker_processes import worker_processes

ROWS = 300
TABLES: dict[str, dict[str, Any]] = {
    "appended": {"target": {"write_mode": "append"}},
    "replaced": {"target": {"write_mode": "overwrite"}},
    "growing": {"mode": "incremental", "watermark": {"column": "n"}},
}
KINDS: dict[str, dict[str, Any]] = {
    "ecs": {"job_type": "ecs"},
    "glue": {"job_type": "glue"},
    "emr": {"job_type": "emr"},
    "step": {"job_type": "emr", "emr": {"cluster_id": "j-1", "entry_point": "s3://b/emr.py"}},
}
STATE_FAULTS = (
    ("lambda:invoke", "Lambda.TooManyRequestsException"),
    ("lambda:invoke", "Lambda.ServiceException"),
    ("lambda:invoke", "Lambda.SdkClientException"),
    ("lambda:invoke", "SomethingElse"),
    ("ecs:runTask", "ECS.SdkClientException"),
    ("glue:startJobRun", "Glue.ConcurrentRunsExceededException"),
    ("emr-serverless:startJobRun", "EMRServerless.ThrottlingException"),
)
MOST_SECONDS = 300.0
"""What an execution may take: one that hangs is a finding."""


WAIT_SCALE = 0.05
"""How long the state machine waits before it tries again, in proportion."""
INTERPRETERS: dict[str, Sequence[str]] = {
    "ministack": tuple(KINDS),
    "moto": ("ecs", "glue"),
}
"""What can run the state machine, with the job types that it can run."""


class Machine(Protocol):
    """The state machine on one of the interpreters."""

    @property
    def arn(self) -> str: ...
    def start(self, event: Mapping[str, Any]) -> str: ...
    def status(self, arn: str) -> str: ...
    def stop(self, arn: str) -> None: ...
    def fail(self, faults: Sequence[Mapping[str, Any]]) -> None: ...
    def failed_calls(self) -> int: ...
    def workers(self) -> list[psutil.Process]: ...
    def client(self, service: str) -> Any: ...


@dataclass(frozen=True)
class Emulated:
    """The state machine on the emulator's own interpreter."""

    stack: Stack

    @property
    def arn(self) -> str:
        return self.stack.state_machine_arn

    def start(self, event: Mapping[str, Any]) -> str:
        return self.stack.start(event)

    def status(self, arn: str) -> str:
        described = self.client("stepfunctions").describe_execution(executionArn=arn)
        return str(described["status"])

    def stop(self, arn: str) -> None:
        self.client("stepfunctions").stop_execution(executionArn=arn)

    def fail(self, faults: Sequence[Mapping[str, Any]]) -> None:
        (self.stack.directory / "faults.json").write_text(json.dumps(faults))

    def failed_calls(self) -> int:
        log = self.stack.directory / "faults.log"
        return log.read_text().count("\n") if log.exists() else 0

    def workers(self) -> list[psutil.Process]:
        return worker_processes(session_members(self.stack.pid))

    def client(self, service: str) -> Any:
        return self.stack.client(service)


@dataclass
class Chaos:
    """A stack, and everything that goes wrong with it.

    Attributes:
        stack: The pipeline.
        machine: Its state machine.
        proxy: Between workers and functions, and S3 and DynamoDB.
        dice: Decides what goes wrong, and when.
        database: The source.
        kinds: Job types that tables take turns in.
        faults: How often something went wrong, by what.
    """

    stack: Stack
    machine: Machine
    proxy: FaultProxy
    dice: random.Random
    database: Path
    kinds: Sequence[str]
    faults: Counter[str] = field(default_factory=Counter)
    executions: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    reruns: dict[str, tuple[str, set[str]]] = field(default_factory=dict)

    # --- what happens --------------------------------------------------------------------------

    def round(self, number: int) -> None:
        """Run one execution and its reruns, whatever goes wrong, and check the account."""
        name = f"s{number}"
        self._configure(name)
        self.proxy.fail_at_random(
            self.dice.randrange(2**32), self.dice.choice((0.0, 0.01, 0.03, 0.08)),
            (*PASSING_FAULTS, "html"),
        )  # fmt: skip
        event = {"source_name": name, "extract_tables": "*"}
        chain = [self._execute(event, wild=True)]
        for attempt in range(4):
            if self._status(chain[-1]) == "SUCCEEDED":
                break
            if self.dice.random() < 0.5:
                self._reap()
            if attempt == 2:
                self._calm()
            again = self._again(chain, event)
            before = self._not_succeeded(again)
            chain.append(self._execute(again, wild=attempt < 2))
            if "rerun_failed_of" in again:
                self.reruns[chain[-1]] = (again["rerun_failed_of"], before)
        self._calm()
        self._wait_for_workers()
        self._reap()
        for table in TABLES:
            self._log(name, table).recover(
                self._target(name, table), abandon_after=timedelta(0), now=utc_now()
            )
        self._reap()
        self._account(name, chain)
        print(f"round {number}: {self._statuses(chain)}", flush=True)

    def _configure(self, name: str) -> None:
        kinds = [self.dice.choice(self.kinds) for _ in TABLES]
        config = {
            "version": 1,
            "source": {"name": name, "type": "sqlite", "connection": {"path": str(self.database)}},
            "defaults": {
                "target": {"uri": "s3://lake/{source_name}/{table}"},
                "retry": {"max_attempts": self.dice.choice((2, 3)), "backoff_seconds": 1},
            },
            "tables": {
                table: {**KINDS[kind], **settings}
                for kind, (table, settings) in zip(kinds, TABLES.items(), strict=True)
            },
        }
        path = self.stack.directory / f"{name}.yml"
        path.write_text(yaml.safe_dump(config))
        self.stack.put_config(path)

    def _execute(self, event: dict[str, Any], *, wild: bool) -> str:
        """Run an execution to its end, and bring disorder into it if it is wild."""
        faults = []
        if wild:
            for _ in range(self.dice.choice((0, 1, 3))):
                call, error = self.dice.choice(STATE_FAULTS)
                times = self.dice.choice((1, 2, 15))
                faults.append({"call": call, "error": error, "times": times,
                               "cause": f"on purpose {self.dice.random()}"})  # fmt: skip
        self.machine.fail(faults)
        arn = self.machine.start(event)
        self.executions.append(arn)
        stop_at = time.monotonic() + self.dice.uniform(1, 15)
        stops = wild and self.dice.random() < 0.25
        rate = self.dice.choice((0.0, 0.3, 0.8)) if wild else 0.0
        deadline = time.monotonic() + MOST_SECONDS
        while self._status(arn) == "RUNNING":
            assert time.monotonic() < deadline, f"{arn} has not ended"
            time.sleep(self.dice.uniform(0.05, 0.6))
            if self.dice.random() < rate:
                self._harm()
            if stops and time.monotonic() > stop_at:
                self.machine.stop(arn)
                self.faults["stopped executions"] += 1
                stops = False
        self.outcomes[self._status(arn)] += 1
        return arn

    def _harm(self) -> None:
        """Kill, stop or pause a worker."""
        workers = self.machine.workers()
        if not workers:
            return
        how = self.dice.choice(("SIGKILL", "SIGKILL", "SIGTERM", "SIGSTOP"))
        with contextlib.suppress(psutil.Error):
            self.dice.choice(workers).send_signal(getattr(signal, how))
            self.faults[how] += 1
        if how == "SIGSTOP":
            time.sleep(self.dice.uniform(0.5, 3))
            self._wake()

    def _wake(self) -> None:
        for process in self.machine.workers():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)

    def _calm(self) -> None:
        self.faults["requests"] += sum(bool(r.fault) for r in self.proxy.requests)
        self.proxy.clear()
        self.machine.fail([])
        self.faults["failed calls"] = self.machine.failed_calls()
        self._wake()

    def _wait_for_workers(self) -> None:
        deadline = time.monotonic() + MOST_SECONDS
        while self.machine.workers():
            assert time.monotonic() < deadline, "a worker does not end"
            self._wake()
            time.sleep(0.2)

    def _reap(self) -> None:
        settings = Settings(self.machine.arn, "s3://extract-config", timedelta(hours=9))
        with contextlib.redirect_stdout(io.StringIO()):  # its metrics
            reap(settings, tracking=self._tracking(), client=self.machine.client,
                 open_storage=open_storage)  # fmt: skip

    # --- what is true then ---------------------------------------------------------------------

    def _account(self, name: str, chain: Sequence[str]) -> None:
        runs = [run for arn in chain for run in self._tracking().by_execution(arn)]
        staged = self.stack.client("s3").list_multipart_uploads(Bucket="lake", Prefix=name)
        assert not staged.get("Uploads"), f"{name}: staged files were left"
        for table in TABLES:
            mine = [run for run in runs if run.extract_table == table]
            self._account_table(name, table, mine)
        for arn in chain:
            statuses = {run.status for run in runs if run.execution_id == arn}
            if self._status(arn) == "SUCCEEDED":
                assert statuses == {"SUCCEEDED"}, f"{arn} succeeded with {statuses}"
            if arn in self.reruns:
                self._account_rerun(arn, runs)

    def _account_rerun(self, arn: str, runs: Sequence[TrackedRun]) -> None:
        """A rerun takes all that had not succeeded, but for what was found published after all."""
        rerun_of, failed = self.reruns[arn]
        taken = {run.extract_table for run in runs if run.execution_id == arn}
        if not taken:
            return  # it ended before it had a list, or there was nothing left to do
        found = {r.extract_table for r in runs if r.execution_id == rerun_of and r.ended
                 and r.status == "SUCCEEDED"}  # fmt: skip
        assert taken <= failed, f"{arn} took {taken} again, and {failed} had failed"
        assert failed - taken <= found, f"{arn} left {failed - taken} out, though they had failed"

    def _account_table(self, name: str, table: str, runs: Sequence[TrackedRun]) -> None:
        what = f"{name}/{table}: " + "; ".join(
            f"{r.execution_id[-6:]} {r.status} {r.commit_seq} {r.error_class}" for r in runs
        )
        log = self._log(name, table)
        published = {
            commit.run_id: commit.seq
            for commit, outcome in log.history(1_000)
            if outcome == "published"
        }
        good = [run for run in runs if run.status == "SUCCEEDED"]
        assert {run.status for run in runs} <= {"SUCCEEDED", "FAILED"}, what
        assert good, f"{what}: the last runs failed, with nothing wrong"
        assert len(published) == 1, f"{what}; published: {published}"
        assert {run.commit_seq for run in good} <= set(published.values()), f"{what}; {published}"
        called = {run.run_id for run in good}
        assert set(published) <= called, f"{what}; published, and not called so: {published}"
        rows = self._rows(name, table)
        assert rows == list(range(ROWS)), f"{what}; {len(rows)} rows"
        latest = self._tracking().latest(f"{name}/{table}") or {}
        assert [latest.get("commit_seq")] == list(published.values()), (what, latest)

    def _rows(self, name: str, table: str) -> list[int]:
        s3 = pyarrow.fs.S3FileSystem(
            endpoint_override=self.stack.endpoint_url.removeprefix("http://"), scheme="http",
            access_key="test", secret_key="test", region="us-east-1",
        )  # fmt: skip
        folder = f"lake/{name}/{table}"
        if s3.get_file_info(folder).type == pyarrow.fs.FileType.NotFound:
            return []
        return sorted(pq.read_table(folder, filesystem=s3).column("n").to_pylist())

    def _status(self, arn: str) -> str:
        return self.machine.status(arn)

    def _statuses(self, chain: Sequence[str]) -> str:
        return " ".join(map(self._status, chain))

    def _again(self, chain: Sequence[str], event: dict[str, Any]) -> dict[str, Any]:
        """Return the event that runs again what the chain has failed at so far."""
        known = [arn for arn in chain if any(self._tracking().by_execution(arn))]
        if not known:
            return event  # no execution got as far as its tables
        return {"rerun_failed_of": known[-1], "include_unfinished": True}

    def _not_succeeded(self, event: Mapping[str, Any]) -> set[str]:
        """Return the tables that a rerun would take by what the tracking table says now."""
        of = event.get("rerun_failed_of", "")
        return {r.extract_table for r in self._tracking().by_execution(of)
                if r.status != "SUCCEEDED"} if of else set()  # fmt: skip

    def _tracking(self) -> Tracking:
        return Tracking(self.stack.client("dynamodb"), TRACKING_TABLE, utc_now)

    def _log(self, name: str, table: str) -> CommitLog:
        uri = f"s3://lake/_extract/{name}/{table}"
        storage = open_storage(uri)
        return CommitLog(storage, uri, storage, self._target(name, table))

    @staticmethod
    def _target(name: str, table: str) -> str:
        return f"s3://lake/{name}/{table}"


@contextlib.contextmanager
def _machine(stack: Stack, interpreter: str, environment: Mapping[str, str]) -> Iterator[Machine]:
    if interpreter == "ministack":
        yield Emulated(stack)
        return
    with pytest.MonkeyPatch.context() as patch, start_machine(
        stack, patch, environment=environment, wait_scale=WAIT_SCALE
    ) as machine:  # fmt: skip
        yield machine


def chaos(
    folder: Path,
    seed: int,
    goes_on: Callable[[int], bool],
    kinds: Sequence[str] = ("ecs",),
    interpreter: str = "ministack",
) -> None:
    """Run rounds, and print what was done, also when one fails.

    Args:
        folder: An empty one.
        seed: Of what goes wrong.
        goes_on: Given the number of rounds so far, whether there is another.
        kinds: Of `KINDS`, as far as the interpreter can run them.
        interpreter: Of `INTERPRETERS`.

    Raises:
        AssertionError: Something is not true after a round.
    """
    statements = [f"create table {table} (n integer primary key)" for table in TABLES]
    values = ", ".join(f"({n})" for n in range(ROWS))
    database = write(
        folder / "source.db", *statements, *(f"insert into {t} values {values}" for t in TABLES)
    )
    port = free_port()
    with FaultProxy(f"http://127.0.0.1:{port}") as proxy:
        through = {f"AWS_ENDPOINT_URL_{name}": proxy.endpoint_url for name in ("S3", "DYNAMODB")}
        stack = start_stack(
            folder / "stack", port=port, workers=3,
            environment={"SFN_WAIT_SCALE": str(WAIT_SCALE), **QUICK_JAVA_ENVIRONMENT, **through},
        )  # fmt: skip
        try:
            os.environ.update(aws_environment(stack.endpoint_url))
            of_workers = {**QUICK_JAVA_ENVIRONMENT, **through}
            with _machine(stack, interpreter, of_workers) as machine:
                done = Chaos(stack, machine, proxy, random.Random(seed), database, kinds)
                number = 0
                try:
                    while goes_on(number):
                        done.round(number)
                        number += 1
                finally:
                    print(f"{len(done.executions)} executions: {dict(done.outcomes)}")
                    print(f"{sum(done.faults.values())} faults: {dict(done.faults)}")
        finally:
            stack.stop()


def main() -> int:
    """Run for some minutes."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.chaos")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default="ecs", help=f"of {','.join(KINDS)}")
    parser.add_argument("--interpreter", choices=INTERPRETERS, default="ministack")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if not set(kinds) <= set(INTERPRETERS[options.interpreter]):
        parser.error(f"{options.interpreter} runs {','.join(INTERPRETERS[options.interpreter])}")
    logging.getLogger("moto").setLevel(logging.CRITICAL)  # it warns of what it cannot do
    deadline = time.monotonic() + options.minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        chaos(
            Path(folder), options.seed, lambda _: time.monotonic() < deadline, kinds,
            options.interpreter,
        )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
