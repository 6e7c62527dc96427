"""The lists of what Glue brings: written from their source, and kept as they were written."""

from __future__ import annotations

import re
import subprocess

import pytest

from infra import runtime_lists
from infra.build import GLUE_PYTHONS
from infra.locked import provided
from infra.runtime_lists import BRANCHES, FILE, LISTS, Read, rendered


@pytest.fixture
def source(tmp_path):
    """Make a repository with a branch a version, each with a list of its own."""
    folder = tmp_path / "source"

    def git(*arguments):
        names = ("-c", "user.name=x", "-c", "user.email=x@example.com")
        subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True)

    folder.mkdir()
    git("init", "--quiet")
    for number, branch in enumerate(BRANCHES.values(), 1):
        git("checkout", "--quiet", "--orphan", branch)
        (folder / FILE).write_text(f"setuptools==79.0.{number}\npip==24.0")
        git("add", FILE)
        git("commit", "--quiet", "--message", branch, "--date", "2020-01-01")
    return folder


def test_lists_are_written_from_their_branches_with_source_commit_and_day(source, tmp_path):
    assert runtime_lists.main(["--source", str(source), "--to", str(tmp_path)]) == 0
    for number, (version, branch) in enumerate(BRANCHES.items(), 1):
        path = tmp_path / f"glue-{version}.txt"
        assert provided(path) == {"setuptools": f"79.0.{number}", "pip": "24.0"}
        head = rf"branch {branch}, commit [0-9a-f]{{12}} of \d{{4}}-\d\d-\d\d\."
        assert re.search(head, path.read_text())


@pytest.mark.parametrize("line", ["setuptools", "setuptools>=79", "setuptools==79,!=78"])
def test_a_line_that_is_no_version_is_refused(line):
    with pytest.raises(ValueError, match="is not one version"):
        rendered("5.1", Read("c" * 40, "2026-01-01", (line,)))


@pytest.mark.parametrize("version", sorted(GLUE_PYTHONS))
def test_the_lists_that_are_kept_are_as_the_script_writes_them(version):
    text = (LISTS / f"glue-{version}.txt").read_text()
    commit, day = re.search(r"commit ([0-9a-f]{12}) of ([\d-]{10})\.", text).groups()
    lines = tuple(line for line in text.splitlines() if not line.startswith("#"))
    assert text == rendered(version, Read(commit, day, lines))
