"""The S3 client: the one place where botocore is configured and its errors are mapped."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError

from extract_jobs.errors import ConfigError, ExtractError, WriteFailed
from extract_jobs.storage.aws_errors import (
    BAD_CONFIGURATION,
    NO_CREDENTIALS,
    PASSES,
    passes,
    refuse_foreign_answers,
    unanswered,
)
from extract_jobs.storage.aws_session import new_session

ROUNDS = 4
"""How often a sequence of calls is retried, on top of botocore's own retries of each call."""

PERMISSIONS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject and s3:ListBucket",
    "PutObject": "s3:PutObject",
    "ListObjectsV2": "s3:ListBucket",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListParts": "s3:ListMultipartUploadParts",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}
"""Which IAM action each call needs, as the S3 user guide's table of required permissions has it."""

_WRONG = {
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "InvalidBucketName",
    "KeyTooLongError",
    "MethodNotAllowed",
    "NotImplemented",
    "PermanentRedirect",
}

_NOT_XML = re.compile("[^ -~\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot hold, that its parsers change, or that had better not be in it."""


def is_xml_text(key: str) -> bool:
    """Return whether a request may name a key in its XML body."""
    return _NOT_XML.search(key) is None


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of ``s3://bucket/key``; keys are not decoded.

    Raises:
        ConfigError: Not an S3 URI, or no bucket in it.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ConfigError(f"{uri}: expected s3://bucket/key")
    return bucket, key


def client_from_environment() -> Any:
    """Return a new S3 client that is configured by the environment, as botocore reads it.

    A custom endpoint (``AWS_ENDPOINT_URL``, ``AWS_ENDPOINT_URL_S3``) gets path-style
    addresses, since ``bucket.127.0.0.1`` resolves nowhere. Attempts are bounded: 5, standard
    mode, unless ``AWS_MAX_ATTEMPTS`` or ``AWS_RETRY_MODE`` say otherwise. Connects to nothing.

    Raises:
        ConfigError: The environment cannot be understood.
    """
    retries: Any = {}
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        retries["total_max_attempts"] = 5
    if "AWS_RETRY_MODE" not in os.environ:
        retries["mode"] = "standard"
    own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        retries=retries,
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
        tcp_keepalive=True,
        s3={"addressing_style": "path"} if own_endpoint else None,
    )
    try:
        return refuse_foreign_answers(new_session().client("s3", config=config))
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"S3 client: {error}; check AWS_PROFILE, AWS_REGION and AWS_ENDPOINT_URL"
        ) from error


def error_code(error: BaseException) -> str:
    """Return S3's error code (``NoSuchUpload``, ``404``), or ``""`` if S3 did not answer."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def http_status(error: BaseException) -> int:
    """Return the HTTP status that S3 answered with, or 0 if it did not answer."""
    if isinstance(error, ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0


def is_absent(error: BaseException) -> bool:
    """Return whether S3 answered that the object (not the bucket) does not exist."""
    return error_code(error) in {"NoSuchKey", "404"}


def is_upload_gone(error: BaseException) -> bool:
    """Return whether S3 answered that the upload is gone (completed, aborted, expired)."""
    return error_code(error) == "NoSuchUpload"


def is_uncertain(error: BaseException) -> bool:
    """Return whether the request may have taken effect despite the error.

    True for no answer (reset, timeout), 5xx, and 409 and 412, which a retry of a successful write
    whose answer was lost also gets.
    """
    if isinstance(error, (*NO_CREDENTIALS, *BAD_CONFIGURATION, CredentialRetrievalError)):
        return False
    if isinstance(error, ClientError):
        return http_status(error) in {409, 412} or (
            http_status(error) >= 500 and error_code(error) not in _WRONG
        )
    return isinstance(error, BotoCoreError)


def _client_error(error: ClientError, action: str, uri: str) -> ExtractError:
    code, status = error_code(error), http_status(error)
    said = str(error.response.get("Error", {}).get("Message", ""))[:300]
    what = f"{action} on {uri}: {code or status}{f' ({said})' if said and said != code else ''}"
    bucket = split_uri(uri)[0]
    if code == "NoSuchBucket":
        return ConfigError(f"{what}; expected bucket {bucket} to exist: create it or fix the URI")
    if passes(error):
        return WriteFailed(f"{what}: {PASSES}")
    if code == "NotImplemented":
        return ConfigError(f"{what}; this storage lacks what the commit protocol needs")
    if status in {401, 403}:
        return ConfigError(
            f"{what}; grant {PERMISSIONS.get(action, action)} on bucket {bucket} to these "
            "credentials, and the use of its KMS key if it has one"
        )
    if code in _WRONG or status == 301:
        return ConfigError(f"{what}; check the name of bucket {bucket}, its region and AWS_REGION")
    return WriteFailed(f"{what}; a retry is safe")


def error_of_key(error: Mapping[str, Any] | None) -> ClientError:
    """Return the error of one key of a DeleteObjects whose request succeeded, as of a call.

    Args:
        error: What the answer holds about the key; None if it does not mention it.
    """
    code = str((error or {}).get("Code") or "InternalError")
    said = str((error or {}).get("Message") or "the answer does not mention it")
    status = 403 if code == "AccessDenied" else 500
    answer: Any = {
        "Error": {"Code": code, "Message": said},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "DeleteObjects")


@contextmanager
def s3_errors(action: str, uri: str) -> Iterator[None]:
    """Map what botocore raises to the tree of `extract_jobs.errors`.

    Args:
        action: The S3 call, as in `PERMISSIONS`.
        uri: The bucket or object.

    Raises:
        ConfigError: No credentials, access denied, bucket absent or misnamed.
        WriteFailed: Anything else, after botocore's own retries.
    """
    try:
        yield
    except ClientError as error:
        raise _client_error(error, action, uri) from error
    except BotoCoreError as error:
        raise unanswered(error, f"{action} on {uri}") from error


def get_body(client: Any, uri: str, **arguments: str) -> bytes:
    """Return the answer of GetObject with its whole body.

    The client retries what fails before the body; a truncated body is requested again here.

    Args:
        client: A boto3 S3 client.
        uri: The object.
        arguments: Of the call, such as ``Range``.

    Raises:
        ClientError: As S3 answered.
        BotoCoreError: No answer, or every body was cut short.
    """
    bucket, key = split_uri(uri)
    for last in rounds():
        answer = client.get_object(Bucket=bucket, Key=key, **arguments)
        try:
            with closing(answer["Body"]) as body:
                return bytes(body.read())
        except BotoCoreError:
            if last:
                raise
    raise AssertionError("unreachable")


def rounds(count: int = ROUNDS) -> Iterator[bool]:
    """Yield ``count`` times whether this is the last time, with growing waits in between."""
    for number in range(count):
        if number:
            time.sleep(min(0.05 * 4 ** (number - 1), 2.0))
        yield number == count - 1
