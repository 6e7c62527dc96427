"""A reverse proxy in front of an S3 endpoint that breaks chosen requests, deterministically.

::

    with FaultProxy(ministack.endpoint_url) as proxy:
        use(proxy, monkeypatch)                      # or pass proxy.environment() to a worker
        proxy.fail(3, "reset_after")                 # the third from now: done, never answered
        proxy.fail(1, "status_503", only=lambda r: r.operation == "UploadPart")
        proxy.fail_at_random(seed=7, probability=0.2)
        ...
        assert [r.operation for r in proxy.requests] == [...]

What can be done to a request:

- ``reset_before``: the server never sees it, the caller gets a connection reset;
- ``reset_after``: the server has done it, the caller gets a connection reset;
- ``cut``: the server has done it, the caller gets half of the answer, then a reset;
- ``status_403``, ``status_500``, ``status_503``: the server never sees it, S3's XML error;
- ``html``: the server never sees it, a proxy's page with status 200;
- ``hold``: the server never sees it, and the caller waits for its answer until it gives up;
- ``kill_before``: the callback is called, such as ``lambda: os.kill(pid, SIGKILL)``; not forwarded;
- ``kill_after``: forwarded, answered by the server, then the callback; the answer is dropped.

Every request gets a fresh connection to the server; callers may keep theirs alive.
"""

from __future__ import annotations

import http.client
import io
import random
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import parse_qs, unquote, urlsplit

from infra.local.emulator import aws_environment
from tests.support.listener import Listener

Fault = Literal[
    "reset_before",
    "reset_after",
    "cut",
    "status_403",
    "status_500",
    "status_503",
    "html",
    "hold",
    "kill_before",
    "kill_after",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
PASSING_FAULTS: tuple[Fault, ...] = (
    "reset_before",
    "reset_after",
    "cut",
    "status_500",
    "status_503",
)
"""Faults that happen on a network now and then, and that a retry fixes."""

_ERRORS = {
    "status_403": (403, "AccessDenied", "Access Denied"),
    "status_500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "status_503": (503, "SlowDown", "Please reduce your request rate."),
}
_PAGE = b"<html><body>Please log in to the network</body></html>"
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
_PUT = {"partNumber": "UploadPart", "": "PutObject"}
_GET = {
    "uploads": "ListMultipartUploads",
    "uploadId": "ListParts",
    "list-type": "ListObjectsV2",
    "": "GetObject",
}
_POST = {"uploads": "CreateMultipartUpload", "uploadId": "CompleteMultipartUpload",
         "delete": "DeleteObjects", "": "Post"}  # fmt: skip
_DELETE = {"uploadId": "AbortMultipartUpload", "": "DeleteObject"}
_OPERATIONS = {"PUT": _PUT, "GET": _GET, "POST": _POST, "DELETE": _DELETE}


@dataclass(frozen=True)
class Request:
    """One request as the proxy saw it.

    Attributes:
        number: From 1, in order of arrival, since the start or the last `FaultProxy.clear`.
        method: ``PUT``.
        path: Percent-decoded, with the bucket: ``/lake/raw/x.parquet``.
        query: Unchanged.
        fault: The fault that was injected; None if it passed.
    """

    number: int
    method: str
    path: str
    query: str
    fault: Fault | None = None

    @property
    def operation(self) -> str:
        """The S3 operation, by method and query: ``UploadPart``."""
        if self.method == "HEAD":
            return "HeadObject"
        by_query = _OPERATIONS.get(self.method, {})
        asked = parse_qs(self.query, keep_blank_values=True)
        return next((name for key, name in by_query.items() if key in asked or not key), "Other")


def _all(_: Request) -> bool:
    return True


@dataclass
class _Rule:
    fault: Fault
    at: int
    only: Callable[[Request], bool]
    seen: int = 0


@dataclass
class _Random:
    generator: random.Random
    probability: float
    faults: Sequence[Fault]
    only: Callable[[Request], bool]


@dataclass(frozen=True)
class _Message:
    """A request's bytes: everything that is forwarded to the server."""

    method: str
    target: str
    head: bytes
    body: bytes
    keep_alive: bool


@dataclass
class FaultProxy(Listener):
    """See the module. A context manager that listens on a free port of 127.0.0.1.

    Attributes:
        upstream: The server's URL, ``http://host:port``.
        callback: What ``kill_before`` and ``kill_after`` call.
        requests: Every request since the start or the last `clear`, in order of arrival.
    """

    upstream: str
    callback: Callable[[], None] | None = None
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        parts = urlsplit(self.upstream)
        self._server = (str(parts.hostname), int(parts.port or 80))
        self._rules: list[_Rule] = []
        self._random: _Random | None = None

    @property
    def endpoint_url(self) -> str:
        """The proxy's URL for callers."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return the variables that point an AWS SDK at the proxy."""
        return aws_environment(self.endpoint_url)

    def fail(self, at: int, fault: Fault, only: Callable[[Request], bool] = _all) -> None:
        """Break one request: the ``at``-th from now, from 1, of those that ``only`` accepts.

        Raises:
            ValueError: A kill was requested without a callback that kills.
        """
        if fault.startswith("kill") and self.callback is None:
            raise ValueError(f"{fault} needs FaultProxy.callback")
        with self._lock:
            self._rules.append(_Rule(fault, at, only))

    def fail_at_random(
        self,
        seed: int,
        probability: float,
        faults: Sequence[Fault] = PASSING_FAULTS,
        only: Callable[[Request], bool] = _all,
    ) -> None:
        """Break each request that ``only`` accepts with ``probability``, drawing from ``faults``.

        The same seed draws the same for the same sequence of requests.
        """
        with self._lock:
            self._random = _Random(random.Random(seed), probability, faults, only)

    def clear(self) -> None:
        """Stop breaking requests, and start counting and recording again."""
        with self._lock:
            self._rules.clear()
            self._random = None
            self.requests = []

    def operations(self) -> list[str]:
        """Return the operations of all requests, in order of arrival."""
        with self._lock:
            return [request.operation for request in self.requests]

    def _accepted(self, caller: socket.socket) -> None:
        threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        """Serve one connection until either side ends it."""
        try:
            with caller.makefile("rb") as stream:
                while (message := _read_message(caller, stream)) and self._handle(caller, message):
                    pass
        except (OSError, http.client.HTTPException, ValueError):
            pass  # the caller or the server went away: to the other side that is a reset
        finally:
            self._drop(caller)

    def _handle(self, caller: socket.socket, message: _Message) -> bool:
        """Answer one request, or break it; return whether the connection stays open."""
        fault = self._record(message).fault
        if fault in _ERRORS:
            caller.sendall(_error(message, *_ERRORS[str(fault)]))
            return message.keep_alive
        if fault == "html":
            caller.sendall(_answer(message, "200 OK", "text/html", _PAGE))
            return message.keep_alive
        if fault == "hold":
            caller.recv(1)  # only the end can come: nobody sends more before the answer
            return False
        if fault == "kill_before":
            self._call_back()
        if fault in {"kill_before", "reset_before"}:
            _reset(caller)
            return False
        answer = self._forward(message)
        if fault is None:
            caller.sendall(answer)
            return message.keep_alive
        if fault == "kill_after":
            self._call_back()
        if fault == "cut":
            caller.sendall(answer[: len(answer) // 2])
        _reset(caller)
        return False

    def _record(self, message: _Message) -> Request:
        path, _, query = message.target.partition("?")
        with self._lock:
            number = len(self.requests) + 1
            request = Request(number, message.method, unquote(path), query)
            request = Request(number, request.method, request.path, query, self._fault(request))
            self.requests.append(request)
            return request

    def _fault(self, request: Request) -> Fault | None:
        hit: Fault | None = None
        for rule in self._rules:
            if rule.only(request):
                rule.seen += 1
                if rule.seen == rule.at:
                    hit = hit or rule.fault
        if hit is None and self._random and self._random.only(request):
            generator = self._random.generator
            if generator.random() < self._random.probability:
                return generator.choice(self._random.faults)
        return hit

    def _call_back(self) -> None:
        if self.callback is not None:
            self.callback()

    def _forward(self, message: _Message) -> bytes:
        """Return the server's whole answer, framed by its length."""
        with socket.create_connection(self._server, timeout=60) as server:
            server.sendall(message.head + message.body)
            response = http.client.HTTPResponse(server, method=message.method)
            response.begin()
            body = response.read()
            lines = [f"HTTP/1.1 {response.status} {response.reason}"]
            lines += [f"{k}: {v}" for k, v in response.getheaders() if k.lower() not in _HOP_BY_HOP]
            if message.method == "HEAD":
                # Its length is that of GET's body, and no body follows.
                length = response.getheader("Content-Length")
                lines += [f"Content-Length: {length}"] if length is not None else []
            elif response.status not in {204, 304}:
                lines.append(f"Content-Length: {len(body)}")
            lines.append(f"Connection: {'keep-alive' if message.keep_alive else 'close'}")
            return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _read_message(caller: socket.socket, stream: io.BufferedReader) -> _Message | None:
    """Read one request, its body in its original framing; None at the end."""
    first = stream.readline()
    if not first.strip():
        return None
    method, target, version = first.decode("latin-1").split()
    kept: list[bytes] = []
    values: dict[str, str] = {}
    while (line := stream.readline()) not in {b"\r\n", b"\n", b""}:
        name, _, value = line.decode("latin-1").partition(":")
        values[name.strip().lower()] = value.strip()
        if name.strip().lower() not in {"expect", "connection", "keep-alive"}:
            kept.append(line)
    if values.get("expect", "").lower() == "100-continue":
        caller.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in values.get("transfer-encoding", "").lower():
        body = _read_chunks(stream)
    else:
        body = _read_exactly(stream, int(values.get("content-length", "0")))
    head = first + b"".join(kept) + b"Connection: close\r\n\r\n"
    connection = values.get("connection", "").lower()
    keep_alive = version == "HTTP/1.1" and "close" not in connection
    return _Message(method, target, head, body, keep_alive)


def _read_chunks(stream: io.BufferedReader) -> bytes:
    """Read a chunked body with its framing and trailers."""
    raw = io.BytesIO()
    size = -1
    while size != 0:
        line = stream.readline()
        size = int(line.partition(b";")[0], 16)
        raw.write(line)
        if size:
            raw.write(_read_exactly(stream, size + 2))
    while True:
        line = stream.readline()
        raw.write(line)
        if line in {b"\r\n", b"\n", b""}:
            return raw.getvalue()


def _read_exactly(stream: io.BufferedReader, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ConnectionError("the caller went away in the middle of a request")
    return data


def _error(message: _Message, status: int, code: str, text: str) -> bytes:
    """Return an S3 error; for HEAD without a body, as S3 does."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{text}</Message><RequestId>0</RequestId></Error>"
    ).encode()
    return _answer(message, f"{status} {code}", "application/xml", body)


def _answer(message: _Message, status: str, kind: str, body: bytes) -> bytes:
    """Return an answer of this proxy's own."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {0 if message.method == 'HEAD' else len(body)}\r\n"
        f"Connection: {'keep-alive' if message.keep_alive else 'close'}\r\n\r\n"
    ).encode()
    return head if message.method == "HEAD" else head + body


def _reset(caller: socket.socket) -> None:
    """End a connection with RST, not FIN: the other side sees "connection reset by peer"."""
    with suppress(OSError):
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Nothing is sent before the descriptor is closed, and a file made from the socket keeps it
        # open: detach it and close it here.
        socket.close(caller.detach())
