"""Errors that botocore raises without an answer from AWS, and codes that all services share."""

from __future__ import annotations

import threading
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    EndpointConnectionError,
    HTTPClientError,
    InvalidConfigError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from extract_jobs.errors import ConfigError, ExtractError, WriteFailed

NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ConfigNotFound,
    ConfigParseError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
BAD_CONFIGURATION = (
    InvalidConfigError,
    InvalidRegionError,
    NoRegionError,
    ParamValidationError,
)
_PASSING_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "TokenRefreshRequired",
    }
)
_SIGNATURE_CODES = frozenset({"InvalidSignatureException", "SignatureDoesNotMatch"})
"""Codes for a wrong clock, if the message says so, and for a wrong key."""
PASSES = "credentials have expired, or this machine's clock is wrong; the next attempt signs again"
"""What a message says of an error that `passes`."""


class ForeignAnswer(HTTPClientError):  # type: ignore[misc]
    """A call was answered with a page of HTML, from a proxy or login page in front of AWS."""

    fmt = (
        "{operation} was answered with HTML, which AWS never sends: there is a proxy or login "
        "page between this job and AWS"
    )


def passes(error: ClientError) -> bool:
    """Return whether a call was refused for its moment: by expired credentials, or a wrong clock.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
    """
    answer = error.response.get("Error", {})
    code, said = str(answer.get("Code")), str(answer.get("Message")).lower()
    timed = "expired" in said or "not yet current" in said
    return code in _PASSING_CODES or (code in _SIGNATURE_CODES and timed)


default_session_lock = threading.RLock()
"""Held while boto3's default session makes clients, which is not safe between threads."""


def refuse_foreign_answers(client: Any) -> Any:
    """Make a boto3 client raise `ForeignAnswer` if something other than AWS answers 200.

    Otherwise botocore finds no fields in such an answer and reports success: an absent item, a
    completed write, an empty list. AWS never answers HTML without a request id; an S3 object may be
    HTML, but has one.

    Returns:
        The client.
    """
    client.meta.events.register("after-call", _refuse_html)
    return client


def session_without_foreign_answers() -> Any:
    """Return a boto3 session whose clients do so, for a library that creates its own clients.

    It is the process's default session, which such a library uses too.
    """
    import boto3

    session = boto3.DEFAULT_SESSION or boto3.session.Session()
    session.events.register("after-call", _refuse_html, unique_id="refuse-foreign-answers")
    return session


def _refuse_html(http_response: Any, model: Any, **_: Any) -> None:
    if http_response.status_code >= 300:
        return
    headers = {name.lower() for name in http_response.headers}
    kind = str(http_response.headers.get("content-type", ""))
    named = headers & {"x-amzn-requestid", "x-amz-request-id", "x-amz-id-2"}
    if kind.startswith("text/html") and not named:
        raise ForeignAnswer(operation=model.name)


def unanswered(error: BotoCoreError, what: str) -> ExtractError:
    """Return the error to raise from what botocore raised before AWS gave any answer.

    Args:
        error: As botocore raised it.
        what: What was being done, for the message.

    Returns:
        `ConfigError` for credentials, region and settings, `WriteFailed` for all else.
    """
    if isinstance(error, NO_CREDENTIALS):
        return ConfigError(
            f"{what}: no usable AWS credentials ({error}); give the job a role, or set "
            "AWS_PROFILE or AWS_ACCESS_KEY_ID"
        )
    if isinstance(error, BAD_CONFIGURATION):
        return ConfigError(f"{what}: {error}; check AWS_PROFILE, AWS_REGION and AWS_ENDPOINT_URL")
    if isinstance(error, EndpointConnectionError):
        return WriteFailed(f"{what}: {error}; check the network, AWS_REGION and AWS_ENDPOINT_URL")
    return WriteFailed(f"{what}: {error}; a retry is safe")
