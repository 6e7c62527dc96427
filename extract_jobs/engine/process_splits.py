"""Runs splits of an Arrow source on worker processes of this machine."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Sequence

from extract_jobs.engine.split_task import Results, SplitFailure, SplitTask, described
from extract_jobs.engine.worker_processes import Disconnected, WorkerLost, WorkerProcesses
from extract_jobs.errors import ConfigError, ExtractError, Interrupted, WorkerOutOfMemory
from extract_jobs.reporting.progress import Progress
from extract_jobs.sources.splits import Split

logger = logging.getLogger(__name__)


def pickled(task: SplitTask) -> bytes:
    """Return a task as it is sent to workers.

    Raises:
        ConfigError: It contains something that cannot be pickled.
    """
    try:
        return pickle.dumps(task)
    except Exception as error:
        raise ConfigError(
            f"the reader or open_storage cannot be sent to a worker process ({error}): build it "
            "from functions and classes of modules, or pass a Spark session (engine: spark)"
        ) from error


def run_on_process(
    task: bytes,
    unit: Sequence[Split],
    workers: WorkerProcesses,
    progress: Progress,
    stop: threading.Event,
    *,
    owner: object,
) -> Results | SplitFailure:
    """Run some splits on a worker process; a lost worker costs one try.

    The second try has a new process: what killed one worker may be about to kill idle ones too.
    `run_splits.abort_leftover_uploads` drops at the end what a lost worker had staged.

    Raises:
        Interrupted: A worker was lost on every try, or was asked to end.
        WorkerOutOfMemory: A worker was killed because the machine ran out of memory.
    """
    for last in (False, True):
        worker = workers.take(owner, stop, new=last)
        try:
            outcome = worker.run(task, unit, progress)
        except Disconnected:
            lost = workers.lost(worker)
            if worker.stopping:
                raise Interrupted(f"stopped while reading {described(unit)}") from lost
            error = _loss_error(lost, unit, last=last)
            if last or stop.is_set() or isinstance(error, WorkerOutOfMemory):
                raise error from lost
            logger.warning("%s: %s; reading again", described(unit), lost)
        except BaseException:
            workers.lost(worker)  # nobody needs what it is still doing
            raise
        else:
            workers.give_back(worker)
            return outcome
    raise AssertionError("unreachable")


def _loss_error(lost: WorkerLost, unit: Sequence[Split], *, last: bool) -> ExtractError:
    """Return the error for a lost worker.

    Not every system counts the processes that it kills for lack of memory, so a second SIGKILL is
    treated as one too.
    """
    if lost.memory or (last and lost.killed):
        return WorkerOutOfMemory(
            f"{described(unit)}: a worker process was killed, as the system does when memory "
            "runs out; give the worker more memory, or read fewer splits at a time "
            "(max_connections)"
        )
    return Interrupted(f"{described(unit)}: {lost}; its own messages are on standard error")
