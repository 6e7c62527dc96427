"""Services that fail on purpose, to rehearse how the state machine reacts.

The faults are a JSON list in a file that is read at every call, so that they can change while an
execution runs::

    [{"call": "glue:startJobRun", "about": "public.orders",
      "error": "Glue.ConcurrentRunsExceededException", "times": 2}]

``call`` and ``about`` are searched for in the call's resource and in its input; ``s3:getObject`` is
the Map's reading of its list. ``times`` is the number of calls that fail, by default 1. Each call
that has failed is a line of ``faults.log``, beside that file.
"""

# ruff: noqa: SLF001
# ministack has no other interface to its interpreter; its version is pinned for that.

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ministack.services import stepfunctions as interpreter

from infra.local.interpreter import task_failed


def inject(path: Path) -> None:
    """Make the calls fail that the file names; once per process, after `correct_interpreter`."""
    used: Counter[str] = Counter()
    lock = threading.Lock()

    def check(call: str, given: Any) -> None:
        if not path.exists():
            return
        text = json.dumps(given, default=str)
        with lock:
            for fault in json.loads(path.read_text()):
                key = json.dumps(fault, sort_keys=True)
                matches = fault["call"] in call and fault.get("about", "") in text
                if matches and used[key] < fault.get("times", 1):
                    used[key] += 1
                    with path.with_suffix(".log").open("a") as struck:
                        struck.write(f"{call}: {fault['error']}\n")
                    raise task_failed(fault["error"], fault.get("cause", "on purpose"))

    interpreter._invoke_resource = _checked(interpreter._invoke_resource, check)
    interpreter._read_map_items = _checked_reader(interpreter._read_map_items, check)


def _checked(
    invoke: Callable[[str, Any], Any], check: Callable[[str, Any], None]
) -> Callable[[str, Any], Any]:
    """Return ``invoke`` with a check before each call."""

    def invoke_resource(resource: str, given: Any) -> Any:
        check(resource, given)
        return invoke(resource, given)

    return invoke_resource


def _checked_reader(
    read: Callable[[Any, Any, Any], Any], check: Callable[[str, Any], None]
) -> Callable[[Any, Any, Any], Any]:
    """Return the Map's item reader with a check before each call."""

    def read_map_items(reader: Any, effective: Any, ctx: Any) -> Any:
        check(reader["Resource"], effective)
        return read(reader, effective, ctx)

    return read_map_items
