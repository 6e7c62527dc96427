"""Programs in a chroot of a debootstrapped Debian, with their own mounts."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.debian_root import run


@dataclass(frozen=True)
class Chroot:
    """A writable Debian, layered over one that does not change.

    Attributes:
        root: Its files.
    """

    root: Path

    def run(self, *command: str, environment: dict[str, str] | None = None) -> str:
        """Run a program as root of it and return what it printed.

        Raises:
            AssertionError: It failed; the message ends with what it printed.
        """
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
        ended = subprocess.run(
            ["chroot", str(self.root), *command], env=variables | (environment or {}),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout[-6000:]
        return ended.stdout


@contextlib.contextmanager
def chroot_of(base: Path, folder: Path, shared: Sequence[tuple[Path, str]]) -> Iterator[Chroot]:
    """Mount a writable layer over a Debian until the context ends.

    Args:
        base: The Debian; nothing in it changes.
        folder: Empty; holds what is written.
        shared: Folders to mount in it, read-only, and where.
    """
    upper, work, root = (folder / name for name in ("upper", "work", "root"))
    for made in (upper, work, root):
        made.mkdir(parents=True)
    with contextlib.ExitStack() as mounts:

        def mount(target: Path, *arguments: str) -> None:
            target.mkdir(parents=True, exist_ok=True)
            run("mount", *arguments, str(target))
            mounts.callback(run, "umount", "--recursive", "--lazy", str(target))

        layers = f"lowerdir={base},upperdir={upper},workdir={work}"
        mount(root, "-t", "overlay", "overlay", "-o", layers)
        mount(root / "proc", "-t", "proc", "proc")
        mount(root / "dev", "--bind", "/dev")
        for source, place in shared:
            mount(root / place.lstrip("/"), "--bind", "-o", "ro", str(source))
        # debootstrap writes none, and Spark looks up localhost.
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        yield Chroot(root)
