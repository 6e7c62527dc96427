"""Keeps pyarrow from importing pandas, which costs 2 s of CPU per process and is not used here.

pyarrow looks for pandas when it first makes an array of Python values, so that it can recognize
pandas objects among them. If it finds none, it continues without; only conversions to pandas, which
a caller has to request, look again (pyarrow 18 to 25, ``pandas-shim.pxi``).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_skipped = False


class _NoPandas(MetaPathFinder):
    """Hides pandas, wherever it may be installed."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's
        target: ModuleType | None = None,  # noqa: ARG002 - the protocol's
    ) -> ModuleSpec | None:
        """Fail the import of pandas; leave all others to the next finders."""
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is hidden from pyarrow here", name=fullname)
        return None


def skip_pandas() -> None:
    """Make pyarrow's first look for pandas find nothing.

    Call it in our own processes, before other threads start: afterwards `pyarrow.array` treats
    pandas objects as plain sequences until a conversion to pandas is requested. Does nothing if
    pandas is already imported. ``import pandas`` works as before.
    """
    global _skipped  # noqa: PLW0603 - as much a fact of the process as what it has imported
    if _skipped or "pandas" in sys.modules:
        return
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(finder)
    _skipped = True


def pandas_is_skipped() -> bool:
    """Return whether `skip_pandas` took effect in this process."""
    return _skipped
