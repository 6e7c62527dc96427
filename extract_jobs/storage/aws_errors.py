"""What botocore raises without an answer from AWS, and codes that mean the same everywhere."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ConfigNotFound,
    ConfigParseError,
    EndpointConnectionError,
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
PASSING_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "TokenRefreshRequired",
    }
)
"""Expired credentials and a wrong clock may be right again by the next attempt."""


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
