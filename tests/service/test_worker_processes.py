"""Splits on worker processes: no Spark, no guard in scripts, and nobody left behind."""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract_jobs.engine import worker_processes
from extract_jobs.engine.placement import Placement, processes_for
from extract_jobs.engine.process_splits import pickled
from extract_jobs.engine.run_splits import abort_leftover_uploads, run_splits
from extract_jobs.engine.split_task import SplitFailure, SplitResult
from extract_jobs.engine.worker_processes import WorkerProcesses
from extract_jobs.errors import (
    ConfigError,
    ExtractError,
    Interrupted,
    SourceQueryFailed,
    WorkerOutOfMemory,
)
from extract_jobs.reporting.progress import Progress
from extract_jobs.sources.splits import Split
from extract_jobs.spec.source_types import BUILT_IN
from tests.support.scattered import ScatteredReader, scattered_task
from tests.support.sqlite_source import write

ROOT = Path(__file__).parents[2]
SERVER = "extract_jobs.engine.worker_server"


@dataclass
class OddReader(ScatteredReader):
    """Does something odd in the middle of a split of one index, as often as told."""

    odd: str = ""
    at: int = 1
    times: int = 1
    folder: str = ""
    memory_group: str = ""

    def read(self, split: Split) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(super().read(split)):
            if split.index == self.at and number == 1:
                self._act()
            yield batch

    def _act(self) -> None:
        marks = Path(self.folder)
        if len([*marks.glob("did-*")]) >= self.times:
            return
        (marks / f"did-{os.getpid()}").touch()
        if self.odd == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.odd == "kill server":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        elif self.odd == "fail":
            raise SourceQueryFailed("no")
        elif self.odd == "memory":
            raise MemoryError
        elif self.odd == "exhaust":
            resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
            pa.allocate_buffer(2**32)
        elif self.odd == "fill":
            Path(self.memory_group, "cgroup.procs").write_text(str(os.getpid()))
            filled = [b"x" * 2**20 for _ in range(1024)]
            raise AssertionError(f"still alive with {len(filled)} MiB more")
        elif self.odd == "defect":
            raise KeyError("row data")
        elif self.odd == "wait":
            time.sleep(60)
        elif self.odd == "log":
            logging.getLogger("extract_jobs.here").warning("said by %d", os.getpid())


@pytest.fixture(scope="module")
def workers() -> Iterator[WorkerProcesses]:
    with WorkerProcesses() as processes:
        yield processes
    assert servers() == []


def run(
    folder: Path,
    workers: WorkerProcesses | None,
    odd: str = "",
    *,
    splits: int = 3,
    progress: Progress | None = None,
    **more: Any,
) -> list[SplitResult]:
    """Run splits on two processes; nothing of it stays staged, however it ends."""
    reader = OddReader(rows=300, partitions=1, batch_rows=100, odd=odd, folder=str(folder), **more)
    task = replace(scattered_task(folder / "lake"), reader=reader)
    units = [Split(i, estimated_bytes=10) for i in range(splits)]
    try:
        results = run_splits(
            task, units, placement=Placement("processes", 2),
            progress=progress or Progress(), workers=workers,
        )  # fmt: skip
    except BaseException:
        abort_leftover_uploads(task, ())
        assert [p for p in (folder / "lake").rglob("*") if p.is_file()] == []
        raise
    abort_leftover_uploads(task, [f for r in results for f in r.files])
    return results


def servers(of: int | None = None) -> list[psutil.Process]:
    """Return the servers and workers below a process."""

    def arguments(process: psutil.Process) -> list[str]:
        try:
            return process.cmdline()
        except (psutil.ZombieProcess, psutil.NoSuchProcess):
            return []  # of another test in this process, for one

    return [p for p in psutil.Process(of).children(recursive=True) if SERVER in arguments(p)]


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_lost_worker_costs_one_try(
    workers: WorkerProcesses, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = run(tmp_path, workers, "kill", splits=5)
    assert [(r.index, r.rows) for r in results] == [(i, 300) for i in range(5)]
    assert "lost (signal 9, Killed); reading again" in caplog.text


def test_a_worker_killed_twice_has_no_memory(workers: WorkerProcesses, tmp_path: Path) -> None:
    with pytest.raises(WorkerOutOfMemory, match="a worker process was killed"):
        run(tmp_path, workers, "kill", times=2)


def test_a_worker_killed_while_it_was_idle_costs_no_try(
    workers: WorkerProcesses, tmp_path: Path
) -> None:
    run(tmp_path, workers)
    idle = [worker for server in servers() for worker in server.children()]
    assert idle
    for worker in idle:
        worker.kill()
    wait_until(lambda: all(worker.status() == psutil.STATUS_ZOMBIE for worker in idle))
    taken = workers.take()
    assert taken.pid not in {worker.pid for worker in idle}
    workers.give_back(taken)
    assert len(run(tmp_path, workers)) == 3


def test_the_second_try_uses_no_worker_that_the_same_cause_may_be_killing(
    workers: WorkerProcesses, tmp_path: Path
) -> None:
    """What kills workers kills several, one after the other: an idle one looks well until then."""
    first, other = workers.take(), workers.take(new=True)
    workers.give_back(other)
    workers.give_back(first)
    doomed = psutil.Process(other.pid)
    doomed.suspend()
    killer = threading.Timer(1, doomed.kill)
    killer.start()
    try:
        assert [r.rows for r in run(tmp_path, workers, "kill", splits=1, at=0)] == [300]
    finally:
        killer.join()


@dataclass
class KeepingReader(ScatteredReader):
    """Has a session, which is a file while it is open."""

    folder: str = ""

    @contextmanager
    def one_session(self) -> Iterator[None]:
        mark = Path(self.folder) / f"session-{os.getpid()}"
        mark.touch()
        try:
            yield
        finally:
            mark.unlink()


def test_a_session_ends_when_its_owner_releases_it_or_another_takes_the_worker(
    tmp_path: Path,
) -> None:
    reader = KeepingReader(rows=100, partitions=1, batch_rows=100, folder=str(tmp_path))
    task = pickled(replace(scattered_task(tmp_path / "lake"), reader=reader))

    def sessions() -> int:
        return len(list(tmp_path.glob("session-*")))

    with WorkerProcesses() as processes:
        worker = processes.take("a")
        for index in range(2):
            worker.run(task, [Split(index)], Progress())
            assert sessions() == 1
        processes.give_back(worker)
        assert processes.take("b") is worker
        assert sessions() == 0
        worker.run(task, [Split(2)], Progress())
        processes.give_back(worker)
        processes.release("a")
        assert sessions() == 1
        processes.release("b")
        assert sessions() == 0
        assert processes.take("c") is worker


def test_an_allocation_that_the_system_refuses_is_an_error_of_memory(tmp_path: Path) -> None:
    with pytest.raises(WorkerOutOfMemory, match="0 to 1: a Python worker ran out of memory"):
        run(tmp_path, None, "exhaust")


def test_a_kill_for_want_of_memory_is_not_tried_again_on_the_same_machine(
    workers: WorkerProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.start()
    count = worker_processes.oom_kills()
    monkeypatch.setattr(worker_processes, "oom_kills", lambda: count + 1)
    with pytest.raises(WorkerOutOfMemory):
        run(tmp_path, workers, "kill")
    assert len([*tmp_path.glob("did-*")]) == 1


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group of 64 MiB, to which a process may move itself."""
    for parent, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = parent / f"extract-jobs-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(64 * 2**20))
        except OSError:
            if group.is_dir():
                group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("no control group for memory can be made here, which takes root")


def test_a_worker_that_the_kernel_kills_for_memory_is_told_as_such(
    workers: WorkerProcesses, memory_group: Path, tmp_path: Path
) -> None:
    with pytest.raises(WorkerOutOfMemory, match="0 to 1: a worker process was killed, as the"):
        run(tmp_path, workers, "fill", memory_group=str(memory_group))
    assert len([*tmp_path.glob("did-*")]) == 1, "the same machine would kill it again"
    assert WorkerOutOfMemory.retryable, "by the pipeline, on a larger worker"
    assert len(run(tmp_path, workers)) == 3


def test_the_system_counts_such_kills() -> None:
    assert "\noom_kill " in Path("/proc/vmstat").read_text()
    assert worker_processes.oom_kills() >= 0


def test_a_lost_server_is_retryable(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="server of worker processes was lost") as caught:
        run(tmp_path, None, "kill server")
    assert caught.value.retryable


def test_a_lost_server_is_replaced_for_the_next_extract(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with WorkerProcesses(most=2) as workers:
        with pytest.raises(Interrupted, match="server of worker processes was lost"):
            run(first, workers, "kill server")
        assert len(run(second, workers)) == 3


@pytest.mark.parametrize(
    ("odd", "error", "text"),
    [
        ("fail", SourceQueryFailed, "no"),
        ("memory", WorkerOutOfMemory, "a Python worker ran out of memory"),
        ("defect", ExtractError, "unexpected KeyError: a defect"),
    ],
)
def test_what_a_split_raises_is_raised(
    workers: WorkerProcesses, tmp_path: Path, odd: str, error: type[ExtractError], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        run(tmp_path, workers, odd)
    assert type(caught.value) is error


def test_the_first_error_stops_a_split_that_would_take_long(
    workers: WorkerProcesses, tmp_path: Path
) -> None:
    class Failing(Progress):
        def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
            if done:
                raise RuntimeError("here")

    started = time.monotonic()
    with pytest.raises(RuntimeError, match="here"):
        run(tmp_path, workers, "wait", at=0, progress=Failing())
    assert time.monotonic() - started < 30


def test_a_progress_that_fails_is_no_lost_worker(tmp_path: Path) -> None:
    """Such as one that prints to a pipe which nobody reads any more."""

    class Unread(Progress):
        def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
            if not done:
                raise BrokenPipeError

    before = set(servers())
    with WorkerProcesses() as processes:
        with pytest.raises(BrokenPipeError):
            run(tmp_path, processes, "log", at=0, splits=2, progress=Unread())
        # No worker is left that still stages rows.
        assert len(set(servers()) - before) == 1 + len(processes._idle)


def test_a_worker_that_is_ending_gets_no_other_split() -> None:
    with WorkerProcesses() as processes:
        worker = processes.take()
        processes.interrupt(None)  # just as it gives its outcome
        processes.give_back(worker)
        assert processes.take() is not worker


def test_a_split_whose_worker_was_asked_to_end_was_stopped_not_lost(tmp_path: Path) -> None:
    class Asking(Progress):
        def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
            processes.stop()

    with (
        WorkerProcesses() as processes,
        pytest.raises(Interrupted, match=r"^stopped while reading split 0$"),
    ):
        run(tmp_path, processes, "wait", at=0, splits=1, progress=Asking())


def test_nothing_starts_once_the_extract_has_ended() -> None:
    before = servers()
    with WorkerProcesses() as processes:
        worker = processes.take()
    with pytest.raises(Interrupted, match=r"^stopped before its splits were read$"):
        processes.take()
    with pytest.raises(Interrupted, match="were ended"):
        processes.lost(worker)
    assert servers() == before


def test_a_server_that_does_not_answer_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stuck_source.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(worker_processes, "_ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(worker_processes, "_END_SECONDS", 0.1)
    with (
        WorkerProcesses(["stuck_source"]) as processes,
        pytest.raises(Interrupted, match="server of worker processes was lost"),
    ):
        processes.take()


@pytest.mark.parametrize("end", [WorkerProcesses.stop, WorkerProcesses.close])
def test_a_server_that_is_still_starting_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[WorkerProcesses], None]
) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    raised: list[BaseException] = []

    def take() -> None:
        try:
            workers.take()
        except Interrupted as error:
            raised.append(error)

    with WorkerProcesses(["slow_to_import"]) as workers:
        thread = threading.Thread(target=take)
        thread.start()
        while workers._server is None:
            time.sleep(0.01)
        started = time.monotonic()
        end(workers)
        thread.join(10)
    assert time.monotonic() - started < 1.5
    assert len(raised) == 1


def test_a_program_that_cannot_be_started_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with (
        WorkerProcesses() as processes,
        pytest.raises(Interrupted, match="starts no worker process: No such file"),
    ):
        processes.take()


def test_elsewhere_than_on_linux_one_process_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert processes_for(8, 1) == 1
    with pytest.raises(ConfigError, match="Linux only"):
        processes_for(8, 2)


def test_what_workers_log_is_logged_here(
    workers: WorkerProcesses, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, workers, "log")
    [record] = [r for r in caplog.records if r.name == "extract_jobs.here"]
    assert record.getMessage().startswith("said by ")
    assert int(record.getMessage().split()[-1]) != os.getpid()


def test_rows_are_seen_while_they_come(workers: WorkerProcesses, tmp_path: Path) -> None:
    seen: list[tuple[int, int, bool]] = []

    class Seen(Progress):
        def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
            seen.append((index, rows, done))

    run(tmp_path, workers, progress=Seen())
    assert sorted(s for s in seen if s[2]) == [(i, 300, True) for i in range(3)]
    assert any(0 < rows <= 300 and not done for _, rows, done in seen)


# The server


def test_the_server_has_one_thread_when_it_forks() -> None:
    """With everything imported that any source needs."""
    modules = [kind.opens.partition(":")[0] for kind in BUILT_IN.values() if not kind.on_spark]
    with WorkerProcesses([*modules, "extract_jobs.storage.s3"]) as processes:
        worker = processes.take()
        process = psutil.Process(worker.pid)
        server = process.parent()
        assert server is not None
        assert server.num_threads() == 1
        assert process.cmdline() == server.cmdline()  # it was forked
        loaded = {Path(found.path).name for found in server.memory_maps()}
        assert any(name.startswith("_duckdb") for name in loaded)
        assert not [name for name in loaded if "pandas" in name]


def test_a_server_with_threads_starts_new_interpreters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "threaded_source.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    reader = ScatteredReader(rows=5, partitions=1)
    task = replace(scattered_task(tmp_path / "lake"), reader=reader)
    with WorkerProcesses(["threaded_source"]) as processes:
        worker = processes.take()
        process = psutil.Process(worker.pid)
        wait_until(lambda: "--work" in process.cmdline())
        processes.give_back(worker)
        results = run_splits(
            task, [Split(0), Split(1)], placement=Placement("processes", 2),
            progress=Progress(), workers=processes,
        )  # fmt: skip
    assert [r.rows for r in results] == [5, 5]


def test_closing_ends_workers_that_are_busy() -> None:
    with WorkerProcesses() as processes:
        busy = psutil.Process(processes.take().pid)
        server = busy.parent()
        assert server is not None
        busy.suspend()
    assert not server.is_running()
    assert psutil.wait_procs([busy], timeout=5)[1] == []


def test_a_server_that_cannot_start_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        WorkerProcesses(["no_such_module"]) as processes,
        pytest.raises(ExtractError, match="ended with exit code 1"),
    ):
        processes.take()
    assert "No module named 'no_such_module'" in capfd.readouterr().err


def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    with WorkerProcesses() as processes:  # another driver's are left alone
        mine = processes.take()
        with subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(tmp_path)], cwd=ROOT, stdout=subprocess.DEVNULL
        ) as driver:
            wait_until(lambda: len([*tmp_path.glob("did-*")]) == 1)
            below = servers(driver.pid)
            assert len(below) >= 2
            driver.kill()
        _, alive = psutil.wait_procs(below, timeout=10)
        assert alive == []
        assert psutil.pid_exists(mine.pid)


DRIVER = """
import sys
from pathlib import Path
from tests.service.test_worker_processes import run
run(Path(sys.argv[1]), None, "wait")
"""


# Programs

SCRIPT = """
import sys, threading
print("started")
threading.Thread(target=threading.Event().wait, daemon=True).start()  # as in a notebook
sys.modules["pyspark"] = None  # not installed
from extract_jobs import ExtractSpec, extract
spec = ExtractSpec(
    run_id="r", source_name="shop", source_type="sqlite", connection={"path": "shop.db"},
    extract_table="t", target={"uri": "lake/t"}, state_uri="state", report_uri="state/r.json",
    split={"target_bytes": 8192, "max_connections": 2}, engine=sys.argv[1],
)
report = extract(spec)
print(report.splits > 1, report.rows)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    write(
        tmp_path / "shop.db",
        "create table t (id integer primary key, note text)",
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)"
        " insert into t select i, hex(randomblob(40)) from n",
    )
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def script(shop: Path, engine: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "script.py", engine], cwd=shop, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["auto", "processes"])
def test_a_script_without_guard_and_without_spark_extracts_in_several_splits(
    shop: Path, engine: str
) -> None:
    ended = script(shop, engine)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "started\nTrue 5000\n"
    rows = [pq.read_table(file).num_rows for file in (shop / "lake/t").rglob("*.parquet")]
    assert sum(rows) == 5000


def test_an_engine_that_is_not_installed_is_reported(shop: Path) -> None:
    ended = script(shop, "spark")
    assert "ConfigError: this extract runs on Spark, but the package pyspark" in ended.stderr


def test_a_reader_of_the_script_itself_is_reported(tmp_path: Path) -> None:
    child = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.service.test_worker_processes import *
class Mine(ScatteredReader):
    pass
task = replace(scattered_task(Path(sys.argv[1])), reader=Mine(rows=5, partitions=1))
try:
    run_splits(task, [Split(0), Split(1)], placement=Placement("processes", 2),
               progress=Progress())
except ConfigError as error:
    print(error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", child, tmp_path], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "cannot load its task" in ended.stdout
    assert "Mine" in ended.stdout


def test_a_task_that_does_not_load_does_not_leave_its_predecessor_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "passing_source.py").write_text(
        "from tests.support.scattered import ScatteredReader\n"
        "class Passing(ScatteredReader):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = replace(
        scattered_task(tmp_path / "lake"), reader=ScatteredReader(rows=5, partitions=1)
    )
    passing: Any = importlib.import_module("passing_source")
    gone = pickled(replace(before, reader=passing.Passing(rows=7, partitions=1)))
    (tmp_path / "passing_source.py").unlink()
    with WorkerProcesses() as processes:
        worker = processes.take()
        assert not isinstance(worker.run(pickled(before), [Split(0)], Progress()), SplitFailure)
        for _ in range(2):
            outcome = worker.run(gone, [Split(1)], Progress())
            assert isinstance(outcome, SplitFailure), "the rows of another task"
            assert "cannot load its task" in outcome.message
    abort_leftover_uploads(before, ())


def test_a_lambda_is_reported(tmp_path: Path) -> None:
    task = replace(
        scattered_task(tmp_path), reader=ScatteredReader(rows=5, partitions=1),
        open_storage=lambda _: None,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="cannot be sent to a worker process"):
        run_splits(
            task, [Split(0), Split(1)], placement=Placement("processes", 2),
            progress=Progress(),
        )  # fmt: skip


CONFIG = """
version: 1
source: {name: shop, type: sqlite, connection: {path: shop.db}}
defaults: {target: {uri: "lake/{table}"}}
tables: {t: {split: {target_bytes: 8192, max_connections: 2}}}
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_within_two_seconds(shop: Path, number: int) -> None:
    """Each row takes long to compute, and the whole process group is told, as by Ctrl-C."""
    slow = "alter table t add slow integer as (length(hex(zeroblob(10000000))))"
    write(shop / "shop.db", slow)
    (shop / "shop.yml").write_text(CONFIG)
    with subprocess.Popen(
        [sys.executable, "-m", "extract_jobs.cli", "run", "shop.yml", "--set", "engine=processes"],
        cwd=shop, env={**os.environ, "PYTHONPATH": f"{ROOT}"}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        wait_until(lambda: len(servers(process.pid)) > 1 or process.poll() is not None)
        below = servers(process.pid)
        wait_until(lambda: [*(shop / "lake").rglob("*.parquet*")] or process.poll() is not None)
        started = time.monotonic()
        os.killpg(process.pid, number)
        _, stderr = process.communicate(timeout=60)
        took = time.monotonic() - started
    assert process.returncode == 75, stderr
    assert took < 2, took
    assert stderr.splitlines()[-1].startswith("Interrupted: stopped by ")
    _, alive = psutil.wait_procs(below, timeout=5)
    assert alive == []
    assert [p for p in (shop / "lake/t").rglob("*") if p.is_file()] == []
    [report] = (shop / "lake/_extract").rglob("attempt-1.json")
    said = json.loads(report.read_text())["error"]
    assert (said["class"], said["message"].partition(" ")[0]) == ("Interrupted", "stopped")
