"""What a worker leaves where the core was never reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from extract_jobs import worker
from extract_jobs.engine.shutdown import Stop
from extract_jobs.errors import (
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_RETRY,
    ConfigError,
    StopRequested,
)
from extract_jobs.reporting.report import Report
from extract_jobs.tracking.table import client_from_environment
from tests.support.specs import make_spec


def run(folder: Path) -> tuple[int, Report]:
    spec, report = folder / "spec.json", folder / "report.json"
    spec.write_text(make_spec(folder, tracking_table="t").model_dump_json())
    code = worker.main(["--spec_uri", str(spec), "--report_uri", str(report)], stop=Stop())
    return code, Report.parse(report.read_bytes())


def test_a_missing_region_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    code, report = run(tmp_path)
    assert report.error is not None
    assert (code, report.error.class_name) == (EXIT_CONFIG, "ConfigError")
    assert "region" in report.error.message


@pytest.mark.parametrize(
    ("given", "taken"), [(None, "eu-north-1"), ("", "eu-north-1"), ("us-east-2", "us-east-2")]
)
def test_the_region_is_taken_from_either_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, taken: str
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", given or "")
    if given is None:
        monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    asked = []

    def client() -> None:
        asked.append(client_from_environment().meta.region_name)
        raise ConfigError("enough")

    monkeypatch.setattr(worker, "client_from_environment", client)
    run(tmp_path)
    assert asked == [taken]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (KeyError("a row's value"), (EXIT_FAILED, "ExtractError", False)),
        (StopRequested("stopped by SIGTERM"), (EXIT_RETRY, "Interrupted", True)),
    ],
)
def test_whatever_comes_up_is_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    expected: tuple[int, str, bool],
) -> None:
    def client() -> None:
        raise raised

    monkeypatch.setattr(worker, "client_from_environment", client)
    code, report = run(tmp_path)
    assert report.error is not None
    assert (code, report.error.class_name, report.error.retryable) == expected
    assert "a row's value" not in report.error.message
