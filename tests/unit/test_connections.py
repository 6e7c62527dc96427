from __future__ import annotations

import json
import pickle
import traceback

import boto3
import pytest
from botocore.stub import Stubber

from extract_jobs.connections import DatabaseConnection, is_local, resolve_connection
from extract_jobs.errors import ConfigError, SourceUnavailable
from extract_jobs.spec_source import ConnectionSpec

SECRET = "s3cr et'%\\\"@:/é"
RDS = {
    "engine": "postgres",
    "host": "db.example.com",
    "port": 5433,
    "username": "reader",
    "password": SECRET,
    "dbname": "sales",
}


def secrets_client(text: str | None = None, error: str | None = None, binary: bool = False):
    client = boto3.client("secretsmanager", endpoint_url="http://127.0.0.1:9")
    stubber = Stubber(client)
    if error:
        stubber.add_client_error("get_secret_value", error)
    else:
        value = {"SecretBinary": b"x"} if binary else {"SecretString": text}
        stubber.add_response("get_secret_value", value, {"SecretId": "lake/sales"})
    stubber.activate()
    return client


def resolve(environment: dict[str, str] | None = None, secrets: object = None, **spec: object):
    return resolve_connection(
        ConnectionSpec.model_validate(spec), environment=environment or {}, secrets=secrets
    )


def test_the_password_is_in_no_text_of_a_connection_and_survives_pickling():
    connection = DatabaseConnection("h", 1, "d", "u", SECRET)
    for text in (repr(connection), str(connection), connection.place, f"{connection}"):
        assert SECRET not in text
        assert repr(SECRET)[1:-1] not in text
    assert SECRET not in "".join(connection.parameters().values())
    assert pickle.loads(pickle.dumps(connection)) == connection


def test_a_secret_with_the_keys_that_rds_writes():
    found = resolve(secret_id="lake/sales", secrets=secrets_client(json.dumps(RDS)))
    assert found == DatabaseConnection(
        "db.example.com", 5433, "sales", "reader", SECRET, sslmode="require"
    )


def test_single_fields_override_the_secret():
    master_user = json.dumps({"username": "reader", "password": SECRET})
    found = resolve(
        secret_id="lake/sales",
        host="replica",
        database="other",
        secrets=secrets_client(master_user),
    )
    assert (found.host, found.port, found.database, found.user) == (
        "replica", 5432, "other", "reader",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not json " + SECRET, "is not a JSON object"),
        (json.dumps([SECRET]), "is not a JSON object"),
        (json.dumps({"host": "h", "username": "u"}), "lacks password"),
        (json.dumps({}), "lacks username and password"),
        (json.dumps(RDS | {"engine": "mysql"}), "engine 'mysql'"),
        (json.dumps(RDS | {"port": SECRET}), "port must be a number"),
        (json.dumps(RDS | {"password": [SECRET]}), "password must be text"),
        (json.dumps({"username": "u", "password": SECRET}), "connection.host"),
    ],
)
def test_a_malformed_secret_is_named_and_not_shown(text, says):
    with pytest.raises(ConfigError, match="lake/sales") as caught:
        resolve(secret_id="lake/sales", secrets=secrets_client(text))
    assert says in str(caught.value)
    assert "s3cr" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("ResourceNotFoundException", ConfigError, "there is no secret 'lake/sales'"),
        ("AccessDeniedException", ConfigError, "secretsmanager:GetSecretValue"),
        ("InvalidRequestException", ConfigError, "scheduled for deletion"),
        ("ThrottlingException", SourceUnavailable, "ThrottlingException"),
    ],
)
def test_what_secrets_manager_refuses(code, kind, says):
    with pytest.raises(kind) as caught:
        resolve(secret_id="lake/sales", secrets=secrets_client(error=code))
    assert says in str(caught.value)


def test_a_binary_secret_is_refused():
    with pytest.raises(ConfigError, match="is binary"):
        resolve(secret_id="lake/sales", secrets=secrets_client(binary=True))


def test_secrets_manager_out_of_reach_is_retryable(monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SourceUnavailable, match="cannot be reached"):
        resolve(secret_id="lake/sales")  # AWS_ENDPOINT_URL of the test session leads nowhere


def test_url_and_password_of_the_environment():
    found = resolve(
        {"PW": SECRET}, url="postgresql://reader@db.example.com:6000/sales", password_env="PW"
    )
    assert found == DatabaseConnection("db.example.com", 6000, "sales", "reader", SECRET)


def test_a_url_of_the_environment_is_percent_decoded():
    url = "postgres://r%40d:s3cr%20et%27%25%5C%22%40%3A%2F%C3%A9@db.example.com/sa%2Fles"
    found = resolve({"URL": f"{url}?sslmode=verify-full&sslrootcert=system"}, url_env="URL")
    assert (found.user, found.password, found.database) == ("r@d", SECRET, "sa/les")
    assert (found.sslmode, found.sslrootcert) == ("verify-full", "system")


@pytest.mark.parametrize("environment", [{}, {"PW": ""}])
def test_a_missing_variable_is_named(environment):
    with pytest.raises(ConfigError, match=r"password_env names the environment variable PW"):
        resolve(environment, host="h", database="d", user="u", password_env="PW")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:s3cr@h/d",
        "s3cr",
        "postgresql://u:s3cr@h:port/d",
        "postgresql://u:s3cr@[::1/d",
        "postgresql://u:s3cr@h:99999/d",
        "postgresql://u:s3cr@h1:1,h2:2/d",
        "postgresql://u:s3cr@h/d?unknown=s3cr",
        "postgresql://u:s3cr@h/d?sslmode=s3cr",
        "postgresql://u:s3cr@h/d?port=s3cr",
        "postgresql://u:s3cr@h",
        "postgresql://:s3cr@h/d",
        "postgresql://u:s3cr@/d",
    ],
)
def test_a_malformed_url_names_its_variable_and_is_not_shown(url):
    with pytest.raises(ConfigError, match="URL_VARIABLE") as caught:
        resolve({"URL_VARIABLE": url}, url_env="URL_VARIABLE")
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cr" not in f"{error!s} {error!r}"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("host", "sslmode"),
    [
        ("localhost", "prefer"),
        ("127.0.0.1", "prefer"),
        ("127.8.9.1", "prefer"),
        ("::1", "prefer"),
        ("/var/run/postgresql", "prefer"),
        ("db.example.com", "require"),
        ("10.0.0.1", "require"),
        ("localhost.example.com", "require"),
    ],
)
def test_tls_is_required_unless_the_host_is_this_machine(host, sslmode):
    found = resolve(host=host, database="d", user="u")
    assert found.sslmode == sslmode
    assert is_local(host) == (sslmode == "prefer")


def test_tls_of_the_spec_wins():
    assert resolve(host="h", database="d", user="u", sslmode="disable").sslmode == "disable"


def test_a_missing_certificate_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no file .*missing\.pem"):
        resolve(host="h", database="d", user="u", sslrootcert=str(tmp_path / "missing.pem"))


def test_ipv6_and_sockets_in_urls():
    assert resolve(url="postgresql://u@[::1]:5/d").host == "::1"
    assert resolve(url="postgresql://u@/d?host=/run/pg").host == "/run/pg"


def test_pinning_to_an_address():
    connection = DatabaseConnection("h", 1, "d", "u")
    assert connection.at("10.0.0.1").parameters()["hostaddr"] == "10.0.0.1"
    assert connection.at("") is connection
