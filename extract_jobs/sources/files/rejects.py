"""Rows set aside: JSON lines beside the table's state, with file, line and reason.

They contain row data, since that is their purpose; logs and reports only have their number. If the
spec masks columns or leaves some out, the text of the row is left out too, because the columns of
a row that does not parse cannot be told apart.
"""

from __future__ import annotations

import json

from extract_jobs.sources.files.texts import Fault
from extract_jobs.storage import Storage, join

PART_BYTES = 8 * 2**20
"""Rejected rows that are buffered before they are written."""


class Rejects:
    """Writes the rows that one read of a split sets aside. A repeated read writes the same again.

    Attributes:
        count: Rows so far.
    """

    def __init__(self, storage: Storage, folder: str, split: int, *, with_text: bool) -> None:
        """Set where files go: ``<folder>/<split>-<number>.jsonl``; writes none yet.

        Args:
            storage: The folder's storage.
            folder: The folder of this attempt of the run.
            split: The split's index.
            with_text: Whether a row's text is stored with its file, line and reason.
        """
        self.count = 0
        self._storage, self._folder, self._split = storage, folder, split
        self._with_text = with_text
        self._lines: list[str] = []
        self._bytes = self._parts = 0

    def add(self, uri: str, line: int, fault: Fault, raw: bytes) -> None:
        """Set one row aside.

        Raises:
            WriteFailed: It could not be written.
        """
        text = raw.decode("utf-8", "backslashreplace") if self._with_text else None
        record = {
            "file": uri, "line": line, "column": fault.column, "reason": fault.reason, "row": text
        }  # fmt: skip
        self._lines.append(json.dumps(record, ensure_ascii=False))
        self._bytes += len(self._lines[-1])
        self.count += 1
        if self._bytes >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered.

        Raises:
            WriteFailed: It could not be written.
        """
        if self._lines:
            self._parts += 1
            name = f"{self._split:05d}-{self._parts:05d}.jsonl"
            text = "\n".join([*self._lines, ""]).encode()
            self._storage.put(join(self._folder, name), text, private=True)
        self._lines, self._bytes = [], 0
