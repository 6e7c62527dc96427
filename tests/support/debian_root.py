"""Whole Debian systems in folders, created by debootstrap: bases of images, and chroots.

Needs root, and Debian's packages; missing ones are installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.debian import TOOLS, archive

_PACKAGES = {"debootstrap": "debootstrap", "buildah": "buildah", "runc": "runc"}
"""Debian's packages by a program of each."""


def need(*programs: str) -> None:
    """Install missing programs.

    Raises:
        RuntimeError: They are missing, and this is not root on Debian; the message says what to do.
    """
    missing = sorted(_PACKAGES[name] for name in programs if shutil.which(name) is None)
    if os.geteuid() != 0:
        raise RuntimeError("images are built and run as root: sudo make test-image")
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise RuntimeError(
            f"{', '.join(missing)} must be installed first; there is no apt-get here"
        )
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "-q", "update", environment=quiet)
    run("apt-get", "-q", "install", "-y", "--no-install-recommends", *missing, environment=quiet)


def debian_root(suite: str, packages: Sequence[str]) -> Path:
    """Return a folder with a minimal Debian and some packages; it is created once and kept.

    Do not change anything in it: bind it, or copy it.
    """
    need("debootstrap")
    root = TOOLS / f"root-{suite}"
    made = root / ".packages"
    if made.is_file() and made.read_text().split() == sorted(packages):
        return root
    work = root.with_name(f"{root.name}.new")
    for folder in (work, root):
        shutil.rmtree(folder, ignore_errors=True)
    # With its own mounts: if its /proc is in use, debootstrap leaves it mounted.
    run(
        "unshare", "--mount",
        "debootstrap", "--variant=minbase", f"--include={','.join(packages)}", suite,
        str(work), archive(),
    )  # fmt: skip
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(work / folder)
        (work / folder / "partial").mkdir(parents=True)
    (work / "usr/bin/python").symlink_to("python3")
    (work / ".packages").write_text(" ".join(sorted(packages)))
    work.rename(root)
    return root


def run(*command: str, environment: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed.

    Raises:
        RuntimeError: It failed; the message ends with what it printed.
    """
    ended = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} … failed:\n{ended.stdout[-4000:]}")
    return ended.stdout
