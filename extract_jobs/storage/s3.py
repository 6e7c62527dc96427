"""S3 as storage: a staged file is a multipart upload that is not completed.

It relies on what S3 promises: reads and listings after a write are strongly consistent,
``PutObject`` with ``If-None-Match: *`` has one winner
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html), and an upload that
is not completed is in no listing of objects.
"""

from __future__ import annotations

import functools
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import IO, Any, cast
from urllib.parse import unquote_plus

from botocore.exceptions import BotoCoreError, ClientError

from extract_jobs.errors import WriteFailed
from extract_jobs.storage.contract import PROBE, AbandonedUpload, ObjectInfo, StagedFile, join
from extract_jobs.storage.s3_client import (
    ROUNDS,
    client_from_environment,
    error_of_key,
    get_body,
    is_absent,
    is_uncertain,
    is_upload_gone,
    is_xml_text,
    rounds,
    s3_errors,
    split_uri,
)
from extract_jobs.storage.s3_file import S3File
from extract_jobs.storage.s3_upload import (
    PART_BYTES,
    TOKEN_KEY,
    S3StagingWriter,
    Uploads,
    parts_of,
    upload_id_of,
)

_MAX_DELETED = 1000
"""Keys that one DeleteObjects takes."""


class S3Storage:
    """S3 buckets, behind `Storage`. Safe between threads and across fork; picklable.

    Client and threads are made on first use in each process.
    """

    def __init__(
        self,
        make_client: Callable[[], Any] = client_from_environment,
        *,
        first_part_bytes: int = PART_BYTES,
        page_items: int = 1000,
        parallel_parts: int = 4,
    ) -> None:
        """Create a storage; ``make_client`` must be a module's function, so that it can be pickled.

        Args:
            make_client: Called once per process.
            first_part_bytes: Size of a file's first part; S3 requires 5 MiB or more.
            page_items: Items per page of a listing, at most 1000.
            parallel_parts: Parts sent at a time, over all files.
        """
        self._arguments = (make_client, first_part_bytes, page_items, parallel_parts)
        self._make_client = make_client
        self._first_part_bytes = first_part_bytes
        self._page_items = page_items
        self._parallel_parts = parallel_parts
        self._uploads: Uploads | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_environment(cls) -> S3Storage:
        """Return the storage of this process for the current ``AWS_*`` variables.

        It is cached while process and variables stay the same.
        """
        aws = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))
        return _from_environment(os.getpid(), aws)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, self._arguments

    def read(self, uri: str) -> bytes | None:
        with s3_errors("GetObject", uri):
            try:
                return get_body(self._client, uri)
            except ClientError as error:
                if is_absent(error):
                    return None
                raise

    def open(self, uri: str, listed: ObjectInfo | None = None) -> IO[bytes] | None:
        """Open an object; each read is a ranged GET."""
        found = listed or self.head(uri)
        if found is None:
            return None
        etag = listed.etag if listed else None
        return cast("IO[bytes]", S3File(self._client, uri, found.size, etag))

    def put(
        self, uri: str, data: bytes, *, private: bool = False, content_type: str | None = None
    ) -> None:
        del private
        bucket, key = split_uri(uri)
        more = {"ContentType": content_type} if content_type else {}
        with s3_errors("PutObject", uri):
            self._client.put_object(Bucket=bucket, Key=key, Body=data, **more)

    def put_if_absent(self, uri: str, data: bytes) -> bytes:
        """Write an object only if it is absent.

        After 409, 412, 5xx, a timeout or a reset the object is read back: botocore's own retry of a
        write whose answer was lost gets 412 although this caller won.
        """
        bucket, key = split_uri(uri)
        for last in rounds():
            try:
                self._client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
            except (ClientError, BotoCoreError) as error:
                held = self.read(uri) if is_uncertain(error) else None
                if held is not None:
                    return held
                if last or not is_uncertain(error):
                    with s3_errors("PutObject", uri):
                        raise
            else:
                return data
        raise AssertionError("unreachable")

    def head(self, uri: str) -> ObjectInfo | None:
        """Return an object's metadata. An absent bucket looks like an absent object."""
        bucket, key = split_uri(uri)
        with s3_errors("HeadObject", uri):
            try:
                answer = self._client.head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if is_absent(error):
                    return None
                raise
        token = answer["Metadata"].get(TOKEN_KEY)
        size, modified = int(answer["ContentLength"]), answer["LastModified"]
        return ObjectInfo(uri, size, token, answer["ETag"], modified.astimezone(UTC))

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        bucket, key_prefix = split_uri(prefix)
        request: dict[str, Any] = {"Bucket": bucket, "Prefix": key_prefix}
        if start_after is not None:
            request["StartAfter"] = split_uri(start_after)[1]
        while True:
            with s3_errors("ListObjectsV2", prefix):
                page = self._client.list_objects_v2(**request, MaxKeys=self._page_items)
            for item in page.get("Contents", ()):
                yield ObjectInfo(
                    f"s3://{bucket}/{item['Key']}",
                    int(item["Size"]),
                    etag=item["ETag"],
                    modified_at=item["LastModified"].astimezone(UTC),
                )
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def copy(self, source: str, uri: str) -> bool:
        """Copy an object inside S3, of 5 GiB at most."""
        (bucket, key), (from_bucket, from_key) = split_uri(uri), split_uri(source)
        with s3_errors("CopyObject", uri):
            try:
                self._client.copy_object(
                    Bucket=bucket,
                    Key=key,
                    CopySource={"Bucket": from_bucket, "Key": from_key},
                    # The source's is that of its parts; the copy has one part.
                    ChecksumAlgorithm="CRC32",
                )
            except ClientError as error:
                if is_absent(error):
                    return False
                raise
        return True

    def delete(self, uri: str) -> None:
        bucket, key = split_uri(uri)
        with s3_errors("DeleteObject", uri):
            self._client.delete_object(Bucket=bucket, Key=key)

    def delete_all(self, uris: Iterable[str]) -> None:
        """Delete objects, 1,000 with each request."""
        by_bucket: dict[str, list[str]] = {}
        for uri in uris:
            bucket, key = split_uri(uri)
            if is_xml_text(key):
                by_bucket.setdefault(bucket, []).append(key)
            else:
                self.delete(uri)
        for bucket, keys in by_bucket.items():
            for start in range(0, len(keys), _MAX_DELETED):
                self._delete_batch(bucket, keys[start : start + _MAX_DELETED])

    def _delete_batch(self, bucket: str, keys: Sequence[str]) -> None:
        """Delete at most 1,000 objects. Only keys that the answer confirms count as deleted."""
        left = list(keys)
        for last in rounds():
            with s3_errors("DeleteObjects", f"s3://{bucket}/{left[0]}"):
                answer = self._client.delete_objects(
                    Bucket=bucket, Delete={"Objects": [{"Key": key} for key in left]}
                )
            deleted = {one["Key"] for one in answer.get("Deleted", ())}
            left = [key for key in left if key not in deleted]
            if not left:
                return
            refused = {one["Key"]: one for one in answer.get("Errors", ())}
            for key in left:
                error = error_of_key(refused.get(key))
                if last or not is_uncertain(error):
                    with s3_errors("DeleteObjects", f"s3://{bucket}/{key}"):
                        raise error

    def stage(self, uri: str, root: str, token: str) -> S3StagingWriter:  # noqa: ARG002
        """Start an upload. ``root`` is not needed: an upload is invisible anyway."""
        split_uri(uri)
        empty = StagedFile(uri, token, 0, {})
        return S3StagingWriter(self._shared, empty, self._drop, self._first_part_bytes)

    def complete(self, staged: StagedFile) -> bool:
        """Complete an upload; only a HEAD with token and size counts, whatever the answer.

        False is returned only if the upload was gone twice while the object did not exist.
        """
        gone = 0
        for last in rounds():
            problem = self._complete(staged)
            if self._is_visible(staged):
                return True
            if problem is not None and not is_upload_gone(problem) and not is_uncertain(problem):
                with s3_errors("CompleteMultipartUpload", staged.uri):
                    raise problem
            if self._is_upload_gone(staged.uri, upload_id_of(staged)):
                # Another process may have completed it between our two requests.
                if self._is_visible(staged):
                    return True
                gone += 1
                if gone > 1:
                    return False
            elif last and problem is not None:
                with s3_errors("CompleteMultipartUpload", staged.uri):
                    raise problem
        raise WriteFailed(
            f"{staged.uri}: completed, but HEAD does not show token {staged.token} and "
            f"{staged.size} bytes; a retry is safe"
        )

    def abort(self, root: str, upload: AbandonedUpload | StagedFile) -> None:  # noqa: ARG002
        """Abort an upload; one that was completed is left alone."""
        self._drop(upload)

    def abandoned(self, root: str) -> Iterator[AbandonedUpload]:
        bucket, prefix = split_uri(root.rstrip("/") + "/")
        request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "EncodingType": "url"}
        while True:
            with s3_errors("ListMultipartUploads", root):
                page = self._client.list_multipart_uploads(**request, MaxUploads=self._page_items)
            # Keys may hold characters that XML cannot; not every emulator encodes them on request.
            decode = unquote_plus if page.get("EncodingType") == "url" else str
            for item in page.get("Uploads", ()):
                upload = {"upload_id": item["UploadId"]}
                uri = f"s3://{bucket}/{decode(item['Key'])}"
                yield AbandonedUpload(uri, item["Initiated"].astimezone(UTC), upload)
            if not page.get("IsTruncated"):
                return
            request["KeyMarker"] = decode(page["NextKeyMarker"])
            request["UploadIdMarker"] = page["NextUploadIdMarker"]

    def delete_drafts(self, root: str, before: datetime) -> None:
        """Do nothing: an object exists only once it is whole."""

    def probe(self, root: str) -> None:
        """Try every operation on objects ``_extract_probe-…``, a name that Spark ignores."""
        aborted, token = self._stage_probe(root)
        self._drop(aborted)
        completed, token = self._stage_probe(root)
        try:
            if not self.complete(completed):
                raise WriteFailed(
                    f"{completed.uri}: staged with token {token}, completed, then gone; check "
                    "what else deletes objects and aborts uploads there"
                )
        finally:
            self.delete(completed.uri)

    @property
    def _shared(self) -> Uploads:
        shared = self._uploads
        if shared is None or shared.pid != os.getpid():
            with self._lock:
                shared = self._uploads
                if shared is None or shared.pid != os.getpid():
                    shared = Uploads(self._make_client(), self._parallel_parts)
                    self._uploads = shared
        return shared

    @property
    def _client(self) -> Any:
        return self._shared.client

    def _stage_probe(self, root: str) -> tuple[StagedFile, str]:
        token = uuid.uuid4().hex
        uri = join(root, PROBE + token)
        writer = self.stage(uri, root, token)
        try:
            writer.write(b"extract-jobs")
            return writer.close(), token
        except BaseException as error:
            writer.abort()
            if not isinstance(error, Exception):
                # A stop inside the request that begins the upload: its id never arrived.
                for upload in self.abandoned(root):
                    if upload.uri == uri:
                        self._drop(upload)
            raise

    def _complete(self, staged: StagedFile) -> Exception | None:
        """Request the completion once; return the error that came back, if any."""
        bucket, key = split_uri(staged.uri)
        parts = parts_of(staged)
        try:
            self._client.complete_multipart_upload(
                Bucket=bucket,
                Key=key,
                UploadId=upload_id_of(staged),
                MultipartUpload={"Parts": parts},
            )
        except (ClientError, BotoCoreError) as error:
            problem: Exception = error
            return problem
        return None

    def _is_visible(self, staged: StagedFile) -> bool:
        seen = self.head(staged.uri)
        return seen is not None and (seen.token, seen.size) == (staged.token, staged.size)

    def _is_upload_gone(self, uri: str, upload_id: str) -> bool:
        bucket, key = split_uri(uri)
        with s3_errors("ListParts", uri):
            try:
                self._client.list_parts(Bucket=bucket, Key=key, UploadId=upload_id, MaxParts=1)
            except ClientError as error:
                if is_upload_gone(error):
                    return True
                raise
        return False

    def _drop(self, upload: AbandonedUpload | StagedFile) -> None:
        """Abort until ListParts reports it gone: a part in flight may outlive one abort."""
        bucket, key = split_uri(upload.uri)
        upload_id = upload_id_of(upload)
        for _ in rounds(2 * ROUNDS):
            with s3_errors("AbortMultipartUpload", upload.uri):
                try:
                    self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
                except ClientError as error:
                    if not is_upload_gone(error):
                        raise
            if self._is_upload_gone(upload.uri, upload_id):
                return
        raise WriteFailed(f"{upload.uri}: upload {upload_id} was aborted, but still lists parts")


def _rebuilt(
    make_client: Callable[[], Any], first_part_bytes: int, page_items: int, parallel_parts: int
) -> S3Storage:
    return S3Storage(
        make_client,
        first_part_bytes=first_part_bytes,
        page_items=page_items,
        parallel_parts=parallel_parts,
    )


@functools.lru_cache(maxsize=8)
def _from_environment(pid: int, aws: tuple[tuple[str, str], ...]) -> S3Storage:  # noqa: ARG001
    return S3Storage()
