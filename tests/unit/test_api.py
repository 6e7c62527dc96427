"""What `extract_jobs` exports: importable at once, light, and as the examples say."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import extract_jobs
from extract_jobs.errors import ExtractError

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
HEAVY = ("pyarrow", "duckdb", "botocore", "boto3", "pyspark", "pandas", "numpy", "psycopg")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
WITH_EXAMPLES = ("ExtractSpec", "Report", "extract", "load_config", "specs_for")


@pytest.mark.parametrize("name", extract_jobs.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(extract_jobs, name)
    assert inspect.getdoc(found)
    assert name in dir(extract_jobs)
    is_error = inspect.isclass(found) and issubclass(found, ExtractError)
    assert is_error or f"`{name}" in PAGE.read_text()


def test_every_error_is_public() -> None:
    errors = {ExtractError, *ExtractError.__subclasses__()}
    errors |= {below for error in errors for below in error.__subclasses__()}
    ours = {error.__name__ for error in errors if error.__module__ == "extract_jobs.errors"}
    assert ours <= set(extract_jobs.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'run_all'"):
        _ = extract_jobs.run_all


@pytest.mark.parametrize("names", ["", "ExtractSpec, load_config, ConfigError, Report"])
def test_the_import_is_light(names: str) -> None:
    program = f"import sys, extract_jobs\n{f'from extract_jobs import {names}' if names else ''}\n"
    program += f"print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, optionflags=FLAGS)
    assert tried > 8
    assert failed == 0


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_docstrings_are_true(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = getattr(extract_jobs, name)
    globs = {public: getattr(extract_jobs, public) for public in extract_jobs.__all__}
    example = doctest.DocTestParser().get_doctest(
        inspect.getdoc(found) or "", globs, name, inspect.getfile(found), 0
    )
    assert example.examples
    assert doctest.DocTestRunner(optionflags=FLAGS).run(example).failed == 0
