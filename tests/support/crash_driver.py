"""A process that runs extracts in child processes, to be killed one after another.

It imports everything once and forks for each extract, so that a child starts in milliseconds; it
has no threads when it forks. Lines of JSON go in, with ``spec``, ``environment``, ``kill_call``,
``then_recover``, and ``back_to`` for a rollback; out come ``{"pid"}`` when the child is about to
start, and ``{"exit", "signal"}`` when it has ended. ``kill_call`` counts calls of the storage
contract and of Iceberg catalogs, where there is no proxy: a positive n kills before the n-th call,
a negative one after it.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import signal
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import duckdb  # noqa: F401 - imported before forking
import psycopg  # noqa: F401 - imported before forking
import pyarrow.parquet  # noqa: F401 - imported before forking

from extract_jobs.attempt.context import utc_now
from extract_jobs.commit import record
from extract_jobs.commit.rollback import roll_back
from extract_jobs.commit.table_log import commit_log
from extract_jobs.engine.pandas_free import skip_pandas
from extract_jobs.errors import ExtractError, error_line
from extract_jobs.iceberg import catalogs
from extract_jobs.run import run_extract
from extract_jobs.sources.mysql import source as mysql_source  # noqa: F401 - before forking
from extract_jobs.sources.postgres import duckdb_reader as reader
from extract_jobs.sources.postgres import source  # noqa: F401 - imported before forking
from extract_jobs.spec.extract_spec import parse_spec
from extract_jobs.storage import Storage, local, open_storage, s3  # noqa: F401 - imported before forking

skip_pandas()  # before forking, or each child would look for it


class KillingStorage:
    """Forwards every call, and kills its own process before or after the n-th."""

    def __init__(self, inner: Any, counter: list[int], kill_call: int) -> None:
        self._inner, self._counter, self._kill_call = inner, counter, kill_call

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return value
        if name in {"list", "abandoned"}:
            counted = killing(lambda *a: iter(list(value(*a))), self._counter, self._kill_call)
        else:
            counted = killing(value, self._counter, self._kill_call)
        if name == "stage":
            return lambda *a: KillingStorage(counted(*a), self._counter, self._kill_call)
        return counted


def killing(function: Any, counter: list[int], kill_call: int) -> Any:
    """Return a function that kills its own process before or after the n-th call that counts."""

    def call(*args: Any, **kwargs: Any) -> Any:
        counter[0] += 1
        number = counter[0]
        if number == kill_call:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return function(*args, **kwargs)
        finally:
            if number == -kill_call:
                os.kill(os.getpid(), signal.SIGKILL)

    return call


CATALOG_CALLS = (
    "namespace_exists", "create_namespace", "create_table", "load_table", "commit_table",
)  # fmt: skip


def count_catalog_calls(counter: list[int], kill_call: int) -> None:
    """Count the calls of every catalog that is opened from now on, and kill at one of them."""
    connect = catalogs._connect

    def connect_counted(*args: Any) -> Any:
        catalog = connect(*args)
        for name in CATALOG_CALLS:
            setattr(catalog, name, killing(getattr(catalog, name), counter, kill_call))
        return catalog

    catalogs._connect = connect_counted


def extract(request: dict[str, Any]) -> int:
    """Run one extract in this process, and a recovery after it if asked; return its exit code."""
    spec = parse_spec(json.dumps(request["spec"]))
    counter = [0]
    opened: dict[bool, Storage] = {}

    def open_counted(uri: str) -> Any:
        remote = uri.startswith("s3://")
        if remote not in opened:
            inner = open_storage(uri)
            kill = request.get("kill_call")
            opened[remote] = (
                KillingStorage(inner, counter, kill or 0) if kill is not None else inner
            )
        return opened[remote]

    if request.get("kill_call") is not None:
        count_catalog_calls(counter, request["kill_call"])
    try:
        # Workers that read splits import it by its name, and count nothing.
        chosen = open_storage if request.get("kill_call") is None else open_counted
        if back_to := request.get("back_to"):
            roll_back(commit_log(spec, chosen), back_to, run_id=f"back-{os.getpid()}", keep=False)
        else:
            run_extract(spec, open_storage=chosen)
        if request.get("then_recover"):
            log = commit_log(spec, open_counted)
            log.recover(spec.target.uri, abandon_after=timedelta(0), now=utc_now())
    except ExtractError as error:
        print(error_line(error), file=sys.stderr)
        return error.exit_code
    finally:
        sys.stderr.flush()
        if request.get("count_to"):
            Path(request["count_to"]).write_text(str(counter[0]))
    return 0


def warm_up() -> None:
    """Create what an extract creates once per process, so that no child has to."""
    record._commits()
    record._live_files()
    # The description of S3 is read once a loader, and each client here has a new session.
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
    boto3.session.Session().client("s3", region_name="us-east-1")


def main() -> None:
    """Serve requests until standard input ends; arguments are modules that children need too."""
    warm_up()
    for name in sys.argv[1:]:
        importlib.import_module(name)
    # Loading the extension would be half of a child's time; with one thread, DuckDB forks well.
    loaded = reader._database()
    gc.freeze()  # a child's collections then copy none of the parent's pages
    for line in sys.stdin:
        request = json.loads(line)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write_end)
            os.read(read_end, 1)  # the parent knows our pid now
            os.environ.update(request.get("environment", {}))
            reader._databases[os.getpid()] = loaded
            code = 70
            try:
                code = extract(request)
            except BaseException:  # noqa: BLE001 - the child ends here
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(read_end)
        print(json.dumps({"pid": pid}), flush=True)
        os.write(write_end, b"x")
        os.close(write_end)
        _, status = os.waitpid(pid, 0)
        ended = {
            "exit": os.waitstatus_to_exitcode(status),
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        }
        print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    main()
