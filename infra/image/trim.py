"""Removes from an environment what the image does not need; run by `infra/Dockerfile`.

``python trim.py SITE_PACKAGES UNUSED``. The rest gets bytecode and times that depend only on the
packages, so that the layer is the same whenever and wherever it is built.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import shutil
import sys
from pathlib import Path


def trim(site: Path, unused: Path) -> None:
    """Remove what a list names, link duplicates, and compile the rest.

    Args:
        site: A folder of installed packages.
        unused: Lines of patterns below it. What matches a line that begins with ! stays; blank
            lines and text after # are ignored.

    Raises:
        SystemExit: A pattern matches nothing, or a module cannot be compiled.
    """
    lines = [line.partition("#")[0].strip() for line in unused.read_text().splitlines()]
    kept = {path for line in lines if line.startswith("!") for path in _matches(site, line[1:])}
    for pattern in lines:
        if pattern and not pattern.startswith("!"):
            for path in _matches(site, pattern) - kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    _link_copies(site)
    # Not checked against the source: a copy of the file may have another time, and there is nowhere
    # to store new bytecode.
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(site, quiet=1, force=True, invalidation_mode=unchecked):
        sys.exit(f"{site}: not everything could be compiled")
    for path in (site, *site.rglob("*")):
        os.utime(path, (0, 0), follow_symlinks=False)


def _matches(site: Path, pattern: str) -> set[Path]:
    found = set(site.glob(pattern))
    if not found:
        sys.exit(f"{pattern} matches nothing in {site}: correct or remove the line")
    return found


def _link_copies(site: Path) -> None:
    """Link files that a folder has under several names: libraries, since wheels have no links."""
    first: dict[tuple[Path, str], Path] = {}
    for path in sorted(p for p in site.rglob("*.so*") if p.is_file() and not p.is_symlink()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        kept = first.setdefault((path.parent, digest), path)
        if kept is not path:
            path.unlink()
            path.symlink_to(kept.name)


if __name__ == "__main__":
    trim(Path(sys.argv[1]), Path(sys.argv[2]))
