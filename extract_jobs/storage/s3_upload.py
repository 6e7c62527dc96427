"""A file staged in S3: a multipart upload with all its parts sent, not completed."""

from __future__ import annotations

import base64
import logging
import os
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from extract_jobs.errors import ConfigError, ExtractError, WriteFailed
from extract_jobs.storage.contract import AbandonedUpload, StagedFile
from extract_jobs.storage.s3_client import s3_errors, split_uri

TOKEN_KEY = "extract-file"  # noqa: S105 (a name, no secret)
"""User metadata (``x-amz-meta-extract-file``) that holds a staged file's token."""

PART_BYTES = 8 * 1024**2
MAX_PARTS = 10_000
MAX_PART_BYTES = 5 * 1024**3
ABORT_WAIT_SECONDS = 10.0

_log = logging.getLogger(__name__)


def part_bytes(number: int, first: int = PART_BYTES) -> int:
    """Return the size of part ``number`` (from 1), in bytes.

    It doubles after every thousand parts, so that small files need little memory and the 10,000
    parts that S3 allows hold more than the largest object that it allows.
    """
    return int(min(first << ((number - 1) // 1000), MAX_PART_BYTES))


def upload_id_of(upload: AbandonedUpload | StagedFile) -> str:
    """Return the id of a staged file's upload.

    Raises:
        ConfigError: It is missing, so the record was not written by a run.
    """
    found = upload.upload.get("upload_id")
    if isinstance(found, str) and found:
        return found
    raise ConfigError(f"{upload.uri}: its record names no upload; restore the record")


def parts_of(staged: StagedFile) -> list[dict[str, Any]]:
    """Return the parts of a staged file as CompleteMultipartUpload takes them.

    Raises:
        ConfigError: They are not what a run wrote.
    """
    found = staged.upload.get("parts")
    if isinstance(found, list) and 0 < len(found) <= MAX_PARTS and all(map(_is_part, found)):
        return [
            {"PartNumber": number, "ETag": etag, "ChecksumCRC32": crc32}
            for number, (etag, crc32) in enumerate(found, start=1)
        ]
    raise ConfigError(f"{staged.uri}: its record names no parts; restore the record")


def _is_part(part: object) -> bool:
    return (
        isinstance(part, list | tuple)
        and len(part) == 2
        and all(isinstance(text, str) for text in part)
    )


class Uploads:
    """What all staging writers of one storage in one process share: client, threads, slots.

    Attributes:
        pid: The process that created it; a forked child must create its own.
        slots: One for each part in flight, so that memory is bounded over all writers. A part needs
            only its slot to finish, so writers cannot deadlock.
    """

    def __init__(self, client: Any, parallel_parts: int) -> None:
        """Use a client; threads start with the first part."""
        self.pid = os.getpid()
        self.client = client
        self.pool = ThreadPoolExecutor(parallel_parts, thread_name_prefix="extract-upload")
        self.slots = threading.BoundedSemaphore(parallel_parts + 1)


class S3StagingWriter:
    """`StagingWriter` of a multipart upload: threads send parts while the caller fills the next.

    Memory: one part being filled per writer, and the parts in flight, bounded over all writers
    of a storage. No request is sent to S3 before the first part is full or the file is closed.
    """

    def __init__(
        self, uploads: Uploads, staged: StagedFile, drop: Callable[[StagedFile], None], first: int
    ) -> None:
        """Start a writer; nothing is sent yet.

        Args:
            uploads: Client and threads.
            staged: URI and token of the file.
            drop: Aborts an upload until it is gone.
            first: Size of the first part, in bytes.
        """
        self._uploads = uploads
        self._uri, self._token = staged.uri, staged.token
        self._drop = drop
        self._first = first
        self._upload_id = ""
        self._buffer = bytearray()
        self._size = 0
        self._parts: list[Future[list[str]]] = []
        self._failed = False
        self._staged: StagedFile | None = None

    @property
    def closed(self) -> bool:
        """Whether the file takes no more bytes."""
        return self._failed or self._staged is not None

    def tell(self) -> int:
        """Return how many bytes were written so far."""
        return self._size

    def flush(self) -> None:
        """Do nothing: bytes are sent by parts. Here because writers of Parquet call it."""

    def write(self, data: Any) -> int:
        """Take bytes (any buffer), return how many. Blocks while all slots are in flight.

        Raises:
            WriteFailed: A part could not be sent, perhaps one of an earlier call.
            ConfigError: Access is denied or the bucket absent.
        """
        if self.closed:
            raise ValueError(f"{self._uri}: write after close or failure")
        view = memoryview(data).cast("B")
        rest = view
        while rest:
            size = part_bytes(len(self._parts) + 1, self._first)
            room = size - len(self._buffer)
            self._buffer += rest[:room]
            rest = rest[room:]
            if len(self._buffer) == size:
                self._guarded(self._send)
        self._size += len(view)
        self._guarded(self._check)
        return len(view)

    def close(self) -> StagedFile:
        """Send what is left and return the staged file; repeated calls return the same one.

        Raises:
            WriteFailed: A part could not be sent.
            ConfigError: Access is denied or the bucket absent.
        """
        if self._staged is None:
            if self._failed:
                raise WriteFailed(f"{self._uri}: staging had failed before; nothing is visible")
            self._staged = self._guarded(self._finish)
        return self._staged

    def abort(self) -> None:
        """Drop what was staged. Safe at any time and any number of times; raises nothing."""
        self._failed = True
        self._buffer = bytearray()
        for part in self._parts:
            part.cancel()
        # A part that arrives after the abort would remain; the drop repeats until S3 reports it
        # gone.
        wait(self._parts, timeout=ABORT_WAIT_SECONDS)
        if not self._upload_id:
            return
        try:
            self._drop(StagedFile(self._uri, self._token, 0, {"upload_id": self._upload_id}))
        except ExtractError as error:
            _log.warning("left for `extract-jobs recover`, invisible to readers: %s", error)

    def _guarded(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except BaseException:
            self._failed = True
            raise

    def _check(self) -> None:
        """Raise the error of a failed part. Only the last few can still be in flight."""
        for part in self._parts[-64:]:
            if part.done() and not part.cancelled():
                part.result()

    def _begin(self) -> None:
        bucket, key = split_uri(self._uri)
        with s3_errors("CreateMultipartUpload", self._uri):
            answer = self._uploads.client.create_multipart_upload(
                Bucket=bucket, Key=key, Metadata={TOKEN_KEY: self._token}, ChecksumAlgorithm="CRC32"
            )
        self._upload_id = answer["UploadId"]

    def _send(self) -> None:
        """Hand the buffer to the threads as the next part, waiting for a slot."""
        if len(self._parts) >= MAX_PARTS:
            raise WriteFailed(f"{self._uri}: more than {MAX_PARTS} parts; lower target.file_bytes")
        if not self._upload_id:
            self._begin()
        slots = self._uploads.slots
        slots.acquire()
        body, self._buffer = self._buffer, bytearray()
        try:
            part = self._uploads.pool.submit(self._upload, len(self._parts) + 1, body)
        except BaseException:
            slots.release()
            raise
        part.add_done_callback(lambda _: slots.release())
        self._parts.append(part)
        self._check()

    def _upload(self, number: int, body: bytearray) -> list[str]:
        """Send one part; return its ETag and its CRC32, base64 of the big-endian four bytes."""
        bucket, key = split_uri(self._uri)
        crc32 = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
        with s3_errors("UploadPart", self._uri):
            answer = self._uploads.client.upload_part(
                Bucket=bucket,
                Key=key,
                UploadId=self._upload_id,
                PartNumber=number,
                Body=body,
                ChecksumCRC32=crc32,
            )
        return [answer["ETag"], crc32]

    def _finish(self) -> StagedFile:
        # An upload needs at least one part; an empty file has one empty part.
        if self._buffer or not self._parts:
            self._send()
        parts = [part.result() for part in self._parts]
        upload = {"upload_id": self._upload_id, "parts": parts}
        return StagedFile(self._uri, self._token, self._size, upload)
