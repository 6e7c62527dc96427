"""Parses URLs and JSON secrets. Messages never hold their text, which may have the password."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from extract_jobs.connections.certificates import is_pem
from extract_jobs.connections.databases import Engine
from extract_jobs.errors import ConfigError
from extract_jobs.spec.source import holds_password

SSLMODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
_URL_PARAMETERS = {
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "port",
    "user",
    "dbname",
    "password",
}


def from_text(text: str, where: str, engine: Engine) -> dict[str, Any]:
    """Parse a secret: JSON in RDS's form, or a URL."""
    if text.lstrip().startswith("{"):
        return from_secret(text, where, engine)
    return from_url(text.strip(), where, engine)


def from_url(url: str, where: str, engine: Engine) -> dict[str, Any]:
    """Parse a URL; a ``jdbc:`` URL is kept whole, as ``url``.

    Args:
        url: The URL, which may have a password.
        where: Its name in messages.
        engine: Whose URL it should be.

    Returns:
        What it has of ``host``, ``port``, ``user``, ``password``, ``database``, ``sslmode``,
        ``sslrootcert``, ``sslcert``, ``sslkey`` and ``url``.

    Raises:
        ConfigError: It is malformed, another engine's, or a ``jdbc:`` URL with a password.
    """
    expected = f"{where} is not a URL such as {engine.example}"
    if url.lower().startswith("jdbc:"):
        if not engine.takes_jdbc:
            raise ConfigError(f"{expected}: {engine.title} is not read through JDBC here")
        if holds_password(url):
            # Spark and drivers print the URL.
            raise ConfigError(
                f"{where} is a jdbc: URL with a password in it; leave it out and name it in "
                "connection.password_env or connection.secret_id"
            )
        return {"url": url}
    try:
        parts = urlsplit(url)
        port = parts.port
        parameters = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        # Outside the handler, so that the original, which quotes the URL, is not chained.
        parts = None
    if parts is None:
        raise ConfigError(f"{expected}; characters such as @ : / % # in it must be percent-encoded")
    if parts.scheme not in engine.schemes:
        starts = f"{engine.schemes[0]}://" if engine.schemes else "jdbc:"
        raise ConfigError(f"{expected}: it must start with {starts}")
    if "," in parts.netloc:
        raise ConfigError(f"{where} names several hosts; name the one to read from")
    unknown = sorted(set(parameters) - _URL_PARAMETERS)
    if unknown:
        raise ConfigError(
            f"{where} has unknown parameters: {', '.join(unknown)}; expected some of "
            f"{', '.join(sorted(_URL_PARAMETERS - {'password'}))}"
        )
    if parameters.get("sslmode", "prefer") not in SSLMODES:
        raise ConfigError(f"{where}: sslmode must be one of {', '.join(SSLMODES)}")
    found: dict[str, Any] = {
        "host": unquote(parts.hostname or "") or parameters.get("host"),
        "port": port or _port(parameters.get("port"), where),
        "user": unquote(parts.username or "") or parameters.get("user"),
        "password": unquote(parts.password or "") or parameters.get("password"),
        "database": unquote(parts.path.removeprefix("/")) or parameters.get("dbname"),
    }
    for name in ("sslmode", "sslrootcert", "sslcert", "sslkey"):
        found[name] = parameters.get(name)
    return {name: value for name, value in found.items() if value}


def from_secret(text: str, where: str, engine: Engine) -> dict[str, Any]:
    """Read a secret in the form that RDS writes.

    Args:
        text: JSON.
        where: Its name in messages.
        engine: Whose secret it should be.

    Returns:
        ``user``, ``password`` and, if the secret has them, ``host``, ``port``, ``database``, and
        ``sslcert`` and ``sslkey`` as PEM text, which replace a password.

    Raises:
        ConfigError: It is malformed, lacks a key or is another engine's.
    """
    expected = "a JSON object with the keys username, password, host, port, dbname"
    try:
        secret = json.loads(text)
    except (ValueError, RecursionError):
        secret = None
    if not isinstance(secret, dict):
        raise ConfigError(f"{where} is not {expected}")
    theirs = secret.get("engine")
    if theirs is not None and not isinstance(theirs, str):
        raise ConfigError(f"{where}: engine must be text")
    if theirs and engine.secret_words and not any(w in theirs for w in engine.secret_words):
        raise ConfigError(f"{where} is for the engine {theirs!r}, the source for {engine.title}")
    needed = ("username",) if secret.get("sslcert") else ("username", "password")
    absent = [key for key in needed if not secret.get(key)]
    if absent:
        raise ConfigError(f"{where} lacks {' and '.join(absent)}: it must be {expected}")
    found: dict[str, Any] = {
        "host": secret.get("host"),
        "port": _port(secret.get("port"), where),
        "user": secret["username"],
        "password": secret.get("password"),
        "database": secret.get("dbname") or secret.get("database"),
        "sslcert": secret.get("sslcert"),
        "sslkey": secret.get("sslkey"),
    }
    wrong = [
        key for key, value in found.items() if key != "port" and not isinstance(value, str | None)
    ]
    if wrong:
        raise ConfigError(f"{where}: {', '.join(wrong)} must be text")
    files = [key for key in ("sslcert", "sslkey") if found[key] and not is_pem(found[key])]
    if files:
        raise ConfigError(f"{where}: {', '.join(files)} must be PEM text, not a file's name")
    return {name: value for name, value in found.items() if value}


def _port(value: Any, where: str) -> int | None:
    if value is None or value == "":
        return None
    text = str(value)
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) < 65536:
        raise ConfigError(f"{where}: port must be a number from 1 to 65535")
    return int(text)
