"""Keeps Spark's Python workers from reading unchanged zips and jars again for every task.

A worker calls `importlib.invalidate_caches` as each task begins. On Python 3.11 every importer of
an archive answers by reading its directory at once, and there is one for each package that came
from pyspark.zip: 13 readings, 0.1 s of CPU or more, in a worker that has run tasks before.
"""

from __future__ import annotations

import zipimport
from pathlib import Path
from weakref import WeakKeyDictionary

_invalidate = zipimport.zipimporter.invalidate_caches
_seen: WeakKeyDictionary[zipimport.zipimporter, tuple[int, int]] = WeakKeyDictionary()
"""Time and size of each importer's archive when its caches were last invalidated."""


def keep_unchanged_archives() -> None:
    """Make importers of archives read them again only if their size or time has changed.

    Call it in a worker's task; it holds for the process and its later tasks. An importer's first
    call still reads, because nobody knows when it was made. Does nothing if called again.
    """
    zipimport.zipimporter.invalidate_caches = _invalidate_if_changed  # type: ignore[method-assign, assignment]


def _invalidate_if_changed(importer: zipimport.zipimporter) -> None:
    try:
        about = Path(importer.archive).stat()
    except OSError:
        _seen.pop(importer, None)
        _invalidate(importer)
        return
    stamp = about.st_mtime_ns, about.st_size
    if _seen.get(importer) != stamp:
        _invalidate(importer)
        _seen[importer] = stamp
