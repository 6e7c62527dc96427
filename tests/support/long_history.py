"""Commit logs of any length, made in seconds by the log itself; every storage call is counted.

Commits are prepared and published by the real `CommitLog` over a storage in memory. Only the files
that they name do not exist.
"""

from __future__ import annotations

import io
import itertools
import uuid
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from extract_jobs.commit.log import CommitLog, next_commit
from extract_jobs.commit.record import Base, Commit
from extract_jobs.storage import ObjectInfo, StagedFile, WrittenFile
from extract_jobs.watermark import Interval, WatermarkValue

TARGET, STATE = "s3://lake/raw/s/t", "s3://lake/_extract/s/t"
_NUMBERS = itertools.count()


@dataclass
class CountedStorage:
    """State in memory. It takes as long whatever else it holds, so that growth is the log's.

    Attributes:
        objects: Content by URI.
        calls: Number of calls by kind.
        read_bytes: Bytes that were read.
        written_bytes: Bytes that were written.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    read_bytes: int = 0
    written_bytes: int = 0
    _folders: dict[str, list[str]] = field(default_factory=dict)

    def reset(self) -> None:
        """Count from zero."""
        self.calls.clear()
        self.read_bytes = self.written_bytes = 0

    def read(self, uri: str) -> bytes | None:
        self.calls["read"] += 1
        found = self.objects.get(uri)
        self.read_bytes += len(found or b"")
        return found

    def open(self, uri: str, listed: ObjectInfo | None = None) -> IO[bytes] | None:
        del listed
        found = self.read(uri)
        return None if found is None else io.BytesIO(found)

    def put(self, uri: str, data: bytes, **_: Any) -> None:
        self.calls["put"] += 1
        if uri not in self.objects:
            insort(self._folders.setdefault(_folder(uri), []), uri)
        self.objects[uri] = data
        self.written_bytes += len(data)

    def put_if_absent(self, uri: str, data: bytes) -> bytes:
        if uri in self.objects:
            self.calls["put"] += 1
        else:
            self.put(uri, data)
        return self.objects[uri]

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        self.calls["list"] += 1
        after = start_after or ""
        for folder in sorted(one for one in self._folders if one.startswith(prefix)):
            names = self._folders[folder]
            for uri in names[bisect_right(names, after) :]:
                yield ObjectInfo(uri, len(self.objects[uri]))

    def delete_all(self, uris: Iterable[str]) -> None:
        self.calls["delete"] += 1
        for uri in list(uris):
            if self.objects.pop(uri, None) is not None:
                self._folders[_folder(uri)].remove(uri)

    def complete(self, staged: StagedFile) -> bool:
        del staged
        return True

    def abort(self, root: str, upload: StagedFile) -> None:
        pass


def _folder(uri: str) -> str:
    return uri.rpartition("/")[0] + "/"


def written(seq: int, partition: dict[str, str | None]) -> WrittenFile:
    """Return a file as a run of S3 names it; its upload has one part. No two have one name."""
    token = uuid.uuid4().hex
    name = f"run-{seq}-{next(_NUMBERS):05}-{token[:8]}.parquet"
    path = "".join(f"/{name}={value}" for name, value in partition.items())
    upload = {"upload_id": token * 4, "parts": [[f'"{token}"', "AAAAAA=="]]}
    staged = StagedFile(f"{TARGET}{path}/{name}", token, 9 * seq, upload)
    return WrittenFile(staged, 1000, partition)


def hours(lower: int | None, upper: int) -> Interval:
    """Return an interval of whole numbers, which stand for hours."""
    low = None if lower is None else WatermarkValue("integer", str(lower))
    return Interval(low, WatermarkValue("integer", str(upper)))


@dataclass
class History:
    """A table whose commits are made one after the other.

    Attributes:
        storage: Where its state is.
        columns: Number of its columns.
        last: The last published commit.
        seq: Sequence number of the newest commit.
    """

    storage: CountedStorage = field(default_factory=CountedStorage)
    columns: int = 10
    last: Commit | None = None
    seq: int = 0

    def copy(self) -> History:
        """Return the same table in a state of its own."""
        folders = {folder: list(names) for folder, names in self.storage._folders.items()}
        storage = CountedStorage(dict(self.storage.objects), _folders=folders)
        return History(storage, self.columns, self.last, self.seq)

    @property
    def log(self) -> CommitLog:
        """The table's log."""
        return CommitLog(self.storage, STATE, self.storage, TARGET)  # type: ignore[arg-type]

    def commit(
        self,
        files: Sequence[WrittenFile],
        interval: Interval | None = None,
        *,
        overwrite: bool = False,
        retire: Iterable[str] = (),
        removes: Sequence[str] = (),
        void: bool = False,
    ) -> Commit:
        """Prepare and publish a commit, or void it; ``interval`` is the hour of its number."""
        self.seq += 1
        interval = interval or hours(self.seq - 1 or None, self.seq)
        names = [f"column_{number}" for number in range(self.columns)]
        schema = [{"name": name, "type": "int64", "nullable": True} for name in names]
        gone = set(retire)
        commit = next_commit(
            Base(self.seq - 1, self.last),
            replaces=(lambda file: file.staged.uri in gone) if gone else None,
            overwrite=overwrite,
            log=self.log,
            **({"removes": removes} if removes else {}),  # earlier versions do not have it
            commit_id=str(uuid.uuid4()),
            run_id=f"run-{self.seq}",
            attempt=1,
            table_id="s/t",
            target_uri=TARGET,
            fingerprint={"database": "d"},
            interval=interval.to_json(),
            watermark={"type": "integer", "text": str(self.seq)},
            schema=schema,
            files=tuple(files),
            report={"run_id": f"run-{self.seq}", "rows": 1000 * len(files)},
            watermark_column="hour",
            covered=(hours(None, self.seq).to_json(),),
            increments=True,
            columns=dict.fromkeys(names, "int64"),
            source_columns=schema,
        )
        if void:
            self.log.fence(commit.run_id, by="a person")
        self.log.prepare(commit)
        published = self.log.publish(commit) == "published"
        if published:
            self.last = commit
        return commit

    def hourly(self, commits: int, partitions: int = 1) -> History:
        """Append so many commits of a file for each of some partitions, by day."""
        for _ in range(commits):
            day = f"2026-{self.seq // 24 // 28 % 12 + 1:02}-{self.seq // 24 % 28 + 1:02}"
            self.commit(
                [
                    written(self.seq + 1, {"day": day, "region": str(number)})
                    for number in range(partitions)
                ]
            )
        return self

    def stored(self, folder: str = "") -> int:
        """Return the bytes of all state, or of a folder of it."""
        prefix = f"{STATE}/{folder}"
        return sum(len(d) for uri, d in self.storage.objects.items() if uri.startswith(prefix))
