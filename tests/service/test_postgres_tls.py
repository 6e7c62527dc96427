"""Client certificates of PostgreSQL, from files and from secrets."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from extract_jobs.errors import ConfigError
from extract_jobs.sources.postgres.duckdb_reader import ReadSession
from extract_jobs.sources.postgres.source import PostgresSource
from tests.support.certificates import make_certificate
from tests.support.ports import free_port
from tests.support.postgres import PASSWORD, Server, make_cluster
from tests.support.postgres_source import ids, snapshot_of, source
from tests.support.specs import make_spec


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server that admits the user ``certain`` by certificate alone (Debian's build has TLS)."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "certain"):
        (folder / name).mkdir()
        make_certificate(folder / name, name)
    with make_cluster(15) as cluster:
        for name in ("server/cert.pem", "server/key.pem", "certain/cert.pem"):
            copied = cluster.directory / name.replace("/", "-")
            shutil.copy(folder / name, copied)
            copied.chmod(0o600)
            if cluster.identity:
                os.chown(copied, cluster.identity["user"], cluster.identity["group"])
        (cluster.data / "pg_hba.conf").write_text(
            "hostssl all certain 127.0.0.1/32 cert\n"
            "host all by_gss 127.0.0.1/32 gss\n"
            "host all by_pam 127.0.0.1/32 pam pamservice=there-is-none\n"
            f"host all by_ldap 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapport={free_port()} "
            'ldapprefix="uid=" ldapsuffix=",dc=example"\n'
            "host all by_password 127.0.0.1/32 password\n"
            "host all all 127.0.0.1/32 scram-sha-256\n"
        )
        settings = {
            "ssl": "on",
            "ssl_cert_file": str(cluster.directory / "server-cert.pem"),
            "ssl_key_file": str(cluster.directory / "server-key.pem"),
            "ssl_ca_file": str(cluster.directory / "certain-cert.pem"),
        }
        with cluster.serving(**settings) as server:
            server.execute(
                "create role certain login", "create table t (id int primary key)",
                "insert into t select generate_series(1, 3)", "grant select on t to public",
                *(f"create role by_{method} login password 'secret'"
                  for method in ("gss", "pam", "ldap", "password")),
            )  # fmt: skip
            yield replace(server, user="certain", password=""), folder


def files(folder: Path) -> dict[str, str]:
    return {"sslcert": str(folder / "cert.pem"), "sslkey": str(folder / "key.pem")}


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-full"])
def test_a_certificate_makes_up_for_a_password(
    certified: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Through psycopg, which plans, and DuckDB, which reads, in workers that have no such files."""
    server, folder = certified
    own = files(folder / "certain")
    trusted = str(folder / "server" / "cert.pem")
    connection = {"password_env": None, "sslmode": mode, "sslrootcert": trusted, **own}
    found = source(server, monkeypatch, extract_table="public.t", connection=connection)
    pickled = pickle.dumps(found.connection)
    assert pickle.loads(pickled).certificate == found.connection.certificate
    assert "PRIVATE" not in repr(found.connection)
    with snapshot_of(found) as snapshot:
        rows = [i for split in snapshot.splits(found.spec) for i in ids(snapshot, split)]
    assert sorted(rows) == [1, 2, 3]


def test_a_secret_holds_certificate_and_key(
    certified: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, folder = certified
    own = {name: Path(file).read_text() for name, file in files(folder / "certain").items()}
    secret = {
        "username": "certain", "host": server.host, "port": server.port,
        "dbname": server.database, **own,
    }  # fmt: skip
    monkeypatch.setattr(
        "extract_jobs.connections.resolve.secret_text", lambda **_: json.dumps(secret)
    )
    spec = make_spec(
        extract_table="public.t",
        connection={"host": None, "database": None, "user": None, "secret_id": "s"},
    )
    assert [c.name for c in PostgresSource.open(spec).describe().columns] == ["id"]


def test_without_the_right_certificate_the_message_names_the_keys(
    certified: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, folder = certified
    for given in ({}, files(folder / "server")):  # none, and one that the server does not know
        found = source(
            server,
            monkeypatch,
            extract_table="public.t",
            connection={"password_env": None, "sslmode": "require", **given},
        )
        with pytest.raises(ConfigError, match=r"connection\.sslcert"):
            found.describe()


NO_CLEAR_TEXT = "asks for the password in clear text; set connection.sslmode to require"
NO_KERBEROS = r"asks for Kerberos \(GSSAPI\), which is not supported; .* by password"


@pytest.mark.parametrize(
    ("method", "sslmode", "message"),
    [
        ("gss", "require", NO_KERBEROS),
        ("gss", "disable", NO_KERBEROS),
        ("ldap", "require", "the server's LDAP refused user or password, or did not answer"),
        ("ldap", "prefer", NO_CLEAR_TEXT),
        ("pam", "require", "the server's PAM refused user or password, or did not answer"),
        ("pam", "disable", NO_CLEAR_TEXT),
        ("password", "disable", NO_CLEAR_TEXT),
    ],
)
def test_other_logins_fail_with_their_reason(
    certified: tuple[Server, Path],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    sslmode: str,
    message: str,
) -> None:
    """Here no LDAP server answers, and PAM has no such service."""
    server = replace(certified[0], user=f"by_{method}", password="secret")
    found = source(server, monkeypatch, extract_table="public.t", connection={"sslmode": sslmode})
    with pytest.raises(ConfigError, match=message):
        found.describe()
    session = ReadSession(
        found.connection, server_version=150000, snapshot_id=None, what="reading t"
    )
    reading = session.stream("select 1", rows_per_batch=2048)
    with pytest.raises(ConfigError, match=message):
        next(reading)


def test_a_password_in_clear_text_is_sent_over_tls(
    certified: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server asks for where LDAP, PAM or RADIUS check the password."""
    server = replace(certified[0], user="by_password", password="secret")
    found = source(server, monkeypatch, extract_table="public.t", connection={"sslmode": "require"})
    with snapshot_of(found) as snapshot:
        rows = [i for split in snapshot.splits(found.spec) for i in ids(snapshot, split)]
    assert sorted(rows) == [1, 2, 3]


@pytest.mark.parametrize("sslmode", ["require", "disable"])
def test_the_environment_may_ask_for_channel_binding(
    certified: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch, sslmode: str
) -> None:
    """Libpq reads its variables in psycopg and in DuckDB; no key of a config is needed for it."""
    server = replace(certified[0], user="postgres", password=PASSWORD)
    monkeypatch.setenv("PGCHANNELBINDING", "require")
    found = source(server, monkeypatch, extract_table="public.t", connection={"sslmode": sslmode})
    if sslmode == "disable":
        with pytest.raises(ConfigError, match=r"channel binding is required .*TLS and a SCRAM"):
            found.describe()
        return
    with snapshot_of(found) as snapshot:
        rows = [i for split in snapshot.splits(found.spec) for i in ids(snapshot, split)]
    assert sorted(rows) == [1, 2, 3]


def test_what_libpq_has_and_we_do_not_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("channel_binding=require", "sslnegotiation=direct", "gssencmode=require"):
        url = f"postgresql://reader@db/sales?{name}"
        spec = make_spec(connection={"host": None, "database": None, "user": None, "url": url})
        with pytest.raises(ConfigError, match=f"unknown parameters: {name.partition('=')[0]}"):
            PostgresSource.open(spec)
