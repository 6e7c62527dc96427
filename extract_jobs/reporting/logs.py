"""Logs of workers and functions: one JSON object a line, on standard output.

Each line has ``time`` (UTC, ISO 8601), ``level``, ``logger`` and ``message``, the fields given to
`in_every_line`, and ``exception`` if there was one. Standard error is left to the JVM, which writes
text there, and to the last line of a failed worker.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_fields: dict[str, Any] = {}


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line; newlines within texts are escaped."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_json_lines() -> None:
    """Log from INFO on as lines of JSON, including Python warnings.

    Existing handlers of the root logger, such as Lambda's, keep their stream.
    """
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.StreamHandler(sys.stdout))
    for handler in root.handlers:
        handler.setFormatter(JsonLines())
    root.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)


def in_every_line(**fields: Any) -> None:
    """Put these fields, and no others, into every line that this process logs from now on.

    They apply to the whole process: one process works on one run at a time.
    """
    _fields.clear()
    _fields.update(fields)
