"""Storage in memory for protocol tests: every call of every process waits for its turn.

All processes share a `Bucket`. `ProcessStorage` is one process's view of it: before and after each
call it asks its `Process`, which can delay it, kill it or lose the response. A killed process can
do nothing more, not even clean up, as after SIGKILL.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from extract_jobs.errors import SourceUnavailable
from extract_jobs.storage import AbandonedUpload, ObjectInfo, StagedFile, changed_message

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def etag(data: bytes) -> str:
    """Return what identifies this content, as S3 does for small objects."""
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


class Killed(BaseException):
    """The process was killed: not an Exception, so nothing handles it by mistake."""


@dataclass
class Bucket:
    """Objects and uploads, shared by all processes. What is not in ``modified`` is old."""

    objects: dict[str, tuple[bytes, str | None]] = field(default_factory=dict)
    modified: dict[str, datetime] = field(default_factory=dict)
    uploads: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Process:
    """One process: its name, whether it is dead, and what happens around each of its calls."""

    name: str
    before: Callable[[str], None] = lambda call: None
    after: Callable[[str], None] = lambda call: None
    dead: bool = False
    calls: list[str] = field(default_factory=list)

    def enter(self, call: str) -> None:
        self.calls.append(call)
        self.check()
        self.before(call)
        self.check()

    def leave(self, call: str) -> None:
        self.check()
        self.after(call)
        self.check()

    def check(self) -> None:
        if self.dead:
            raise Killed(self.name)


class MemoryWriter:
    def __init__(self, storage: ProcessStorage, uri: str, token: str) -> None:
        self.storage, self.uri, self.token = storage, uri, token
        self.data = bytearray()
        storage.bucket.uploads[token] = (uri, b"")
        self.closed = False

    def write(self, data: Any) -> int:
        self.data += memoryview(data)
        return len(data)

    def tell(self) -> int:
        return len(self.data)

    def flush(self) -> None:
        pass

    def close(self) -> StagedFile:
        def send() -> StagedFile:
            self.storage.bucket.uploads[self.token] = (self.uri, bytes(self.data))
            return StagedFile(self.uri, self.token, len(self.data), {"token": self.token})

        self.closed = True
        return self.storage.call("stage.close", self.uri, send)

    def abort(self) -> None:
        uploads = self.storage.bucket.uploads
        with suppress(Killed):  # a dead process has no handlers; its thread must still end
            self.storage.call("stage.abort", self.uri, lambda: uploads.pop(self.token, None))


class ProcessStorage:
    def __init__(self, bucket: Bucket, process: Process) -> None:
        self.bucket, self.process = bucket, process

    def call(self, name: str, uri: str, effect: Callable[[], Any]) -> Any:
        label = f"{name} {uri}"
        self.process.enter(label)
        with self.bucket.lock:
            result = effect()
        self.process.leave(label)
        return result

    def read(self, uri: str) -> bytes | None:
        return self.call("read", uri, lambda: self.bucket.objects.get(uri, (None, None))[0])

    def open(self, uri: str, listed: ObjectInfo | None = None) -> io.BytesIO | None:
        data = self.call("open", uri, lambda: self.bucket.objects.get(uri, (None, None))[0])
        if listed is not None and (data is None or etag(data) != listed.etag):
            raise SourceUnavailable(changed_message(uri))
        return None if data is None else io.BytesIO(data)

    def put(
        self, uri: str, data: bytes, *, private: bool = False, content_type: str | None = None
    ) -> None:
        del private, content_type
        self.call("put", uri, lambda: self.bucket.objects.__setitem__(uri, (data, None)))

    def put_if_absent(self, uri: str, data: bytes) -> bytes:
        return self.call(
            "put_if_absent", uri, lambda: self.bucket.objects.setdefault(uri, (data, None))[0]
        )

    def head(self, uri: str) -> ObjectInfo | None:
        def effect() -> ObjectInfo | None:
            found = self.bucket.objects.get(uri)
            return found and ObjectInfo(uri, len(found[0]), found[1], etag(found[0]))

        return self.call("head", uri, effect)

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        def effect() -> list[ObjectInfo]:
            modified = self.bucket.modified
            return [
                ObjectInfo(uri, len(data), None, etag(data), modified.get(uri, BEGINNING))
                for uri, (data, _) in sorted(self.bucket.objects.items())
                if uri.startswith(prefix) and (start_after is None or uri > start_after)
            ]

        yield from self.call("list", prefix, effect)

    def copy(self, source: str, uri: str) -> bool:
        def effect() -> bool:
            if source in self.bucket.objects:
                self.bucket.objects[uri] = self.bucket.objects[source]
            return source in self.bucket.objects

        return self.call("copy", uri, effect)

    def delete(self, uri: str) -> None:
        self.call("delete", uri, lambda: self.bucket.objects.pop(uri, None))

    def delete_all(self, uris: Iterable[str]) -> None:
        for uri in uris:  # a request is not atomic
            self.delete(uri)

    def stage(self, uri: str, root: str, token: str) -> MemoryWriter:
        return self.call("stage", uri, lambda: MemoryWriter(self, uri, token))

    def complete(self, staged: StagedFile) -> bool:
        def effect() -> bool:
            upload = self.bucket.uploads.pop(staged.token, None)
            if upload is not None:
                self.bucket.objects[staged.uri] = (upload[1], staged.token)
            found = self.bucket.objects.get(staged.uri)
            return found is not None and found[1] == staged.token

        return self.call("complete", staged.uri, effect)

    def abort(self, root: str, upload: AbandonedUpload | StagedFile) -> None:
        token = upload.upload["token"]
        self.call("abort", upload.uri, lambda: self.bucket.uploads.pop(token, None))

    def abandoned(self, root: str) -> Iterator[AbandonedUpload]:
        def effect() -> list[AbandonedUpload]:
            return [
                AbandonedUpload(uri, BEGINNING, {"token": token})
                for token, (uri, _) in self.bucket.uploads.items()
                if uri.startswith(root)
            ]

        yield from self.call("abandoned", root, effect)

    def delete_drafts(self, root: str, before: datetime) -> None:
        pass

    def probe(self, root: str) -> None:
        self.call("probe", root, lambda: None)
