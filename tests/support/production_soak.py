"""Incremental runs against a PostgreSQL that lives as in production, and the final account.

``python -m tests.support.production_soak --minutes 10 --seed 3``, or ``make soak-production``.

A primary with a hot standby, PgBouncer, and addresses that lead to one node or another; sessions
that insert, partitions that are attached and detached, a standby whose replay pauses, and failovers
with and without the loss of what it had not received. Runs come through doors picked at random, in
splits or in one. Any of them may fail, with an error that says so.

At the end, once everything is still and a run on the primary has nothing more to extract:

- no row is in the lake twice;
- nothing is there that was not committed at some time;
- every row of the table is there. Left out of that are rows that were in a detached partition at
  any time, and rows whose commit took longer than ``watermark.delay`` allows for.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from extract_jobs.errors import ExtractError
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.crash import Lake
from tests.support.postgres import PASSWORD, Cluster, Server, cluster_folder
from tests.support.postgres_nodes import STANDBY_SETTINGS, Nodes, copy_of, run_pooler
from tests.support.switch_proxy import SwitchProxy

DELAY_SECONDS = 3.0
_SLOW_SECONDS = DELAY_SECONDS - 0.5
_ROWS_PER_PARTITION = 400
_TABLE = (
    "create table t (id bigint, changed_at timestamptz not null, note text) partition by range (id)"
)
_ROW = "insert into t select id, clock_timestamp(), repeat('n', 100) from unnest(%s::int8[]) id"


class Pair:
    """A primary and its standby, which change roles; the one that failed is made anew.

    Attributes:
        nodes: As they are now.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._primary = self._cluster()
        self._primary.initialize()
        self._serving: dict[int, contextlib.ExitStack] = {}
        primary = self._serve(self._primary)
        self._standby, standby = self._new_standby()
        self.nodes = Nodes(primary, standby)

    def fail_over(self, *, losing: bool) -> None:
        """Stop the primary, promote the standby, and give it a standby of its own.

        Args:
            losing: Whether the standby lacks what was committed last.
        """
        if losing:
            self.nodes.disconnect()
            time.sleep(0.3)
        else:
            self.nodes.resume()
            self.nodes.catch_up()
        self._serving.pop(self._primary.port).close()
        self.nodes.resume()
        self.nodes.promote()
        self._primary, primary = self._standby, self.nodes.standby
        self._standby, standby = self._new_standby()
        self.nodes = Nodes(primary, standby)

    def _cluster(self) -> Cluster:
        return self._stack.enter_context(cluster_folder(15))

    def _new_standby(self) -> tuple[Cluster, Server]:
        cluster = self._cluster()
        copy_of(self._primary, cluster)
        return cluster, self._serve(cluster)

    def _serve(self, cluster: Cluster) -> Server:
        own = contextlib.ExitStack()
        self._serving[cluster.port] = own
        self._stack.callback(own.close)
        return own.enter_context(cluster.serving(**STANDBY_SETTINGS))


@dataclass
class Account:
    """What was written, as its writers know it.

    Attributes:
        attempted: Rows of transactions that were begun.
        rolled_back: Rows whose transaction was rolled back, for sure.
        excused: Rows that need not be in the lake: slow to commit, or detached at some time.
    """

    attempted: set[int] = field(default_factory=set)
    rolled_back: set[int] = field(default_factory=set)
    excused: set[int] = field(default_factory=set)


class World:
    """Writers and maintenance, in threads, on whatever is the primary.

    Attributes:
        account: What they have written.
        done: How often they did what.
    """

    def __init__(self, pair: Pair, seed: int) -> None:
        self._pair, self._random = pair, random.Random(f"world {seed}")
        self._ids, self._lock = itertools.count(1), threading.Lock()
        self._still = threading.Event()
        self.account, self.done = Account(), Counter[str]()
        self.failures: list[BaseException] = []

    @contextlib.contextmanager
    def turning(self) -> Iterator[None]:
        """Write and maintain until the context ends."""
        threads = [
            threading.Thread(target=self._repeat, args=(step,))
            for step in (self._insert, self._insert, self._maintain)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._still.set()
            for thread in threads:
                thread.join()
        if self.failures:
            raise self.failures[0]

    def _repeat(self, step: Callable[[psycopg.Connection[Any]], None]) -> None:
        opened: psycopg.Connection[Any] | None = None
        while not self._still.wait(self._random.uniform(0.01, 0.1)):
            try:
                if opened is None or opened.closed:
                    opened = self._pair.nodes.primary.connect(connect_timeout=5)
                    opened.execute("set lock_timeout = '2s'")
                step(opened)
            except psycopg.Error:
                # A node that goes, a lock that is not had: what was begun is unknown or undone.
                self.done["failed"] += 1
                if opened is not None:
                    opened.close()
            except BaseException as error:  # noqa: BLE001 - raised again by `turning`
                self.failures.append(error)
                return

    def _taken(self, count: int) -> list[int]:
        with self._lock:
            ids = [next(self._ids) for _ in range(count)]
            self.account.attempted.update(ids)
            return ids

    def _insert(self, opened: psycopg.Connection[Any]) -> None:
        ids = self._taken(self._random.randint(1, 5))
        first, last = (partition_of(i) for i in (ids[0], ids[-1]))
        for number in {first, last}:
            make_partition(opened, number)
        began = time.monotonic()
        with self._lock:
            self.account.excused.update(ids)  # until it is known that they were quick
        rolls_back = self._random.random() < 0.1
        with contextlib.suppress(psycopg.Rollback), opened.transaction() as transaction:
            opened.execute(_ROW.encode(), (ids,))
            time.sleep(self._random.choice((0, 0, 0.05, 0.5)))
            if rolls_back:
                raise psycopg.Rollback(transaction)
        with self._lock:
            self.done["rolled back" if rolls_back else "inserted"] += 1
            if rolls_back:
                self.account.rolled_back.update(ids)
            elif time.monotonic() - began < _SLOW_SECONDS:
                self.account.excused.difference_update(ids)

    def _maintain(self, opened: psycopg.Connection[Any]) -> None:
        what = self._random.choices(("attach", "detach", "pause", "rest"), (3, 1, 2, 10))[0]
        self.done[what] += 1
        if what == "attach":
            self._attach(opened)
        elif what == "detach":
            self._detach(opened)
        elif what == "pause":
            with contextlib.suppress(psycopg.Error, TimeoutError):
                self._pair.nodes.pause()
                self._still.wait(self._random.uniform(0.5, 2 * DELAY_SECONDS))
                self._pair.nodes.resume()
        else:
            self._still.wait(0.3)

    def _attach(self, opened: psycopg.Connection[Any]) -> None:
        """Attach a table that was filled beforehand, in the same transaction."""
        with self._lock:
            # A partition of ids that the other writers jump over.
            here = next(self._ids)
            number = partition_of(here) + 2
            low = number * _ROWS_PER_PARTITION
            ids = list(range(low, low + _ROWS_PER_PARTITION))
            self._ids = itertools.count(ids[-1] + 1)
            self.account.attempted.update(ids)
            self.account.excused.update(ids)
        began = time.monotonic()
        with opened.transaction():
            opened.execute(f"create table p{number} (like t)".encode())
            opened.execute(_ROW.replace("into t", f"into p{number}").encode(), (ids,))
            opened.execute(f"alter table t attach partition p{number} {_range(number)}".encode())
        if time.monotonic() - began < _SLOW_SECONDS:
            with self._lock:
                self.account.excused.difference_update(ids)

    def _detach(self, opened: psycopg.Connection[Any]) -> None:
        names = opened.execute(
            "select inhrelid::regclass::text from pg_inherits where inhparent = 't'::regclass"
            " order by inhrelid"
        ).fetchall()
        if len(names) < 3:
            return
        name = names[0][0]
        ids = {i for (i,) in opened.execute(f"select id from {name}".encode())}
        with self._lock:
            self.account.excused.update(ids)
        opened.execute(f"alter table t detach partition {name}".encode())


def partition_of(row: int) -> int:
    """Return the number of the partition that holds a row."""
    return row // _ROWS_PER_PARTITION


def _range(number: int) -> str:
    low = number * _ROWS_PER_PARTITION
    return f"for values from ({low}) to ({low + _ROWS_PER_PARTITION})"


def make_partition(opened: psycopg.Connection[Any], number: int) -> None:
    """Make a partition, if it is not there."""
    statement = f"create table if not exists p{number} partition of t {_range(number)}"
    with contextlib.suppress(psycopg.errors.DuplicateTable, psycopg.errors.UniqueViolation):
        opened.execute(statement.encode())


@dataclass
class Doors:
    """Addresses of the database, some of which lead to one node now and to another later."""

    pair: Pair
    writer: SwitchProxy
    reader: SwitchProxy
    any_node: SwitchProxy
    poolers: dict[str, Server]

    def pick(self, decisions: random.Random) -> tuple[str, Server, bool]:
        """Return a door: its name, where it is, and whether it is used as pooled."""
        nodes = self.pair.nodes
        self.writer.lead_to(nodes.primary.port)
        self.reader.lead_to(nodes.standby.port)
        self.any_node.lead_to(decisions.choice((nodes.primary.port, nodes.standby.port)))
        at = replace(nodes.primary, port=0)
        doors: dict[str, tuple[Server, bool]] = {
            "primary": (nodes.primary, False),
            "standby": (nodes.standby, False),
            "writer": (replace(at, port=self.writer.port), False),
            "reader": (replace(at, port=self.reader.port), False),
            "any": (replace(at, port=self.any_node.port), True),
            **{name: (server, False) for name, server in self.poolers.items()},
            "pooled": (self.poolers["transaction"], True),
        }
        name = decisions.choice(sorted(doors))
        return name, *doors[name]


def extract(lake: Lake, door: Server, run_id: str, *, pooled: bool, splits: int) -> int:
    """Run one increment; returns its rows. Raises as `run_extract`."""
    spec = lake.spec(
        door, run_id, mode="incremental",
        watermark={"column": "changed_at", "delay": f"{DELAY_SECONDS:.0f}s"},
        split={"target_bytes": 65536, "max_connections": splits},
    )  # fmt: skip
    spec["connection"] |= {"pooled": pooled, "sslmode": "disable"}
    return run_extract(ExtractSpec.model_validate(spec)).rows


def check(lake: Lake, server: Server, account: Account) -> str:
    """Compare lake and table; return what there is.

    Raises:
        AssertionError: A row is missing, there twice, or there without having been committed.
    """
    counts = Counter(lake.read("id"))
    twice = sorted(row for row, count in counts.items() if count > 1)
    assert not twice, f"{len(twice)} rows are there more than once: {twice[:10]}"
    strange = sorted(counts.keys() - account.attempted | counts.keys() & account.rolled_back)
    assert not strange, f"{len(strange)} rows were never committed: {strange[:10]}"
    with server.connect() as opened:
        current = {row for (row,) in opened.execute("select id from t")}
    missing = sorted(current - counts.keys() - account.excused)
    assert not missing, f"{len(missing)} rows are missing: {missing[:10]}"
    lost = len(counts.keys() - current - account.excused)
    excused = len(current & account.excused)
    return (
        f"{len(current)} rows in the table, {len(counts)} in the lake, {excused} excused; "
        f"{lost} are in the lake and were lost in a failover"
    )


def soak(seconds: float, seed: int, failovers: int) -> str:
    """Let it all happen for some time, then compare; return figures.

    Args:
        seconds: How long.
        seed: Of all decisions; what happens at the same time is up to the machine.
        failovers: How many, evenly spread.

    Raises:
        AssertionError: The lake is not what it should be.
        ExtractError: A run failed that a retry would not help.
    """
    os.environ["CRASH_PASSWORD"] = PASSWORD
    decisions, outcomes = random.Random(f"runs {seed}"), Counter[str]()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        lake = Lake(str(folder / "lake"))
        pair = Pair(stack)
        pair.nodes.primary.execute(_TABLE)
        pair.nodes.catch_up()
        writer, reader, any_node = (
            stack.enter_context(SwitchProxy(pair.nodes.primary.port)) for _ in range(3)
        )
        behind = replace(pair.nodes.primary, port=writer.port)
        poolers = {
            "session": stack.enter_context(run_pooler(behind, "session", server_lifetime="2")),
            "transaction": stack.enter_context(
                run_pooler(behind, "transaction", server_lifetime="2")
            ),
        }
        doors = Doors(pair, writer, reader, any_node, poolers)
        world, numbers = World(pair, seed), itertools.count(1)
        with world.turning():
            began, over = time.monotonic(), 0
            while (passed := time.monotonic() - began) < seconds:
                if over < failovers and passed > (over + 1) * seconds / (failovers + 1):
                    losing = decisions.random() < 0.5
                    pair.fail_over(losing=losing)
                    outcomes["failover, losing" if losing else "failover"] += 1
                    over += 1
                name, door, pooled = doors.pick(decisions)
                try:
                    rows = extract(
                        lake, door, f"r{next(numbers)}", pooled=pooled,
                        splits=decisions.choice((1, 2)),
                    )  # fmt: skip
                    outcomes[f"{name}: {'rows' if rows else 'nothing new'}"] += 1
                except ExtractError as error:
                    outcomes[f"{name}: {type(error).__name__}"] += 1
                    if not error.retryable:
                        raise
        pair.nodes.resume()
        time.sleep(DELAY_SECONDS)
        while extract(lake, pair.nodes.primary, f"r{next(numbers)}", pooled=False, splits=2):
            pass
        said = check(lake, pair.nodes.primary, world.account)
    return f"{said}\n  runs: {dict(sorted(outcomes.items()))}\n  world: {dict(world.done)}"


def main() -> int:
    """Soak for minutes, with one seed after the other; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--round-seconds", type=float, default=120)
    parser.add_argument("--failovers", type=int, default=2, help="in each round")
    parser.add_argument("--seed", type=int, default=None, help="of the first round")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    until = time.monotonic() + given.minutes * 60
    while (left := until - time.monotonic()) > 0:
        seconds = min(given.round_seconds, max(20, left))
        print(f"seed {seed}, {seconds:.0f} s", flush=True)
        print(f"  {soak(seconds, seed, given.failovers)}", flush=True)
        seed += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
