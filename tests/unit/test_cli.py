"""The command line where it needs neither source nor storage."""

from __future__ import annotations

import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import boto3
import pyarrow as pa
import pytest

from extract_jobs.cli import main
from extract_jobs.cli.arguments import _EXAMPLES, argument_parser
from extract_jobs.cli.history import age_text
from extract_jobs.cli.one_table import worst
from extract_jobs.cli.selection import overrides_of
from extract_jobs.cli.views import result_line
from extract_jobs.config.model import schema_text
from extract_jobs.errors import ConfigError
from extract_jobs.reporting.figures import aligned
from extract_jobs.reporting.report import Report, ReportedError
from extract_jobs.spec.extract_spec import parse_spec
from extract_jobs.transform.columns import choose_columns
from tests.support.specs import make_description, make_spec

ROOT = Path(__file__).parents[2]
VALID = """\
version: 1
source: {name: sales, type: postgres, connection: {url: "postgresql://me@127.0.0.1:1/x"}}
defaults: {target: {uri: "out/{table}"}}
tables: {a: , b: }
"""


def cli(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "extract_jobs.cli", *arguments],
        cwd=cwd, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


Run = Callable[..., tuple[int, str, str]]
"""Runs a command in this process; returns the exit code, standard output and standard error."""


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(arguments)
        written = capfd.readouterr()
        return code, written.out, written.err

    yield run_here
    logging.getLogger("extract_jobs").setLevel(logging.NOTSET)


def failed(run: Run, *arguments: str) -> tuple[int, list[str]]:
    code, stdout, stderr = run(*arguments)
    assert stdout == ""
    assert "Traceback" not in stderr
    return code, stderr.splitlines()


def test_init_writes_a_config_that_is_valid_and_never_overwrites(run: Run, tmp_path: Path) -> None:
    code, _, stderr = run("init")
    assert (code, stderr) == (0, "")
    text = (tmp_path / "sales.yml").read_text()
    assert "file://" not in text
    assert str(ROOT) not in text
    assert "`extract-jobs schema`" in text
    assert run("validate", "sales.yml")[1] == "sales.yml: valid, 2 tables\n"
    assert failed(run, "init") == (
        78, ["ConfigError: sales.yml already exists and was not changed"],
    )  # fmt: skip
    assert (tmp_path / "sales.yml").read_text() == text


def test_no_command_prints_the_help(run: Run) -> None:
    code, stdout, stderr = run()
    assert (code, stderr) == (0, "")
    assert stdout.startswith("usage: extract-jobs")
    assert "verify" in stdout


def test_every_command_has_help_with_its_exit_codes_and_examples_that_parse(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command, examples in _EXAMPLES.items():
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        shown = capsys.readouterr().out
        assert ended.value.code == 0
        assert "75 failed; a retry may help" in shown
        for example in examples:
            assert example in shown
            words = shlex.split(re.split(r"  +|[|>]", example)[0])
            assert argument_parser().parse_args(words).command == command


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_commands_and_options(run: Run, shell: str) -> None:
    code, stdout, stderr = run("completion", shell)
    assert (code, stderr) == (0, "")
    for word in ("verify", "preview", "--tracking-table", "--overdue"):
        assert word in stdout


def test_schema_prints_the_json_schema(run: Run) -> None:
    assert run("schema") == (0, schema_text(), "")


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [
        (["validate", "c.yml"], 0, ("c.yml: valid, 2 tables\n", "")),
        (["run", "d.yml"], 78,
         ("", "ConfigError: d.yml: there is no such file; did you mean c.yml?\n")),
        (["rnu"], 78, ("", ANY)),
    ],
)  # fmt: skip
def test_a_process_has_the_same_output_and_exit_code(
    run: Run, tmp_path: Path, arguments: list[str], code: int, output: tuple[object, object]
) -> None:
    (tmp_path / "c.yml").write_text(VALID)
    done = cli(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == run(*arguments)
    assert (done.returncode, (done.stdout, done.stderr)) == (code, output)


def test_spec_prints_what_a_worker_started_by_hand_takes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sales.yml").write_text(
        "version: 1\nsource: {name: sales, type: postgres, connection: {secret_id: lake/sales}}\n"
        "defaults: {target: {uri: '/lake/{table}'}}\ntables: {public.a: , public.b: }\n"
    )
    code, first, _ = run("spec", "sales.yml", "public.a")
    spec = parse_spec(first, "--spec_uri")
    assert (code, spec.extract_table, spec.connection.secret_id) == (0, "public.a", "lake/sales")
    # A committed run is never done again, so every spec is a run of its own.
    assert parse_spec(run("spec", "sales.yml", "public.a")[1], "again").run_id != spec.run_id


def test_validate_lists_every_problem_and_then_the_class(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text(VALID.replace("a: , b: ", "a: {mdoe: x}, b: {mode: y}"))
    assert failed(run, "validate", "c.yml") == (
        78,
        [
            "c.yml:4: tables.a.mdoe: unknown key; did you mean mode?",
            "c.yml:4: tables.b.mode: 'y' is not full or incremental",
            "ConfigError: c.yml: 2 problems",
        ],
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "ConfigError: argument COMMAND: invalid choice: 'rnu'"),
        (
            ["run"],
            "ConfigError: the following arguments are required: CONFIG; see extract-jobs run --h",
        ),
        (
            ["run", "c.yml", "--josn", "a"],
            "ConfigError: unrecognized arguments: --josn a; see extract-jobs run --help",
        ),
        (
            ["validate", "c.yml", "a"],
            "ConfigError: unrecognized arguments: a; see extract-jobs validate --help",
        ),
        (
            ["spec", "c.yml", "a", "b"],
            "ConfigError: unrecognized arguments: b; see extract-jobs spec --help",
        ),
        (["run", "d.yml"], "ConfigError: d.yml: there is no such file; did you mean c.yml?"),
        (["run", "."], "ConfigError: .: cannot be read: Is a directory"),
        (["run", "c.yml", "aa"], "ConfigError: c.yml: the config has no table aa; did you mean a?"),
        (["run", "c.yml", "--set", "mode"], "ConfigError: --set mode: expected key.path=value"),
        (["run", "c.yml", "--set", "mode=[x"], "ConfigError: --set mode:"),
        (["run", "c.yml", "--set", "mdoe=full"], "ConfigError: c.yml: --set mdoe: unknown key"),
        (["run", "c.yml", "--run-id", "a/b"], "ConfigError: a: run_id: "),
        (["spec", "c.yml"], "ConfigError: the following arguments are required: TABLE"),
        (["plan", "c.yml", "nope"], "ConfigError: c.yml: the config has no"),
        (
            ["recover", "c.yml", "--abandon-after", "2"],
            "ConfigError: argument --abandon-after: '2'",
        ),
        (["init", "no/such/folder.yml"], "ConfigError: no/such/folder.yml cannot be written"),
        (["validate", "gs://b/c.yml"], "ConfigError: gs://b/c.yml: expected s3://bucket/key"),
    ],
)
def test_bad_input_is_one_line_and_exit_78(
    run: Run, arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "c.yml").write_text(VALID)
    code, lines = failed(run, *arguments)
    assert code == 78
    assert len(lines) == 1
    assert lines[0].startswith(message)


@pytest.mark.parametrize(
    "arguments",
    [
        "run c.yml a b --set x=1 --json",
        "run c.yml --set x=1 a b --json",
        "run c.yml a --set x=1 b --json",
        "run --set x=1 c.yml a --json b",
        "run --json --set x=1 c.yml a b",
        "run c.yml --json a --set x=1 -- b",
    ],
)
def test_tables_stand_before_between_and_after_options(arguments: str) -> None:
    for _ in range(2):  # nothing of one command line stays for the next
        found = argument_parser().parse_args(arguments.split())
        assert (found.config, found.tables) == ("c.yml", ["a", "b"])
        assert (found.set, found.json) == (["x=1"], True)
    assert argument_parser().parse_args(["run", "c.yml", "--json"]).tables == []


def test_a_defect_is_one_line_and_a_traceback_on_request(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text(VALID)
    broken = (
        "import sys, extract_jobs.cli as c\n"
        "def boom(arguments): raise KeyError('row data')\n"
        "c._COMMANDS['validate'] = boom\n"
        "sys.exit(c.main(sys.argv[1:]))\n"
    )
    for extra in ([], ["--traceback"]):
        done = subprocess.run(
            [sys.executable, "-c", broken, "validate", "c.yml", *extra],
            cwd=tmp_path, env={"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            "InternalError: unexpected KeyError, a defect in extract-jobs; --traceback shows where"
        )
        assert ("row data" in done.stderr) == bool(extra)


def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path: Path) -> None:
    program = (
        "import sys; from extract_jobs.cli import main; sys.stdin.read(); sys.exit(main(['init']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, stderr = process.communicate(b"go", timeout=60)
    assert (process.returncode, stderr) == (1, b"")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], {}),
        (["mode=full"], {"mode": "full"}),
        (["a.b.c=1", "a.b.d=yes", "a.e=x=y"], {"a": {"b": {"c": 1, "d": True}, "e": "x=y"}}),
        (["a=1", "a.b=2"], {"a": {"b": 2}}),
        (["a.b=1", "a=2"], {"a": 2}),
        (["lower=2026-01-01 00:00:00", "n=null", "e="],
         {"lower": "2026-01-01 00:00:00", "n": None, "e": None}),
        (["columns={include: [a, 'b.c'], rename: {x.y: z}}"],
         {"columns": {"include": ["a", "b.c"], "rename": {"x.y": "z"}}}),
    ],
)  # fmt: skip
def test_overrides_of_set_options(settings: list[str], expected: dict[str, Any]) -> None:
    assert overrides_of(settings) == expected


@pytest.mark.parametrize("setting", ["mode", "=1", "a..b=1", ".a=1", "a.=1", "a=[1", "a=b: c: d"])
def test_what_set_does_not_take(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set "):
        overrides_of([setting])


def report_of(table: str, error: str | None = None, **fields: Any) -> Report:
    shown = (
        ReportedError(class_name=error, message="two\nlines", retryable=False) if error else None
    )
    return Report(
        status="failed" if error else "succeeded", run_id="r", attempt=1, source_name="s",
        extract_table=table, target_uri="t", error=shown, **fields,
    )  # fmt: skip


def test_the_worst_failure_gives_the_exit_code() -> None:
    config, retry = (report_of("c", "ConfigError"), 78), (report_of("r", "SourceUnavailable"), 75)
    other = report_of("o", "SourceQueryFailed"), 1
    assert worst([other], 1, "run") == ("SourceQueryFailed: two lines", 1)
    line, code = worst([other, config, retry], 5, "run")
    assert code == 78
    assert line == (
        "ExtractRunFailed: 3 of 5 tables failed: o (SourceQueryFailed), c (ConfigError), "
        "r (SourceUnavailable)"
    )
    line, code = worst([other, retry], 5, "run")
    assert code == 75
    assert line == (
        "ExtractRunFailed: 2 of 5 tables failed: o (SourceQueryFailed), r (SourceUnavailable); "
        "to repeat this run, add --run-id run"
    )
    assert worst([retry, retry], 5, "run") == (
        "SourceUnavailable: 2 of 5 tables failed: r, r; to repeat this run, add --run-id run", 75,
    )  # fmt: skip
    assert worst([other], 5, "run") == ("SourceQueryFailed: 1 of 5 tables failed: o", 1)
    many = worst([other] * 12, 12, "run")[0]
    assert many.endswith("o, o, o, o, o, o, o, o, o, o and 2 more")


def test_lines_for_a_person() -> None:
    done = report_of("t", rows=1234567, bytes=45_600_000, files=1, reconciled=True, commit_seq=3)
    assert result_line(done) == (
        "t: succeeded: 1,234,567 rows, counted in the source too, 45.6 MB, 1 file in t, 0.0 s, "
        "commit 3"
    )
    assert result_line(report_of("t", "ConfigError")) == "t: failed: ConfigError: two lines"
    assert result_line(report_of("t", "ConfigError"), error_follows=True) == "t: failed"
    assert result_line(done, error_follows=True) == result_line(done)
    one = result_line(report_of("t", rows=1, repeated_rows=2, files=1, commit_seq=3))
    assert (
        one
        == "t: succeeded: 1 row beside 2 rows committed before, 0 B, 1 file in t, 0.0 s, commit 3"
    )
    nulled = result_line(report_of("t", rows=9, nulled={"at": 2, "id": 0}, files=1, commit_seq=3))
    assert nulled == (
        "t: succeeded: 9 rows, 2 values of at made NULL, 0 B, 1 file in t, 0.0 s, commit 3"
    )
    assert result_line(report_of("t", repeated_rows=12)) == (
        "t: succeeded: 12 rows read, all committed before, 0 B, 0 files, 0.0 s, nothing to commit"
    )
    assert [age_text(timedelta(seconds=s)) for s in (172800, 5400, 90, 0)] == [
        "48 h", "90 min", "90 s", "0 s",
    ]  # fmt: skip
    assert aligned([["a", "bbb", "c"], ["aaaa", "b", ""]]) == ["a     bbb  c", "aaaa  b"]


@pytest.mark.parametrize(
    ("partition", "hint"),
    [
        ("extract_dat", "(nearest: extract_date)"),
        ("runid", "(nearest: run_id)"),
        ("creatd_at", "(nearest: created_at)"),
        ("day(extract_dat)", "(columns: id, created_at; no close match)"),
        ("zzz", "(columns: id, created_at, beside extract_date and run_id; no close match)"),
    ],
)
def test_a_wrong_partition_gets_what_is_near_or_hears_that_nothing_is(
    partition: str, hint: str
) -> None:
    schema = pa.schema([("id", pa.int64()), ("created_at", pa.timestamp("us"))])
    spec = make_spec(target={"partition_by": [partition]})
    with pytest.raises(ConfigError) as caught:
        choose_columns(make_description(schema), spec)
    assert str(caught.value).endswith(hint)


def test_aws_region_is_enough_to_name_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "")  # so that it is restored
    assert main(["schema"]) == 0
    assert boto3.session.Session().region_name == "eu-north-1"
