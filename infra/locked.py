"""The packages of ``uv.lock`` as files: wheels for a runtime, chosen by name, checked by hash.

Everything comes through pip and uv from the package index that they are configured with, and only
files whose hash is in the lock are accepted.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker, default_environment
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[1]
# glibc 2.34 is Amazon Linux 2023's, which Glue 5, EMR 7 and Lambda's python3.12 and later run on.
# https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-python-libraries.html
_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
_UV_PLATFORM = "x86_64-manylinux_2_34"


class BuildFailed(RuntimeError):
    """A tool that the build needs failed; the message ends with its output."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One pinned package.

    Attributes:
        name: The normalised name.
        version: The pinned version.
        line: pip's form: name, version and hashes.
    """

    name: str
    version: str
    line: str


def locked(*options: str, python: str) -> tuple[Requirement, ...]:
    """Return the packages that, by the lock, one version of Python on Linux needs.

    Args:
        options: Options of ``uv export``: groups and extras besides the package's dependencies.
        python: ``3.11`` or the like, for the markers of the lock.

    Raises:
        BuildFailed: The lock is out of date, or a group is not in it.
    """
    exported = run(
        _tool("uv"), "export", "--quiet", "--frozen", "--no-default-groups", "--no-emit-project",
        "--no-annotate", "--no-header", *options,
    )  # fmt: skip
    given = (_requirement(text, python) for text in exported.replace("\\\n", " ").splitlines())
    return tuple(requirement for requirement in given if requirement is not None)


def without(requirements: Iterable[Requirement], names: Iterable[str]) -> tuple[Requirement, ...]:
    """Return the requirements that are not among the names, however those are spelled."""
    there = {canonicalize_name(name) for name in names}
    return tuple(x for x in requirements if x.name not in there)


def provided(runtime: Path) -> dict[str, str]:
    """Return the packages that a runtime provides, as ``infra/runtimes`` lists them, by name."""
    lines = (line.partition("#")[0].strip() for line in runtime.read_text().splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {canonicalize_name(name): version for name, version in pairs}


def wheels(requirements: Sequence[Requirement], python: str, folder: Path) -> tuple[Path, ...]:
    """Return the wheels of requirements; missing ones are downloaded to the folder.

    Args:
        requirements: Taken as they are: dependencies are not added.
        python: Version of Python that the wheels are for.
        folder: Created if missing. It may contain other wheels too.

    Returns:
        One wheel per requirement, in the order of their names.

    Raises:
        BuildFailed: A package has no wheel for Linux on x86-64, or its hash differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [x for x in requirements if _held(x, folder) is None]
    if missing:
        listed = _requirements_file(missing, folder / "requirements.txt")
        platforms = (part for p in _PLATFORMS for part in ("--platform", f"{p}_x86_64"))
        run(
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--require-hashes", "--only-binary", ":all:", "--python-version", python,
            *platforms, "--dest", str(folder), "--requirement", str(listed),
        )  # fmt: skip
        listed.unlink()
    return tuple(sorted(path for x in requirements if (path := _held(x, folder)) is not None))


def _held(requirement: Requirement, folder: Path) -> Path | None:
    """Return the wheel of a requirement in a folder, if it is there with a hash from the lock."""
    for path in folder.glob("*.whl"):
        name, version, *_ = parse_wheel_filename(path.name)
        if (name, str(version)) == (requirement.name, requirement.version):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if f"sha256:{digest}" in requirement.line:
                return path
    return None


def install(requirements: Sequence[Requirement], python: str, folder: Path) -> None:
    """Install requirements into a folder, as they would be imported on Linux on x86-64.

    Nothing is run or compiled, so any Python can do it for any other.

    Raises:
        BuildFailed: A package has no wheel for that platform, or its hash differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed = _requirements_file(requirements, folder.with_suffix(".txt"))
    run(
        _tool("uv"), "pip", "install", "--quiet", "--no-deps", "--require-hashes",
        "--only-binary", ":all:", "--python", sys.executable, "--python-version", python,
        "--python-platform", _UV_PLATFORM, "--link-mode", "copy", "--target", str(folder),
        "--requirement", str(listed),
        # Elsewhere, because in the checkout uv would add the project's constraints.
        directory=folder.parent,
    )  # fmt: skip
    listed.unlink()


def run(*command: str, environment: dict[str, str] | None = None, directory: Path = ROOT) -> str:
    """Run a tool of the build and return what it wrote to its standard output.

    Args:
        command: Program and arguments.
        environment: Its whole environment; None is this process's own.
        directory: Where it runs; the checkout unless given.

    Raises:
        BuildFailed: It failed.
    """
    ended = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise BuildFailed(f"{' '.join(command[:4])} … failed:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def _tool(name: str) -> str:
    """Return the path of a tool next to this Python, where `make setup` puts it."""
    return str(Path(sys.executable).with_name(name))


def _requirements_file(requirements: Iterable[Requirement], path: Path) -> Path:
    path.write_text("".join(f"{x.line}\n" for x in requirements))
    return path


def _requirement(text: str, python: str) -> Requirement | None:
    """Parse one line of an export; None for blanks and for what another platform needs."""
    match = re.match(
        r"(?P<name>[\w.-]+)==(?P<version>[^\s;]+)\s*(;(?P<marker>.*?))?(?=\s--|$)", text
    )
    if match is None:
        return None
    marker = (match["marker"] or "").strip()
    linux: dict[str, Any] = {
        **default_environment(),
        "python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux",
        "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix",
    }  # fmt: skip
    if marker and not Marker(marker).evaluate(linux):
        return None
    pinned = f"{match['name']}=={match['version']}"
    hashes = " ".join(re.findall(r"--hash=\S+", text))
    return Requirement(canonicalize_name(match["name"]), match["version"], f"{pinned} {hashes}")
