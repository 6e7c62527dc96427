"""The tools that are compared, and one of them at work in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fidelity.tables import PASSWORD, USER, Torture
from tests.support.debian import jar

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".tools" / "fidelity"
SECONDS = 300.0
"""How long one extract may take before it counts as hung."""
SERVERS = ("postgres", "mysql", "mariadb")
ALL = (*SERVERS, "sqlite")


@dataclass(frozen=True)
class Peer:
    """One way of extracting a table.

    Attributes:
        name: Names its results and how it is chosen.
        title: What the page calls it.
        script: Of the folder peers, with its arguments.
        requirements: A file of the folder requirements; None is extract-jobs' own environment.
        package: The package whose version is shown.
        databases: Those that it says it can read.
        way: The documented way that is run, and the option for exactness that it has.
        note: What a reader has to know of the run.
        unavailable: Why it cannot be run from an index of packages alone; it is then not run.
        left_out: Columns of a database that are not tried, each with the reason: they fail the
            whole table even if they are not selected, so a view without them is read.
    """

    name: str
    title: str
    script: tuple[str, ...]
    requirements: str | None
    package: str
    databases: tuple[str, ...]
    way: str
    note: str = ""
    unavailable: str = ""
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        if self.requirements is None:
            return Path(sys.executable)
        return ENVIRONMENTS / self.requirements / "bin" / "python"

    def prepare(self) -> None:
        """Make its environment, unless it is there for these requirements.

        Raises:
            RuntimeError: A package can't be installed here; the message has pip's last lines.
        """
        if self.unavailable:
            raise RuntimeError(self.unavailable)
        if self.requirements is None:
            return
        listed = HERE / "requirements" / f"{self.requirements}.txt"
        made = ENVIRONMENTS / self.requirements / "made-of.txt"
        if made.exists() and made.read_text() == listed.read_text():
            return
        uv = Path(sys.executable).parent / "uv"
        folder = ENVIRONMENTS / self.requirements
        for command in (
            ["venv", "-q", "--clear", "--python", sys.executable, folder],
            ["pip", "install", "-q", "--python", folder, "-r", listed],
        ):
            # Elsewhere, because uv applies the constraints of a project that it is called in.
            done = subprocess.run(
                [uv, *command], check=False, capture_output=True, text=True, cwd=Path.home()
            )
            if done.returncode:
                raise RuntimeError(" ".join(done.stderr.split())[-300:])
        shutil.copy(listed, made)

    def version(self) -> str:
        """Return the version of its package."""
        code = f"from importlib.metadata import version; print(version({self.package!r}))"
        done = subprocess.run(
            [self.python, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
        )
        return done.stdout.strip()


_NO_VECTOR = {
    "mysql": {
        "vec": "TypeError: SQLAlchemy's reflection of the type fails the whole table, even if the "
        "column is not selected"
    }
}

PEERS = (
    Peer("ours", "extract-jobs", ("ours.py",), None, "extract-jobs", ALL, "a full extract"),
    Peer(
        "dlt-sqlalchemy", "dlt (sqlalchemy)", ("dlt_table.py", "sqlalchemy"), "dlt", "dlt", ALL,
        "`sql_table` to the filesystem destination, Parquet; "
        '`reflection_level="full_with_precision"` for exact types',
        left_out=_NO_VECTOR,
    ),
    Peer(
        "dlt-pyarrow", "dlt (pyarrow)", ("dlt_table.py", "pyarrow"), "dlt", "dlt", ALL,
        '`sql_table` to the filesystem destination, Parquet, with `backend="pyarrow"`',
        left_out=_NO_VECTOR,
    ),
    Peer(
        "dlt-connectorx", "dlt (connectorx)", ("dlt_table.py", "connectorx"), "dlt", "dlt", ALL,
        '`sql_table` to the filesystem destination, Parquet, with `backend="connectorx"`, its '
        "result in Arrow",
        left_out=_NO_VECTOR,
    ),
    Peer(
        "connectorx", "ConnectorX", ("connectorx_arrow.py",), "connectorx", "connectorx", ALL,
        '`read_sql(…, return_type="arrow")`, the default binary protocol',
    ),
    Peer(
        "adbc", "ADBC", ("adbc.py",), "adbc", "adbc-driver-postgresql", ("postgres", "sqlite"),
        "`fetch_arrow_table()` of the driver's DBAPI cursor",
    ),
    Peer(
        "duckdb", "DuckDB", ("duckdb_copy.py",), "duckdb", "duckdb", ALL,
        "`ATTACH … (READ_ONLY)` and `COPY (SELECT …) TO` Parquet",
        note="it reads its own numbers for infinite dates and times back as infinities; other "
        "readers take them for far dates, as the verdicts do.",
    ),
    Peer(
        "awswrangler", "awswrangler", ("wrangler.py",), "awswrangler", "awswrangler", SERVERS,
        '`read_sql_query(…, dtype_backend="pyarrow")`, the data frame written as Parquet',
    ),
    Peer(
        "sling", "Sling", (), "sling", "sling", ALL, "`sling run` of a SELECT into a Parquet file",
        unavailable="its wheel downloads the program from GitHub at first use (1.6.5); the "
        "program in the last wheel that has one (1.4.11) downloads a DuckDB to write Parquet",
    ),
    Peer(
        "ingestr", "ingestr", (), "ingestr", "ingestr", ALL,
        "`ingestr ingest` of a query into DuckDB",
        unavailable="its wheel (1.1.76) downloads the program from GitHub at first use",
    ),
    Peer(
        "onetl", "onETL", ("onetl_reader.py",), "onetl", "onetl", ("postgres", "mysql"),
        "`DBReader.run()`, written as Parquet by Spark 3.5.6",
    ),
    Peer(
        "spark3", "Spark JDBC 3.5", ("spark_jdbc.py",), "spark3", "pyspark", SERVERS,
        '`spark.read.format("jdbc")` with `preferTimestampNTZ`',
    ),
    Peer(
        "spark4", "Spark JDBC 4.1", ("spark_jdbc.py",), "spark4", "pyspark", SERVERS,
        "the same",
    ),
)  # fmt: skip


class PeerDied(Exception):
    """The process ended or hung before it answered."""


class Worker:
    """A peer's process, started anew after it died."""

    def __init__(self, peer: Peer, log: Path) -> None:
        self._peer = peer
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def ask(self, job: dict[str, Any]) -> str | None:
        """Have one job done, and return its error's text, or None.

        Raises:
            PeerDied: The process ended, or took longer than `SECONDS`.
            RuntimeError: The script of ours or its environment lacks something.
        """
        process = self._process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._dead("ended") from None
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            if not ready.select(SECONDS):
                raise self._dead(f"no answer for {SECONDS:.0f} s")
        answer = process.stdout.readline()
        if not answer:
            raise self._dead("the process ended")
        said = json.loads(answer)
        if "broken" in said:
            raise RuntimeError(f"{self._peer.title}: {said['broken']}")
        return said.get("error")

    def _started(self) -> subprocess.Popen[str]:
        script, *arguments = self._peer.script
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("AWS_")
        }
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [self._peer.python, HERE / "peers" / script, *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env=environment | {"TZ": "UTC", "PYTHONPATH": str(ROOT)}, cwd=self._log.parent,
            )  # fmt: skip

    def _dead(self, what: str) -> PeerDied:
        self.stop()
        return PeerDied(what)

    def kill(self) -> None:
        """Send SIGKILL; whoever waits for an answer then learns that the process died."""
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextlib.contextmanager
def working(peer: Peer, log: Path) -> Iterator[Worker]:
    """Give a peer's process, and end it."""
    worker = Worker(peer, log)
    try:
        yield worker
    finally:
        worker.stop()


@dataclass(frozen=True)
class Extracted:
    """What became of a column: files, or the reason why there are none."""

    folder: Path | None = None
    refused: str = ""
    crashed: str = ""


def extract(
    worker: Worker, table: Torture, columns: Sequence[str], folder: Path
) -> dict[str, Extracted]:
    """Extract columns together, and where that fails, in halves until each stands alone."""
    folder.mkdir(parents=True)
    job = {
        "database": table.database, "host": table.host, "port": table.port, "user": USER,
        "password": PASSWORD, "name": table.name, "table": table.table, "key": table.key,
        "columns": list(columns), "folder": str(folder), "jars": jars(),
    }  # fmt: skip
    try:
        reason = worker.ask(job)
    except PeerDied as died:
        if len(columns) == 1:
            return {columns[0]: Extracted(crashed=str(died))}
    else:
        if reason is None and (len(columns) == 1 or _readable(folder)):
            return dict.fromkeys(columns, Extracted(folder))
        if len(columns) == 1:
            return {columns[0]: Extracted(refused=reason or "")}
    middle = len(columns) // 2
    return {
        **extract(worker, table, columns[:middle], folder / "a"),
        **extract(worker, table, columns[middle:], folder / "b"),
    }


def jars() -> str:
    """Return the JDBC drivers' files, separated by commas."""
    return ",".join(str(jar(name)) for name in ("postgresql", "mariadb-java-client"))


def _readable(folder: Path) -> bool:
    """Whether Arrow opens every Parquet file below a folder: one type may spoil a file."""
    try:
        for path in folder.rglob("*.parquet"):
            pq.ParquetFile(path).close()
    except (pa.ArrowException, OSError):
        return False
    return True
