"""Writes the lists of `infra/runtimes`: ``python -m infra.runtime_lists``.

A list has the packages that Glue provides, from the repository of Glue's own library, one branch
per version. Its header names the source, the commit and that commit's day. Only git is needed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from infra.build import GLUE_PYTHONS

LISTS = Path(__file__).with_name("runtimes")
SOURCE = "https://github.com/awslabs/aws-glue-libs"
FILE = "base-requirements.txt"
BRANCHES = {"5.1": "glue-5.1", "6.0": "main"}
"""The branch of each version's list: the newest version has no branch of its own yet."""


@dataclass(frozen=True, slots=True)
class Read:
    """A list from its source: the commit, the commit's day, and the lines."""

    commit: str
    day: str
    lines: tuple[str, ...]


def read_list(source: str, branch: str) -> Read:
    """Return the list from a branch.

    Args:
        source: URL or folder of the repository.
        branch: Its branch.

    Raises:
        subprocess.CalledProcessError: There is no such repository, branch or file.
    """
    with tempfile.TemporaryDirectory() as folder:

        def git(*arguments: str) -> str:
            command = ["git", "-C", folder, *arguments]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        git("init", "--quiet")
        git("fetch", "--quiet", "--depth", "1", source, branch)
        commit, day = git("log", "-1", "--format=%H %cs", "FETCH_HEAD").split()
        text = git("show", f"FETCH_HEAD:{FILE}")
    return Read(commit, day, tuple(filter(None, map(str.strip, text.splitlines()))))


def rendered(version: str, read: Read) -> str:
    """Return a list in the form that this repository stores.

    Raises:
        ValueError: A line is not one package at one version.
    """
    for line in read.lines:
        if [pin.operator for pin in Requirement(line).specifier] != ["=="]:
            raise ValueError(f"Glue {version}: {line!r} is not one version of a package")
    head = [
        f"# Packages of AWS Glue {version} (Python {GLUE_PYTHONS[version]}), which no artifact",
        f"# brings again: {FILE} of {SOURCE},",
        f"# branch {BRANCHES[version]}, commit {read.commit[:12]} of {read.day}.",
        "# Written by python -m infra.runtime_lists.",
    ]
    return "\n".join([*head, *read.lines, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the lists; return 0."""
    parser = argparse.ArgumentParser(prog="python -m infra.runtime_lists", description=__doc__)
    parser.add_argument(
        "--source", default=SOURCE, help="a copy of the repository; default: GitHub"
    )
    parser.add_argument("--to", type=Path, default=LISTS, help="default: infra/runtimes")
    options = parser.parse_args(arguments)
    for version, branch in BRANCHES.items():
        path = options.to / f"glue-{version}.txt"
        path.write_text(rendered(version, read_list(options.source, branch)))
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
