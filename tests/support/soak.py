"""A writer that never pauses, incremental runs that are killed, and a final check of the lake.

As a module it runs for as long as you like: ``python -m tests.support.soak --minutes 5``.

Every version of a row has a unique number. The writer records which versions it committed, when,
and when each was superseded. At the end:

- no version is in the lake twice;
- the lake has nothing that was not committed, or that its own transaction superseded;
- the lake has every version that was current at some run's snapshot, and within what was extracted
  by then. The check knows for certain those that were committed before the run's process began and
  superseded after it had ended; after the last run, with the writer stopped, these are all versions
  that are current at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any, Literal

import psycopg

from extract_jobs.watermark import WatermarkValue, python_value
from tests.support.crash import Driver, Lake
from tests.support.postgres import Server, run_server

Mode = Literal["snapshot", "column"]

DELAY_SECONDS = 2
TRANSACTION_TIMEOUT = "1500ms"
"""In column mode the server itself ends transactions well before the delay has passed."""
LONG_SECONDS = 1.0
"""How long the long transactions of column mode stay open."""
SESSIONS = 4
WATERMARKS: dict[Mode, dict[str, Any]] = {
    "snapshot": {"snapshot": True},
    "column": {"column": "changed_at", "delay": f"{DELAY_SECONDS}s"},
}
_MODES: tuple[Mode, ...] = ("snapshot", "column")
_NEW = "nextval('versions'), clock_timestamp()"
_KEPT = "version, previous, xmin::text::int8, changed_at"
_SOME_ROW = "id = (select id from t where id >= %s order by id limit 1 for update skip locked)"


@dataclass
class Version:
    """One version of a row, as the writer recorded it; times are from `time.monotonic`.

    Attributes:
        key: The value that the mode orders by.
        committed: Just after its transaction's commit.
        superseded: Just before the commit that replaced or deleted it.
    """

    key: Any
    committed: float
    superseded: float = math.inf


@dataclass
class Session:
    """One connection of the writer, and what its open transaction has done."""

    opened: psycopg.Connection[Any]
    is_open: bool = False
    begun: float = 0.0
    written: list[tuple[int, Any]] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)
    savepoints: list[tuple[int, int]] = field(default_factory=list)

    def forget(self) -> None:
        """Begin with nothing."""
        self.is_open = False
        self.written, self.replaced, self.savepoints = [], [], []


class Writer:
    """Interleaves the transactions of several sessions, one step at a time, in a thread."""

    def __init__(self, server: Server, mode: Mode, seed: int) -> None:
        self._server, self._mode, self._random = server, mode, random.Random(f"writer {seed}")
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer")
        self.versions: dict[int, Version] = {}
        self.steps: Counter[str] = Counter()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Write until the context ends; open transactions are then committed or rolled back."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        try:
            sessions = [Session(self._connect()) for _ in range(SESSIONS)]
            while not self._stop.is_set():
                self._step(self._random.choice(sessions), sessions[0])
                self._stop.wait(self._random.uniform(0, 0.01))
            for session in sessions:
                if session.is_open:
                    self._guarded(session, self._random.choice(["commit", "rollback"]))
                session.opened.close()
        except BaseException as error:  # noqa: BLE001 - raised again where the writer is used
            self._failure = error

    def _connect(self) -> psycopg.Connection[Any]:
        opened = self._server.connect()
        if self._mode == "column":
            opened.execute(f"set transaction_timeout = '{TRANSACTION_TIMEOUT}'".encode())
        return opened

    def _step(self, session: Session, long: Session) -> None:
        if not session.is_open:
            self._guarded(session, "begin")
            return
        # The first session's transactions stay open for long, in snapshot mode over several runs.
        ends = 0.4 if session is long else 4
        if session is long and self._mode == "column":
            ends = 100 if time.monotonic() - session.begun > LONG_SECONDS else 0
        steps = {
            "insert": 6.0, "update": 8.0, "delete": 1.0, "savepoint": 4.0, "commit": ends,
            "rollback": ends / 4,
        }  # fmt: skip
        if session.savepoints:
            steps |= {"release": 1.5, "rollback_to": 1.5}
        self._guarded(session, self._random.choices([*steps], [*steps.values()])[0])

    def _guarded(self, session: Session, step: str) -> None:
        """Take a step; a transaction that the server ended counts for nothing."""
        self.steps[step] += 1
        try:
            getattr(self, f"_{step}")(session)
        except psycopg.errors.TransactionTimeout:
            self._cut(session)
        except psycopg.OperationalError:
            if self._mode == "snapshot":
                raise
            self._cut(session)

    def _cut(self, session: Session) -> None:
        self.steps["cut by the server"] += 1
        session.opened.close()
        session.opened = self._connect()
        session.forget()

    def _begin(self, session: Session) -> None:
        session.opened.execute("begin")
        session.is_open, session.begun = True, time.monotonic()

    def _insert(self, session: Session) -> None:
        for _ in range(self._random.randint(1, 4)):
            self._write(
                session,
                "insert into t (id, version, changed_at)"
                f" values (nextval('ids'), {_NEW}) returning {_KEPT}",
            )

    def _update(self, session: Session) -> None:
        self._write(
            session,
            "update t set previous = version, version = nextval('versions'),"
            f" changed_at = clock_timestamp() where {_SOME_ROW} returning {_KEPT}",
            self._some_id(),
        )

    def _delete(self, session: Session) -> None:
        statement = f"delete from t where {_SOME_ROW} returning version"
        rows = session.opened.execute(statement.encode(), self._some_id())
        session.replaced += [row[0] for row in rows]

    def _some_id(self) -> list[int]:
        return [self._random.randint(1, max(1, self.steps["insert"] * 3))]

    def _write(self, session: Session, statement: str, values: list[int] | None = None) -> None:
        for version, previous, xmin, changed_at in session.opened.execute(
            statement.encode(), values
        ):
            moment = changed_at.astimezone(UTC).replace(tzinfo=None)
            session.written.append((version, xmin if self._mode == "snapshot" else moment))
            if previous is not None:
                session.replaced.append(previous)

    def _savepoint(self, session: Session) -> None:
        session.opened.execute(f"savepoint s{len(session.savepoints)}".encode())
        session.savepoints.append((len(session.written), len(session.replaced)))

    def _release(self, session: Session) -> None:
        number = self._random.randrange(len(session.savepoints))
        session.opened.execute(f"release s{number}".encode())
        del session.savepoints[number:]

    def _rollback_to(self, session: Session) -> None:
        number = self._random.randrange(len(session.savepoints))
        session.opened.execute(f"rollback to s{number}".encode())
        written, replaced = session.savepoints[number]
        del session.savepoints[number + 1 :], session.written[written:], session.replaced[replaced:]

    def _rollback(self, session: Session) -> None:
        session.opened.execute("rollback")
        session.forget()

    def _commit(self, session: Session) -> None:
        rows = session.opened.execute("select pg_current_xact_id_if_assigned()::text")
        found = rows.fetchone()
        assert found is not None
        before = time.monotonic()
        try:
            session.opened.execute("commit")
        except psycopg.OperationalError:
            if found[0] is None or self._status(found[0]) != "committed":
                raise
        after = time.monotonic()
        for version in session.replaced:
            # None: this same transaction wrote and replaced it.
            if version in self.versions:
                self.versions[version].superseded = before
        gone = set(session.replaced)
        for version, key in session.written:
            if version not in gone:
                self.versions[version] = Version(key, after)
        session.forget()

    def _status(self, transaction: str) -> str:
        with self._server.connect() as opened:
            row = opened.execute("select pg_xact_status(%s::xid8)", [transaction]).fetchone()
        assert row is not None
        return str(row[0])


@dataclass
class Process:
    """One worker's life: whose attempt, from when to when, and how it ended."""

    run_id: str
    attempt: int
    started: float
    ended: float = math.inf
    exit: int | None = None
    may_be_killed: bool = False
    stderr: str = ""


@dataclass
class Runs:
    """Consecutive incremental runs; half are killed, some are started twice."""

    drivers: list[Driver]
    server: Server
    lake: Lake
    mode: Mode
    random: random.Random
    processes: list[Process] = field(default_factory=list)
    calls: int = 20
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def follow(self) -> None:
        """Run once: alone, or two at once."""
        last = self.processes[-1] if self.processes else None
        retry = last is not None and last.exit != 0 and self.random.random() < 0.6
        run_id, attempt = f"r{next(self._numbers)}", 1
        if last is not None and retry:
            run_id, attempt = last.run_id, last.attempt + 1
        if self.random.random() < 0.75:
            self._together((run_id, attempt))
        elif self.random.random() < 0.5:
            self._together((run_id, attempt), (run_id, attempt + 1))
        else:
            self._together((run_id, attempt), (f"r{next(self._numbers)}", 1))

    def _together(self, *wanted: tuple[str, int]) -> None:
        processes = []
        for driver, (run_id, attempt) in zip(self.drivers, wanted, strict=False):
            # Some numbers are beyond the number of calls, so half of the runs are killed.
            kills = self.random.random() < 0.6
            sign = self.random.choice((1, -1))
            kill_call = sign * self.random.randint(1, self.calls) if kills else 0
            process = Process(run_id, attempt, time.monotonic(), may_be_killed=kills)
            self._start(driver, process, kill_call=kill_call)
            processes.append(process)
        for driver, process in zip(self.drivers, processes, strict=False):
            self._end(driver, process)
            allowed = {0}
            if process.may_be_killed:
                allowed.add(-signal.SIGKILL)
            if len(wanted) > 1:
                allowed.add(75)  # the other one was faster, three times
            assert process.exit in allowed, f"{process.run_id}: {process.exit}: {process.stderr}"

    def last(self) -> None:
        """Run until everything is extracted, without kills."""
        process = Process(f"r{next(self._numbers)}", 1, time.monotonic())
        self._start(self.drivers[0], process, then_recover=True)
        self._end(self.drivers[0], process)
        assert process.exit == 0, process.stderr

    def _start(self, driver: Driver, process: Process, **more: Any) -> None:
        spec = self.lake.spec(
            self.server, process.run_id, process.attempt,
            mode="incremental", watermark=WATERMARKS[self.mode],
        )  # fmt: skip
        count = {"count_to": str(driver.log) + ".count"}
        driver.start(spec, {"CRASH_PASSWORD": self.server.password}, **more, **count)

    def _end(self, driver: Driver, process: Process) -> None:
        ended = driver.end()
        process.ended, process.exit, process.stderr = time.monotonic(), ended.exit, ended.stderr
        if ended.exit == 0:
            self.calls = max(self.calls, int(Path(f"{driver.log}.count").read_text()))
        self.processes.append(process)


@dataclass(frozen=True)
class Figures:
    """The figures of a successful soak."""

    versions: int
    extracted: int
    certain: int
    commits: int
    processes: int
    killed: int
    steps: dict[str, int]


def published(lake: Lake) -> list[dict[str, Any]]:
    """Return the published commits of a table, in order."""
    state = Path(lake.state)
    return [
        json.loads((state / "commits" / outcome.name).read_text())
        for outcome in sorted((state / "outcomes").glob("*.json"))
        if "published" in outcome.read_text()
    ]


def account(writer: Writer, runs: Runs, current: set[int]) -> Figures:
    """Compare the lake with the writer's records.

    Raises:
        AssertionError: A version is missing, duplicated, or was never committed.
    """
    extracted = runs.lake.read("version")
    counts = Counter(extracted)
    twice = sorted(version for version, count in counts.items() if count > 1)
    assert not twice, f"{len(twice)} versions are there more than once: {twice[:10]}"
    unknown = sorted(set(extracted) - set(writer.versions))
    assert not unknown, f"{len(unknown)} versions were never committed: {unknown[:10]}"
    known = {v for v, it in writer.versions.items() if it.superseded == math.inf}
    assert current == known, "the writer's own account is wrong"
    missing = sorted(current - set(extracted))
    assert not missing, f"{len(missing)} current versions are missing: {missing[:10]}"
    commits = published(runs.lake)
    certain = _certain(writer.versions, runs, commits)
    missing = sorted(certain - set(extracted))
    assert not missing, (
        f"{len(missing)} versions that were current at a run's snapshot are missing: "
        f"{[(v, writer.versions[v]) for v in missing[:5]]}"
    )
    return Figures(
        versions=len(writer.versions),
        extracted=len(extracted),
        certain=len(certain),
        commits=len(commits),
        processes=len(runs.processes),
        killed=sum(process.exit == -signal.SIGKILL for process in runs.processes),
        steps=dict(writer.steps),
    )


def _certain(versions: dict[int, Version], runs: Runs, commits: list[dict[str, Any]]) -> set[int]:
    """Return the versions that were certainly current while a published attempt was running."""
    lives = {(p.run_id, p.attempt): p for p in runs.processes}
    found: set[int] = set()
    for commit in commits:
        process = lives[commit["run_id"], commit["attempt"]]
        upper = WatermarkValue.from_json(commit["interval"]["upper"])
        if upper is None:
            continue  # the table was empty
        for number, version in versions.items():
            reached = version.key <= python_value(upper)
            if reached and version.committed < process.started < process.ended < version.superseded:
                found.add(number)
    return found


def soak(
    server: Server,
    folder: Path,
    drivers: list[Driver],
    mode: Mode,
    seed: int,
    goes_on: Callable[[int], bool],
) -> Figures:
    """Write and extract for some time, then stop both and compare.

    Args:
        server: The table ``t`` of its database is created again.
        folder: An empty folder for the lake.
        drivers: Two, to run extracts at the same time.
        mode: How the runs choose their intervals.
        seed: Seed of all decisions; timing depends on the machine.
        goes_on: Takes the number of runs so far, and returns whether to continue.

    Raises:
        AssertionError: The lake is wrong, or a run failed.
    """
    server.execute(
        "drop table if exists t",
        "drop sequence if exists ids, versions",
        "create sequence ids",
        "create sequence versions",
        "create table t (id bigint primary key, version bigint, changed_at timestamptz,"
        " previous bigint)",
    )
    writer = Writer(server, mode, seed)
    decisions = random.Random(f"runs {seed}")
    runs = Runs(drivers, server, Lake(str(folder / "lake")), mode, decisions)
    with writer.writing():
        rounds = 0
        while goes_on(rounds):
            runs.follow()
            rounds += 1
            if decisions.random() < 0.2:
                server.execute("vacuum freeze t")
    if mode == "column":
        time.sleep(DELAY_SECONDS)  # what was written last is extracted once the delay is over
    runs.last()
    with server.connect() as opened:
        current = {row[0] for row in opened.execute("select version from t")}
    return account(writer, runs, current)


@contextlib.contextmanager
def two_drivers(folder: Path) -> Iterator[list[Driver]]:
    """Start two processes that run extracts, until the context ends."""
    with Driver(folder / "driver-0.log") as one, Driver(folder / "driver-1.log") as two:
        yield [one, two]


def main() -> int:
    """Soak for some minutes, with one seed after another; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--round-seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=None, help="of the first round")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    until = time.monotonic() + given.minutes * 60
    with run_server() as server:
        for mode in itertools.cycle(_MODES):
            left = until - time.monotonic()
            if left <= 0:
                return 0
            _one(server, mode, seed, min(given.round_seconds, max(5, left)))
            seed += mode == _MODES[-1]
    return 1


def _one(server: Server, mode: Mode, seed: int, seconds: float) -> None:
    print(f"seed {seed}, {mode} mode, {seconds:.0f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        with two_drivers(folder) as drivers:
            ends = time.monotonic() + seconds
            figures = soak(server, folder, drivers, mode, seed, lambda _: time.monotonic() < ends)
    print(f"  {figures}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
