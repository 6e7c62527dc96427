"""Resolves a `ConnectionSpec` into a connection: which of several credentials counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extract_jobs.connections.certificates import certificate_file, client_certificate
from extract_jobs.connections.connection import DatabaseConnection, is_local
from extract_jobs.connections.databases import ENGINES, Engine
from extract_jobs.connections.secrets import secret_text
from extract_jobs.connections.tokens import iam_login
from extract_jobs.connections.urls import from_secret, from_text, from_url
from extract_jobs.errors import ConfigError
from extract_jobs.spec.source import ConnectionSpec


def resolve_connection(
    spec: ConnectionSpec,
    *,
    engine: str = "postgres",
    environment: Mapping[str, str] | None = None,
    secrets: Any = None,
    parameters: Any = None,
) -> DatabaseConnection:
    """Look up the credentials that a spec names.

    The URL overrides the secret, and single fields of the spec override both. TLS is required by
    default unless the host is this machine.

    Args:
        spec: The spec that names them.
        engine: The source's type, one of `ENGINES`.
        environment: Environment variables; by default the process's own.
        secrets: A boto3 Secrets Manager client; by default one is made if ``secret_id`` is given.
        parameters: A boto3 SSM client; by default one is made if ``ssm_parameter`` is given.

    Returns:
        The connection. It is not opened, and no token is created.

    Raises:
        ConfigError: A variable, parameter or secret is missing, denied or malformed, or host,
            database or user is missing. The message says which.
        SourceUnavailable: Secrets Manager or SSM cannot be reached or is throttling.
    """
    kind = ENGINES[engine]
    found = _looked_up(spec, kind, environment, secrets, parameters)
    for name in ("host", "port", "database", "user", "sslmode", "sslrootcert", "sslcert", "sslkey"):
        value = getattr(spec, name)
        if value is not None:
            found[name] = value
    _check_complete(spec, engine, found)
    host = found.get("host", "")
    port = int(found.get("port") or (0 if "url" in found else kind.port))
    iam = None
    if spec.auth == "iam":
        iam = iam_login(
            engine,
            host=host,
            port=port,
            user=found.get("user", ""),
            database=found["database"],
            region=spec.region,
        )
    certificate_file(found.get("sslrootcert"))
    certificate = client_certificate(found.get("sslcert"), found.get("sslkey"))
    if certificate and not kind.takes_certificate:
        raise ConfigError(
            f"a source of type {engine} takes no sslcert and sslkey, which its secret or URL has; "
            "the driver's own properties for them go into connection.properties"
        )
    sslmode = found.get("sslmode") or ("prefer" if is_local(host) else "require")
    if certificate and sslmode == "disable":
        raise ConfigError("connection.sslcert needs TLS, and connection.sslmode is disable")
    return DatabaseConnection(
        host=host,
        port=port,
        database=found.get("database", ""),
        user=found.get("user", ""),
        password=None if iam else found.get("password"),
        sslmode=sslmode,
        trusts=found.get("sslrootcert"),
        certificate=certificate,
        connect_timeout_seconds=spec.connect_timeout_seconds,
        pooled=spec.pooled,
        stall_seconds=spec.stall_timeout.total_seconds(),
        engine=engine,
        url=found.get("url"),
        properties=dict(spec.properties),
        iam=iam,
    )


def _looked_up(
    spec: ConnectionSpec,
    kind: Engine,
    environment: Mapping[str, str] | None,
    secrets: Any,
    parameters: Any,
) -> dict[str, Any]:
    """Merge secret, parameter, variables and URL; later ones override earlier ones."""
    found: dict[str, Any] = {}
    if spec.secret_id:
        text = secret_text(secret_id=spec.secret_id, key="connection.secret_id", secrets=secrets)
        found = from_secret(text, f"secret {spec.secret_id!r}", kind)
    elif spec.ssm_parameter:
        text = secret_text(
            ssm_parameter=spec.ssm_parameter, key="connection.ssm_parameter", parameters=parameters
        )
        found = from_text(text, f"SSM parameter {spec.ssm_parameter!r}", kind)
    elif spec.url_env:
        text = secret_text(env=spec.url_env, key="connection.url_env", environment=environment)
        found = from_url(text, spec.url_env, kind)
    if spec.url:
        located = from_url(spec.url, "connection.url", kind)
        if "url" in located:  # a JDBC URL gives the location, whatever the secret holds
            located |= {name: found[name] for name in ("user", "password") if name in found}
            found = {}
        found |= located
    if spec.password_env:
        found["password"] = secret_text(
            env=spec.password_env, key="connection.password_env", environment=environment
        )
    return found


def _check_complete(spec: ConnectionSpec, engine: str, found: Mapping[str, Any]) -> None:
    if "url" in found:
        located = [name for name in ("host", "port", "database") if found.get(name)]
        if located:
            raise ConfigError(
                f"connection has a jdbc: URL and {', '.join(located)} as well: keep only one of "
                "them"
            )
        if spec.auth == "iam":
            raise ConfigError(
                "connection.auth iam needs host, database and user as separate keys, not a jdbc: "
                "URL"
            )
        return
    if engine == "jdbc":
        raise ConfigError("connection.url is needed: the jdbc: URL that the driver takes")
    needed = ["host", "database", "user"]
    if engine == "redshift" and spec.auth == "iam":
        needed.remove("user")
    missing = [name for name in needed if not found.get(name)]
    if missing:
        raise ConfigError(
            f"connection lacks {' and '.join(missing)}: add "
            + " and ".join(f"connection.{name}" for name in missing)
            + _origin(spec)
        )


def _origin(spec: ConnectionSpec) -> str:
    if spec.secret_id:
        return f", or the key to the secret {spec.secret_id!r}"
    if spec.ssm_parameter:
        return f", or put it in the SSM parameter {spec.ssm_parameter!r}"
    return f", or put it in {spec.url_env or 'connection.url'}" if spec.url_env or spec.url else ""
