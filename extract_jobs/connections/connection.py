"""`DatabaseConnection`: where a database is and how to log in to it, with nothing left to look up.

Plain and picklable: the driver resolves it once, and workers need no permission to read secrets.
Only IAM tokens are created where they are used, since they expire within minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from extract_jobs.connections.certificates import ClientCertificate, certificate_file
from extract_jobs.connections.tokens import IamLogin, Login, login_now


@dataclass(frozen=True)
class DatabaseConnection:
    """Everything needed to connect to one database. Frozen and picklable.

    Attributes:
        host: Name, address, or the folder of a Unix socket (starts with ``/``); empty if ``url``
            has it.
        port: TCP port, or the number in the socket's name; 0 if ``url`` has it.
        database: Its name, on Oracle the service's; empty if ``url`` has it.
        user: Role to log in as; empty if the server needs none, or the token has one.
        password: Kept out of ``repr``; None if the server needs none, and with IAM. To log in, use
            `login_now` or `password_now`.
        sslmode: TLS, in libpq's words: ``disable``, ``prefer``, ``require``, ``verify-ca``,
            ``verify-full``.
        trusts: As configured: a file of trusted certificates, ``system``, or ``rds``; None is the
            driver's own default. See `sslrootcert`.
        certificate: What this side shows of itself; None for no certificate.
        connect_timeout_seconds: For each address tried.
        pooled: Behind a pooler or proxy that may switch node or session.
        hostaddr: Address that ``host`` was resolved to, once something has connected; workers
            connect to it so that all of them reach the same node.
        engine: ``postgres``, ``mysql``, ``sqlserver``, ``oracle``, ``redshift`` or ``jdbc``.
        url: A ``jdbc:`` URL as configured, without a password; None if there is none.
        properties: Properties of the JDBC driver, without credentials.
        iam: What to request a token for, instead of a password.
        stall_seconds: How long the source may send nothing while rows are read.
        settings: Settings of each session, over those that the source makes itself.
    """

    host: str
    port: int
    database: str
    user: str
    password: str | None = field(default=None, repr=False)
    sslmode: str = "require"
    trusts: str | None = None
    certificate: ClientCertificate | None = field(default=None, repr=False)
    connect_timeout_seconds: int = 10
    pooled: bool = False
    hostaddr: str | None = None
    engine: str = "postgres"
    url: str | None = None
    properties: dict[str, str] = field(default_factory=dict, hash=False)
    iam: IamLogin | None = None
    stall_seconds: float = 3600.0
    settings: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def place(self) -> str:
        """Host, port, database and user for messages, never the password."""
        if self.url:
            # The rest may be anything, so it is not shown.
            where = self.url.partition("?")[0].partition(";")[0]
            return f"{where}, user {self.user!r}" if self.user else where
        return f"{self.host}:{self.port}, database {self.database!r}, user {self.user!r}"

    @property
    def trust(self) -> dict[str, str]:
        """What `TableDescription.read_from` says where nobody checks whom the connection reaches.

        Empty where the host is verified, where it is this machine, and where a JDBC driver is
        given a URL of its own.
        """
        if self.url or is_local(self.host) or self.sslmode == "verify-full":
            return {}
        return {"unverified": _UNVERIFIED[self.sslmode]}

    @property
    def sslrootcert(self) -> str | None:
        """File of trusted certificates on this machine, or ``system``; None is the default.

        Raises:
            ConfigError: ``rds`` is configured, and this machine has no RDS bundle.
        """
        return certificate_file(self.trusts)

    def at(self, hostaddr: str | None) -> DatabaseConnection:
        """Return the same connection pinned to an address; None or ``""`` leaves it as it is."""
        return replace(self, hostaddr=hostaddr) if hostaddr else self

    def login_now(self) -> Login:
        """Return user and password to connect with now; call it again for each connection.

        With IAM it may call AWS, and the user may be another than `user`: Redshift prefixes it.

        Raises:
            ConfigError: AWS refuses the token, or there are no credentials.
            SourceUnavailable: AWS cannot be reached or is throttling.
        """
        return login_now(self.iam) if self.iam else Login(self.user, self.password)

    def password_now(self) -> str | None:
        """Return the password to connect with now, as in `login_now`; None if there is none."""
        return self.login_now().password

    def parameters(self) -> dict[str, str]:
        """Return libpq's connection parameters without user and password.

        A server that asks for Kerberos (GSSAPI) is refused, because not every libpq supports it:
        DuckDB's does not. Where the connection may have no TLS, so is one that asks for the
        password in clear text, except over a Unix socket.

        Raises:
            ConfigError: As `sslrootcert`.
        """
        certificate, key = self.certificate.files() if self.certificate else (None, None)
        found = {
            "host": self.host,
            "hostaddr": self.hostaddr,
            "port": str(self.port),
            "dbname": self.database,
            "sslmode": self.sslmode,
            "sslrootcert": self.sslrootcert,
            "sslcert": certificate,
            "sslkey": key,
            "connect_timeout": str(self.connect_timeout_seconds),
            "application_name": "extract-jobs",
            "client_encoding": "UTF8",
            "keepalives": "1",
            "keepalives_idle": "30",
            "keepalives_interval": "10",
            "keepalives_count": "3",
            "tcp_user_timeout": "60000",
            "gssencmode": "disable",
            "require_auth": "!gss,!sspi",
        }
        if self.sslmode in ("disable", "prefer") and not self.host.startswith("/"):
            found["require_auth"] = "!gss,!sspi,!password"
        return {key: value for key, value in found.items() if value is not None}


_UNVERIFIED = {
    "disable": "sslmode disable: without encryption, and the server is not verified",
    "prefer": "sslmode prefer: without encryption if the server has none, and it is not verified",
    "require": "sslmode require: encrypted, but the server is not verified",
    "verify-ca": "sslmode verify-ca: the server's certificate is verified, its name is not",
}


def is_local(host: str) -> bool:
    """Return whether a host is this machine: its traffic crosses no network."""
    return host in ("localhost", "::1") or host.startswith(("127.", "/", "@"))
