"""Secret texts from Secrets Manager, SSM and the environment. Messages never hold them.

Read-only. AWS is called with the job's own credentials, in the region of an ARN or else of the
environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from extract_jobs.errors import ConfigError, ExtractError, SourceUnavailable
from extract_jobs.spec.parts import SecretSpec

_PASSING = {
    "InternalServiceError", "InternalServerError", "InternalFailure", "InternalError",
    "ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException",
    "ServiceUnavailable", "RequestTimeout",
}  # fmt: skip
_ABSENT = {
    "ResourceNotFoundException", "ParameterNotFound", "ParameterVersionNotFound",
    "ClusterNotFound",
}  # fmt: skip


def secret_at(place: SecretSpec, key: str) -> str:
    """Return the text of the secret at a place; arguments and errors as `secret_text`."""
    return secret_text(
        secret_id=place.secret_id, ssm_parameter=place.ssm_parameter, env=place.env, key=key
    )


def secret_text(
    *,
    secret_id: str | None = None,
    ssm_parameter: str | None = None,
    env: str | None = None,
    key: str,
    environment: Mapping[str, str] | None = None,
    secrets: Any = None,
    parameters: Any = None,
) -> str:
    """Return the text of one secret, from the one place that is given.

    Args:
        secret_id: Name or ARN of a Secrets Manager secret.
        ssm_parameter: Name or ARN of an SSM parameter; a SecureString is decrypted.
        env: Name of an environment variable.
        key: Config key that the place was named in, for messages, such as ``columns.mask_key``.
        environment: Environment variables; by default the process's own.
        secrets: A boto3 Secrets Manager client; by default one is created if needed.
        parameters: A boto3 SSM client; by default one is created if needed.

    Returns:
        The text as it is stored, never empty.

    Raises:
        ConfigError: It is missing, empty, binary or denied; the message says which.
        SourceUnavailable: AWS cannot be reached or is throttling.
    """
    if secret_id is not None:
        return _secret(secret_id, key, secrets)
    if ssm_parameter is not None:
        return _parameter(ssm_parameter, key, parameters)
    assert env is not None
    environment = os.environ if environment is None else environment
    value = environment.get(env)
    if not value:
        state = "empty" if env in environment else "not set"
        raise ConfigError(
            f"{key} names the environment variable {env}, which is {state} in the process that "
            "runs the extract: set it there"
        )
    return value


def _secret(secret_id: str, key: str, client: Any) -> str:
    label = f"secret {secret_id!r}"
    with (
        aws_errors(
            f"cannot read {label}",
            "Secrets Manager",
            absent=f"there is no {label} in this account and region: check {key} and AWS_REGION",
            rights="secretsmanager:GetSecretValue on it and kms:Decrypt on its key, and it must "
            "not be scheduled for deletion",
        ),
        _client(client, "secretsmanager", secret_id) as opened,
    ):
        text = opened.get_secret_value(SecretId=secret_id).get("SecretString")
    if text is None:
        raise ConfigError(f"{label} is binary; it must be text")
    return _filled(text, label)


def _parameter(name: str, key: str, client: Any) -> str:
    label = f"SSM parameter {name!r}"
    with (
        aws_errors(
            f"cannot read {label}",
            "SSM",
            absent=f"there is no {label} in this account and region: check {key} and AWS_REGION",
            rights="ssm:GetParameter on it and kms:Decrypt on its key",
        ),
        _client(client, "ssm", name) as opened,
    ):
        text = opened.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
    return _filled(text, label)


def _filled(text: str, label: str) -> str:
    if not text:
        raise ConfigError(f"{label} is empty")
    return text


@contextmanager
def _client(given: Any, service: str, name: str) -> Iterator[Any]:
    """Yield the caller's client, or a new one that is closed at the end."""
    if given is not None:
        yield given
        return
    # Imported here: a connection by URL or environment needs no boto3.
    import boto3

    from extract_jobs.storage.aws_errors import default_session_lock, refuse_foreign_answers

    region = name.split(":")[3] if name.startswith("arn:") and name.count(":") >= 5 else None
    with default_session_lock:
        client = boto3.client(service, region_name=region)
    with closing(client):
        yield refuse_foreign_answers(client)


@contextmanager
def aws_errors(what: str, service: str, *, absent: str, rights: str) -> Iterator[None]:
    """Map boto3's errors while reading credentials.

    Args:
        what: What failed, such as ``cannot read secret 'x'``.
        service: Its name, for messages.
        absent: The message if the resource does not exist.
        rights: What the role needs.

    Raises:
        ConfigError: Missing, denied, or AWS is not configured.
        SourceUnavailable: AWS cannot be reached, is throttling, or the role's session has expired;
            or this machine's clock is wrong.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        HTTPClientError,
        NoCredentialsError,
        NoRegionError,
    )
    from botocore.exceptions import ConnectionError as NoConnectionError

    from extract_jobs.storage.aws_errors import PASSES, passes

    try:
        yield
    except ClientError as error:
        if passes(error):
            raise SourceUnavailable(f"{what}: {service} refused the call: {PASSES}") from error
        code = str(error.response["Error"].get("Code"))
        raise _refused(code, what, service, absent, rights) from error
    except NoRegionError as error:
        raise ConfigError(f"{what}: no AWS region is configured; set AWS_REGION") from error
    except NoCredentialsError as error:
        raise ConfigError(f"{what}: no AWS credentials found") from error
    except (HTTPClientError, NoConnectionError) as error:
        raise SourceUnavailable(
            f"{what}: {service} cannot be reached ({type(error).__name__}); check the network, a "
            "VPC endpoint and AWS_ENDPOINT_URL"
        ) from error
    except BotoCoreError as error:
        raise ConfigError(f"{what}: {error}") from error


def _refused(code: str, what: str, service: str, absent: str, rights: str) -> ExtractError:
    if code in _ABSENT or code.removesuffix("Fault") in _ABSENT:
        return ConfigError(absent)
    if code in _PASSING:
        return SourceUnavailable(f"{what}: {service} could not answer now ({code}); run again")
    return ConfigError(f"{what}: {code}; the role needs {rights}")
