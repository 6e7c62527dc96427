"""Resolves a `ConnectionSpec`, which only names credentials, into one that has them.

This happens once, on the driver. The result is pickled to the workers, so they need no permission
to read secrets. Passwords appear in no ``repr`` and in no error message.
"""

from __future__ import annotations

from extract_jobs.connections.connection import DatabaseConnection, is_local
from extract_jobs.connections.resolve import resolve_connection
from extract_jobs.connections.secrets import secret_text
from extract_jobs.connections.tokens import IamLogin, Login

__all__ = [
    "WHERE_LOGINS_COME_FROM",
    "DatabaseConnection",
    "IamLogin",
    "Login",
    "is_local",
    "resolve_connection",
    "secret_text",
]

WHERE_LOGINS_COME_FROM = (
    "name the environment variable that holds it in connection.password_env (of init: "
    "--password-env), or use connection.secret_id"
)
"""What to do if a login needs a password and the config names none."""
