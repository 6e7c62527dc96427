"""TLS to MySQL, in each of connection.sslmode's words; logins without a password's trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from extract_jobs.errors import ConfigError
from extract_jobs.sources.mysql.session import execute, session
from tests.support.certificates import make_certificate
from tests.support.mysql_servers import SERVERS, MysqlServer, database_of, run_server
from tests.support.mysql_source import ids, snapshot_of, source

Server = MysqlServer


@pytest.fixture(scope="module", params=SERVERS)
def encrypted(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Server, Path]]:
    certificate, key = make_certificate(tmp_path_factory.mktemp("tls"))
    settings = {"ssl_cert": str(certificate), "ssl_key": str(key), "ssl_ca": str(certificate)}
    with run_server(SERVERS[request.param], **settings) as server:
        yield server, certificate


@pytest.mark.parametrize(("mode", "trusts", "works", "is_encrypted"), [
    ("disable", None, True, False),
    ("prefer", None, True, True),
    ("require", None, True, True),
    ("verify-ca", "file", True, True),
    ("verify-full", "file", True, True),
    ("verify-ca", None, False, False),
    ("verify-full", "system", False, False),
])  # fmt: skip
def test_tls_as_configured(
    encrypted: tuple[Server, Path],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    trusts: str | None,
    works: bool,
    is_encrypted: bool,
) -> None:
    server, certificate = encrypted
    connection = {"sslmode": mode}
    if trusts:
        connection["sslrootcert"] = str(certificate) if trusts == "file" else trusts
    found = source(server, monkeypatch, extract_table="t", connection=connection)
    if not works:
        with pytest.raises(ConfigError, match="certificate") as error:
            found.describe()
        assert server.password not in str(error.value)
        return
    with session(found.connection, "looking") as opened:
        cipher = execute(opened, "show session status like 'Ssl_cipher'")[0][1]
    assert bool(cipher) == is_encrypted


def test_a_certificate_for_another_host_is_refused(
    encrypted: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, certificate = encrypted
    connection = {"host": "localhost", "sslrootcert": str(certificate)}
    for mode, works in (("verify-ca", True), ("verify-full", False)):
        given = connection | {"sslmode": mode}
        found = source(server, monkeypatch, extract_table="t", connection=given)
        with pytest.raises(ConfigError, match="no table" if works else "another host"):
            found.describe()


def test_a_client_certificate_is_shown(
    encrypted: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, certificate = encrypted
    server.execute(
        "create user certain identified by 'p' require x509", "grant select on *.* to certain",
        "create table shown (id int primary key)", "insert into shown values (1)",
    )  # fmt: skip
    files = {"sslcert": str(certificate), "sslkey": str(certificate.with_name("key.pem"))}
    monkeypatch.setenv("CERTAIN", "p")
    user = {"user": "certain", "password_env": "CERTAIN"}
    for mode in ("prefer", "require", "verify-full"):
        given = user | {"sslmode": mode, "sslrootcert": str(certificate)}
        found = source(server, monkeypatch, extract_table="shown", connection=given | files)
        with session(found.connection, "looking") as opened:
            assert execute(opened, "select id from shown") == [(1,)]
        found = source(server, monkeypatch, extract_table="shown", connection=given)
        with pytest.raises(ConfigError, match="client certificate of that user"):
            found.describe()


@pytest.mark.parametrize("mode", ["disable", "require"])
def test_sessions_of_one_moment_are_lent_with_tls_and_without(
    encrypted: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """With TLS the driver passes on what the server sends; the keys stay with it."""
    rows = 4000
    with database_of(encrypted[0]) as server:
        server.execute("create table t (id int primary key, note varchar(200))")
        server.insert("t", [(i, "n" * 200) for i in range(rows)])
        server.execute("analyze table t")
        found = source(
            server, monkeypatch, extract_table="t", connection={"sslmode": mode},
            split={"target_bytes": 49152},
        )  # fmt: skip
        with snapshot_of(found) as snapshot:
            splits = snapshot.splits(found.spec)
            assert snapshot.take(len(splits), 3) == {"one_snapshot": True}
            assert len(splits) > 8
            server.execute("delete from t")
            with snapshot.reader.transaction("looking") as lent:
                [[_, cipher]] = execute(lent, "show session status like 'Ssl_cipher'")
            assert bool(cipher) == (mode == "require")
            for _ in range(3):
                read = [value for split in splits for value in ids(snapshot, split)]
                assert sorted(read) == list(range(rows))
