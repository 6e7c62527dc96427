"""A catalog that speaks Iceberg's REST protocol: how it is reached, and its errors as ours.

Metadata and files are read and written with the worker's own permissions: credentials that a
catalog hands out are not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import requests
from pydantic import ValidationError
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import (
    AuthorizationExpiredError,
    CommitStateUnknownException,
    ForbiddenError,
    OAuthError,
    RESTError,
    ServerError,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
)

from extract_jobs.connections.secrets import secret_at
from extract_jobs.errors import ConfigError, WriteFailed
from extract_jobs.spec.parts import CatalogSpec

_TIMEOUT = (5, 60)
"""Seconds to connect, and to wait for the next bytes of an answer."""
_MOST_TEXT = 200
_PASSING = (
    AuthorizationExpiredError, CommitStateUnknownException, ServerError, ServiceUnavailableError,
    TooManyRequestsError,
)  # fmt: skip


class _BoundedCatalog(RestCatalog):
    """Waits for an answer for a limited time, which pyiceberg does not."""

    def _create_session(self) -> requests.Session:
        session = super()._create_session()
        session.headers.pop("X-Iceberg-Access-Delegation", None)
        session.request = partial(session.request, timeout=_TIMEOUT)  # type: ignore[method-assign]
        return session


def connect(name: str, spec: CatalogSpec, properties: dict[str, Any]) -> RestCatalog:
    """Connect to a catalog.

    Args:
        name: The catalog's name for pyiceberg.
        spec: Its address, and where its credentials are.
        properties: Further ones of pyiceberg's.

    Raises:
        ConfigError: A credential is missing or denied.
        SourceUnavailable: AWS, which has it, cannot be reached.
        RESTError: The catalog refused or failed.
        RequestException: It cannot be reached.
    """
    assert spec.url is not None
    given = {"uri": spec.url, "warehouse": spec.warehouse, "scope": spec.scope}
    if spec.token:
        given["token"] = secret_at(spec.token, "target.catalog.token")
    if spec.credential:
        given["credential"] = secret_at(spec.credential, "target.catalog.credential")
        given["oauth2-server-uri"] = spec.oauth_url or f"{spec.url.rstrip('/')}/v1/oauth/tokens"
    if spec.sign:
        from extract_jobs.storage.aws_session import new_session

        given |= {
            "rest.sigv4-enabled": "true",
            "rest.signing-name": spec.sign,
            "rest.signing-region": new_session().region_name,
            "rest.sigv4.max-retries": "2",
        }
    known = {key: value for key, value in given.items() if value is not None}
    return _BoundedCatalog(name, **known, **properties)


@contextmanager
def rest_errors(what: str) -> Iterator[None]:
    """Map what a REST catalog raises; Iceberg's own errors pass through.

    Raises:
        ConfigError: The catalog refused, and would again.
        WriteFailed: A retry may help.
    """
    try:
        yield
    except _PASSING as error:
        raise WriteFailed(
            f"{what}: the catalog failed ({type(error).__name__}); a retry is safe"
        ) from error
    except (UnauthorizedError, ForbiddenError, OAuthError) as error:
        raise ConfigError(
            f"{what}: the catalog refused ({type(error).__name__}): check sign, token or "
            "credential in target.catalog, and what they may do"
        ) from error
    except NotImplementedError as error:
        raise ConfigError(f"{what}: the catalog does not support this: {_said(error)}") from error
    except RESTError as error:
        raise ConfigError(f"{what}: the catalog refused: {_said(error)}") from error
    except (requests.RequestException, ValidationError) as error:
        said = "could not be reached" if isinstance(error, requests.ConnectionError) else "failed"
        raise WriteFailed(
            f"{what}: the catalog {said} ({type(error).__name__}); a retry is safe"
        ) from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:_MOST_TEXT]
