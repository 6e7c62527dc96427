"""Classifies the errors that AWS services return to the state machine.

A name is ``<service>.<error>``, the error being a class of the service's Java SDK: one that its API
reference lists for the call, or the service's base class for all others, such as throttling. The
state machine retries some in the state that made the call, because no worker has started; the rest
reach the status handler. tests/unit/test_asl.py holds the state machine and botocore's service
models against these tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Who = Literal["state", "state, then fail", "handler", "fail"]
"""Who retries: the state, the state (then the table fails), the handler, or nobody."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service that the state machine calls.

    Attributes:
        names: What its errors begin with. The prefix of EMR's is documented nowhere: both are
            retried.
        page: Lists the errors of the call.
        errors: Who tries again, by error.
    """

    names: tuple[str, ...]
    page: str
    errors: Mapping[str, Who]


_API = "https://docs.aws.amazon.com"

COMMON: Mapping[str, Who] = {
    "AccessDeniedException": "fail",
    "ExpiredTokenException": "handler",
    "IncompleteSignature": "handler",
    "InternalFailure": "handler",
    "InvalidSignatureException": "handler",
    "MalformedHttpRequestException": "handler",
    "NotAuthorized": "fail",
    "OptInRequired": "fail",
    "RequestAbortedException": "handler",
    "RequestEntityTooLargeException": "fail",
    "RequestExpired": "handler",
    "RequestTimeoutException": "handler",
    "ServiceUnavailable": "handler",
    "ThrottlingException": "handler",
    "UnknownOperationException": "fail",
    "UnrecognizedClientException": "handler",
    "ValidationError": "fail",
    "ValidationException": "fail",
}
"""Errors of every API: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/CommonErrors.html.

They arrive under the base class, with this name as the ``Error Code`` in the cause. Signatures and
tokens are Step Functions' own: they are right again with its next call."""

STEP_FUNCTIONS: Mapping[str, Who] = {
    "States.Timeout": "handler",
    "States.TaskFailed": "handler",
    "States.HeartbeatTimeout": "handler",
    "States.Permissions": "fail",
    "States.ParameterPathFailure": "fail",
    "States.ResultPathMatchFailure": "fail",
    "States.IntrinsicFailure": "fail",
}
"""Step Functions' own, as far as a Catch sees them:
https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html"""

GLUE = Service(
    ("Glue",),
    f"{_API}/glue/latest/webapi/API_StartJobRun.html",
    {
        "AWSGlueException": "state",
        "SdkClientException": "state",
        "ThrottlingException": "state",
        "InternalServiceException": "state",
        "OperationTimeoutException": "state",
        "ConcurrentRunsExceededException": "state",
        "ResourceNumberLimitExceededException": "state",
        "EntityNotFoundException": "fail",
        "InvalidInputException": "fail",
    },
)
EMR_SERVERLESS = Service(
    ("EMRServerless",),
    f"{_API}/emr-serverless/latest/APIReference/API_StartJobRun.html",
    {
        "AWSEMRServerlessException": "state",
        "SdkClientException": "state",
        "ThrottlingException": "state",
        "InternalServerException": "state",
        "ServiceQuotaExceededException": "state",
        # The application is being changed, or stops.
        "ConflictException": "state",
        "ResourceNotFoundException": "fail",
        "ValidationException": "fail",
    },
)
EMR = Service(
    ("ElasticMapReduce", "EMR"),
    f"{_API}/emr/latest/APIReference/API_AddJobFlowSteps.html",
    {
        "AmazonElasticMapReduceException": "state",
        "SdkClientException": "state",
        "ThrottlingException": "state",
        "InternalServerError": "state",
        "InternalServerException": "state",
        "InvalidRequestException": "fail",
    },
)
ECS = Service(
    ("ECS",),
    f"{_API}/AmazonECS/latest/APIReference/API_RunTask.html",
    {
        "AmazonECSException": "state",
        "SdkClientException": "state",
        "ServerException": "state",
        # Throttled while it looks at the network, or a definition made moments ago.
        "InvalidParameterException": "state, then fail",
        "ConflictException": "handler",
        "AccessDeniedException": "fail",
        "BlockedException": "fail",
        "ClientException": "fail",
        "ClusterNotFoundException": "fail",
        "PlatformTaskDefinitionIncompatibilityException": "fail",
        "PlatformUnknownException": "fail",
        "UnsupportedFeatureException": "fail",
    },
)
ECS_PLACEMENT = Service(
    ("AmazonECS",),
    f"{_API}/AmazonECS/latest/developerguide/api_failures_messages.html",
    {"Unknown": "state"},
)
"""What RunTask answers in ``failures``: no capacity, or a place that is not there."""
LAMBDA = Service(
    ("Lambda",),
    f"{_API}/lambda/latest/api/API_Invoke.html",
    {
        "AWSLambdaException": "state",
        "SdkClientException": "state",
        "ClientExecutionTimeoutException": "state",
        "Unknown": "state",
        "ServiceException": "state",
        "TooManyRequestsException": "state",
        # The function is being made or changed, by a deployment that is under way.
        "ResourceConflictException": "state",
        "ResourceNotReadyException": "state",
        "KMSAccessDeniedException": "fail",
        "KMSDisabledException": "fail",
        "KMSInvalidStateException": "fail",
        "KMSNotFoundException": "fail",
        "ResourceNotFoundException": "fail",
        "InvalidParameterValueException": "fail",
        "InvalidRequestContentException": "fail",
        "RequestTooLargeException": "fail",
        "SerializedRequestEntityTooLargeException": "fail",
        "UnsupportedMediaTypeException": "fail",
        "InvalidRuntimeException": "fail",
        "InvalidZipFileException": "fail",
        "RecursiveInvocationException": "fail",
    },
)
LAMBDA_FEATURES = re.compile(
    r"EC2|ENI|EFS|S3Files|Subnet|SecurityGroup|SnapStart|CodeArtifact|Durable|NoPublishedVersion"
    r"|ModeNotSupported|ServiceQuota"
)
"""Errors of Lambda's that only come with what these functions do not use: a VPC, file systems,
snapshots, versions, durable executions. Nobody tries those again."""
DYNAMODB = Service(
    ("DynamoDB",),
    f"{_API}/amazondynamodb/latest/APIReference/API_UpdateItem.html",
    {
        "AmazonDynamoDBException": "state",
        "SdkClientException": "state",
        "InternalServerError": "state",
        "ProvisionedThroughputExceededException": "state",
        "RequestLimitExceeded": "state",
        "ThrottlingException": "state",
        "TransactionConflictException": "state",
        "ReplicatedWriteConflictException": "state",
        "ConditionalCheckFailedException": "fail",
        "ItemCollectionSizeLimitExceededException": "fail",
        "ResourceNotFoundException": "fail",
    },
)
SERVICES = (GLUE, EMR_SERVERLESS, EMR, ECS, ECS_PLACEMENT, LAMBDA, DYNAMODB)

_BY_NAME = {
    **STEP_FUNCTIONS,
    **{f"{name}.{error}": who
       for service in SERVICES for name in service.names
       for error, who in {**COMMON, **service.errors}.items()},
}  # fmt: skip
_ERROR_CODE = re.compile(r"Error Code: ([A-Za-z0-9]+)")
_FULL = re.compile(r"maximum number of active steps", re.IGNORECASE)
"""A cluster takes 256 steps that wait or run, and calls one more a ValidationException."""


def no_retry_helps(name: str, cause: str) -> bool:
    """Return whether only a configuration change can fix a service's error.

    Args:
        name: The error's, such as ``Glue.EntityNotFoundException``.
        cause: Its text; the code in it counts where the name is that of a base class.
    """
    if _FULL.search(cause):
        return False
    service = name.partition(".")[0]
    codes = (f"{service}.{code}" for code in _ERROR_CODE.findall(cause))
    return any(_BY_NAME.get(known, "handler").endswith("fail") for known in (name, *codes))
