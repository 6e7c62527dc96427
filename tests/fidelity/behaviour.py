"""How tools behave while the source changes and processes die: `make fidelity`, the page's part.

Each tool is run in its documented way against a PostgreSQL where a moment is forced: a gate holds
its statement in the middle of a table (an advisory lock, for which the view ``gated`` waits at one
row), or a transaction commits late. What is in the target afterwards is compared with the source.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fidelity.peer import PEERS, Peer, PeerDied, Worker, jars
from tests.fidelity.results import read_column, shown
from tests.fidelity.tables import PASSWORD, USER
from tests.support.postgres import Server, run_server

ROWS = 2000
GATE = 42
_SECONDS = 60.0
"""How long a forced moment is waited for."""
_SETUP = (
    "drop table if exists t cascade",
    "create table t (id int primary key, seen timestamptz, n int)",
    (
        f"insert into t select i, timestamptz '2024-01-01 00:00+00' + i * interval '1 s', i"
        f" from generate_series(1, {ROWS}) i"
    ),
    (
        "create or replace function waits(i int) returns bool volatile language plpgsql as $$ begin"
        f" if i = {ROWS // 2} then perform pg_advisory_xact_lock_shared({GATE}); end if;"
        " return true; end $$"
    ),
    "create view gated as select * from t where waits(id)",
    "analyze t",
)


@dataclass(frozen=True)
class Way:
    """One documented way of running a tool.

    Attributes:
        peer: The tool's name.
        title: What is set, for the page.
        options: For the peer's script.
        whole: Whether each run extracts the whole table, so that it has no watermark.
    """

    peer: str
    title: str
    options: dict[str, Any] = field(default_factory=dict)
    whole: bool = True


def _ours(watermark: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"mode": "incremental", "watermark": {"column": "seen"} | watermark} | more


_DELAY = 30
"""Seconds, more than the late transaction takes."""
_CURSOR = {"cursor_path": "seen"}
_MERGE = {"write_disposition": "merge", "primary_key": "id", "table_format": "delta"}
INCREMENTAL = (
    Way("ours", "watermark, no delay or lag", _ours({}), whole=False),
    Way("ours", f"`delay: {_DELAY}s`", _ours({"delay": f"{_DELAY}s"}), whole=False),
    Way("ours", "`lag: 1h`, `key: [id]`", _ours({"lag": "1h"}, columns={"key": ["id"]}),
        whole=False),
    Way("dlt-pyarrow", "incremental, append", {"incremental": _CURSOR}, whole=False),
    Way("dlt-pyarrow", "incremental, `lag=3600`, append, `primary_key`",
        {"incremental": _CURSOR | {"lag": 3600}, "primary_key": "id"}, whole=False),
    Way("dlt-pyarrow", "incremental, `lag=3600`, merge by key into a Delta table",
        {"incremental": _CURSOR | {"lag": 3600}, **_MERGE}, whole=False),
)  # fmt: skip
NULLS = (
    Way("ours", "default", _ours({}), whole=False),
    Way("ours", "`nulls: include`", _ours({"nulls": "include"}, columns={"key": ["id"]}),
        whole=False),
    Way("dlt-pyarrow", "default", {"incremental": _CURSOR}, whole=False),
    Way("dlt-pyarrow", '`on_cursor_value_missing="include"`',
        {"incremental": _CURSOR | {"on_cursor_value_missing": "include"}}, whole=False),
)  # fmt: skip
_REPLACE = {"write_disposition": "replace"}
_PARTS = {"partitionColumn": "id", "lowerBound": "1", "upperBound": str(ROWS), "numPartitions": "4"}
FULL = (
    Way("ours", "mode full"),
    Way("dlt-pyarrow", "replace", _REPLACE),
    Way("connectorx", "`partition_on`, four partitions, into one file",
        {"partition_on": "id", "partition_num": 4}),
    Way("adbc", "into one file"),
    Way("duckdb", "`COPY` to one file"),
    Way("awswrangler", "into one file"),
    Way("spark3", "four partitions of `id`, overwrite", {"partitions": _PARTS}),
)  # fmt: skip
HAS_NO_CURSOR = ("connectorx", "adbc", "duckdb", "awswrangler", "spark3")


@dataclass
class Outcome:
    """What became of one way in one situation."""

    situation: str
    peer: str
    way: str
    version: str
    day: str
    result: str


class Bench:
    """A server with the table ``t``, one way of one tool, and the tool's target."""

    def __init__(self, server: Server, peer: Peer, way: Way, folder: Path) -> None:
        self.server, self.peer, self.way, self.folder = server, peer, way, folder
        self.user, self.runs = USER, 0

    def run(self, table: str = "t") -> str | None:
        """Run the tool once, in a process of its own; its error, or None.

        Raises:
            PeerDied: The process ended.
        """
        worker = self.worker()
        try:
            return worker.ask(self.job(table))
        finally:
            worker.stop()

    def worker(self) -> Worker:
        """Return a process of the tool, not started."""
        return Worker(self.peer, self.folder / "log")

    def job(self, table: str) -> dict[str, Any]:
        """Return the job of one more run."""
        self.runs += 1
        target = self.folder / "target"
        target.mkdir(exist_ok=True)
        run = {"run_id": f"run-{self.runs}"} if self.peer.name == "ours" else {}
        return {
            "database": "postgres", "host": self.server.host, "port": self.server.port,
            "user": self.user, "password": PASSWORD, "name": "fidelity", "table": table,
            "key": "id", "columns": ["seen", "n"], "folder": str(target), "jars": jars(),
            "options": self.way.options | run,
        }  # fmt: skip

    def rows(self) -> Counter[int]:
        """Return how often the target has each key."""
        target = self.folder / "target"
        kept = target / "rows" if (target / "rows").is_dir() else target
        try:
            found = read_column(kept, "id", "n")
        except (FileNotFoundError, pa.ArrowException, OSError):
            return Counter()
        return Counter(found.column("id").to_pylist())

    def compared(self, wanted: set[int]) -> str:
        """Say how the target's rows differ from those that it should have."""
        found = self.rows()
        if not found:
            return "the target is empty"
        lost, more = wanted - found.keys(), found.keys() - wanted
        doubled = sum(times > 1 for times in found.values())
        parts = [f"{len(lost)} of {len(wanted)} rows missing"] * bool(lost)
        parts += [f"{len(more)} rows that the source no longer has"] * bool(more)
        parts += [f"{doubled} rows twice or more"] * bool(doubled)
        return "; ".join(parts) or "exactly the source's rows"

    def source(self) -> set[int]:
        """Return the source's keys."""
        with self.server.connect() as connection:
            return {row[0] for row in connection.execute("select id from t")}


def _outcome(error: str | None, result: str) -> str:
    return f"refused: `{shown(error, 90)}`" if error else result


@contextlib.contextmanager
def closed_gate(server: Server) -> Iterator[psycopg.Connection[Any]]:
    """Keep the gate closed until the context ends."""
    with server.connect() as holder:
        holder.execute(f"select pg_advisory_lock({GATE})".encode())
        yield holder


def wait_for(server: Server, condition: str, count: int = 1) -> bool:
    """Wait until so many sessions fulfil a condition; False if they never do."""
    until = time.monotonic() + _SECONDS
    query = f"select count(*) from pg_locks where {condition}".encode()
    with server.connect() as watching:
        while time.monotonic() < until:
            row = watching.execute(query).fetchone()
            if row and row[0] >= count:
                return True
            time.sleep(0.05)
    return False


AT_THE_GATE = "locktype = 'advisory' and not granted"


def late_commit(bench: Bench) -> str:
    """A row below the newest one commits after the run that saw the newest."""
    with bench.server.connect(autocommit=False) as late:
        late.execute(f"insert into t values ({ROWS + 1}, now(), 0)".encode())
        bench.server.execute(f"insert into t values ({ROWS + 2}, clock_timestamp(), 0)")
        first = bench.run()
        late.commit()
    return _twice(bench, first)


def ties(bench: Bench) -> str:
    """A row commits after the run that read another one with the same cursor."""
    bench.server.execute(f"insert into t values ({ROWS + 1}, clock_timestamp(), 0)")
    first = bench.run()
    bench.server.execute(f"insert into t select {ROWS + 2}, max(seen), 0 from t")
    return _twice(bench, first)


def _twice(bench: Bench, first: str | None) -> str:
    """Run again, after the delay if there is one, and compare."""
    if first:
        return _outcome(first, "")
    if "delay" in bench.way.options.get("watermark", {}):
        time.sleep(_DELAY + 2)
    return _outcome(bench.run(), bench.compared(bench.source()))


def null_cursors(bench: Bench) -> str:
    """Ten rows have no cursor at the first run, and ten more have none at the second."""
    bench.server.execute("update t set seen = null where id <= 10")
    first = bench.run()
    if first:
        return _outcome(first, "")
    bench.server.execute(f"insert into t select {ROWS} + i, null, 0 from generate_series(1, 10) i")
    return _outcome(bench.run(), bench.compared(bench.source()))


def killed(bench: Bench) -> str:
    """A second run is killed in the middle of reading; then a third one runs."""
    error = bench.run("gated")
    if error:
        return _outcome(error, "")
    before = bench.source()
    bench.server.execute("delete from t where id > 1990", "insert into t values (3001, now(), 0)")
    worker = bench.worker()
    with closed_gate(bench.server):
        thread = threading.Thread(target=_suppressed, args=(worker, bench.job("gated")))
        thread.start()
        reached = wait_for(bench.server, AT_THE_GATE)
        worker.kill()
        thread.join()
    if not reached:
        return "the moment was not reached"
    left = bench.compared(before).replace("exactly the source's rows", "the earlier rows, whole")
    error = bench.run("gated")
    return f"left: {left}; the next run: {_outcome(error, bench.compared(bench.source()))}"


def _suppressed(worker: Worker, job: dict[str, Any]) -> None:
    with contextlib.suppress(PeerDied, ValueError, OSError):
        worker.ask(job)


def two_at_once(bench: Bench) -> str:
    """Two runs read at the same time, into one target."""
    workers, errors = [bench.worker(), bench.worker()], [None, None]

    def ask(number: int, job: dict[str, Any]) -> None:
        try:
            errors[number] = workers[number].ask(job)  # type: ignore[call-overload]
        except PeerDied as died:
            errors[number] = f"crashed: {died}"  # type: ignore[call-overload]

    with closed_gate(bench.server):
        threads = [
            threading.Thread(target=ask, args=(number, bench.job("gated"))) for number in (0, 1)
        ]
        for thread in threads:
            thread.start()
        wait_for(bench.server, AT_THE_GATE, 2)
    for thread in threads:
        thread.join()
    for worker in workers:
        worker.stop()
    failed = [shown(error, 60) for error in errors if error]
    said = "both succeed" if not failed else f"{len(failed)} of 2 fails: `{failed[0]}`"
    return f"{said}; {bench.compared(bench.source())}"


def type_change(bench: Bench) -> str:
    """A column of integers becomes one of text between two runs."""
    if first := bench.run():
        return _outcome(first, "")
    bench.server.execute(
        "drop view gated",
        "alter table t alter n type text using 'x' || n",
    )
    error = bench.run()
    if error:
        return _outcome(error, "")
    kinds: dict[str, set[str]] = {}
    for path in (bench.folder / "target").rglob("*.parquet"):
        parts = path.relative_to(bench.folder).parts
        if not any(part.startswith(("_", ".")) for part in parts) and "state" not in parts:
            schema = pq.read_schema(path)
            for name in schema.names:
                if name == "n" or name.startswith("n_"):
                    kinds.setdefault(name, set()).add(str(schema.field(name).type))
    columns = ", ".join(f"{name} {' and '.join(sorted(k))}" for name, k in sorted(kinds.items()))
    return f"{bench.compared(bench.source())}; in the files: {columns}"


def truncated(bench: Bench) -> str:
    """The table is truncated while it is read, and the statement waits for its readers."""
    before, worker = bench.source(), bench.worker()
    errors: list[str | None] = []

    def ask() -> None:
        try:
            errors.append(worker.ask(job))
        except PeerDied as died:
            errors.append(f"crashed: {died}")

    def truncate() -> None:
        with bench.server.connect() as other:
            other.execute("truncate t")

    job = bench.job("gated")
    with closed_gate(bench.server):
        reading, truncating = threading.Thread(target=ask), threading.Thread(target=truncate)
        reading.start()
        reached = wait_for(bench.server, AT_THE_GATE)
        truncating.start()
        wait_for(bench.server, "mode = 'AccessExclusiveLock' and not granted")
    reading.join()
    truncating.join()
    worker.stop()
    if not reached:
        return "the moment was not reached"
    result = bench.compared(before).replace("the source's rows", "the rows from before")
    return _outcome(errors[0], result)


def row_security(bench: Bench) -> str:
    """A policy hides half of the rows from a reader whose session keeps the server's defaults."""
    bench.server.execute(
        "alter table t enable row level security",
        "create policy half on t using (id % 2 = 0)",
        "grant select on t to limited",
    )
    bench.user = "limited"
    return _outcome(bench.run(), bench.compared(bench.source()))


SITUATIONS: dict[str, tuple[Callable[[Bench], str], tuple[Way, ...]]] = {
    "A row commits late, below the watermark": (late_commit, INCREMENTAL),
    "A row ties with the watermark, and commits later": (ties, INCREMENTAL),
    "NULL cursors, in the first run and after it": (null_cursors, NULLS),
    "A run is killed while it reads": (killed, FULL),
    "Two runs at once": (two_at_once, FULL),
    "A column of integers becomes text": (type_change, FULL),
    "The table is truncated while it is read": (truncated, FULL),
    "Row-level security hides rows from the reader": (row_security, FULL),
}


BEHAVES = {way.peer for _, ways in SITUATIONS.values() for way in ways}
"""The tools that are run."""


def run_behaviour(peer: Peer, kept: Path) -> None:
    """Run every situation by a tool in its ways, and keep the outcomes."""
    outcomes: list[Outcome] = []
    note = kept / f"behaviour-{peer.name}.list"
    kept.mkdir(parents=True, exist_ok=True)
    with run_server(18) as cluster:
        cluster.execute(
            f"create role {USER} login superuser password '{PASSWORD}'",
            f"create role limited login password '{PASSWORD}'",
            "create database fidelity",
        )
        server = replace(cluster, database="fidelity")
        for situation, (force, ways) in SITUATIONS.items():
            for way in (way for way in ways if way.peer == peer.name):
                result = _forced(server, peer, way, force)
                print(f"{situation}, {peer.title}, {way.title}: {result}", flush=True)
                day = str(datetime.now(UTC).date())
                outcomes.append(
                    Outcome(situation, peer.name, way.title, peer.version(), day, result)
                )
                text = json.dumps([asdict(one) for one in outcomes], ensure_ascii=False, indent=1)
                note.write_text(text, "utf-8")


def _forced(server: Server, peer: Peer, way: Way, force: Callable[[Bench], str]) -> str:
    folder = Path(tempfile.mkdtemp(prefix=f"behaviour-{peer.name}-"))
    server.execute(*_SETUP)
    try:
        return force(Bench(server, peer, way, folder))
    except PeerDied as died:
        return f"crashed: {died}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_ABOUT = """
## Behaviour

The same tools, where the source changes and processes die, on PostgreSQL 18. A gate in the
database holds a run in the middle of reading, so that each moment is forced. What the target holds
afterwards is compared with the source. Reports are not: extract-jobs counts rows without a
watermark in its report, and so names the ten that are missing below.
"""
_WHOLE = (
    "keeps no watermark: a whole extract has all rows, and whoever extracts less writes and keeps "
    "the condition"
)


def behaviour_section(kept: Path) -> str:
    """Return the page's part, or nothing if nothing was measured."""
    titles = {peer.name: peer.title for peer in PEERS}
    found = [
        Outcome(**one)
        for name in titles
        if (note := kept / f"behaviour-{name}.list").exists()
        for one in json.loads(note.read_text("utf-8"))
    ]
    if not found:
        return ""
    parts = [_ABOUT, _better(found, titles)]
    measured = {one.peer for one in found}
    for situation, (force, ways) in SITUATIONS.items():
        rows = [(f"{titles[o.peer]}, {o.way}", o.result) for o in found if o.situation == situation]
        if not any(way.whole for way in ways):
            none = [titles[name] for name in HAS_NO_CURSOR if name in measured]
            rows += [(", ".join(none), _WHOLE)] * bool(none)
        lines = "".join(f"| {tool} | {result} |\n" for tool, result in rows)
        about = (force.__doc__ or "").strip()
        parts.append(
            f"\n### {situation}\n\n{about}\n\n| tool, way | result |\n| --- | --- |\n{lines}"
        )
    return "".join(parts)


def _better(found: list[Outcome], titles: dict[str, str]) -> str:
    """Say where a tool keeps exactly the source's rows in some way, and ours not in each."""
    lines = []
    for situation in SITUATIONS:
        here = [one for one in found if one.situation == situation]
        short = [o for o in here if o.peer == "ours" and not _is_exact(o)]
        others = [o for o in here if o.peer != "ours" and _is_exact(o)]
        if short and others:
            ways = "; ".join(f"{titles[o.peer]} ({o.way})" for o in others)
            mine = ", ".join(o.way for o in short)
            lines.append(f"- {situation}: {ways}, where extract-jobs with {mine} does not.\n")
    if not lines:
        return ""
    return (
        "\nOthers keep exactly the source's rows where extract-jobs, as set, does not:\n\n"
        + "".join(lines)
    )


def _is_exact(outcome: Outcome) -> bool:
    spoiled = "fails" in outcome.result or "left: " in outcome.result
    return "exactly" in outcome.result and (not spoiled or "left: the earlier" in outcome.result)
