"""The message of a failed execution: reasons are cut between words, and say that they are cut."""

from __future__ import annotations

import pytest

from entrypoints.handle_extract_job_run_status import _message
from extract_jobs.tracking.table import TrackedRun

REMEDY = "cast it, for example columns.cast {balance: 'decimal(19,2)'}"


def summary_of(message, count=1):
    runs = [
        TrackedRun(
            table_id=f"s/t{n}", run_id="r", extract_table=f"t{n}", status="FAILED",
            error_class="ConfigError", error_message=message,
        )
        for n in range(count)
    ]  # fmt: skip
    return _message({"failed": count, "tables": count, "execution_id": "arn:e"}, runs, "")


def test_a_remedy_at_the_end_of_a_reason_is_there():
    reason = "balance is money, whose text depends on the server's locale, " * 3 + REMEDY
    assert f"t0 (ConfigError: {reason}). Start the state machine" in summary_of(reason)


def test_a_long_reason_is_cut_between_words():
    words = " ".join(f"word{n}" for n in range(200))
    reason = summary_of(words).split("ConfigError: ")[1].split(")")[0]
    assert 280 < len(reason) <= 300
    kept, mark = reason.rsplit(" ", 1)
    assert mark == "…"
    assert words.startswith(f"{kept} ")


@pytest.mark.parametrize(("message", "count"), [("x" * 1_000, 1), ("a word " * 100, 20)])
def test_a_message_stays_small_and_keeps_its_end(message, count):
    text = summary_of(message, count)
    assert "…" in text
    assert len(text) <= 4_000
    assert text.endswith('Start the state machine with {"rerun_failed_of": "arn:e"} to run just '
                         "these again")  # fmt: skip
