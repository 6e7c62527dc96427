"""The pipeline in memory, small enough to try every history of it: one table, five rows.

What is real: the config manager, the worker, the status handler, the summary, the reaper, and the
commit log and tracking item that they share. What stands in: storage and DynamoDB in memory, a
source in memory, and, for the services and Step Functions, `Story`, which makes the calls in the
order of the state machine.

A history is a list of choices. Before each call to storage or DynamoDB, whoever makes it may be
killed, may be *lost* (its caller goes on as if it were dead, and it wakes up later), or may see a
lost one wake up first. The story has choices too: to stop the execution, to redrive it, to let the
handler fail for good, to start the reaper and a rerun. Choice 0 is always that nothing goes wrong.
Only one thread runs at any time, so
a history is the same in every run.
"""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Self

import pyarrow.parquet as pq
import pytest

import extract_jobs.run
from entrypoints import extract_config_manager, handle_extract_job_run_status
from entrypoints.extract_config_manager import list_tables
from entrypoints.handle_extract_job_run_status import handle, summarize
from entrypoints.reap_extract_job_runs import Settings as ReaperSettings
from entrypoints.reap_extract_job_runs import reap
from extract_jobs import worker
from extract_jobs.commit.log import CommitLog
from extract_jobs.engine import pandas_free
from extract_jobs.engine.shutdown import Stop
from extract_jobs.errors import ConfigError, ExtractError, WriteFailed
from extract_jobs.tracking import event as tracking_event
from extract_jobs.tracking import table as tracking_table
from extract_jobs.tracking.map_item import Item, worker_arguments
from extract_jobs.tracking.table import TrackedRun, Tracking
from tests.support.histories import Choices
from tests.support.memory_dynamodb import MemoryDynamoDB, Table
from tests.support.memory_source import MemorySource
from tests.support.memory_storage import Bucket, Killed, Process, ProcessStorage

ROWS = [1, 2, 3, 4, 5]
NOW = datetime(2026, 6, 1, tzinfo=UTC)
LAKE, WORK, CONFIG = "s3://lake", "s3://work", "s3://config"
MACHINE = "arn:aws:states:eu-central-1:1:stateMachine:m"
STOPPED = {"Error": "States.TaskFailed", "Cause": "the job was lost"}
MOST_CALLS = 2
"""How often a state calls its function: once, and once more after a fault."""
MOST_ATTEMPTS = 2
MODES: dict[str, dict[str, Any]] = {
    "append": {"target": {"write_mode": "append"}},
    "overwrite": {"target": {"write_mode": "overwrite"}},
    "incremental": {"mode": "incremental", "watermark": {"column": "id"}},
}
_current = threading.local()


class Actor(threading.Thread):
    """One process of the pipeline: a worker, or one call of a function."""

    def __init__(self, world: World, name: str, work: Callable[[], Any]) -> None:
        super().__init__(name=name, daemon=True)
        self.world, self.work = world, work
        self.process = Process(name, before=self.at_call)
        self.turn, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.lost, self.result, self.error = False, None, None

    def run(self) -> None:
        self.turn.acquire()
        _current.actor = self
        try:
            self.result = self.work()
        except BaseException as error:  # noqa: BLE001 - whoever started it looks at it
            self.error = error
        self.lost = False
        self.back.release()

    def go(self) -> None:
        """Run until it ends, or is lost."""
        self.lost = False
        self.turn.release()
        self.back.acquire()

    def at_call(self, call: str) -> None:
        """Let the world decide what happens before a call."""
        decided = self.world.before(self, call)
        if decided == "killed":
            self.process.dead = True
        elif decided == "its answer is lost":
            self.process.after = self._lose_answer
        elif decided == "lost":
            self.lost = True
            self.back.release()
            self.turn.acquire()

    def _lose_answer(self, call: str) -> None:
        self.process.after = lambda _: None
        raise WriteFailed(f"{call}: no answer")


class World:
    """Everything that outlives a process, and the processes."""

    def __init__(self, choices: Choices, mode: str) -> None:
        self.choices, self.bucket, self.table = choices, Bucket(), Table()
        self.lost: list[Actor] = []
        self.settled = False
        self.mode = mode
        self.configure("t")

    def configure(self, table: str) -> None:
        """Put a config of one table where the manager reads it."""
        settings = MODES[self.mode]
        target = {"uri": f"{LAKE}/raw/{table}", **settings.get("target", {})}
        retry = {"max_attempts": MOST_ATTEMPTS, "backoff_seconds": 1}
        config = {
            "version": 1,
            "source": {"name": "s", "type": "postgres", "connection": {"secret_id": "lake/s"}},
            "defaults": {"job_type": "ecs", "retry": retry},
            "tables": {table: {**settings, "target": target}},
        }
        # JSON is YAML too, and quicker.
        self.bucket.objects[f"{CONFIG}/s.yml"] = (json.dumps(config).encode(), None)

    def call(self, name: str, work: Callable[[], Any]) -> Actor:
        """Run a process until it ends, is killed or is lost; return it."""
        actor = Actor(self, name, work)
        actor.start()
        actor.go()
        self._keep(actor)
        return actor

    def before(self, actor: Actor, call: str) -> str:
        """Decide what happens before a call of a process."""
        if self.settled:
            return ""
        # One that has woken up goes on by itself.
        others = [] if actor in self.lost else self.lost
        waking = [f"{other.name} wakes up" for other in others]
        decided = self.choices(
            f"{actor.name} at {_short(call)}", "", "killed", "lost", "its answer is lost", *waking
        )
        if decided.endswith("wakes up"):
            self.wake(others[waking.index(decided)])
            return ""
        return decided

    def wake(self, actor: Actor) -> None:
        """Let a lost process go on, until it ends or is lost again."""
        actor.go()  # it is on the list meanwhile, so it wakes nobody
        self.lost.remove(actor)
        self._keep(actor)

    def wake_all(self) -> None:
        """Let every lost process end."""
        while self.lost:
            self.wake(self.lost[0])

    def _keep(self, actor: Actor) -> None:
        if actor.lost:
            self.lost.append(actor)
        else:
            actor.join()

    # --- what a process sees -------------------------------------------------------------------

    def process(self) -> Process:
        actor = getattr(_current, "actor", None)
        return actor.process if actor else Process("judge")

    def storage(self, _uri: str = "") -> ProcessStorage:
        return ProcessStorage(self.bucket, self.process())

    def dynamodb(self) -> MemoryDynamoDB:
        return MemoryDynamoDB(self.table, self.process())

    def tracking(self) -> Tracking:
        return Tracking(self.dynamodb(), self.table.name, lambda: NOW, lambda _: None)


def _short(call: str) -> str:
    return call.removeprefix("s3://")


class Stopped(Exception):
    """Somebody has stopped the execution."""


@dataclass
class Execution:
    """One execution of the state machine, as `Story` runs it."""

    world: World
    number: int
    event: dict[str, Any]
    status: str = "RUNNING"
    answer: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    item: Item | None = None
    item_at_first: Item | None = None

    @property
    def arn(self) -> str:
        return f"{MACHINE.replace('stateMachine', 'execution')}:{self.number}"

    def play(self) -> None:
        """Go through the states, from the beginning or, redriven, from where it was stopped."""
        try:
            if not self.answer:
                self._manage()
            if self.status == "RUNNING":
                self._table()
                self._summarize()
        except Stopped:
            self.status = "ABORTED"

    def _manage(self) -> None:
        asked = {"input": self.event, "execution_id": self.arn, "execution_started_at": "2026"}
        settings = extract_config_manager.Settings(CONFIG, WORK, {})
        called = self._called("manager", lambda: list_tables(
            asked, settings=settings, tracking=self.world.tracking(),
            open_storage=self.world.storage,
        ), self._edit)  # fmt: skip
        if called is None or isinstance(called.error, ConfigError):
            self.status = "FAILED"
            return
        self.answer = called.result
        self.item = json.loads(self.world.bucket.objects[self._listed()][0])[0]
        self.item_at_first = self.item

    def _listed(self) -> str:
        return f"s3://{self.answer['bucket']}/{self.answer['key']}"

    def _table(self) -> None:
        while self.item is not None:
            self._may_be_stopped("before the job")
            item = {**self.item, "job_error": self._job(self.item)}
            self._may_be_stopped("before the handler")
            called = None
            if self.world.choices("the handler", "", "always fails") == "":
                called = self._called("handler", partial(self._handle, item))
            if called is None:
                return  # the summary judges the table
            self.item = called.result.get("item")

    def _handle(self, item: Item) -> dict[str, Any]:
        return handle(item, tracking=self.world.tracking(), open_storage=self.world.storage)

    def _job(self, item: Item) -> dict[str, str]:
        argv = worker_arguments(item)
        name = f"worker {self.number}.{item['attempt']}"
        actor = self.world.call(name, lambda: worker.run_attempt(argv, stop=Stop()))
        if actor.lost or isinstance(actor.error, Killed):
            return STOPPED
        if actor.error is None:
            return {"Error": "", "Cause": ""}
        assert isinstance(actor.error, ExtractError), actor.error
        return {
            "Error": "States.TaskFailed",
            "Cause": f"{type(actor.error).__name__}: {actor.error}",
        }

    def _summarize(self) -> None:
        asked = {
            **{k: self.answer[k] for k in ("execution_id", "table_count", "note")},
            "map_error": {"Error": "", "Cause": ""},
        }
        called = self._called("summary", lambda: summarize(
            asked, tracking=self.world.tracking(), open_storage=self.world.storage
        ))  # fmt: skip
        self.summary = called.result if called else {}
        good = self.summary.get("outcome") == "succeeded"
        self.status = "SUCCEEDED" if good else "FAILED"

    def _edit(self) -> None:
        """Somebody may change the config between two calls of the config manager."""
        if self.world.choices("the config", "", "has another table now"):
            self.world.configure("u")

    def _called(
        self, name: str, work: Callable[[], Any], between: Callable[[], None] = lambda: None
    ) -> Actor | None:
        """Call a function as its state does: again, if it is killed, cut off or at fault."""
        for call in range(MOST_CALLS):
            if call:
                between()
            actor = self.world.call(f"{name} {self.number}", work)
            if not actor.lost and not isinstance(actor.error, Killed | WriteFailed):
                assert actor.error is None or isinstance(actor.error, ConfigError), actor.error
                return actor
        return None

    def _may_be_stopped(self, when: str) -> None:
        if self.world.choices(f"execution {self.number} {when}", "", "stopped"):
            raise Stopped


@dataclass
class Story:
    """An execution, whatever goes wrong, and all that comes after it until nothing is left."""

    world: World
    executions: list[Execution] = field(default_factory=list)

    def play(self) -> None:
        """Play it to its end, and check what is true whatever has happened."""
        first = self._execution({"source_name": "s", "extract_tables": "*"})
        first.play()
        choices = self.world.choices
        if first.status != "SUCCEEDED" and first.answer:
            if choices("then", "the reaper", "no reaper") == "the reaper":
                self._reap()
            if first.status == "ABORTED" and choices("then", "no redrive", "redrive") == "redrive":
                first.status = "RUNNING"
                first.play()
        if first.status != "SUCCEEDED" and choices("then", "a rerun", "no rerun") == "a rerun":
            event = {"rerun_failed_of": first.arn, "include_unfinished": True}
            self._execution(event).play()
        self.world.wake_all()
        self.world.settled = True
        self._settle()
        self._check()

    def _execution(self, event: dict[str, Any]) -> Execution:
        self.executions.append(Execution(self.world, len(self.executions) + 1, event))
        return self.executions[-1]

    def _reap(self) -> None:
        listed = [
            {"executionArn": e.arn, "status": e.status, "startDate": NOW - timedelta(hours=1)}
            for e in reversed(self.executions)
        ]
        clients = {"stepfunctions": _Pages({"executions": listed}), "ecs": _Pages({"taskArns": []})}
        settings = ReaperSettings(MACHINE, CONFIG, timedelta(hours=26))
        self.world.call("reaper", lambda: reap(
            settings, tracking=self.world.tracking(), client=clients.__getitem__,
            open_storage=self.world.storage,
        ))  # fmt: skip

    def _settle(self) -> None:
        """Do what happens within the next day: the table's next run begins, the reaper looks."""
        self._reap()
        self._log().recover(self._target(), abandon_after=timedelta(0), now=NOW)
        self._reap()

    def _table(self) -> str:
        """Return the table that the first execution was started for."""
        items = [e.item_at_first for e in self.executions if e.item_at_first]
        return items[0]["extract_table"] if items else "t"

    def _target(self) -> str:
        return f"{LAKE}/raw/{self._table()}"

    def _log(self) -> CommitLog:
        storage = ProcessStorage(self.world.bucket, Process("judge"))
        return CommitLog(storage, f"{LAKE}/_extract/s/{self._table()}", storage)

    # --- what is true in the end ---------------------------------------------------------------

    def _check(self) -> None:
        log, target = self._log(), f"{self._target()}/"
        tracking = self.world.tracking()
        runs = {r.run_id: r for e in self.executions for r in tracking.by_execution(e.arn)}
        commits = self._published(log)
        good = {r for r, run in runs.items() if run.status == "SUCCEEDED"}
        assert {run.status for run in runs.values()} <= {"SUCCEEDED", "FAILED"}, _shown(runs)
        assert self._rows() == (ROWS if good else []), (self._rows(), _shown(runs))
        assert len(commits) == bool(good), (commits, _shown(runs))
        for run_id, seq in commits.items():
            assert run_id in good, f"{run_id} is published, and not called so: {_shown(runs)}"
            assert self._latest()["commit_seq"] == seq, self._latest()
        for run in (runs[r] for r in good):
            assert (run.commit_seq, run.rows) == (next(iter(commits.values())), len(ROWS)), run
        for execution in self.executions:
            self._check_execution(execution, runs)
        assert not self.world.bucket.uploads, "staged files were left"
        live = {f.staged.uri for f in log.live_files(log.finish_last().published)}
        assert {u for u in self.world.bucket.objects if u.startswith(target)} == live

    def _check_execution(self, execution: Execution, runs: dict[str, TrackedRun]) -> None:
        mine = [run for run in runs.values() if run.execution_id == execution.arn]
        listed = execution.answer.get("table_count", len(mine))
        assert len(mine) == listed, f"{listed} tables were listed, {len(mine)} announced"
        if execution.status == "SUCCEEDED":
            assert mine, execution
            assert {run.status for run in mine} == {"SUCCEEDED"}, mine
            assert execution.summary["rows"] == len(ROWS), execution.summary

    def _published(self, log: CommitLog) -> dict[str, int]:
        found: dict[str, int] = {}
        for seq in range(1, 20):
            commit = log.read(seq)
            if commit is not None and log.outcome(commit) == "published":
                assert commit.run_id not in found, f"{commit.run_id} is published twice"
                found[commit.run_id] = seq
        return found

    def _latest(self) -> dict[str, Any]:
        return self.world.tracking().latest(f"s/{self._table()}") or {}

    def _rows(self) -> list[int]:
        rows: list[int] = []
        for uri, (data, _) in self.world.bucket.objects.items():
            if uri.startswith(f"{self._target()}/"):
                rows += pq.read_table(io.BytesIO(data)).column("id").to_pylist()
        return sorted(rows)


def _shown(runs: dict[str, TrackedRun]) -> str:
    return "; ".join(
        f"{r.execution_id[-1]}: {r.status} {r.commit_seq} {r.error_class} {r.error_message[:80]}"
        for r in runs.values()
    )


@dataclass(frozen=True)
class _Pages:
    answer: dict[str, Any]

    def get_paginator(self, _name: str) -> _Pages:
        return self

    def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
        yield self.answer


class _OneByOne:
    """An executor without threads: the order of calls is the same in every run."""

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, call: Callable[..., Any], items: Any) -> list[Any]:
        return [call(item) for item in items]

    def submit(self, call: Callable[..., Any], *given: Any) -> Any:
        value = call(*given)
        return _Done(value)


@dataclass(frozen=True)
class _Done:
    value: Any

    def result(self) -> Any:
        return self.value


class Model:
    """Plays stories, with what they need of the package replaced for the time of a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world: World | None = None
        for module in (extract_config_manager, handle_extract_job_run_status, tracking_event,
                       tracking_table):  # fmt: skip
            monkeypatch.setattr(module, "ThreadPoolExecutor", _OneByOne)
        monkeypatch.setattr(extract_jobs.run, "open_source", lambda *_: MemorySource(list(ROWS)))
        run_extract = partial(
            extract_jobs.run.run_extract, clock=lambda: NOW, open_storage=self._storage
        )
        monkeypatch.setattr(extract_jobs.run, "run_extract", run_extract)
        monkeypatch.setattr(worker, "open_storage", self._storage)
        monkeypatch.setattr(worker, "client_from_environment", lambda: self._now().dynamodb())
        monkeypatch.setattr(pandas_free, "skip_pandas", lambda: None)

    def play(self, choices: Choices, mode: str = "append") -> Story:
        """Play one history.

        Raises:
            AssertionError: Something is not true in the end.
        """
        self.world = World(choices, mode)
        story = Story(self.world)
        with contextlib.redirect_stdout(io.StringIO()):
            story.play()
        return story

    def _now(self) -> World:
        assert self.world is not None
        return self.world

    def _storage(self, uri: str) -> ProcessStorage:
        return self._now().storage(uri)
