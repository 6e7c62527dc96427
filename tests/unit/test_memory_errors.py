"""The table of words for too little memory: each row is found, and by its own pattern alone."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import HTTPClientError
from pyspark.errors import PySparkException

from extract_jobs.engine.split_task import Results, SplitFailure, outcome_of
from extract_jobs.errors import Interrupted, WorkerOutOfMemory, WriteFailed
from extract_jobs.reporting.memory_errors import (
    KILLED,
    TAKEN_AWAY,
    WORDINGS,
    Wording,
    is_out_of_memory,
    is_taken_away,
)
from extract_jobs.sources.splits import Split
from extract_jobs.spark.session import spark_error
from extract_jobs.tracking.retry_policy import decide

RUNNING: Any = SimpleNamespace(
    _jsc=SimpleNamespace(sc=lambda: SimpleNamespace(isStopped=lambda: False))
)
"""A Spark context that runs."""


def decided(cause: str) -> tuple[str, str, bool]:
    item = {
        "run_id": "r", "generation": 1, "attempt": 1, "failures": 0,
        "retry": {"max_attempts": 3, "backoff_seconds": 1},
        "job_error": {"Error": "States.TaskFailed", "Cause": cause},
    }  # fmt: skip
    decision = decide(item, None, None, published=False)
    return decision.outcome, decision.error_class, decision.bigger


@pytest.mark.parametrize("wording", [*WORDINGS, KILLED], ids=lambda w: w.pattern)
@pytest.mark.parametrize("form", [str, lambda text: json.dumps({"StateDetails": "x" * 600 + text})])
def test_each_wording_leads_to_a_bigger_worker(wording: Wording, form: object) -> None:
    assert callable(form)
    assert re.search(wording.pattern, wording.example, re.IGNORECASE)
    assert wording.page
    assert decided(form(wording.example)) == ("retry", "WorkerOutOfMemory", True)


@pytest.mark.parametrize("wording", TAKEN_AWAY, ids=lambda w: w.pattern)
def test_a_worker_that_was_taken_away_gets_no_bigger_one(wording: Wording) -> None:
    text = f"{wording.example} ExitCode: 137"
    assert is_taken_away(text)
    assert decided(text) == ("retry", "Interrupted", False)


def test_memory_that_ran_out_before_the_capacity_was_taken_back_counts() -> None:
    text = "OutOfMemoryError: Container killed due to memory usage; SpotInterruption"
    assert decided(text) == ("retry", "WorkerOutOfMemory", True)


@pytest.mark.parametrize(
    "text",
    [
        "exit code 1", "Exit status: 143", "exit code 1370", "exit code 13", "exit status: 520",
        "Exit status: 1. Diagnostics: Exception from container-launch",
        "memory limits of the pool are fine", "No space left on device",
    ],
)  # fmt: skip
def test_other_ends_are_not_taken_for_too_little_memory(text: str) -> None:
    assert not is_out_of_memory(text)


def _wrapped_by_a_library() -> None:
    """Fail as a callback of a library does that wraps what it raises: botocore, DuckDB, Arrow."""
    try:
        try:
            raise MemoryError
        except MemoryError as error:
            raise HTTPClientError(error=error) from error
    except HTTPClientError as error:
        raise WriteFailed("PutObject on s3://b/k") from error


def test_memory_that_ran_out_in_a_library_of_an_executor_counts() -> None:
    def run() -> Results:
        _wrapped_by_a_library()
        raise AssertionError

    outcome = outcome_of(run, (Split(0, None),))
    assert isinstance(outcome, SplitFailure)
    assert outcome.class_name == "WorkerOutOfMemory"


@pytest.mark.parametrize("wording", [*WORDINGS, KILLED], ids=lambda w: w.pattern)
def test_a_driver_knows_the_same_wordings_of_its_executors(wording: Wording) -> None:
    error = PySparkException(f"Job aborted due to stage failure: {wording.example}")
    assert isinstance(spark_error(error, RUNNING), WorkerOutOfMemory)


def test_a_driver_takes_no_other_loss_for_it() -> None:
    lost = PySparkException("ExecutorLostFailure (executor 1 exited): Executor decommission")
    assert isinstance(spark_error(lost, RUNNING), Interrupted)
    spot = "Exit status: 137. Your Spot Task was interrupted."
    assert isinstance(spark_error(PySparkException(spot), RUNNING), Interrupted)
