"""Logins with IAM: a token instead of a password, created when a connection is opened.

RDS: a token is a URL signed on this machine, valid for 15 minutes, and needed only while the
connection is being opened
(https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html). An API call to
Redshift returns a password of its own, and a user name with a prefix
(https://docs.aws.amazon.com/redshift/latest/mgmt/generating-user-credentials.html). Both need the
credentials of the process that connects, so executors need the role too.
"""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

from extract_jobs.connections.secrets import aws_errors
from extract_jobs.errors import ConfigError

TOKEN_SECONDS = 300
"""How long a process uses one token: a third of the shortest lifetime of a token."""

_LIFE_SECONDS = 900


@dataclass(frozen=True)
class Login:
    """A user and a password, kept out of ``repr``; None if the server needs none."""

    user: str
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class IamLogin:
    """What a token is requested for.

    Attributes:
        service: ``rds``, ``redshift`` (a cluster) or ``redshift-serverless`` (a workgroup).
        region: AWS region of the database.
        host: The endpoint that RDS gave; a token is not valid for any other name.
        port: Its port.
        user: Database user; empty lets Redshift name the caller's own.
        database: Database to request from Redshift.
        name: Cluster or workgroup; empty for RDS.
    """

    service: Literal["rds", "redshift", "redshift-serverless"]
    region: str
    host: str
    port: int
    user: str
    database: str
    name: str = ""


_lock = threading.Lock()
_made: dict[tuple[int, IamLogin], tuple[float, Login]] = {}


def iam_login(
    engine: str, *, host: str, port: int, user: str, database: str, region: str | None
) -> IamLogin:
    """Return what to request tokens for. Makes no calls.

    Args:
        engine: ``postgres``, ``mysql`` or ``redshift``.
        host: Endpoint as AWS names it.
        port: Its port.
        user: Database user; may be empty for Redshift.
        database: Its name.
        region: As configured; None takes it from the endpoint, or else from the environment.

    Raises:
        ConfigError: Region, cluster or workgroup cannot be derived from the endpoint.
    """
    own = re.fullmatch(
        r"([^.]+)\.(?:[^.]+\.)+([a-z]{2}(?:-[a-z]+)+-\d)\.(rds|redshift|redshift-serverless)"
        r"\.amazonaws\.com(?:\.cn)?",
        host,
    )
    region = region or (own[2] if own else None) or _region_of_environment()
    if region is None:
        raise ConfigError(
            f"connection.auth is iam, but the AWS region of {host!r} is unknown: set "
            "connection.region or AWS_REGION"
        )
    if engine != "redshift":
        return IamLogin("rds", region, host, port, user, database)
    if own is None or own[3] == "rds":
        raise ConfigError(
            f"connection.auth is iam, but {host!r} names no Redshift cluster or workgroup: give "
            "the endpoint as AWS shows it, <cluster>.<id>.<region>.redshift.amazonaws.com or "
            "<workgroup>.<account>.<region>.redshift-serverless.amazonaws.com"
        )
    service: Any = own[3]
    return IamLogin(service, region, host, port, user, database, own[1])


def login_now(iam: IamLogin) -> Login:
    """Return a login that is valid now and at most `TOKEN_SECONDS` old.

    Safe between threads and across fork. Calls AWS for Redshift; for RDS it signs on this machine.

    Raises:
        ConfigError: AWS refuses, or there are no credentials.
        SourceUnavailable: AWS cannot be reached or is throttling.
    """
    key = (os.getpid(), iam)
    with _lock:
        made, login = _made.get(key, (0.0, None))
        if login is None or time.monotonic() - made > TOKEN_SECONDS:
            login = _rds(iam) if iam.service == "rds" else _redshift(iam)
            _made[key] = (time.monotonic(), login)
        return login


def _region_of_environment() -> str | None:
    import boto3

    region: str | None = boto3.session.Session().region_name
    return region


def _rds(iam: IamLogin) -> Login:
    import boto3

    with (
        aws_errors(
            f"cannot make an IAM token for {iam.user!r} at {iam.host}",
            "RDS",
            absent=f"RDS does not know {iam.host}",
            rights="rds-db:connect on the database user",
        ),
        closing(boto3.session.Session().client("rds", region_name=iam.region)) as client,
    ):
        token = client.generate_db_auth_token(iam.host, iam.port, iam.user, Region=iam.region)
    return Login(iam.user, str(token))


def _redshift(iam: IamLogin) -> Login:
    import boto3

    from extract_jobs.storage.aws_errors import refuse_foreign_answers

    serverless = iam.service == "redshift-serverless"
    call = "GetCredentials" if serverless else "GetClusterCredentials"
    call += "" if serverless or iam.user else "WithIAM"
    kind = "workgroup" if serverless else "cluster"
    with aws_errors(
        f"cannot get IAM credentials for Redshift {kind} {iam.name!r}",
        "Redshift",
        absent=f"there is no Redshift {kind} {iam.name!r} in {iam.region} and this account: check "
        "connection.host",
        rights=f"{iam.service}:{call} on it",
    ):
        opened = boto3.session.Session().client(iam.service, region_name=iam.region)
        with closing(refuse_foreign_answers(opened)) as client:
            return _serverless(client, iam) if serverless else _cluster(client, iam)


def _serverless(client: Any, iam: IamLogin) -> Login:
    found = client.get_credentials(
        workgroupName=iam.name, dbName=iam.database, durationSeconds=_LIFE_SECONDS
    )
    return Login(found["dbUser"], found["dbPassword"])


def _cluster(client: Any, iam: IamLogin) -> Login:
    asked = {
        "ClusterIdentifier": iam.name,
        "DbName": iam.database,
        "DurationSeconds": _LIFE_SECONDS,
    }
    if iam.user:
        # A missing user is not created, because an extract only reads.
        found = client.get_cluster_credentials(**asked, DbUser=iam.user, AutoCreate=False)
    else:
        found = client.get_cluster_credentials_with_iam(**asked)
    return Login(found["DbUser"], found["DbPassword"])
