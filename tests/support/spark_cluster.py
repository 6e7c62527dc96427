"""A Spark standalone cluster of processes: a master and workers, each with its own folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyspark

from extract_jobs.spark.java import bundled_java_home
from tests.support.java import QUICK_JAVA
from tests.support.ports import free_port

SPARK = Path(pyspark.__file__).parent
_START_SECONDS = 90.0


@dataclass(frozen=True)
class Worker:
    """One worker's process, which leads a session with its executors."""

    process: subprocess.Popen[bytes]
    folder: Path

    def kill(self) -> None:
        """Kill it with its executors, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        url: ``spark://…``.
        workers: Each has one core.
        environment: What its processes were started with.
    """

    url: str
    workers: tuple[Worker, ...]
    environment: dict[str, str]


def spark_environment() -> dict[str, str]:
    """Return the variables that Spark's scripts need, without this process's Python."""
    return {
        "PATH": os.defpath, "SPARK_HOME": str(SPARK), "JAVA_HOME": str(bundled_java_home()),
        "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_JAVA_OPTS": QUICK_JAVA,
        "SPARK_DAEMON_MEMORY": "256m", "TZ": "UTC",
    }  # fmt: skip


@contextlib.contextmanager
def run_cluster(folder: Path, environment: dict[str, str], workers: int = 2) -> Iterator[Cluster]:
    """Run a master and workers until the context ends.

    Args:
        folder: Parent of a folder for each process: its logs, and a worker's executors.
        environment: Variables of workers, and so of executors, as a machine's role would be.
        workers: How many.
    """
    base = spark_environment()
    port, page = free_port(), free_port()
    url = f"spark://127.0.0.1:{port}"
    started: list[Worker] = []

    def start(name: str, *arguments: str, **more: str) -> Worker:
        own = folder / name
        own.mkdir()
        with (own / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(SPARK / "bin" / "spark-class"), *arguments],
                cwd=own, env=base | more, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        started.append(Worker(process, own))
        return started[-1]

    try:
        start(
            "master", "org.apache.spark.deploy.master.Master",
            "--host", "127.0.0.1", "--port", str(port), "--webui-port", str(page),
        )  # fmt: skip
        _wait_for(page, "ALIVE")
        for number in range(1, workers + 1):
            start(
                f"worker-{number}", "org.apache.spark.deploy.worker.Worker",
                "--host", "127.0.0.1", "--webui-port", str(free_port()), "--cores", "1",
                "--memory", "1g", "--work-dir", str(folder / f"worker-{number}"), url,
                **environment,
            )  # fmt: skip
        _wait_for(page, f'"aliveworkers" : {workers}')
        yield Cluster(url, tuple(started[1:]), base | environment)
    finally:
        for each in started:
            each.kill()


def _wait_for(page: int, text: str) -> None:
    """Wait until the master's status page contains a text."""
    deadline = time.monotonic() + _START_SECONDS
    shown = ""
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            with urllib.request.urlopen(f"http://127.0.0.1:{page}/json/", timeout=5) as answer:
                shown = answer.read().decode()
            if text in shown:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the cluster did not come up; its master shows {shown or 'nothing'}")
