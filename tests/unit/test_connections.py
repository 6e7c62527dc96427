from __future__ import annotations

import json
import pickle
import traceback
from pathlib import Path
from urllib.parse import quote

import boto3
import pytest
from botocore.stub import Stubber
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from extract_jobs.cli.plan import _read_from_facts
from extract_jobs.connections import (
    DatabaseConnection,
    certificates,
    is_local,
    resolve_connection,
    secret_text,
    tokens,
)
from extract_jobs.connections.tokens import IamLogin, Login
from extract_jobs.errors import ConfigError, SourceUnavailable
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.source import ConnectionSpec, holds_password
from tests.support.certificates import make_certificate
from tests.support.specs import make_spec

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


def parameters_client(text: str):
    client = boto3.client("ssm", endpoint_url="http://127.0.0.1:9")
    stubber = Stubber(client)
    stubber.add_response(
        "get_parameter",
        {"Parameter": {"Value": text}},
        {"Name": "/lake/sales", "WithDecryption": True},
    )
    stubber.activate()
    return client


def resolve(
    environment: dict[str, str] | None = None,
    secrets: object = None,
    *,
    engine: str = "postgres",
    parameters: object = None,
    **spec: object,
):
    return resolve_connection(
        ConnectionSpec.model_validate(spec),
        engine=engine,
        environment=environment or {},
        secrets=secrets,
        parameters=parameters,
    )


def everything_said(error: BaseException | None) -> str:
    said = []
    while error is not None:
        said += [str(error), repr(error), "".join(traceback.format_exception(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(said)


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


def test_an_ssm_parameter_holds_a_secret_or_a_url():
    url = f"postgresql://reader:{SECRET[:4]}@db.example.com:5433/sales"
    for text, password in ((json.dumps(RDS), SECRET), (url, SECRET[:4])):
        found = resolve(ssm_parameter="/lake/sales", parameters=parameters_client(text))
        assert (found.host, found.port, found.password) == ("db.example.com", 5433, password)
    with pytest.raises(ConfigError, match="SSM parameter '/lake/sales' is not a URL"):
        resolve(ssm_parameter="/lake/sales", parameters=parameters_client("nothing"))


@pytest.mark.parametrize(
    ("engine", "url", "port"),
    [
        ("mysql", "mysql://u:pw@h/d", 3306),
        ("mysql", "mariadb://u:pw@h/d", 3306),
        ("sqlserver", "sqlserver://u:pw@h/d", 1433),
        ("oracle", "oracle://u:pw@h/d", 1521),
        ("redshift", "redshift://u:pw@h/d", 5439),
        ("redshift", "postgresql://u:pw@h/d", 5439),
    ],
)
def test_every_engine_has_its_urls_and_port(engine, url, port):
    found = resolve({"URL": url}, url_env="URL", engine=engine)
    assert (found.host, found.port, found.database) == ("h", port, "d")
    assert (found.user, found.password, found.engine) == ("u", "pw", engine)
    assert found.url is None


def test_a_jdbc_url_stays_whole_and_its_login_comes_from_elsewhere():
    url = "jdbc:sqlserver://h:1433;databaseName=sales;encrypt=true"
    found = resolve(
        url=url, secret_id="lake/sales", engine="jdbc", secrets=secrets_client(json.dumps(RDS)),
        properties={"loginTimeout": "5"},
    )  # fmt: skip
    assert (found.url, found.user, found.password) == (url, "reader", SECRET)
    assert (found.host, found.port, found.database) == ("", 0, "")
    assert found.properties == {"loginTimeout": "5"}
    assert found.place == "jdbc:sqlserver://h:1433, user 'reader'"
    assert resolve(url="jdbc:h2:mem:x", engine="jdbc").user == ""


def test_a_jdbc_url_and_a_host_are_one_place_too_many():
    with pytest.raises(ConfigError, match="as well: keep only one of them"):
        resolve(url="jdbc:oracle:thin:@//h/d", host="other", engine="oracle")


def test_jdbc_urls_are_not_for_sources_that_read_without_jdbc():
    with pytest.raises(ConfigError, match="MySQL is not read through JDBC"):
        resolve(url="jdbc:mysql://h/d", engine="mysql")


PASSWORDS_IN_URLS = [
    "postgresql://u:pw@h/d",
    "postgresql://u:p/w@x@h/d",
    "jdbc:postgresql://h/d?user=u&password=pw",
    "jdbc:postgresql://u:pw@h/d",
    "jdbc:sqlserver://h;user=u;Password=pw",
    "jdbc:sqlserver://h; pwd = pw",
    "jdbc:oracle:thin:scott/tiger@//h:1521/d",
    "jdbc:oracle:thin:scott/tiger@h:1521:d",
    "jdbc:mysql://address=(host=h)(password=pw)/d",
    "jdbc:mysql://u:pw@h/d",
    "jdbc:sqlserver://h;trustStorePassword=pw",
    "jdbc:sqlserver://h;accessToken=pw",
    "jdbc:postgresql://h/d?sslpassword=pw",
    "jdbc:redshift:iam://h/d?AccessKeyID=id&SecretAccessKey=pw",
]


@pytest.mark.parametrize("url", PASSWORDS_IN_URLS)
def test_a_url_with_a_password_is_refused_and_not_shown(url):
    with pytest.raises(ValidationError, match="url holds a password"):
        ConnectionSpec(url=url)
    if url.startswith("jdbc:"):
        with pytest.raises(ConfigError, match="URL is a jdbc: URL with a password") as caught:
            resolve({"URL": url}, url_env="URL", engine="jdbc")
        assert url not in everything_said(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@h/d",
        "jdbc:postgresql://h:5432/d?sslmode=require&passfile=/x",
        "jdbc:sqlserver://h:1433;user=me@corp;databaseName=d",
        "jdbc:oracle:thin:@//h:1521/d",
        "jdbc:oracle:thin:/@alias",
        "jdbc:h2:tcp://h:9092/~/d;MODE=Oracle",
        "jdbc:derby:/tmp/d;create=true",
        "jdbc:hsqldb:hsql://h:9001/d",
    ],
)
def test_a_url_without_a_password_passes(url):
    assert not holds_password(url)


@pytest.mark.parametrize(
    "name", ["password", "trustStorePassword", "accessToken", "keyStoreSecret"]
)
def test_properties_hold_no_credential(name):
    with pytest.raises(ValidationError, match=f"properties holds {name}") as caught:
        ConnectionSpec.model_validate({"url": "jdbc:x:y", "properties": {name: SECRET}})
    assert SECRET not in str(caught.value).partition("[type")[0]


@pytest.mark.parametrize(
    ("source_type", "connection", "says"),
    [
        ("postgres", {"host": "h", "path": "x"}, "type postgres takes no path"),
        ("postgres", {"host": "h", "jars": ["x"]}, "takes no jars"),
        ("mysql", {"host": "h", "driver": "x"}, "takes no driver"),
        ("sqlserver", {"host": "h", "auth": "iam"}, "takes no auth"),
        ("sqlite", {"host": "h", "path": "x"}, "takes no host; it takes .*path"),
        ("sqlite", {"uri": "x"}, "takes no uri"),
        ("files", {"uri": "x", "user": "u"}, "takes no user"),
        ("files", {"uri": "x", "password_env": "P"}, "takes no password_env"),
        ("jdbc", {"host": "h"}, "takes no host"),
    ],
)
def test_fields_that_a_type_of_source_does_not_take_are_refused(source_type, connection, says):
    with pytest.raises(ValidationError, match=says):
        make_spec(source_type=source_type, connection=connection)


def test_a_spec_read_back_from_its_json_takes_the_same_fields():
    spec = make_spec(source_type="sqlite", connection={"path": "/x.db"})
    assert ExtractSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("connection", "says"),
    [
        ({"host": "h", "auth": "iam", "password_env": "P"}, "instead of a password"),
        ({"host": "h", "auth": "iam", "sslmode": "disable"}, "needs TLS"),
        ({"host": "h", "region": "eu-west-1"}, "needs auth iam"),
        ({"host": "h", "secret_id": "a", "ssm_parameter": "b"}, "only one of"),
    ],
)
def test_fields_that_contradict_each_other(connection, says):
    with pytest.raises(ValidationError, match=says):
        ConnectionSpec.model_validate(connection)


RDS_HOST = "sales.abc123.eu-west-1.rds.amazonaws.com"


@pytest.mark.parametrize(("engine", "port"), [("postgres", 5432), ("mysql", 3306)])
def test_an_iam_token_of_rds_is_signed_for_endpoint_user_and_region(engine, port):
    found = resolve({}, None, engine=engine, host=RDS_HOST, database="d", user="reader", auth="iam")
    assert found.password is None
    token = found.password_now()
    assert token is not None
    assert token.startswith(f"{RDS_HOST}:{port}/?Action=connect&DBUser=reader&")
    assert "eu-west-1%2Frds-db" in token
    assert "X-Amz-Expires=900" in token
    assert found.login_now() == Login("reader", token)
    assert token not in f"{found!r} {found} {found.login_now()!r} {found.iam!r}"
    assert pickle.loads(pickle.dumps(found)).password_now() == token


def test_a_token_is_used_for_minutes_then_replaced(monkeypatch):
    made: list[Login] = []
    now = [1000.0]
    iam = IamLogin("rds", "eu-west-1", "renewed", 1, "u", "d")

    def make(_: IamLogin) -> Login:
        made.append(Login("u", f"token {len(made)}"))
        return made[-1]

    monkeypatch.setattr(tokens, "_rds", make)
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now[0])
    assert tokens.login_now(iam).password == "token 0"
    now[0] += tokens.TOKEN_SECONDS
    assert tokens.login_now(iam).password == "token 0"
    now[0] += 1
    assert tokens.login_now(iam).password == "token 1"


def test_the_region_of_a_token_may_be_the_environment_s(monkeypatch):
    asked = {"engine": "postgres", "host": "db.corp", "database": "d", "user": "u", "auth": "iam"}
    assert resolve(**asked, region="eu-south-1").iam.region == "eu-south-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-2")
    assert resolve(**asked).iam.region == "us-east-2"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ConfigError, match=r"set connection\.region or AWS_REGION"):
        resolve(**asked)


def test_redshift_s_cluster_or_workgroup_is_in_its_endpoint():
    given = {"database": "d", "auth": "iam"}
    cluster = resolve(engine="redshift", host="c1.abc.eu-west-1.redshift.amazonaws.com", **given)
    assert cluster.iam == IamLogin(
        "redshift", "eu-west-1", "c1.abc.eu-west-1.redshift.amazonaws.com", 5439, "", "d", "c1"
    )
    group = resolve(
        engine="redshift", host="wg.123.us-east-1.redshift-serverless.amazonaws.com", **given
    )
    assert (group.iam.service, group.iam.name) == ("redshift-serverless", "wg")
    with pytest.raises(ConfigError, match="names no Redshift cluster or workgroup"):
        resolve(engine="redshift", host="dwh.corp", region="eu-west-1", **given)


def test_the_bundle_of_rds_is_found_in_the_process_that_connects(tmp_path, monkeypatch):
    given = {"host": "h", "database": "d", "user": "u", "sslrootcert": "rds"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(certificates, "BUNDLE_PLACES", certificates.BUNDLE_PLACES[:1])
    with pytest.raises(ConfigError, match=r"curl -fsSO https://truststore\.pki\.rds"):
        resolve(**given)
    bundle = tmp_path / "global-bundle.pem"
    bundle.write_text("")
    found = resolve(**given)
    assert found.parameters()["sslrootcert"] == str(bundle)
    elsewhere = tmp_path / "elsewhere.pem"
    bundle.rename(elsewhere)
    monkeypatch.setenv("EXTRACT_RDS_BUNDLE", str(elsewhere))
    assert pickle.loads(pickle.dumps(found)).sslrootcert == str(elsewhere)
    monkeypatch.setenv("EXTRACT_RDS_BUNDLE", str(bundle))
    with pytest.raises(ConfigError, match=r"looked for: .*global-bundle"):
        resolve(**given)


def test_a_secret_text_from_each_of_its_places():
    key = "columns.mask_key"
    assert secret_text(env="K", environment={"K": "k1"}, key=key) == "k1"
    assert secret_text(secret_id="lake/sales", secrets=secrets_client("k2"), key=key) == "k2"
    found = secret_text(ssm_parameter="/lake/sales", parameters=parameters_client("k3"), key=key)
    assert found == "k3"
    with pytest.raises(ConfigError, match=r"columns\.mask_key names the environment variable K"):
        secret_text(env="K", environment={}, key=key)
    with pytest.raises(ConfigError, match=r"check columns\.mask_key and AWS_REGION"):
        secret_text(
            secret_id="lake/sales",
            secrets=secrets_client(error="ResourceNotFoundException"),
            key=key,
        )


class Holds:
    """Secrets Manager and SSM with one text, without botocore's cost."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get_secret_value(self, **_: str) -> dict[str, str]:
        return {"SecretString": self.text}

    def get_parameter(self, **_: object) -> dict[str, dict[str, str]]:
        return {"Parameter": {"Value": self.text}}


# A marker at both ends, so that no other text holds it by chance.
passwords = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12).map(
    lambda middle: f"s3cr{middle}t0p"
)


@given(
    password=passwords,
    place=st.sampled_from(["url", "url raw", "jdbc", "secret", "parameter", "variable"]),
    engine=st.sampled_from(["postgres", "mysql", "sqlserver", "oracle", "redshift", "jdbc"]),
    cut=st.integers(0, 40) | st.just(10**6),
)
def test_no_password_in_any_text_or_error(password, place, engine, cut):
    text = {
        "url": f"mysql://u:{quote(password, safe='')}@h/d",
        "url raw": f"postgresql://u:{password}@h:5/d",
        "jdbc": f"jdbc:sqlserver://h;user=u;password={password}",
        "secret": json.dumps({**RDS, "password": password, "engine": engine}),
        "parameter": json.dumps({**RDS, "password": password, "engine": engine}),
        "variable": password,
    }[place][:cut]
    given_by: dict[str, object] = {
        "secret": {"secret_id": "lake/sales", "secrets": Holds(text)},
        "parameter": {"ssm_parameter": "/lake/sales", "parameters": Holds(text)},
        "variable": {"password_env": "V", "host": "h", "database": "d", "user": "u"},
    }.get(place, {"url_env": "V"})
    try:
        found = resolve({"V": text}, engine=engine, **given_by)
    except ConfigError as error:
        said = everything_said(error)
    else:
        said = f"{found!r} {found!s} {found.place} {found.url} {found.parameters()}"
        assert pickle.loads(pickle.dumps(found)) == found
    for secret in (password, repr(password)[1:-1], quote(password), json.dumps(password)[1:-1]):
        assert secret not in said
    assert "s3cr" not in said


def pem(folder, name="tests"):
    """Return the files of a new certificate and its key."""
    folder.mkdir()
    certificate, key = make_certificate(folder, name)
    return {"sslcert": str(certificate), "sslkey": str(key)}


def with_certificate(engine="postgres", **given):
    spec = ConnectionSpec(host="127.0.0.1", database="d", user="u", **given)
    return resolve_connection(spec, engine=engine)


def test_a_client_certificate_is_read_once_and_handed_on_without_a_file(tmp_path):
    given = pem(tmp_path / "a")
    found = pickle.loads(pickle.dumps(with_certificate(**given)))
    for file in given.values():
        Path(file).unlink()
    parameters = found.parameters()
    assert "BEGIN CERTIFICATE" in Path(parameters["sslcert"]).read_text()
    key = Path(parameters["sslkey"])
    assert "PRIVATE KEY" in key.read_text()
    assert key.stat().st_mode & 0o077 == 0
    assert "BEGIN" not in repr(found)


def test_what_is_wrong_with_a_client_certificate_is_said_before_anything_connects(tmp_path):
    one, other = pem(tmp_path / "a"), pem(tmp_path / "b")
    locked = tmp_path / "locked.pem"
    key = serialization.load_pem_private_key(Path(one["sslkey"]).read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )
    for wrong, reason in (
        ({"sslcert": one["sslcert"]}, "add sslkey"),
        ({"sslkey": one["sslkey"]}, "add sslcert"),
        (one | {"sslkey": other["sslkey"]}, "do not belong together"),
        (one | {"sslkey": str(locked)}, "passphrase"),
        (one | {"sslkey": str(tmp_path / "none")}, "cannot be read"),
        (one | {"sslmode": "disable"}, "needs TLS"),
    ):
        with pytest.raises(ConfigError, match=reason):
            with_certificate(**wrong)


def test_a_key_itself_is_never_in_a_config(tmp_path):
    text = Path(pem(tmp_path / "a")["sslkey"]).read_text()
    with pytest.raises(ValidationError, match="must be a file's name"):
        with_certificate(sslkey=text)


def test_a_secrets_certificate_makes_up_for_its_password(tmp_path):
    files = pem(tmp_path / "a")
    own = {name: Path(file).read_text() for name, file in files.items()}
    passwordless = {key: value for key, value in RDS.items() if key != "password"}
    spec = ConnectionSpec(secret_id="lake/sales")

    def resolved(secret, engine="postgres"):
        client = secrets_client(json.dumps(secret))
        return resolve_connection(spec, secrets=client, engine=engine)

    found = resolved(passwordless | own)
    assert (found.password, found.certificate.key) == (None, own["sslkey"])
    with pytest.raises(ConfigError, match="must be PEM text"):
        resolved(passwordless | files)
    with pytest.raises(ConfigError, match="lacks password"):
        resolved(passwordless)
    with pytest.raises(ConfigError, match="takes no sslcert"):
        resolved(RDS | own | {"engine": "sqlserver"}, "sqlserver")


@pytest.mark.parametrize(
    ("host", "sslmode", "said"),
    [
        ("db.example", "disable", "without encryption"),
        ("db.example", "prefer", "if the server has none"),
        ("db.example", "require", "encrypted, but the server is not verified"),
        ("db.example", "verify-ca", "its name is not"),
        ("db.example", "verify-full", None),
        ("127.0.0.1", "prefer", None),
        ("/run/postgresql", "disable", None),
    ],
)
def test_it_says_what_about_the_server_is_not_verified(
    host: str, sslmode: str, said: str | None
) -> None:
    trust = DatabaseConnection(host, 5432, "d", "u", sslmode=sslmode).trust
    assert (said is None) == (trust == {})
    assert (said or "") in trust.get("unverified", "")
    facts = dict(_read_from_facts(trust))
    assert ("verify-full" in facts.get("trust", "")) == (said is not None)
