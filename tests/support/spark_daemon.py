"""PySpark's daemon, whose workers do not read their zips again at every task.

Before each task a worker calls `importlib.invalidate_caches`. On Python 3.11 that reads the
directory of pyspark.zip again for every package imported from it, and that of Spark's own jar:
0.15 s of CPU at least, more than the tests' splits take to read. No zip changes while they run.

Spark starts this by ``spark.python.daemon.module``.
"""

from __future__ import annotations

import zipimport

from pyspark.daemon import manager


def _keep(_: zipimport.zipimporter) -> None:
    """Keep the directory that was read."""


if __name__ == "__main__":
    zipimport.zipimporter.invalidate_caches = _keep  # type: ignore[method-assign]
    manager()
