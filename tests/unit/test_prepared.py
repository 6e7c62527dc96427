"""Worker processes that are forked from a prepared one behave like those that are started."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.local.prepared import Prepared
from infra.local.workers import Ended, Workers

PROGRAM = """\
import os, signal, sys, time
print(sys.argv[1:], os.environ["GIVEN"], "FORGOTTEN" in os.environ, os.getcwd(), __name__)
print("complaint", file=sys.stderr)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "slow":
    time.sleep(60)
if sys.argv[1] == "defect":
    raise ValueError("a defect")
sys.exit(int(sys.argv[1]))
"""
ROOT = str(Path(__file__).parents[2])


@pytest.fixture(params=["prepared", "started"])
def workers(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Workers]:
    environment = {"PYTHONPATH": ROOT, "PATH": os.defpath}
    prepared = None
    if request.param == "prepared":
        prepared = Prepared(environment | {"FORGOTTEN": "1"}, tmp_path)
    found = Workers(tmp_path / "logs", environment, tmp_path, prepared=prepared)
    yield found
    found.stop()


def run(workers: Workers, word: str, seconds: float = 30) -> Ended:
    program = workers.directory / "program.py"
    program.write_text(PROGRAM)
    return workers.run(
        [sys.executable, str(program), word],
        log_name=word, seconds=seconds, grace_seconds=1, environment={"GIVEN": "yes"},
    )  # fmt: skip


def test_workers_end_as_programs_do(workers: Workers) -> None:
    ended = {word: run(workers, word) for word in ("0", "3", "killed", "defect")}
    assert {word: one.code for word, one in ended.items()} == {
        "0": 0, "3": 3, "killed": 128 + signal.SIGKILL, "defect": 1,
    }  # fmt: skip
    where = workers.directory.resolve()
    assert ended["3"].log.read_text() == f"['3'] yes False {where} __main__\n"
    assert ended["3"].last_line() == "complaint"
    assert ended["defect"].last_line() == "ValueError: a defect"


def test_a_worker_whose_time_is_over_is_ended(workers: Workers) -> None:
    ended = run(workers, "slow", seconds=1)
    assert (ended.code, ended.timed_out) == (128 + signal.SIGTERM, True)


def test_all_who_wait_for_a_worker_learn_how_it_ended(workers: Workers) -> None:
    """As when the emulator is stopped: the thread that runs a worker waits, and so does `stop`."""
    program = workers.directory / "program.py"
    program.write_text(PROGRAM)
    for _ in range(3):
        with (workers.logs / "any.log").open("ab") as log:
            process = workers._start(
                [sys.executable, str(program), "3"], {"GIVEN": "yes"}, log.fileno(), log.fileno()
            )
        with ThreadPoolExecutor(4) as pool:
            codes = list(pool.map(process.wait, [None, 30, 30, 30]))
        assert codes == [3] * 4


def test_without_the_prepared_process_a_worker_starts_by_itself(workers: Workers) -> None:
    if workers.prepared is not None:
        workers.prepared._process.kill()
        workers.prepared._process.wait()
    assert run(workers, "3").code == 3
