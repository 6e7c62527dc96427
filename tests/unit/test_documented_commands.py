"""Every `extract-jobs` command that the pages show is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from extract_jobs.cli.arguments import argument_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> Iterator[tuple[str, str]]:
    """Yield page and command of every line of a code block that begins with the program."""
    for page in PAGES:
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("extract-jobs "):
                    yield page.name, line


def test_the_pages_show_commands() -> None:
    shown = {line.split()[1] for page, line in commands() if page == "README.md"}
    assert {"init", "validate", "plan", "preview", "run", "status", "verify", "recover"} <= shown


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_a_command_of_the_pages_is_taken(page: str, line: str) -> None:
    words = shlex.split(re.split(r" [|>] ", line)[0], comments=True)
    found = argument_parser().parse_args(words[1:])
    assert found.command == words[1], page
