"""Prepares the Python of the base image; run by `infra/Dockerfile`.

Removes the package installers, and compiles the standard library, which may come without bytecode:
a worker has nowhere to store it.
"""

from __future__ import annotations

import compileall
import importlib.util
import py_compile
import re
import shutil
import sys
import sysconfig
from pathlib import Path

_INSTALLERS = ("ensurepip", "pip", "pkg_resources", "setuptools", "_distutils_hack", "wheel")
_WHEELS = Path("/usr/share/python-wheels")
"""Where Debian keeps the wheels that ensurepip installs."""
_UNUSED = re.compile(r"/(test|tests|lib2to3|idlelib|turtledemo)/")


def remove_installers() -> None:
    """Remove pip and its like, with their metadata and programs."""
    for name in _INSTALLERS:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        package = Path(spec.origin).parent
        shutil.rmtree(package)
        for metadata in package.parent.glob(f"{name}-*.*-info"):
            shutil.rmtree(metadata)
    shutil.rmtree(_WHEELS, ignore_errors=True)
    for folder in {Path(sys.prefix) / "bin", Path("/usr/local/bin")}:
        for program in folder.glob("pip*"):
            program.unlink()


def compile_standard_library() -> None:
    """Compile what a worker may import.

    Raises:
        SystemExit: A module cannot be compiled.
    """
    if not compileall.compile_dir(
        sysconfig.get_path("stdlib"),
        quiet=1,
        rx=_UNUSED,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    ):
        sys.exit("the standard library could not be compiled")


if __name__ == "__main__":
    remove_installers()
    compile_standard_library()
