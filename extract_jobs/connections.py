"""Resolves a `ConnectionSpec`, which only names credentials, into one that holds them.

Happens once, on the driver; what comes out is pickled to the workers, so that they need no right
to read secrets. The password is in no ``repr`` and in no error message.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from extract_jobs.errors import ConfigError, ExtractError, SourceUnavailable
from extract_jobs.spec_source import ConnectionSpec

_ENGINES = ("postgres", "postgresql", "aurora-postgresql")
_SSLMODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
_URL_PARAMETERS = {"sslmode", "sslrootcert", "host", "port", "user", "dbname", "password"}
_RETRYABLE_AWS = {
    "InternalServiceError", "ThrottlingException", "RequestLimitExceeded", "ServiceUnavailable",
}  # fmt: skip


@dataclass(frozen=True)
class DatabaseConnection:
    """Everything needed to connect to one PostgreSQL database. Frozen and picklable.

    Attributes:
        host: Name, address, or the folder of a Unix socket (starts with ``/``).
        port: TCP port, or the number in the socket's name.
        database: Its name.
        user: Role to log in as.
        password: Kept out of ``repr``; None where the server asks for none.
        sslmode: libpq's ``sslmode``.
        sslrootcert: File of trusted certificates, or ``system``; None is libpq's default.
        connect_timeout_seconds: For each address tried.
        pooled: Behind a pooler or proxy that may switch node or session.
        hostaddr: Address that ``host`` was resolved to, once something has connected; workers
            connect to it so that all of them reach the same node.
    """

    host: str
    port: int
    database: str
    user: str
    password: str | None = field(default=None, repr=False)
    sslmode: str = "require"
    sslrootcert: str | None = None
    connect_timeout_seconds: int = 10
    pooled: bool = False
    hostaddr: str | None = None

    @property
    def place(self) -> str:
        """Where it leads, for messages: host, port, database and user, never the password."""
        return f"{self.host}:{self.port}, database {self.database!r}, user {self.user!r}"

    def at(self, hostaddr: str | None) -> DatabaseConnection:
        """Return the same connection pinned to an address; None or ``""`` leaves it as it is."""
        return replace(self, hostaddr=hostaddr) if hostaddr else self

    def parameters(self) -> dict[str, str]:
        """Return libpq's connection parameters without user and password."""
        found = {
            "host": self.host,
            "hostaddr": self.hostaddr,
            "port": str(self.port),
            "dbname": self.database,
            "sslmode": self.sslmode,
            "sslrootcert": self.sslrootcert,
            "connect_timeout": str(self.connect_timeout_seconds),
            "application_name": "extract-jobs",
            "client_encoding": "UTF8",
            "keepalives": "1",
            "keepalives_idle": "30",
            "keepalives_interval": "10",
            "keepalives_count": "3",
            "tcp_user_timeout": "60000",
        }
        return {key: value for key, value in found.items() if value is not None}


def is_local(host: str) -> bool:
    """Tell whether a host is this machine: its traffic crosses no network."""
    return host in ("localhost", "::1") or host.startswith(("127.", "/", "@"))


def resolve_connection(
    spec: ConnectionSpec, *, environment: Mapping[str, str] | None = None, secrets: Any = None
) -> DatabaseConnection:
    """Look up the credentials that a spec names.

    Single fields of the spec override what the secret or URL says. TLS is required by default
    unless the host is this machine.

    Args:
        spec: What names them.
        environment: Environment variables; by default the process's own.
        secrets: A boto3 Secrets Manager client; by default one is made if ``secret_id`` is given.

    Returns:
        The connection; nothing was connected yet.

    Raises:
        ConfigError: A variable or secret is missing, denied or malformed, or host, database or
            user is nowhere named. The message says which.
        SourceUnavailable: Secrets Manager cannot be reached or is throttling.
    """
    environment = os.environ if environment is None else environment
    found: dict[str, Any] = {}
    if spec.secret_id:
        found = _from_secret(spec.secret_id, _read_secret(spec.secret_id, secrets))
    elif spec.url_env:
        found = _from_url(_variable(environment, spec.url_env, "url_env"), spec.url_env)
    elif spec.url:
        found = _from_url(spec.url, "connection.url")
    if spec.password_env:
        found["password"] = _variable(environment, spec.password_env, "password_env")
    for name in ("host", "port", "database", "user", "sslmode", "sslrootcert"):
        value = getattr(spec, name)
        if value is not None:
            found[name] = value
    missing = [name for name in ("host", "database", "user") if not found.get(name)]
    if missing:
        raise ConfigError(
            f"connection does not say {' and '.join(missing)}: add "
            + " and ".join(f"connection.{name}" for name in missing)
            + _origin(spec)
        )
    certificate = found.get("sslrootcert")
    if certificate and certificate != "system" and not Path(certificate).is_file():
        raise ConfigError(f"connection.sslrootcert: there is no file {certificate!r}")
    return DatabaseConnection(
        host=found["host"],
        port=int(found.get("port") or 5432),
        database=found["database"],
        user=found["user"],
        password=found.get("password"),
        sslmode=found.get("sslmode") or ("prefer" if is_local(found["host"]) else "require"),
        sslrootcert=certificate,
        connect_timeout_seconds=spec.connect_timeout_seconds,
        pooled=spec.pooled,
    )


def _origin(spec: ConnectionSpec) -> str:
    if spec.secret_id:
        return f", or the key to the secret {spec.secret_id!r}"
    return f", or put it in {spec.url_env or 'connection.url'}" if spec.url_env or spec.url else ""


def _variable(environment: Mapping[str, str], name: str, key: str) -> str:
    value = environment.get(name)
    if not value:
        state = "empty" if name in environment else "not set"
        raise ConfigError(
            f"connection.{key} names the environment variable {name}, which is {state} in the "
            "process that runs the extract: set it there"
        )
    return value


def _from_url(url: str, where: str) -> dict[str, Any]:
    """Take a URL apart. Its text is in no message: it may hold the password."""
    expected = f"{where} is not a URL such as postgresql://user@host:5432/database"
    try:
        parts = urlsplit(url)
        port = parts.port
        parameters = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        # Outside the handler, so that the original, which quotes the URL, is not chained.
        parts = None
    if parts is None:
        raise ConfigError(f"{expected}; characters such as @ : / % # in it must be percent-encoded")
    if parts.scheme not in ("postgresql", "postgres"):
        raise ConfigError(f"{expected}: it must start with postgresql://")
    if "," in parts.netloc:
        raise ConfigError(f"{where} names several hosts; name the one to read from")
    unknown = sorted(set(parameters) - _URL_PARAMETERS)
    if unknown:
        raise ConfigError(
            f"{where} has parameters that are not understood: {', '.join(unknown)}; expected "
            f"among {', '.join(sorted(_URL_PARAMETERS - {'password'}))}"
        )
    if parameters.get("sslmode", "prefer") not in _SSLMODES:
        raise ConfigError(f"{where}: sslmode must be one of {', '.join(_SSLMODES)}")
    found: dict[str, Any] = {
        "host": unquote(parts.hostname or "") or parameters.get("host"),
        "port": port or _port(parameters.get("port"), where),
        "user": unquote(parts.username or "") or parameters.get("user"),
        "password": unquote(parts.password or "") or parameters.get("password"),
        "database": unquote(parts.path.removeprefix("/")) or parameters.get("dbname"),
    }
    for name in ("sslmode", "sslrootcert"):
        found[name] = parameters.get(name)
    return {name: value for name, value in found.items() if value}


def _from_secret(secret_id: str, text: str) -> dict[str, Any]:
    """Read a secret in the form that RDS writes. Its text is in no message."""
    expected = "a JSON object with the keys username, password, host, port, dbname"
    try:
        secret = json.loads(text)
    except ValueError:
        secret = None
    if not isinstance(secret, dict):
        raise ConfigError(f"secret {secret_id!r} is not {expected}")
    engine = secret.get("engine")
    if engine is not None and engine not in _ENGINES:
        raise ConfigError(
            f"secret {secret_id!r} is for the engine {engine!r}, the source for PostgreSQL"
        )
    absent = [key for key in ("username", "password") if not secret.get(key)]
    if absent:
        raise ConfigError(
            f"secret {secret_id!r} lacks {' and '.join(absent)}: it must be {expected}"
        )
    found: dict[str, Any] = {
        "host": secret.get("host"),
        "port": _port(secret.get("port"), f"secret {secret_id!r}"),
        "user": secret["username"],
        "password": secret["password"],
        "database": secret.get("dbname") or secret.get("database"),
    }
    wrong = [
        key for key, value in found.items() if key != "port" and not isinstance(value, str | None)
    ]
    if wrong:
        raise ConfigError(f"secret {secret_id!r}: {', '.join(wrong)} must be text")
    return {name: value for name, value in found.items() if value}


def _port(value: Any, where: str) -> int | None:
    if value is None or value == "":
        return None
    text = str(value)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigError(f"{where}: port must be a number from 1 to 65535")
    return int(text)


def _read_secret(secret_id: str, client: Any) -> str:
    # Imported here: a connection by URL or environment needs no boto3.
    import boto3
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        HTTPClientError,
        NoCredentialsError,
        NoRegionError,
    )
    from botocore.exceptions import ConnectionError as NoConnectionError

    try:
        client = client or boto3.client("secretsmanager")
        response = client.get_secret_value(SecretId=secret_id)
    except ClientError as error:
        raise _secret_error(secret_id, str(error.response["Error"].get("Code"))) from error
    except NoRegionError as error:
        raise ConfigError(
            f"cannot read secret {secret_id!r}: no AWS region is configured; set AWS_REGION"
        ) from error
    except NoCredentialsError as error:
        raise ConfigError(f"cannot read secret {secret_id!r}: no AWS credentials found") from error
    except (HTTPClientError, NoConnectionError) as error:
        raise SourceUnavailable(
            f"cannot read secret {secret_id!r}: Secrets Manager cannot be reached "
            f"({type(error).__name__}); check the network, a VPC endpoint and AWS_ENDPOINT_URL"
        ) from error
    except BotoCoreError as error:
        raise ConfigError(f"cannot read secret {secret_id!r}: {error}") from error
    text = response.get("SecretString")
    if text is None:
        raise ConfigError(f"secret {secret_id!r} is binary; it must be text holding JSON")
    return str(text)


def _secret_error(secret_id: str, code: str) -> ExtractError:
    if code == "ResourceNotFoundException":
        return ConfigError(
            f"there is no secret {secret_id!r} in this account and region: check "
            "connection.secret_id and AWS_REGION"
        )
    if code in _RETRYABLE_AWS:
        return SourceUnavailable(f"Secrets Manager could not give {secret_id!r} now: {code}")
    return ConfigError(
        f"cannot read secret {secret_id!r}: {code}; the role needs secretsmanager:GetSecretValue "
        "on it and kms:Decrypt on its key, and it must not be scheduled for deletion"
    )
