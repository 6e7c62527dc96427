"""What the local pipeline says: events that are refused, reasons in a line, missing variables."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from extract_jobs.errors import ConfigError
from extract_jobs.tracking.table import TrackedRun
from infra.local.__main__ import main
from infra.local.board import Outcome, Row, show
from infra.local.messages import exit_code, missing_variables, read_event, reason, why_failed

REMEDY = "cast it, for example columns.cast {balance: 'decimal(19,2)'}, or exclude the column"


def failed(message, error="TypeNotRepresentable", table="shop.cards"):
    return TrackedRun(
        table_id=f"s/{table}", run_id="r", extract_table=table, status="FAILED",
        error_class=error, error_message=message,
    )  # fmt: skip


def test_a_table_that_runs_shows_the_rows_that_it_has_read():
    progress = (
        '{"phase":"extract","rows":1200,"bytes":9,"splits":2,"splits_done":1,'
        '"moved_at":"2026-11-29T00:00:00+00:00"}'
    )
    run = replace(failed(""), status="RUNNING", rows=0, progress=progress)
    assert Row("shop.cards", "", run).cells()[5] == "1,200"
    assert Row("shop.cards", "", replace(run, progress="")).cells()[5] == ""
    done = replace(run, status="SUCCEEDED", rows=7)
    assert Row("shop.cards", "", done).cells()[5] == "7"


def shown(outcome, **options):
    console = Console(file=io.StringIO(), width=100)
    show(outcome, console, **options)
    return console.file.getvalue()


@pytest.mark.parametrize("text", ['{"source_name": ', "[1]", "missing.json", "."])
def test_an_event_that_cannot_be_read_is_one_line_and_78(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", text]) == 78
    assert capsys.readouterr().err.startswith("ConfigError: ")


def test_an_event_in_a_file_must_be_an_object(tmp_path):
    path = tmp_path / "event.json"
    path.write_text("[]")
    with pytest.raises(ConfigError, match="JSON list; expected an object"):
        read_event(str(path))
    path.write_text('{"source_name": "s"}')
    assert read_event(str(path)) == {"source_name": "s"}


def test_a_lambdas_failure_is_class_and_message():
    cause = {"errorType": "ConfigError", "errorMessage": "no such\nconfig", "stackTrace": ["x"]}
    assert reason("ConfigError", json.dumps(cause)) == "ConfigError: no such config"
    whole = {"Error": "ConfigError", "Cause": json.dumps(cause)}
    assert reason("ConfigError", json.dumps(whole)) == "ConfigError: no such config"
    timed_out = json.dumps({"Error": "States.Timeout"})
    assert reason("States.Timeout", timed_out) == f"States.Timeout: {timed_out}"
    outcome = Outcome("arn:e", "FAILED", "ConfigError", json.dumps(cause), ())
    assert shown(outcome, rerun="again") == "ConfigError: no such config\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [("ConfigError", 78), ("TypeNotRepresentable", 78), ("WriteFailed", 1),
     ("ExtractRunFailed", 1), ("EXIT_CONFIG", 1), ("", 1)],
)  # fmt: skip
def test_configuration_exits_with_78_all_else_with_1(error, code):
    assert exit_code(error) == code


def test_a_remedy_is_shown_whole_and_nothing_is_padded():
    run = failed(f"shop.cards: balance is money, whose text depends on the locale: {REMEDY}")
    outcome = Outcome("arn:e", "FAILED", "ExtractRunFailed", "1 of 1 tables failed", (run,))
    text = shown(outcome, rerun="python -m …", announced={"shop.cards": "TypeNotRepresentable"})
    lines = text.splitlines()
    in_cells = " ".join(" ".join(line.strip("│").split("│")[-1].split())
                        for line in lines if line.startswith("│"))  # fmt: skip
    assert REMEDY in in_cells
    assert in_cells.startswith("(as announced) ")
    assert lines[0] == ""
    assert [line for line in lines if line != line.rstrip()] == []
    assert "FAILED: 1 of 1 tables failed (as announced)" in lines
    assert lines[-1] == "To run just these again: python -m …"


def test_a_failure_that_was_not_announced_does_not_pass_for_one():
    outcome = Outcome("arn:e", "FAILED", "ExtractRunFailed", "", (failed("x", "WriteFailed"),))
    assert "as announced" not in shown(outcome, announced={"shop.cards": "TypeNotRepresentable"})


def test_why_an_execution_failed_is_one_line():
    runs = [failed("a\nb"), failed("c", table="shop.other")]
    assert why_failed("ExtractRunFailed", "", runs) == (
        "shop.cards (and 1 more): TypeNotRepresentable: a b"
    )
    assert why_failed("States.Runtime", "word " * 100, []).endswith("word …")


def test_variables_that_jobs_do_not_get_are_named(tmp_path):
    one, two, three = (tmp_path / f"{name}.yml" for name in ("one", "two", "three"))
    one.write_text("source: {connection: {url: x, password_env: ONE}}")
    two.write_text("source: {connection: {url_env: TWO}}")
    three.write_text("source: [")
    found = missing_variables([one, two, three], ["ONE"])
    assert found == [(two, "url_env", "TWO")]
