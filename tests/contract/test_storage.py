"""One behaviour, shown of every storage: local folders, S3 on moto, S3 on ministack."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from extract_jobs.errors import ConfigError, SourceUnavailable, StopRequested
from extract_jobs.storage import (
    AbandonedUpload,
    ObjectInfo,
    StagedFile,
    Storage,
    join,
    open_storage,
    s3,
)
from tests.support.emulators import use

REPOSITORY = Path(__file__).parents[2]
BUCKET = "lake"
MIB = 1024**2


@dataclass(frozen=True)
class Place:
    """A storage and a fresh folder in it."""

    storage: Storage
    root: str

    @property
    def is_s3(self) -> bool:
        return self.root.startswith("s3://")

    def at(self, *segments: str) -> str:
        return join(self.root, *segments)

    def visible(self) -> list[str]:
        return [found.uri for found in self.storage.list(self.root + "/")]

    def stage(self, name: str = "a.parquet", data: bytes = b"rows") -> StagedFile:
        writer = self.storage.stage(self.at(name), self.root, uuid.uuid4().hex)
        writer.write(data)
        return writer.close()


@pytest.fixture(params=["local", "file-uri", "moto", "ministack"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    if request.param == "local":
        root = str(tmp_path / "lake")
    elif request.param == "file-uri":
        root = (tmp_path / "my lake").as_uri()
    else:
        emulator = request.getfixturevalue(
            "moto_server" if request.param == "moto" else "ministack"
        )
        # moto answers 500 to the completion of an upload it no longer has; do not insist.
        use(emulator, monkeypatch, AWS_MAX_ATTEMPTS="2")
        make_bucket(BUCKET)
        root = f"s3://{BUCKET}/{uuid.uuid4().hex}/orders"
    place = Place(open_storage(root), root)
    yield place
    if not place.is_s3:
        stray = [p for p in tmp_path.rglob("*") if ".extract_tmp-" in p.name]
        assert not stray


def test_what_is_put_has_the_content_type_that_is_given(place: Place) -> None:
    uri = place.at("page.html")
    place.storage.put(uri, b"<p>", content_type="text/html; charset=utf-8")
    assert place.storage.read(uri) == b"<p>"
    if place.is_s3:
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        client = boto3.session.Session().client("s3", region_name="us-east-1")
        assert client.head_object(Bucket=bucket, Key=key)["ContentType"] == (
            "text/html; charset=utf-8"
        )


def make_bucket(name: str) -> None:
    client = boto3.session.Session().client("s3", region_name="us-east-1")
    try:
        client.create_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise


def in_processes(code: str, arguments: list[Any], count: int = 3) -> list[Any]:
    """Run ``code`` in several processes at once; each prints one JSON value."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(arguments)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for process in processes:  # all have started and imported before one goes on
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = [process.communicate("go\n")[0] for process in processes]
    return [json.loads(answer) for answer in answers]


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    barrier = threading.Barrier(count)

    def one(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


# --- objects ---------------------------------------------------------------------------------


def test_what_was_put_is_read(place: Place) -> None:
    uri = place.at("commits", "1.json")
    place.storage.put(uri, b"one")
    place.storage.put(uri, b"two")
    assert place.storage.read(uri) == b"two"
    seen = place.storage.head(uri)
    assert seen is not None
    assert (seen.uri, seen.size, seen.token) == (uri, 3, None)


def test_a_missing_object_is_none(place: Place) -> None:
    uri = place.at("never", "written")
    assert place.storage.read(uri) is None
    assert place.storage.head(uri) is None
    assert place.visible() == []
    place.storage.delete(uri)


def test_an_object_is_read_in_parts(place: Place) -> None:
    uri, data = place.at("sub", "ö b=1"), bytes(range(256)) * 40
    assert place.storage.open(uri) is None
    place.storage.put(uri, data)
    opened = place.storage.open(uri)
    assert opened is not None
    with opened:
        assert opened.seek(-3, os.SEEK_END) == len(data) - 3
        assert opened.read() == data[-3:]
        assert opened.read() == b""
        assert opened.seek(5) == 5
        assert opened.read(7) == data[5:12]
        assert opened.tell() == 12
        assert opened.seek(3, os.SEEK_CUR) == 15
        assert opened.read(0) == b""
        assert opened.read(10**9) == data[15:]
        assert opened.seek(10**9) == 10**9
        assert opened.read(1) == b""
        assert opened.readable()
        assert opened.seekable()


def test_a_parquet_file_is_read_in_parts(place: Place) -> None:
    table = pa.table({"a": range(1000), "b": ["x" * 100] * 1000})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=100)
    place.storage.put(place.at("a.parquet"), sink.getvalue().to_pybytes())
    opened = place.storage.open(place.at("a.parquet"))
    assert opened is not None
    with opened:
        found = pq.ParquetFile(opened).read_row_groups([3, 9], columns=["a"])
    assert found.column("a").to_pylist() == [*range(300, 400), *range(900, 1000)]


def test_deleted_is_gone_and_deleting_again_is_done(place: Place) -> None:
    uri = place.at("a")
    place.storage.put(uri, b"")
    assert place.storage.read(uri) == b""
    place.storage.delete(uri)
    place.storage.delete(uri)
    assert place.storage.read(uri) is None


def test_many_are_deleted_whatever_their_names_and_whether_they_are_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_MAX_DELETED", 3)
    names = ["a", "b & <c>", "d=ü", "e%20f", "g\th", 'i"j', "k"]
    uris = [place.at("p=1", name) for name in names] + [place.at("kept")]
    for uri in uris:
        place.storage.put(uri, b"x")
    place.storage.delete_all([*uris[:-1], place.at("never"), place.at("no folder", "x"), uris[0]])
    assert place.visible() == [uris[-1]]
    place.storage.delete_all([])


def test_a_copy_has_bytes_and_token_and_stays_when_the_source_goes(place: Place) -> None:
    staged, copy = place.stage(data=b"rows"), place.at("kept", "1", "a.parquet")
    assert place.storage.complete(staged)
    for _ in range(2):  # again, over itself
        assert place.storage.copy(staged.uri, copy)
    place.storage.delete(staged.uri)
    assert not place.storage.copy(staged.uri, copy), "no source: nothing is changed"
    assert place.storage.read(copy) == b"rows"
    seen = place.storage.head(copy)
    assert seen is not None
    assert (seen.size, seen.token) == (4, staged.token if place.is_s3 else None)
    assert place.visible() == [copy]


def test_a_local_copy_to_another_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(str(tmp_path))
    storage.put(str(tmp_path / "a"), b"rows")

    def link(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", link)
    assert storage.copy(str(tmp_path / "a"), str(tmp_path / "kept" / "a"))
    assert not storage.copy(str(tmp_path / "b"), str(tmp_path / "kept" / "b"))
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["a"]
    assert (tmp_path / "kept" / "a").read_bytes() == b"rows"


def test_put_if_absent_keeps_what_is_there(place: Place) -> None:
    uri = place.at("commits", "1.json")
    assert place.storage.put_if_absent(uri, b"mine") == b"mine"
    assert place.storage.put_if_absent(uri, b"yours") == b"mine"
    assert place.storage.read(uri) == b"mine"


def test_put_if_absent_has_one_winner_among_threads(place: Place) -> None:
    for round_ in range(5):
        uri = place.at("commits", f"{round_}.json")
        mine = [f"thread {number}".encode() * 1000 for number in range(6)]
        held = in_threads(len(mine), lambda n: place.storage.put_if_absent(uri, mine[n]))  # noqa: B023
        assert len(set(held)) == 1
        assert held[0] in mine
        assert place.storage.read(uri) == held[0]


def test_put_if_absent_has_one_winner_among_processes(place: Place) -> None:
    code = """
import json, os, sys
from extract_jobs.storage import open_storage
storage = open_storage(json.loads(sys.argv[1])[0])
print("ready", flush=True); sys.stdin.readline()
uri, = json.loads(sys.argv[1])
mine = str(os.getpid()).encode()
print(json.dumps([mine.decode(), storage.put_if_absent(uri, mine).decode()]))
"""
    uri = place.at("commits", "1.json")
    answers = in_processes(code, [uri])
    assert len({held for _, held in answers}) == 1
    assert sum(mine == held for mine, held in answers) == 1


# --- listings --------------------------------------------------------------------------------


def test_listing_is_ordered_by_uri_and_starts_after(place: Place) -> None:
    # "-" and "." come before "/", so folders do not simply come in order of their names.
    names = ["b/2", "a", "a/1", "a-b", "a.b", "b/10", "b/1", "Z", "ä"]
    if not place.is_s3:
        names.remove("a")  # a file cannot be a folder as well
    for name in names:
        place.storage.put(place.at(name), b"1")
    uris = sorted(place.at(name) for name in names)
    assert place.visible() == uris
    for uri in [*uris, place.at("b/"), place.at("b/11"), place.at("zzz")]:
        found = [f.uri for f in place.storage.list(place.root + "/", start_after=uri)]
        assert found == [u for u in uris if u > uri]


def test_listing_takes_prefixes_that_end_inside_a_name(place: Place) -> None:
    for name in ["commits/001", "commits/002", "commits/010", "commits-old/001"]:
        place.storage.put(place.at(name), b"12")
    found = list(place.storage.list(place.at("commits/00")))
    assert [(f.uri, f.size) for f in found] == [
        (place.at("commits/001"), 2),
        (place.at("commits/002"), 2),
    ]
    assert [f.uri for f in place.storage.list(place.at("commits-"))] == [
        place.at("commits-old/001")
    ]


@pytest.mark.parametrize(
    "name",
    [
        "50%25 off",
        "a%2Fb",
        "day=2024-01-01/x=é",
        "naïve 表 🦆",
        "a+b&c;d,e@f:g$h!i'j(k)l*m",
        "q?r#s",
        "back\\slash",
        '"quoted" <name>',
        ".hidden/_under",
    ],
)
def test_names_are_kept_as_they_are(place: Place, name: str) -> None:
    uri = place.at(name, "x.parquet")
    place.storage.put(place.at(name, "put"), b"1")
    staged = place.stage(f"{name}/x.parquet")
    assert [a.uri for a in place.storage.abandoned(place.root)] == [uri]
    assert place.storage.complete(staged)
    assert place.visible() == [place.at(name, "put"), uri]
    assert place.storage.read(uri) == b"rows"
    if not place.is_s3:
        folder = Path.from_uri(place.root) if hasattr(Path, "from_uri") else None
        folder = folder or Path(place.root.removeprefix("file://").replace("%20", " "))
        assert (folder / name / "x.parquet").read_bytes() == b"rows"


# --- staging ---------------------------------------------------------------------------------


def test_a_staged_file_is_invisible_until_completed(place: Place) -> None:
    writer = place.storage.stage(place.at("a.parquet"), place.root, "token")
    assert writer.tell() == 0
    assert writer.write(b"row") == 3
    assert writer.write(memoryview(b"s")) == 1
    assert writer.tell() == 4
    assert place.visible() == []
    staged = writer.close()
    assert place.visible() == []
    assert place.storage.read(staged.uri) is None
    assert place.storage.head(staged.uri) is None
    assert (staged.uri, staged.token, staged.size) == (place.at("a.parquet"), "token", 4)
    assert writer.close() == staged
    assert place.storage.complete(staged)
    assert place.visible() == [staged.uri]
    assert place.storage.read(staged.uri) == b"rows"
    if place.is_s3:
        seen = place.storage.head(staged.uri)
        assert seen is not None
        assert seen.token == "token"


def test_a_staged_file_survives_the_commit_record(place: Place) -> None:
    staged = place.stage()
    again = StagedFile.from_json(json.loads(json.dumps(staged.to_json())))
    assert again == staged
    assert place.storage.complete(again)


def test_completing_again_is_true_and_changes_nothing(place: Place) -> None:
    staged = place.stage()
    assert [place.storage.complete(staged) for _ in range(3)] == [True] * 3
    assert place.visible() == [staged.uri]
    assert list(place.storage.abandoned(place.root)) == []


def test_many_threads_complete_the_same_file(place: Place) -> None:
    staged = place.stage(data=b"rows" * MIB)
    assert in_threads(6, lambda _: place.storage.complete(staged)) == [True] * 6
    assert place.storage.read(staged.uri) == b"rows" * MIB


def test_many_processes_complete_the_same_files(place: Place) -> None:
    code = """
import json, sys
from extract_jobs.storage import StagedFile, open_storage
files = [StagedFile.from_json(f) for f in json.loads(sys.argv[1])]
storage = open_storage(files[0].uri)
print("ready", flush=True); sys.stdin.readline()
print(json.dumps([storage.complete(f) for f in files]))
"""
    files = [place.stage(f"day={n}/{n}.parquet", bytes([n])) for n in range(5)]
    answers = in_processes(code, [staged.to_json() for staged in files])
    assert answers == [[True] * 5] * 3
    assert [place.storage.read(staged.uri) for staged in files] == [bytes([n]) for n in range(5)]


def test_completing_after_an_abort_is_false_and_shows_nothing(place: Place) -> None:
    staged = place.stage()
    place.storage.abort(place.root, staged)
    place.storage.abort(place.root, staged)
    assert place.storage.complete(staged) is False
    assert place.visible() == []
    assert list(place.storage.abandoned(place.root)) == []


def test_completing_after_the_object_was_deleted_is_false(place: Place) -> None:
    staged = place.stage()
    assert place.storage.complete(staged)
    place.storage.delete(staged.uri)
    # ministack repeats its first answer here: 200, for an object that is not there.
    assert place.storage.complete(staged) is False
    assert place.visible() == []


def test_aborting_after_the_completion_leaves_the_object(place: Place) -> None:
    staged = place.stage()
    assert place.storage.complete(staged)
    place.storage.abort(place.root, staged)
    assert place.storage.read(staged.uri) == b"rows"


@pytest.mark.parametrize("other", [b"sour", b"longer"], ids=["same-size", "other-size"])
def test_anothers_object_in_its_place_counts_as_gone(place: Place, other: bytes) -> None:
    staged = place.stage()
    place.storage.abort(place.root, staged)
    impostor = place.stage(data=other)
    assert place.storage.complete(impostor)
    assert place.storage.complete(staged) is False
    assert place.storage.read(staged.uri) == other


def test_a_writer_aborts_at_any_time(place: Place) -> None:
    unused = place.storage.stage(place.at("1"), place.root, "1")
    unused.abort()
    begun = place.storage.stage(place.at("2"), place.root, "2")
    begun.write(b"x" * 9 * MIB)
    begun.abort()
    begun.abort()
    closed = place.storage.stage(place.at("3"), place.root, "3")
    staged = closed.close()
    closed.abort()
    assert list(place.storage.abandoned(place.root)) == []
    assert place.storage.complete(staged) is False
    assert place.visible() == []


def test_a_file_of_many_parts_is_exact(place: Place) -> None:
    data = random.Random(1).randbytes(20 * MIB + 7)
    writer = place.storage.stage(place.at("a.parquet"), place.root, "t")
    view = memoryview(data)
    sizes = random.Random(2)
    while view:
        size = sizes.choice([1, 1000, 100_000, 3 * MIB, 9 * MIB])
        assert writer.write(view[:size]) == len(view[:size])
        view = view[size:]
    staged = writer.close()
    assert staged.size == len(data)
    assert len(staged.upload.get("parts", [1, 2, 3])) == 3
    assert place.storage.complete(staged)
    assert place.storage.read(staged.uri) == data


def test_an_empty_file(place: Place) -> None:
    staged = place.storage.stage(place.at("empty"), place.root, "t").close()
    assert staged.size == 0
    assert place.storage.complete(staged)
    assert place.storage.complete(staged)
    assert place.storage.read(staged.uri) == b""


@pytest.mark.parametrize(
    "data",
    [
        bytearray(b"abcd"),
        memoryview(b"xabcd")[1:],
        pa.py_buffer(b"abcd"),
        pa.array([1, 2]).buffers()[1],
    ],
    ids=["bytearray", "memoryview", "arrow", "arrow-array"],
)
def test_a_writer_takes_any_buffer(place: Place, data: Any) -> None:
    writer = place.storage.stage(place.at("a"), place.root, "t")
    assert writer.write(data) == memoryview(data).nbytes
    staged = writer.close()
    assert place.storage.complete(staged)
    assert place.storage.read(staged.uri) == memoryview(data).tobytes()


def test_abandoned_files_are_listed_with_their_age_and_aborted(place: Place) -> None:
    mine = [place.stage(f"day={n}/{n}.parquet") for n in range(3)]
    place.storage.put(place.at("visible"), b"1")
    place.storage.stage(place.root + "-other/x", place.root + "-other", "t").close()
    assert place.storage.complete(mine[0])
    found = sorted(place.storage.abandoned(place.root), key=lambda a: a.uri)
    assert [a.uri for a in found] == [staged.uri for staged in mine[1:]]
    now = datetime.now(UTC)
    for upload in found:
        assert upload.started_at.utcoffset() == timedelta(0)
        # moto says that every upload began in November 2010.
        assert upload.started_at.year == 2010 or abs(now - upload.started_at) < timedelta(minutes=5)
        place.storage.abort(place.root, upload)
    assert list(place.storage.abandoned(place.root)) == []
    assert [place.storage.complete(staged) for staged in mine] == [True, False, False]
    assert len(list(place.storage.abandoned(place.root + "-other"))) == 1


def test_a_killed_writer_leaves_nothing_visible_and_what_it_left_is_found(place: Place) -> None:
    code = """
import json, os, signal, sys
from extract_jobs.storage import open_storage
root, uri = json.loads(sys.argv[1])
writer = open_storage(root).stage(uri, root, "t")
writer.write(b"x" * 17 * 1024**2)
os.kill(os.getpid(), signal.SIGKILL)
"""
    uri = place.at("day=1", "a.parquet")
    arguments = json.dumps([place.root, uri])
    done = subprocess.run([sys.executable, "-c", code, arguments], cwd=REPOSITORY, check=False)
    assert done.returncode == -signal.SIGKILL
    assert place.visible() == []
    left = list(place.storage.abandoned(place.root))
    assert [a.uri for a in left] == [uri]
    rebuilt = AbandonedUpload(
        left[0].uri, left[0].started_at, json.loads(json.dumps(left[0].upload))
    )
    place.storage.abort(place.root, rebuilt)
    assert list(place.storage.abandoned(place.root)) == []


def test_an_object_is_opened_as_it_was_listed_or_not_at_all(place: Place) -> None:
    place.storage.put(place.at("a"), b"0123456789")
    [listed] = place.storage.list(place.root + "/")
    seen = place.storage.head(listed.uri)
    assert seen is not None
    assert seen.etag == listed.etag
    assert seen.modified_at is not None
    assert listed.modified_at is not None
    assert abs(datetime.now(UTC) - listed.modified_at) < timedelta(minutes=5)
    before = place.storage.open(listed.uri, listed)
    assert before is not None
    with before as opened:
        opened.seek(3)
        assert opened.read(4) == b"3456"
        place.storage.put(listed.uri, b"another content")
        if place.is_s3:  # a local file that was replaced lives on while it is open
            with pytest.raises(SourceUnavailable, match="was replaced or deleted since it was"):
                opened.read(1)
    for _ in range(2):
        with pytest.raises(SourceUnavailable, match="was replaced or deleted since it was"):
            opened_anew(place, listed).read(1)
        place.storage.put(listed.uri, b"9876543210")  # of the same size


def test_an_object_that_is_gone_since_it_was_listed_is_not_read(place: Place) -> None:
    place.storage.put(place.at("a"), b"0123456789")
    [listed] = place.storage.list(place.root + "/")
    place.storage.delete(listed.uri)
    if not place.is_s3:
        assert place.storage.open(listed.uri, listed) is None
        return
    with pytest.raises(SourceUnavailable, match="was replaced or deleted since it was"):
        opened_anew(place, listed).read(1)


def opened_anew(place: Place, listed: ObjectInfo) -> IO[bytes]:
    opened = place.storage.open(listed.uri, listed)
    assert opened is not None
    return opened


# --- probe, processes ------------------------------------------------------------------------


def test_a_probe_leaves_nothing(place: Place) -> None:
    place.storage.put(place.at("before"), b"1")
    place.storage.probe(place.root)
    assert place.visible() == [place.at("before")]
    assert list(place.storage.abandoned(place.root)) == []


def test_a_probe_that_is_stopped_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not place.is_s3:
        pytest.skip("a folder's probe makes no request that could be answered too late")
    client = place.storage._client
    begin = client.create_multipart_upload

    def stop_after(**request: Any) -> None:
        begin(**request)
        raise StopRequested("stopped by SIGTERM")

    monkeypatch.setattr(client, "create_multipart_upload", stop_after)
    with pytest.raises(StopRequested):
        place.storage.probe(place.root)
    assert list(place.storage.abandoned(place.root)) == []


def test_a_probe_names_what_is_absent_or_denied(place: Place, tmp_path: Path) -> None:
    if place.is_s3:
        root = "s3://no-such-bucket-anywhere/orders"
        expected = "no-such-bucket-anywhere to exist"
    else:
        # A folder below a file can be made by nobody, not even by root.
        (tmp_path / "file").write_bytes(b"")
        root = str(tmp_path / "file" / "orders")
        expected = "Not a directory"
    with pytest.raises(ConfigError, match=expected):
        place.storage.probe(root)
    with pytest.raises(ConfigError):
        place.storage.put(join(root, "a"), b"1")
    with pytest.raises(ConfigError):
        place.storage.put_if_absent(join(root, "a"), b"1")
    with pytest.raises(ConfigError):
        place.storage.stage(join(root, "a"), root, "t").close()


def test_a_storage_can_be_pickled(place: Place) -> None:
    place.storage.put(place.at("a"), b"1")  # so that there is a client that must stay behind
    again = pickle.loads(pickle.dumps(place.storage))
    assert again.read(place.at("a")) == b"1"


def test_a_storage_works_after_fork(place: Place) -> None:
    place.stage("before")  # so that there are threads that the child does not have
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)  # a child that waits for its parent's threads waits forever
            staged = place.stage("child")
            status = 0 if place.storage.complete(staged) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert place.visible() == [place.at("child")]
    assert place.storage.complete(place.stage("parent"))
