"""A proxy that answers 200 with a page of HTML: its answer is never taken for one of AWS."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from botocore.exceptions import HTTPClientError

from entrypoints import reap_extract_job_runs as reaper
from extract_jobs.catalog import partitions
from extract_jobs.catalog.table import create_table
from extract_jobs.connections.secrets import secret_text
from extract_jobs.errors import SourceUnavailable, WriteFailed
from extract_jobs.spec.parts import CatalogSpec
from extract_jobs.storage import open_storage
from extract_jobs.tracking import running_jobs
from extract_jobs.tracking.table import TrackedRun, Tracking, client_from_environment, utc_now


class _Portal(BaseHTTPRequestHandler):
    """Answers every request with a login page."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def _answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append(self.command)
        page = b"<html><body>Please log in to the network</body></html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def portal(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Portal)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_MAX_ATTEMPTS": "1", "NO_PROXY": "127.0.0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield
    server.shutdown()
    thread.join()
    server.server_close()


RUN = TrackedRun(table_id="sales/t", run_id="r", execution_id="e")


@pytest.mark.parametrize("ask", [
    lambda t: t.read("sales/t", "r"),
    lambda t: t.end(RUN),
    lambda t: t.announce([RUN]),
    lambda t: list(t.by_execution("e")),
])  # fmt: skip
@pytest.mark.usefixtures("portal")
def test_nothing_is_taken_as_written_or_absent_in_the_tracking_table(ask):
    with pytest.raises(WriteFailed, match="which AWS never sends"):
        ask(Tracking(client_from_environment(), "tracking", utc_now))


@pytest.mark.parametrize("ask", [
    lambda s: s.read("s3://b/config.yml"),
    lambda s: s.put("s3://b/report.json", b"{}"),
    lambda s: s.put_if_absent("s3://b/commit.json", b"{}"),
    lambda s: list(s.list("s3://b/commits/")),
])  # fmt: skip
@pytest.mark.usefixtures("portal")
def test_nothing_is_taken_as_stored_read_or_absent_in_s3(ask):
    with pytest.raises(WriteFailed, match="which AWS never sends"):
        ask(open_storage("s3://b/x"))


@pytest.mark.usefixtures("portal")
def test_no_page_is_taken_for_a_secret():
    for place in ({"secret_id": "lake/sales"}, {"ssm_parameter": "/lake/sales"}):
        with pytest.raises(SourceUnavailable, match="reached"):
            secret_text(key="connection", **place)


@pytest.mark.usefixtures("portal")
def test_the_reaper_does_not_take_a_page_for_the_word_that_no_job_runs():
    since = datetime.now(UTC) - timedelta(days=1)
    for service in ("glue", "ecs", "emr", "emr-serverless"):
        with pytest.raises(HTTPClientError, match="which AWS never sends"):
            list(running_jobs._RUNNING[service](reaper._client.__wrapped__(service), "x", since))


CATALOG = CatalogSpec(database="lake", table="t")


@pytest.mark.parametrize("ask", [
    lambda: partitions.below(CATALOG, "s3://lake/t"),
    lambda: partitions.add(CATALOG, {"s3://lake/t/d=1/": ["1"]}),
    lambda: create_table(CATALOG, "s3://lake/t", {"n": "bigint"}, ["d"], {}),
])  # fmt: skip
@pytest.mark.usefixtures("portal")
def test_nothing_is_taken_as_kept_or_absent_in_the_catalog(ask):
    with pytest.raises(HTTPClientError, match="which AWS never sends"):
        ask()
