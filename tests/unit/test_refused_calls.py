"""A wrong clock and expired credentials pass, whichever service says so; a denial does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from extract_jobs.catalog.glue_errors import is_passing
from extract_jobs.connections.secrets import aws_errors
from extract_jobs.errors import ConfigError, ExtractError
from extract_jobs.iceberg.catalogs import catalog_errors
from extract_jobs.spec.parts import CatalogSpec
from extract_jobs.storage.s3_client import s3_errors
from extract_jobs.tracking.table import Tracking, utc_now

EARLIER = "Signature expired: 20120306T074514Z is now earlier than 20120306T074556Z (…)"
LATER = "Signature not yet current: 20120306T074514Z is still later than 20120306T073056Z (…)"
PASSING = [
    ("InvalidSignatureException", EARLIER),
    ("InvalidSignatureException", LATER),
    ("SignatureDoesNotMatch", EARLIER),
    (
        "RequestTimeTooSkewed",
        "The difference between the times is too large",
    ),
    ("ExpiredTokenException", "The security token included in the request is expired"),
    ("RequestExpired", "Request has expired"),
]
"""https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html"""
LASTING = [
    ("AccessDeniedException", "User is not authorized to perform this"),
    ("InvalidSignatureException", "The request signature we calculated does not match"),
]


def _raises(error: ClientError) -> Callable[..., Any]:
    def call(**_: Any) -> Any:
        raise error

    return call


def _by_tracking(error: ClientError) -> None:
    client = type("Client", (), {"get_item": staticmethod(_raises(error))})()
    Tracking(client, "t", utc_now).read("a", "b")


def _by_secrets(error: ClientError) -> None:
    with aws_errors("cannot read it", "Secrets Manager", absent="absent", rights="a right"):
        raise error


def _by_storage(error: ClientError) -> None:
    with s3_errors("GetObject", "s3://bucket/key"):
        raise error


def _by_iceberg(error: ClientError) -> None:
    with catalog_errors(CatalogSpec(type="glue", database="d", table="t"), "reading"):
        raise error


def _by_catalog(error: ClientError) -> None:
    raise (ExtractError("again") if is_passing(error) else ConfigError("never")) from error


BY = [_by_tracking, _by_secrets, _by_storage, _by_iceberg, _by_catalog]


def _error(code: str, message: str) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message},
                   "ResponseMetadata": {"HTTPStatusCode": 403}}  # fmt: skip
    return ClientError(answer, "Call")


@pytest.mark.parametrize("refused", BY)
@pytest.mark.parametrize(("code", "message"), PASSING)
def test_what_another_moment_puts_right_is_tried_again(
    refused: Callable[[ClientError], None], code: str, message: str
) -> None:
    with pytest.raises(ExtractError) as caught:
        refused(_error(code, message))
    assert not isinstance(caught.value, ConfigError), caught.value


@pytest.mark.parametrize("refused", BY)
@pytest.mark.parametrize(("code", "message"), LASTING)
def test_what_a_person_has_to_put_right_is_not(
    refused: Callable[[ClientError], None], code: str, message: str
) -> None:
    with pytest.raises(ConfigError):
        refused(_error(code, message))
