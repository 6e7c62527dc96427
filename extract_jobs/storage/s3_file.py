"""An S3 object as a file that is read in parts."""

from __future__ import annotations

import io
import os
from typing import Any

from botocore.exceptions import ClientError

from extract_jobs.errors import SourceUnavailable
from extract_jobs.storage.contract import changed_message
from extract_jobs.storage.s3_client import error_code, get_body, is_absent, s3_errors


class S3File(io.RawIOBase):
    """Reads an object that does not change. Not thread-safe."""

    def __init__(self, client: Any, uri: str, size: int, etag: str | None = None) -> None:
        """Take the object's size as HEAD or a listing gave it; nothing is read yet.

        With an ETag every GET carries it as ``If-Match``, so that no other content is read.
        """
        self._client = client
        self._condition = {} if etag is None else {"IfMatch": etag}
        self._uri = uri
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position of the next read and return it; nothing is read."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes: as many as asked for, fewer only at the end.

        Raises:
            WriteFailed: S3 failed after several tries.
            SourceUnavailable: The object's ETag is not the given one, or the object is gone.
        """
        rest = max(0, self._size - self._position)
        wanted = rest if size is None or size < 0 else min(size, rest)
        if wanted == 0:
            return b""
        data = self._get(self._position, wanted)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        """Return all bytes from the position on."""
        return self.read()

    def _get(self, start: int, size: int) -> bytes:
        wanted = f"bytes={start}-{start + size - 1}"
        with s3_errors("GetObject", self._uri):
            try:
                return get_body(self._client, self._uri, Range=wanted, **self._condition)
            except ClientError as error:
                changed = error_code(error) == "PreconditionFailed" or is_absent(error)
                if self._condition and changed:
                    raise SourceUnavailable(changed_message(self._uri)) from error
                raise
