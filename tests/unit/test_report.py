from __future__ import annotations

import json

import pytest

from extract_jobs import errors
from extract_jobs.errors import ConfigError, ExtractError, SourceUnavailable, error_line
from extract_jobs.reporting.report import MAX_REPORT_BYTES, Report, reported


def report(**fields: object) -> Report:
    base = {
        "status": "succeeded",
        "run_id": "r",
        "attempt": 1,
        "source_name": "s",
        "extract_table": "t",
        "target_uri": "s3://b/t",
    }
    return Report.model_validate(base | fields)


def test_a_report_reads_back_as_it_was_written() -> None:
    first = report(rows=3, timings={"plan": 0.25}, columns=[{"name": "ü", "type": "string"}])
    assert Report.parse(first.to_json().encode()) == first
    assert "\n" not in first.to_json()


def test_a_report_of_a_very_wide_table_stays_under_its_limit() -> None:
    wide = report(
        columns=[{"name": f"column_{n}" * 5, "type": "string"} for n in range(5_000)],
        fidelity={f"column_{n}" * 5: "text: lossless" for n in range(5_000)},
        rows=7,
    )
    text = wide.to_json()
    assert len(text.encode()) < MAX_REPORT_BYTES
    assert (Report.parse(text).rows, Report.parse(text).truncated) == (7, True)


def test_a_newer_workers_unknown_fields_are_ignored() -> None:
    text = report().to_json().replace('{"status"', '{"new_field": 1, "status"')
    assert Report.parse(text) == report()


def test_a_report_whose_schema_changes_are_sentences_is_read_without_them() -> None:
    assert report(schema_changes=["column b added (string)"]) == report()


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b'{"status": "succeeded"', b"\xff\xfe"])
def test_what_is_not_a_report_is_refused_by_name(raw: bytes) -> None:
    with pytest.raises(ConfigError, match=r"s3://b/report\.json is not a report"):
        Report.parse(raw, "s3://b/report.json")


def test_an_unexpected_error_is_reported_by_class_without_its_text() -> None:
    reason = reported(ValueError("password=hunter2"))
    assert "hunter2" not in reason.model_dump_json()
    assert "ValueError" in reason.message


def test_an_extract_error_is_reported_with_class_message_and_retryability() -> None:
    reason = reported(SourceUnavailable("no route"))
    assert (reason.class_name, reason.message, reason.retryable) == (
        "SourceUnavailable",
        "no route",
        True,
    )


def test_exit_codes_follow_from_whether_a_retry_may_help() -> None:
    classes = [
        c
        for c in vars(errors).values()
        if isinstance(c, type) and issubclass(c, ExtractError) and c is not ExtractError
    ]
    assert errors.ConfigError in classes
    for found in classes:
        assert (found.exit_code == errors.EXIT_RETRY) == found.retryable
        assert (found.exit_code == errors.EXIT_CONFIG) == issubclass(found, ConfigError)
        assert found.__doc__
        assert found.__name__ in (errors.__doc__ or "")


def test_an_error_is_one_line() -> None:
    assert error_line(ConfigError("a\n  b")) == "ConfigError: a b"


def test_the_keys_of_a_report_are_the_contract() -> None:
    """What the status handler of another version, and a person's query, rely on."""
    failed = report(status="failed", error=reported(ConfigError("x")))
    keys = set(json.loads(failed.to_json()))
    assert keys >= {
        "status", "run_id", "attempt", "extract_table", "interval", "watermark", "rows", "bytes",
        "files", "splits", "source_rows", "reconciled", "schema", "schema_changes", "fidelity",
        "null_watermark_rows", "timings", "commit_seq", "error", "versions",
    }  # fmt: skip
    assert set(json.loads(failed.to_json())["error"]) == {"class", "message", "retryable"}


def _raised(*chain: BaseException) -> BaseException:
    """Return an error as a library raises it that was interrupted by others, innermost first."""
    last: BaseException | None = None
    for error in chain:
        error.__cause__, last = last, error
    assert last is not None
    return last


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        ([errors.StopRequested("SIGTERM"), RuntimeError("Query interrupted")], errors.Interrupted),
        ([errors.StopRequested("x"), RuntimeError("y"), ValueError("z")], errors.Interrupted),
        ([errors.StopRequested("x"), errors.SourceUnavailable("gone")], errors.Interrupted),
        ([KeyboardInterrupt(), RuntimeError("Query interrupted")], errors.Interrupted),
        ([MemoryError(), RuntimeError("callback failed")], errors.WorkerOutOfMemory),
        ([ValueError("x"), errors.WriteFailed("y")], errors.WriteFailed),
        ([RuntimeError("Query interrupted")], RuntimeError),
    ],
)
def test_a_stop_anywhere_in_the_chain_of_an_error_counts(
    chain: list[BaseException], reason: type[BaseException]
) -> None:
    assert type(errors.as_reported(_raised(*chain))) is reason


def test_an_error_that_leads_to_itself_is_reported() -> None:
    error = ValueError("x")
    error.__context__ = RuntimeError("y")
    error.__context__.__context__ = error
    assert errors.as_reported(error) is error
