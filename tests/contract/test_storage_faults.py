"""S3 storage behind a network that loses answers, and the proxy that plays that network."""

from __future__ import annotations

import base64
import http.client
import itertools
import random
import socket
import tracemalloc
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from typing import Any, cast

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.retries.standard import ExponentialBackoff

from extract_jobs.errors import ConfigError, ExtractError, WriteFailed
from extract_jobs.storage import AbandonedUpload, StagedFile, Storage, join, open_storage
from extract_jobs.storage.s3 import S3Storage
from extract_jobs.storage.s3_client import client_from_environment
from extract_jobs.storage.s3_upload import MAX_PART_BYTES, MAX_PARTS, part_bytes
from infra.local.emulator import Emulator
from tests.support.emulators import use
from tests.support.fault_proxy import PASSING_FAULTS, Fault, FaultProxy, Request
from tests.support.sampling import sample

BUCKET = "faults"
MIB = 1024**2


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let botocore try again at once: these tests are about its answers, not about its waiting."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.0)


@pytest.fixture
def proxy(ministack: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    use(ministack, monkeypatch)
    boto3.session.Session().client("s3").create_bucket(Bucket=BUCKET)
    with FaultProxy(ministack.endpoint_url) as running:
        use(running, monkeypatch)
        yield running


@pytest.fixture
def root() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/orders"


@pytest.fixture
def direct(ministack: Emulator, proxy: FaultProxy) -> Storage:
    """The same bucket, past the proxy: what is truly there."""
    with pytest.MonkeyPatch.context() as patch:
        use(ministack, patch)
        client = client_from_environment()
    return S3Storage(lambda: client)


def stage(storage: Storage, root: str, data: bytes = b"rows", name: str = "a") -> StagedFile:
    writer = storage.stage(join(root, name), root, uuid.uuid4().hex)
    try:
        writer.write(data)
        return writer.close()
    except BaseException:
        writer.abort()
        raise


# Each case: prepares past the proxy, acts through it, and says what must be true of the answer.
Case = Callable[[Storage, Storage, str], Callable[[], None]]


def _put(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    def act() -> None:
        storage.put(join(root, "a"), b"1")
        assert direct.read(join(root, "a")) == b"1"

    return act


def _put_if_absent(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    def act() -> None:
        assert storage.put_if_absent(join(root, "a"), b"mine") == b"mine"
        assert direct.read(join(root, "a")) == b"mine"

    return act


def _put_if_absent_late(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    direct.put(join(root, "a"), b"theirs")

    def act() -> None:
        assert storage.put_if_absent(join(root, "a"), b"mine") == b"theirs"

    return act


def _read(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    direct.put(join(root, "a"), b"1" * MIB)

    def act() -> None:
        assert storage.read(join(root, "a")) == b"1" * MIB
        assert storage.read(join(root, "b")) is None

    return act


def _head(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    direct.put(join(root, "a"), b"12")

    def act() -> None:
        seen = storage.head(join(root, "a"))
        assert seen is not None
        assert seen.size == 2
        assert storage.head(join(root, "b")) is None

    return act


def _list(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    uris = [join(root, f"{number}") for number in range(5)]
    for uri in uris:
        direct.put(uri, b"1")

    def act() -> None:
        assert [found.uri for found in storage.list(root)] == uris

    return act


def _delete(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    direct.put(join(root, "a"), b"1")

    def act() -> None:
        storage.delete(join(root, "a"))
        assert direct.read(join(root, "a")) is None

    return act


def _delete_all(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    uris = [join(root, f"{number}") for number in range(3)]
    for uri in uris:
        direct.put(uri, b"1")

    def act() -> None:
        storage.delete_all(uris)
        assert list(direct.list(root)) == []

    return act


def _stage(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    data = random.Random(0).randbytes(11 * MIB)

    def act() -> None:
        staged = stage(storage, root, data)
        assert direct.head(staged.uri) is None
        assert direct.complete(staged)
        assert direct.read(staged.uri) == data

    return act


def _complete(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    staged = stage(direct, root)

    def act() -> None:
        assert storage.complete(staged) is True
        assert direct.read(staged.uri) == b"rows"
        assert list(direct.abandoned(root)) == []

    return act


def _complete_gone(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    staged = stage(direct, root)
    direct.abort(root, staged)

    def act() -> None:
        assert storage.complete(staged) is False

    return act


def _abort(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    staged = stage(direct, root)

    def act() -> None:
        storage.abort(root, staged)
        assert direct.complete(staged) is False

    return act


def _abandoned(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    uris = [stage(direct, root, name=f"{number}").uri for number in range(5)]

    def act() -> None:
        assert [found.uri for found in storage.abandoned(root)] == uris

    return act


def _probe(storage: Storage, direct: Storage, root: str) -> Callable[[], None]:
    def act() -> None:
        storage.probe(root)
        assert list(direct.list(root)) == []

    return act


CASES: list[Case] = [
    _put,
    _put_if_absent,
    _put_if_absent_late,
    _read,
    _head,
    _list,
    _delete,
    _delete_all,
    _stage,
    _complete,
    _complete_gone,
    _abort,
    _abandoned,
    _probe,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.strip("_"))
def test_every_call_gives_the_right_answer_whichever_request_breaks(
    case: Case, proxy: FaultProxy, direct: Storage, root: str
) -> None:
    # Small pages and parts, so that listings and files have several requests.
    storage = S3Storage(first_part_bytes=5 * MIB, page_items=2)
    act = case(storage, direct, join(root, "whole"))
    proxy.clear()
    act()
    requests = len(proxy.requests)
    assert requests >= 1
    every = itertools.product(range(1, requests + 1), PASSING_FAULTS)
    for at, fault in sample(every, 2, by=lambda pair: pair[1]):
        act = case(storage, direct, join(root, f"{at}-{fault}"))
        proxy.clear()
        proxy.fail(at, fault)
        act()
        assert [r.fault for r in proxy.requests if r.fault] == [fault]


@pytest.mark.parametrize("seed", sample(range(6), 2))
def test_random_faults_end_well_or_in_a_clean_failure(
    seed: int,
    proxy: FaultProxy,
    direct: Storage,
    root: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Few attempts and many faults, so that some sequences do fail.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    storage = S3Storage(first_part_bytes=5 * MIB)
    proxy.fail_at_random(seed, 0.35)
    ends = {"done": 0, "failed": 0}
    for number in range(12):
        data = random.Random(number).randbytes(6 * MIB if number % 4 == 0 else 100)
        folder = join(root, f"{number}")
        record = join(root, "log", f"{number}")
        staged = None
        try:
            staged = stage(storage, folder, data)
            assert direct.head(staged.uri) is None
            assert storage.put_if_absent(record, data[:9]) == data[:9]
            assert storage.complete(staged) is True
            ends["done"] += 1
        except WriteFailed:
            ends["failed"] += 1
        # Whole or not there at all, and what was not committed can still be brought to an end.
        assert direct.read(join(folder, "a")) in {None, data}
        assert direct.read(record) in {None, data[:9]}
        if staged is not None:
            assert direct.complete(staged)
            assert direct.read(staged.uri) == data
    assert ends["done"] > 0
    assert ends["failed"] > 0


def test_a_part_that_fails_surfaces_at_a_later_write_or_at_close(
    proxy: FaultProxy, direct: Storage, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    storage = S3Storage(first_part_bytes=5 * MIB)

    def is_second_part(request: Request) -> bool:
        return "partNumber=2" in request.query

    proxy.fail(1, "status_500", only=is_second_part)
    writer = storage.stage(join(root, "a"), root, "t")

    def write_all() -> None:
        for _ in range(4):
            writer.write(bytes(5 * MIB))
        writer.close()

    with pytest.raises(WriteFailed, match=r"UploadPart on .*InternalError"):
        write_all()
    with pytest.raises(WriteFailed, match="failed before"):
        writer.close()
    writer.abort()
    assert list(direct.abandoned(root)) == []
    assert list(direct.list(root)) == []


def test_a_part_that_failed_surfaces_before_the_next_part_is_full(
    proxy: FaultProxy, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.fail(1, "status_500", only=lambda r: r.operation == "UploadPart")
    writer = S3Storage(first_part_bytes=5 * MIB).stage(join(root, "a"), root, "t")
    writer.write(bytes(5 * MIB))
    wait(writer._parts)
    with pytest.raises(WriteFailed, match="InternalError"):
        writer.write(b"1")
    writer.abort()


def test_an_abort_is_repeated_until_the_upload_is_gone(
    proxy: FaultProxy, direct: Storage, root: str
) -> None:
    # S3 answers 204, yet a part that was in flight keeps the upload alive.
    class Slow(_LyingClient):
        def abort_multipart_upload(self, **request: Any) -> Any:
            self._lies -= 1
            return self._client.abort_multipart_upload(**request) if self._lies < 0 else {}

    staged = stage(direct, root)
    S3Storage(lambda: Slow(client_from_environment(), 2, dict)).abort(root, staged)
    assert list(direct.abandoned(root)) == []
    staged = stage(direct, root)
    with pytest.raises(WriteFailed, match="but still lists parts"):
        S3Storage(lambda: Slow(client_from_environment(), 99, dict)).abort(root, staged)


def test_an_abort_that_cannot_reach_s3_raises_nothing(
    proxy: FaultProxy, direct: Storage, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    writer = S3Storage().stage(join(root, "a"), root, "t")
    writer.write(b"1")
    staged = writer.close()
    proxy.fail_at_random(0, 1.0, ["status_500"])
    writer.abort()
    assert [found.uri for found in direct.abandoned(root)] == [staged.uri]


def test_a_file_with_a_part_missing_is_never_completed(
    proxy: FaultProxy, direct: Storage, root: str
) -> None:
    staged = stage(direct, root)
    wrong = [[staged.upload["parts"][0][0], base64.b64encode(b"crc!").decode()]]
    tampered = StagedFile(staged.uri, staged.token, 4, {**staged.upload, "parts": wrong})
    with pytest.raises(WriteFailed, match="InvalidPart"):
        direct.complete(tampered)
    assert direct.head(staged.uri) is None
    assert direct.complete(staged)


def test_parts_carry_checksums_to_the_object(proxy: FaultProxy, root: str) -> None:
    storage = S3Storage(first_part_bytes=5 * MIB)
    staged = stage(storage, root, b"a" * 5 * MIB + b"b")
    crcs = [base64.b64decode(crc) for _, crc in staged.upload["parts"]]
    assert [int.from_bytes(crc, "big") for crc in crcs] == [
        zlib.crc32(b"a" * 5 * MIB),
        zlib.crc32(b"b"),
    ]
    assert storage.complete(staged)
    bucket, _, key = staged.uri.removeprefix("s3://").partition("/")
    seen = client_from_environment().head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    composite = base64.b64encode(zlib.crc32(b"".join(crcs)).to_bytes(4, "big")).decode()
    assert seen["ChecksumCRC32"] == f"{composite}-2"


class _LyingClient:
    """An S3 client whose completion answers 200 and does nothing, a number of times."""

    def __init__(self, client: Any, lies: int, then: Callable[[], Any]) -> None:
        self._client, self._lies, self._then = client, lies, then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def complete_multipart_upload(self, **request: Any) -> Any:
        if self._lies:
            self._lies -= 1
            return self._then()
        return self._client.complete_multipart_upload(**request)


@pytest.mark.parametrize(("lies", "visible"), [(1, True), (99, False)])
def test_an_answer_200_is_not_believed(
    lies: int, visible: bool, proxy: FaultProxy, direct: Storage, root: str
) -> None:
    staged = stage(direct, root)
    lying = S3Storage(lambda: _LyingClient(client_from_environment(), lies, dict))
    if visible:
        assert lying.complete(staged) is True
    else:
        with pytest.raises(WriteFailed, match="HEAD does not show"):
            lying.complete(staged)
    assert (direct.head(staged.uri) is not None) == visible


def test_an_upload_that_somebody_else_completes_in_between_is_not_gone(
    proxy: FaultProxy, direct: Storage, root: str
) -> None:
    staged = stage(direct, root)
    proxy.clear()
    # Our completion never arrives; before we ask what became of it, theirs does its work.
    heads = iter(range(9))

    class Between(_LyingClient):
        def head_object(self, **request: Any) -> Any:
            try:
                return self._client.head_object(**request)
            finally:
                if next(heads) == 0:
                    assert direct.complete(staged)

    def not_there() -> Any:
        answer = {"Error": {"Code": "NoSuchUpload", "Message": ""}}
        raise ClientError(cast("Any", answer), "CompleteMultipartUpload")

    storage = S3Storage(lambda: Between(client_from_environment(), 1, not_there))
    assert storage.complete(staged) is True


@pytest.mark.parametrize(
    ("method", "permission"),
    [
        (lambda s, r, f: s.read(join(r, "x")), "s3:GetObject"),
        (lambda s, r, f: s.put(join(r, "x"), b""), "s3:PutObject"),
        (lambda s, r, f: s.put_if_absent(join(r, "x"), b""), "s3:PutObject"),
        (lambda s, r, f: s.head(join(r, "x")), "s3:GetObject and s3:ListBucket"),
        (lambda s, r, f: list(s.list(r)), "s3:ListBucket"),
        (lambda s, r, f: s.delete(join(r, "x")), "s3:DeleteObject"),
        (lambda s, r, f: s.delete_all([join(r, "x")]), "s3:DeleteObject"),
        (lambda s, r, f: stage(s, r), "s3:PutObject"),
        (lambda s, r, f: s.abort(r, f), "s3:AbortMultipartUpload"),
        (lambda s, r, f: list(s.abandoned(r)), "s3:ListBucketMultipartUploads"),
        (lambda s, r, f: s.probe(r), "s3:PutObject"),
    ],
)
def test_what_is_denied_is_named(
    method: Callable[[Storage, str, StagedFile], Any],
    permission: str,
    proxy: FaultProxy,
    direct: Storage,
    root: str,
) -> None:
    staged = stage(direct, root)
    proxy.fail_at_random(0, 1.0, ["status_403"])
    with pytest.raises(ConfigError, match=f"grant {permission} on bucket {BUCKET} ") as caught:
        method(open_storage(root), root, staged)
    assert caught.value.__cause__ is not None


class _Withholding:
    """An S3 client whose DeleteObjects leaves the first key, with an answer about it, some times.

    Attributes:
        sizes: How many keys each request had.
    """

    def __init__(self, client: Any, times: int, answer: dict[str, Any] | None) -> None:
        self._client, self._times, self._answer = client, times, answer
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def delete_objects(self, **request: Any) -> Any:
        keys = request["Delete"]["Objects"]
        self.sizes.append(len(keys))
        if len(self.sizes) > self._times:
            return self._client.delete_objects(**request)
        found = {"Deleted": []}
        if keys[1:]:
            found = self._client.delete_objects(**request | {"Delete": {"Objects": keys[1:]}})
        errors = [{"Key": keys[0]["Key"], **self._answer}] if self._answer else []
        return {"Deleted": found["Deleted"], "Errors": errors}


@pytest.mark.parametrize(
    ("times", "answer", "error", "sizes"),
    [
        (1, {"Code": "InternalError", "Message": "try again"}, None, [3, 1]),
        (2, None, None, [3, 1, 1]),
        (9, {"Code": "SlowDown"}, (WriteFailed, "DeleteObjects on .*/0: SlowDown"), [3, 1, 1, 1]),
        (9, None, (WriteFailed, "/0: InternalError .*does not mention it"), [3, 1, 1, 1]),
        (9, {"Code": "AccessDenied"}, (ConfigError, "/0: AccessDenied.*grant s3:DeleteObj"), [3]),
    ],
)  # fmt: skip
def test_only_keys_that_the_answer_confirms_are_deleted(
    times: int, answer: dict[str, Any] | None, error: Any, sizes: list[int],
    proxy: FaultProxy, direct: Storage, root: str,
) -> None:  # fmt: skip
    uris = [join(root, str(n)) for n in range(3)]
    for uri in uris:
        direct.put(uri, b"")
    client = _Withholding(client_from_environment(), times, answer)
    storage = S3Storage(lambda: client)
    if error is None:
        storage.delete_all(uris)
    else:
        with pytest.raises(error[0], match=error[1]):
            storage.delete_all(uris)
    assert client.sizes == sizes
    assert [one.uri for one in direct.list(root)] == ([] if error is None else uris[:1])


def test_a_probe_that_may_not_delete_says_so(proxy: FaultProxy, root: str) -> None:
    proxy.fail(1, "status_403", only=lambda r: r.operation == "DeleteObject")
    with pytest.raises(ConfigError, match="grant s3:DeleteObject"):
        open_storage(root).probe(root)


def test_a_storage_without_conditional_writes_is_refused(proxy: FaultProxy, root: str) -> None:
    class Old(_LyingClient):
        def put_object(self, **_: Any) -> Any:
            answer = {
                "Error": {"Code": "NotImplemented", "Message": "If-None-Match"},
                "ResponseMetadata": {"HTTPStatusCode": 501},
            }
            raise ClientError(cast("Any", answer), "PutObject")

    storage = S3Storage(lambda: Old(client_from_environment(), 0, dict))
    with pytest.raises(ConfigError, match="lacks what the commit protocol needs"):
        storage.put_if_absent(join(root, "a"), b"1")


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.probe("s3://lake/a"),
        lambda s: s.put_if_absent("s3://lake/a", b"1"),
        lambda s: s.read("s3://lake/a"),
        lambda s: list(s.list("s3://lake/a")),
    ],
    ids=["probe", "put_if_absent", "read", "list"],
)
def test_nothing_listening_is_a_failure_worth_a_retry_after_bounded_attempts(
    call: Callable[[Storage], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    tried: list[str] = []
    client = client_from_environment()
    client.meta.events.register("before-send.s3", lambda **_: tried.append("again"))
    with pytest.raises(WriteFailed, match="AWS_ENDPOINT_URL"):
        call(S3Storage(lambda: client))
    assert len(tried) <= 10


def test_no_credentials_is_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match="no usable AWS credentials"):
        open_storage("s3://lake/a").probe("s3://lake/a")


@pytest.mark.parametrize(
    ("name", "value"),
    [("AWS_PROFILE", "nobody"), ("AWS_ENDPOINT_URL", "not a url")],
)
def test_an_environment_that_makes_no_sense_is_configuration(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="check AWS_PROFILE"):
        open_storage("s3://lake/a").read("s3://lake/a")


@pytest.mark.parametrize("uri", ["s3:///key", "s3://", "gs://bucket/key", "file://host/path"])
def test_uris_that_lead_nowhere_are_refused(uri: str) -> None:
    with pytest.raises(ExtractError, match="expected"):
        open_storage(uri).read(uri)


def test_the_environments_storage_is_shared_until_the_environment_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = S3Storage.from_environment()
    assert S3Storage.from_environment() is one
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:10")
    assert S3Storage.from_environment() is not one


# --- the proxy itself ------------------------------------------------------------------------


def test_the_proxy_numbers_and_names_what_passes(proxy: FaultProxy, root: str) -> None:
    storage = open_storage(root)
    proxy.clear()
    staged = stage(storage, root)
    assert storage.complete(staged)
    assert storage.read(staged.uri) == b"rows"
    assert list(storage.list(root)) != []
    assert list(storage.abandoned(root)) == []
    storage.put(join(root, "ü b"), b"1")
    storage.delete(staged.uri)
    storage.delete_all([staged.uri])
    storage.abort(root, staged)
    assert proxy.operations() == [
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "HeadObject",
        "GetObject",
        "ListObjectsV2",
        "ListMultipartUploads",
        "PutObject",
        "DeleteObject",
        "DeleteObjects",
        "AbortMultipartUpload",
        "ListParts",
    ]
    assert [r.number for r in proxy.requests] == list(range(1, 13))
    assert proxy.requests[7].path == "/" + join(root, "ü b").removeprefix("s3://")


def test_the_proxy_keeps_connections_and_takes_chunks_and_expectations(
    proxy: FaultProxy, direct: Storage, root: str
) -> None:
    path = "/" + join(root, "a").removeprefix("s3://")
    caller = http.client.HTTPConnection(proxy.endpoint_url.removeprefix("http://"), timeout=10)
    caller.connect()
    first = caller.sock
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "text/plain"}
    caller.request("PUT", path, body=iter([b"one", b"two"]), headers=headers, encode_chunked=True)
    assert caller.getresponse().read() == b""
    caller.request("HEAD", path)
    answer = caller.getresponse()
    assert (answer.getheader("Content-Length"), answer.read()) == ("6", b"")
    caller.request("GET", path)
    assert caller.getresponse().read() == b"onetwo"
    assert caller.sock is first
    head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    first.sendall(head.encode())
    assert first.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
    first.sendall(b"later")
    assert first.recv(12) == b"HTTP/1.1 200"
    assert direct.read(join(root, "a")) == b"later"
    caller.close()


@pytest.mark.parametrize(
    ("fault", "is_done"),
    [
        ("reset_before", False),
        ("reset_after", True),
        ("cut", True),
        ("kill_before", False),
        ("kill_after", True),
    ],
)
def test_the_proxy_breaks_the_chosen_requests(
    fault: Fault, is_done: bool, proxy: FaultProxy, direct: Storage, root: str
) -> None:
    called: list[bool] = []
    uri = join(root, "a")
    proxy.callback = lambda: called.append(direct.read(uri) is not None)
    proxy.fail(1, fault, only=lambda r: r.method == "PUT")
    caller = http.client.HTTPConnection(proxy.endpoint_url.removeprefix("http://"), timeout=10)
    caller.request("PUT", "/" + uri.removeprefix("s3://"), body=b"1")
    broken = (ConnectionResetError, http.client.IncompleteRead, http.client.BadStatusLine)
    with pytest.raises(broken):
        caller.getresponse().read()
    caller.close()
    assert (direct.read(uri) is not None) == is_done
    assert called == ([is_done] if fault.startswith("kill") else [])
    assert [r.fault for r in proxy.requests] == [fault]


def test_the_proxy_refuses_to_kill_without_a_callback(proxy: FaultProxy) -> None:
    with pytest.raises(ValueError, match="callback"):
        proxy.fail(1, "kill_after")


def test_old_uploads_of_an_interrupted_creation_are_found(
    proxy: FaultProxy, direct: Storage, root: str
) -> None:
    # The answer to the creation is lost and botocore asks again: one upload too many, invisible,
    # which `recover` finds by listing and aborts.
    proxy.fail(1, "reset_after", only=lambda r: r.operation == "CreateMultipartUpload")
    staged = stage(open_storage(root), root)
    found = list(direct.abandoned(root))
    assert [a.uri for a in found] == [staged.uri] * 2
    extra: list[AbandonedUpload] = [
        a for a in found if a.upload["upload_id"] != staged.upload["upload_id"]
    ]
    assert len(extra) == 1
    direct.abort(root, extra[0])
    assert direct.complete(staged)


# --- parts -----------------------------------------------------------------------------------


def test_ten_thousand_parts_hold_more_than_five_tebibytes() -> None:
    sizes = [part_bytes(number) for number in range(1, MAX_PARTS + 1)]
    assert sizes[0] == sizes[999] == 8 * MIB
    assert sizes[1000] == 16 * MIB
    assert sum(sizes) > 5 * 1024**4
    assert max(sizes) <= MAX_PART_BYTES
    assert sizes == sorted(sizes)
    # A file of the size that targets are rolled at needs few parts, and so little memory.
    assert sum(sizes[:64]) == 512 * MIB


def test_memory_is_bounded_by_parts_and_not_by_the_file(
    ministack: Emulator, proxy: FaultProxy, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(ministack, monkeypatch)
    storage = S3Storage(first_part_bytes=5 * MIB, parallel_parts=2)
    chunk = bytes(MIB)
    stage(storage, root, name="warm")
    tracemalloc.start()
    try:
        writer = storage.stage(join(root, "a"), root, "t")
        for _ in range(80):
            writer.write(chunk)
        staged = writer.close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert staged.size == 80 * MIB
    # The part being filled, three slots in flight, and room for a buffer that grows by copying.
    assert peak < 5 * 5 * MIB
    storage.abort(root, staged)
