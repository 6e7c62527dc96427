"""Credentials of connections from AWS: secrets and parameters on moto, Redshift's own answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import boto3
import pytest

from extract_jobs.connections import Login, resolve_connection, secret_text
from extract_jobs.errors import ConfigError
from extract_jobs.spec.source import ConnectionSpec
from tests.support.emulators import MotoServer, set_environment

RDS = {"username": "reader", "password": "pa'ss", "host": "db.example.com", "dbname": "sales"}


def test_a_secret_and_a_secure_parameter_by_name_and_arn(
    moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(moto_server.environment(), monkeypatch)
    with closing(boto3.client("secretsmanager")) as secrets, closing(boto3.client("ssm")) as ssm:
        arn = secrets.create_secret(Name="conn/sales", SecretString=json.dumps(RDS))["ARN"]
        ssm.put_parameter(Name="/conn/sales", Value=json.dumps(RDS), Type="SecureString")
        ssm.put_parameter(Name="/conn/url", Value="mysql://u:p@h/d", Type="SecureString")
    for given in (
        {"secret_id": "conn/sales"},
        {"secret_id": arn},
        {"ssm_parameter": "/conn/sales"},
    ):
        found = resolve_connection(ConnectionSpec.model_validate(given))
        assert (found.host, found.password, found.database) == ("db.example.com", "pa'ss", "sales")
    by_url = resolve_connection(ConnectionSpec(ssm_parameter="/conn/url"), engine="mysql")
    assert (by_url.user, by_url.password, by_url.port) == ("u", "p", 3306)
    with pytest.raises(ConfigError, match="there is no SSM parameter '/conn/none'"):
        secret_text(ssm_parameter="/conn/none", key="columns.mask_key")


class _Redshift(BaseHTTPRequestHandler):
    """Answers as the API reference of Redshift and Redshift Serverless shows it."""

    asked: list[dict[str, str]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if "X-Amz-Target" in self.headers:
            self.asked.append({"target": self.headers["X-Amz-Target"], **json.loads(body)})
            self._answer(200, json.dumps({"dbUser": "IAMR:lake", "dbPassword": "pw-serverless"}))
            return
        form = {key: value for key, [value] in parse_qs(body).items()}
        self.asked.append(form)
        action = form["Action"]
        if form["ClusterIdentifier"] == "none":
            self._answer(
                404, "<ErrorResponse><Error><Code>ClusterNotFound</Code></Error></ErrorResponse>"
            )
            return
        prefix = "IAMR:lake" if action.endswith("WithIAM") else f"IAM:{form['DbUser']}"
        self._answer(
            200,
            f"<{action}Response><{action}Result><DbUser>{prefix}</DbUser>"
            f"<DbPassword>pw-cluster</DbPassword></{action}Result></{action}Response>",
        )

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def redshift(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """What was asked of a Redshift that gives a user and a password to whoever asks."""
    asked: list[dict[str, str]] = []
    handler = type("Redshift", (_Redshift,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def redshift_login(host: str, **given: str) -> Login:
    spec = ConnectionSpec.model_validate({"host": host, "database": "dwh", "auth": "iam", **given})
    connection = resolve_connection(spec, engine="redshift")
    login = connection.login_now()
    assert connection.login_now() == login
    return login


def test_redshift_gives_a_user_of_its_own_with_each_password(
    redshift: list[dict[str, str]],
) -> None:
    cluster = "c1.abc.eu-west-1.redshift.amazonaws.com"
    group = "group.123456789012.eu-west-1.redshift-serverless.amazonaws.com"
    assert redshift_login(cluster, user="reader") == Login("IAM:reader", "pw-cluster")
    assert redshift_login(cluster) == Login("IAMR:lake", "pw-cluster")
    assert redshift_login(group) == Login("IAMR:lake", "pw-serverless")
    named, own, serverless = redshift  # asked once each
    assert named["Action"] == "GetClusterCredentials"
    assert (named["ClusterIdentifier"], named["DbUser"], named["AutoCreate"]) == (
        "c1", "reader", "false",
    )  # fmt: skip
    assert (own["Action"], own["DbName"]) == ("GetClusterCredentialsWithIAM", "dwh")
    assert serverless["workgroupName"] == "group"
    with pytest.raises(ConfigError, match="no Redshift cluster 'none' in eu-west-1"):
        redshift_login("none.abc.eu-west-1.redshift.amazonaws.com")
