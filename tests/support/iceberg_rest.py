"""A catalog that speaks Iceberg's REST protocol on 127.0.0.1, over pyiceberg's catalog in SQLite.

It takes one bearer token, or gives it for one client's credential, and fails on request.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from pyiceberg.catalog.rest import CreateTableRequest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import CommitTableRequest

TOKEN, CREDENTIAL = "a-token", "client:secret"
_STATUS: dict[type[Exception], int] = {
    CommitFailedException: 409, NamespaceAlreadyExistsError: 409, TableAlreadyExistsError: 409,
    NoSuchNamespaceError: 404, NoSuchTableError: 404,
}  # fmt: skip


class RestServer:
    """The server; a context manager.

    Attributes:
        url: Its address.
        refuse: Status to answer with instead of doing anything; 0 for none.
        lose: Whether the answer to the next commit is lost after it is done.
        hang: Answer nothing until the server ends.
        calls: How many requests were answered.
        garbage: What to answer instead, by the number of the request, from 1.
    """

    def __init__(self, folder: Path) -> None:
        self.catalog = SqlCatalog("default", uri=f"sqlite:///{folder}/rest.db")
        self.refuse, self.lose, self.hang = 0, False, False
        self.calls, self.garbage = 0, dict[int, bytes]()
        self.ended = Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                raw = self.rfile.read(length)
                if server.hang:
                    server.ended.wait()
                authorized = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                status, found = server.answer(self.command, self.path, raw, authorized=authorized)
                data = json.dumps(found).encode() if not isinstance(found, str) else found.encode()
                server.calls += 1
                if server.calls in server.garbage:
                    status, data = 200, server.garbage[server.calls]
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self.catalog.engine.dispose()

    def answer(self, method: str, path: str, raw: bytes, *, authorized: bool) -> tuple[int, Any]:
        if self.refuse:
            return self.refuse, _error(self.refuse, "on request")
        parts = urlsplit(path).path.strip("/").split("/")
        if parts == ["v1", "oauth", "tokens"]:
            given = parse_qs(raw.decode())
            if f"{given['client_id'][0]}:{given['client_secret'][0]}" != CREDENTIAL:
                return 401, {"error": "invalid_client"}
            return 200, {"access_token": TOKEN, "token_type": "bearer", "expires_in": 3600}
        if not authorized:
            return 401, _error(401, "no token")
        try:
            return 200, self._done(method, parts[1:], raw)
        except tuple(_STATUS) as error:
            return _STATUS[type(error)], _error(_STATUS[type(error)], str(error))

    def _done(self, method: str, parts: list[str], raw: bytes) -> Any:
        if parts == ["config"]:
            return {"defaults": {}, "overrides": {}}
        if len(parts) == 1:
            namespace = json.loads(raw)["namespace"]
            self.catalog.create_namespace(tuple(namespace))
            return {"namespace": namespace, "properties": {}}
        if len(parts) == 2:
            properties = self.catalog.load_namespace_properties(parts[1])
            return {"namespace": [parts[1]], "properties": properties}
        if len(parts) == 3:
            wanted = CreateTableRequest.model_validate_json(raw)
            assert not wanted.stage_create
            return _table(
                self.catalog.create_table(
                    (parts[1], wanted.name),
                    wanted.table_schema,
                    location=wanted.location,
                    partition_spec=wanted.partition_spec or UNPARTITIONED_PARTITION_SPEC,
                    properties=wanted.properties,
                )
            )
        if method == "DELETE":
            self.catalog.drop_table((parts[1], parts[3]))
            return {}
        table = self.catalog.load_table((parts[1], parts[3]))
        if method == "POST":
            request = CommitTableRequest.model_validate_json(raw)
            self.catalog.commit_table(table, request.requirements, request.updates)
            table = self.catalog.load_table((parts[1], parts[3]))
            if self.lose:
                self.lose = False
                return "lost"
        return _table(table)


def _table(table: Any) -> dict[str, Any]:
    metadata = json.loads(table.metadata.model_dump_json())
    return {"metadata-location": table.metadata_location, "metadata": metadata, "config": {}}


def _error(status: int, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "Refused", "code": status}}
