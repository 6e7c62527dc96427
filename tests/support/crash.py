"""Runs extracts in real processes that can be killed, and examines what they left behind."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import boto3
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.emulators import AnyEmulator
from tests.support.fault_proxy import FaultProxy
from tests.support.mysql_servers import MysqlServer
from tests.support.postgres import Server
from tests.support.sampling import EXHAUSTIVE

Database = Server | MysqlServer

ROOT = Path(__file__).parents[2]
ROWS = list(range(1, 41))
"""The ids in the crash tests' table."""


def killable(operations: Iterable[Any]) -> list[tuple[int, Any]]:
    """Return the numbers and names of calls after which a killed process leaves something new.

    After a call that reads, it leaves what it left after the call before. An exhaustive run kills
    there all the same.
    """
    numbered = enumerate(operations, 1)
    reads = ("Get", "Head", "List")
    return [
        call
        for call in numbered
        if EXHAUSTIVE or not (call[1] if isinstance(call[1], str) else call[1][0]).startswith(reads)
    ]


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, or minus the signal's number."""

    exit: int
    stderr: str


@dataclass
class Driver:
    """The process of tests/support/crash_driver.py; a context manager."""

    log: Path
    modules: tuple[str, ...] = ()
    pid: int = 0
    _process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._log = self.log.open("a")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crash_driver", *self.modules],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()
        self._log.close()

    def start(self, spec: dict[str, Any], environment: dict[str, str], **more: Any) -> int:
        """Start a child and return its pid; `end` waits for it."""
        assert self._process is not None
        assert self._process.stdin is not None
        request = {"spec": spec, "environment": environment, **more}
        self._seen = self.log.stat().st_size
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        self.pid = self._read()["pid"]
        return self.pid

    def end(self) -> Ended:
        """Wait for the child that was started last."""
        ended = self._read()
        return Ended(ended["exit"], self.log.read_text()[self._seen :])

    def run(self, spec: dict[str, Any], environment: dict[str, str], **more: Any) -> Ended:
        """Start a child and wait for it."""
        self.start(spec, environment, **more)
        return self.end()

    def _read(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the driver died:\n{self.log.read_text()[-4000:]}"
        return dict(json.loads(line))


@dataclass
class Lake:
    """A table's target and state in a bucket, or in a folder."""

    uri: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return f"{self.uri}/raw/t"

    @property
    def state(self) -> str:
        return f"{self.uri}/_extract/s/t"

    def spec(
        self,
        server: Database,
        run_id: str,
        attempt: int = 1,
        table: str | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Return a spec as JSON of an extract of a table, by default ``t``, into this lake."""
        target = {"uri": self.target, **more.pop("target", {})}
        is_mysql = isinstance(server, MysqlServer)
        return {
            "run_id": run_id,
            "attempt": attempt,
            "source_name": "s",
            "source_type": "mysql" if is_mysql else "postgres",
            "connection": {"url": server.url, "password_env": "CRASH_PASSWORD"},
            "extract_table": table or ("t" if is_mysql else "public.t"),
            "target": target,
            "state_uri": self.state,
            "report_uri": f"{self.state}/reports/{run_id}/{attempt}.json",
            **more,
        }

    def visible(self) -> list[str]:
        """Return the URIs of all objects in the target."""
        if not self.uri.startswith("s3://"):
            return sorted(str(p) for p in Path(self.target).rglob("*") if p.is_file())
        bucket, _, key = self.target.removeprefix("s3://").partition("/")
        return [f"s3://{bucket}/{name}" for name in self._keys(bucket, key)]

    def contents(self) -> dict[str, bytes]:
        """Return all objects of a lake in a bucket, by key, without staged uploads."""
        bucket, _, key = self.uri.removeprefix("s3://").partition("/")
        found = self._keys(bucket, key)
        return {k: self._s3().get_object(Bucket=bucket, Key=k)["Body"].read() for k in found}

    def restore(self, contents: dict[str, bytes]) -> None:
        """Restore a lake in a bucket to exactly what `contents` returned."""
        bucket, _, key = self.uri.removeprefix("s3://").partition("/")
        assert self.staged() == []
        for name in self._keys(bucket, key):
            if name not in contents:
                self._s3().delete_object(Bucket=bucket, Key=name)
        for name, body in contents.items():
            self._s3().put_object(Bucket=bucket, Key=name, Body=body)

    def _keys(self, bucket: str, folder: str) -> list[str]:
        lister = self._s3().get_paginator("list_objects_v2")
        pages = lister.paginate(Bucket=bucket, Prefix=f"{folder}/")
        return [o["Key"] for page in pages for o in page.get("Contents", [])]

    def staged(self) -> list[str]:
        """Return uploads that are staged and not completed."""
        if not self.uri.startswith("s3://"):
            return [u for u in self.visible() if not u.endswith(".parquet")]
        bucket, _, key = self.uri.removeprefix("s3://").partition("/")
        listed = self._s3().list_multipart_uploads(Bucket=bucket, Prefix=key)
        return [u["Key"] for u in listed.get("Uploads", [])]

    def read(self, column: str = "id") -> list[Any]:
        """Return a column's values over all visible Parquet files, sorted."""
        values: list[Any] = []
        for uri in self.visible():
            if uri.endswith(".parquet"):
                values.extend(self.table(uri).column(column).to_pylist())
        return sorted(values)

    def table(self, uri: str) -> pa.Table:
        """Return one file's rows."""
        if not uri.startswith("s3://"):
            return pq.ParquetFile(uri).read()
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        body = self._s3().get_object(Bucket=bucket, Key=key)["Body"].read()
        return pq.ParquetFile(io.BytesIO(body)).read()

    def report(self, run_id: str, attempt: int = 1) -> dict[str, Any]:
        """Return a run's report."""
        uri = f"{self.state}/reports/{run_id}/{attempt}.json"
        if not uri.startswith("s3://"):
            return dict(json.loads(Path(uri).read_text()))
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return dict(json.loads(self._s3().get_object(Bucket=bucket, Key=key)["Body"].read()))

    def _s3(self) -> Any:
        return s3_client(self.environment)


_clients: dict[str, Any] = {}


def s3_client(environment: dict[str, str]) -> Any:
    """Return a client of an emulator, the same one for the same endpoint."""
    endpoint = environment["AWS_ENDPOINT_URL"]
    if endpoint not in _clients:
        _clients[endpoint] = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=environment["AWS_REGION"],
            config=boto3.session.Config(s3={"addressing_style": "path"}),
        )
    return _clients[endpoint]


def bucket_of(emulator: AnyEmulator, name: str) -> str:
    """Create a bucket and return its URI."""
    environment = emulator.environment()
    region = environment["AWS_REGION"]
    where = {} if region == "us-east-1" else {
        "CreateBucketConfiguration": {"LocationConstraint": region}
    }  # fmt: skip
    s3_client(environment).create_bucket(Bucket=name, **where)
    return f"s3://{name}"


class Story:
    """One table's lake, extracted through the proxy or directly."""

    def __init__(
        self,
        driver: Driver,
        server: Database,
        lake: Lake,
        write_mode: str,
        proxy: FaultProxy | None,
        **more: Any,
    ) -> None:
        self.driver, self.server, self.lake, self.proxy = driver, server, lake, proxy
        self.target = {"write_mode": write_mode, "partition_by": ["part"]}
        self.more = more

    def environment(self, *, faulty: bool = False) -> dict[str, str]:
        base = {"CRASH_PASSWORD": self.server.password}
        if self.proxy and faulty:
            return base | self.proxy.environment()
        return base | self.lake.environment

    def extract(
        self, run_id: str, attempt: int = 1, *, faulty: bool = False, **more: object
    ) -> Ended:
        spec = self.lake.spec(self.server, run_id, attempt, target=self.target, **self.more)
        return self.driver.run(spec, self.environment(faulty=faulty), **more)

    def assert_whole(self, context: str, attempt: int = 2) -> None:
        """Check that the next attempt succeeds, rows exist once, and recovery leaves nothing."""
        ended = self.extract("r", attempt, then_recover=True)
        assert ended.exit == 0, f"{context}: {ended.stderr}"
        assert self.lake.staged() == [], context
        assert self.lake.read() == ROWS, context
        assert self.lake.report("r", attempt)["rows"] == len(ROWS), context
