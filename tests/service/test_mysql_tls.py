"""TLS to MySQL, in each of connection.sslmode's words; logins without a password's trace."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from extract_jobs.errors import ConfigError
from extract_jobs.sources.mysql.session import execute, session
from tests.support.mysql_servers import SERVERS, MysqlServer, run_server
from tests.support.mysql_source import source

Server = MysqlServer


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@pytest.fixture(scope="module", params=SERVERS)
def encrypted(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Server, Path]]:
    certificate, key = make_certificate(tmp_path_factory.mktemp("tls"))
    with run_server(SERVERS[request.param], ssl_cert=str(certificate), ssl_key=str(key)) as server:
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
