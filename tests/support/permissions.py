"""Why each role of `infra/template.yaml` has its permissions: calls that were seen, and needs.

Two tables, compared with the template in both directions: a role allows nothing that is in neither
table, and everything that is in one. `SEEN` is what the end-to-end test of the deployed stack
records; it fails if it records anything else. `NEEDED` is maintained by hand, from the pages that
it names; no test can show that AWS requires nothing more.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).parents[2] / "infra" / "template.yaml"
GUIDE = "https://docs.aws.amazon.com"
WORKER = "WorkerPolicy"
"""What every worker's role may do, in addition to its own permissions."""
WORKER_ROLES = ("GlueRole", "EmrRole", "EcsTaskRole")

SEEN: Mapping[str, frozenset[str]] = {
    "ConfigManagerRole": frozenset({"s3:GetObject", "s3:PutObject", "s3:ListBucket",
                                    "dynamodb:PutItem", "dynamodb:GetItem", "dynamodb:Query"}),
    "StatusHandlerRole": frozenset({"s3:GetObject", "s3:ListBucket", "s3:PutObject",
                                    "dynamodb:GetItem", "dynamodb:UpdateItem", "dynamodb:Query"}),
    "ReaperRole": frozenset({
        "states:ListExecutions", "s3:GetObject", "s3:ListBucket", "dynamodb:Query",
        "dynamodb:BatchGetItem", "dynamodb:UpdateItem", "glue:GetJobRuns", "ecs:ListTasks",
    }),
    "StateMachineRole": frozenset({"glue:StartJobRun", "ecs:RunTask", "iam:PassRole"}),
    WORKER: frozenset({
        "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload",
        "s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:ListMultipartUploadParts",
        "dynamodb:UpdateItem",
        "secretsmanager:GetSecretValue", "glue:GetDatabase", "glue:CreateDatabase",
        "glue:GetTable", "glue:CreateTable", "glue:GetPartitions", "glue:BatchCreatePartition",
    }),
}  # fmt: skip
"""Action by role, as recorded."""

_LOG = f"its log: {GUIDE}/lambda/latest/dg/monitoring-cloudwatchlogs.html"
_TRACE = f"X-Ray: {GUIDE}/lambda/latest/dg/services-xray.html"
_KEY = f"under a key: {GUIDE}/AmazonS3/latest/userguide/UsingKMSEncryption.html"
_EVENTS = f"how .sync hears of the end: {GUIDE}/step-functions/latest/dg/connect-to-resource.html"
_MAP = f"distributed Map: {GUIDE}/step-functions/latest/dg/iam-policies-eg-dist-map.html"
_GLUE = f"{GUIDE}/step-functions/latest/dg/connect-glue.html"
_EMR = f"{GUIDE}/step-functions/latest/dg/connect-emr-serverless.html"
_STEP = f"{GUIDE}/step-functions/latest/dg/connect-emr.html"
_ECS = f"{GUIDE}/step-functions/latest/dg/connect-ecs.html"
_TASK = f"{GUIDE}/AmazonECS/latest/developerguide/task_execution_IAM_role.html"
_TAGS = f"{GUIDE}/AmazonECS/latest/developerguide/supported-iam-actions-tagging.html"
_DELIVERY = f"{GUIDE}/step-functions/latest/dg/cw-logs.html"
_XRAY = f"{GUIDE}/step-functions/latest/dg/concepts-xray-tracing.html"
_VPC = f"{GUIDE}/glue/latest/dg/create-an-iam-role.html"
_FUNCTION = {
    "logs:CreateLogStream": _LOG, "logs:PutLogEvents": _LOG,
    "xray:PutTraceSegments": _TRACE, "xray:PutTelemetryRecords": _TRACE,
    "kms:Decrypt": _KEY, "kms:GenerateDataKey": _KEY,
}  # fmt: skip

NEEDED: Mapping[str, Mapping[str, str]] = {
    "ConfigManagerRole": {
        **_FUNCTION,
        "dynamodb:BatchGetItem": "a rerun reads again what the index does not show as ended",
        "dynamodb:UpdateItem": "a rerun resolves runs without an outcome, and corrects wrong ones",
        "secretsmanager:GetSecretValue": "with ListTables, the login of a source with patterns",
        "ssm:GetParameter": "with ListTables, connection.ssm_parameter",
        "rds-db:connect": "with ListTables, connection.auth iam",
        **dict.fromkeys(
            (
                "ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSubnets", "ec2:DeleteNetworkInterface",
            ),
            f"with ListTables in a VPC: {GUIDE}/lambda/latest/dg/configuration-vpc.html",
        ),
    },
    "StatusHandlerRole": {
        **_FUNCTION,
        "dynamodb:BatchGetItem": "the summary reads again what the index does not show as ended",
    },
    "ReaperRole": {
        **_FUNCTION,
        "s3:PutObject": "a run that it gives up is fenced off in the commit log",
        "emr-serverless:ListJobRuns": "a run of job_type emr: no emulator has EMR Serverless",
        "elasticmapreduce:ListSteps": "a run of job_type emr on a running cluster",
        "ecs:DescribeTasks": "a run of job_type ecs while tasks of the cluster run",
        **dict.fromkeys(
            ("glue:BatchStopJobRun", "emr-serverless:CancelJobRun", "elasticmapreduce:CancelSteps",
             "ecs:StopTask"),
            "the job of an attempt that has written no progress for ten minutes is stopped",
        ),
    },
    "ReaperScheduleRole": {
        "lambda:InvokeFunction": f"{GUIDE}/scheduler/latest/UserGuide/setting-up.html",
        "sqs:SendMessage": f"{GUIDE}/scheduler/latest/UserGuide/configuring-schedule-dlq.html",
    },
    "StateMachineRole": {
        "lambda:InvokeFunction": f"{GUIDE}/step-functions/latest/dg/connect-lambda.html",
        "s3:GetObject": _MAP, "s3:PutObject": _MAP, "s3:ListMultipartUploadParts": _MAP,
        "s3:AbortMultipartUpload": _MAP, "states:StartExecution": _MAP,
        "states:DescribeExecution": _MAP, "states:StopExecution": _MAP,
        "states:RedriveExecution": f"{GUIDE}/step-functions/latest/dg/redrive-map-run.html",
        "glue:GetJobRun": _GLUE, "glue:GetJobRuns": _GLUE,
        "glue:BatchStopJobRun": _GLUE,
        "emr-serverless:StartJobRun": _EMR, "emr-serverless:GetJobRun": _EMR,
        "emr-serverless:CancelJobRun": _EMR,
        "elasticmapreduce:AddJobFlowSteps": _STEP, "elasticmapreduce:DescribeStep": _STEP,
        "elasticmapreduce:CancelSteps": _STEP,
        "ecs:TagResource": _TAGS,
        "ecs:DescribeTasks": _ECS, "ecs:StopTask": _ECS,
        "dynamodb:UpdateItem": f"{GUIDE}/step-functions/latest/dg/connect-ddb.html",
        "events:PutTargets": _EVENTS, "events:PutRule": _EVENTS, "events:DescribeRule": _EVENTS,
        "logs:CreateLogDelivery": _DELIVERY, "logs:GetLogDelivery": _DELIVERY,
        "logs:UpdateLogDelivery": _DELIVERY, "logs:DeleteLogDelivery": _DELIVERY,
        "logs:ListLogDeliveries": _DELIVERY, "logs:PutResourcePolicy": _DELIVERY,
        "logs:DescribeResourcePolicies": _DELIVERY, "logs:DescribeLogGroups": _DELIVERY,
        "xray:PutTraceSegments": _XRAY, "xray:PutTelemetryRecords": _XRAY,
        "xray:GetSamplingRules": _XRAY, "xray:GetSamplingTargets": _XRAY,
        "kms:Decrypt": _KEY, "kms:GenerateDataKey": _KEY,
    },
    WORKER: {
        "dynamodb:GetItem": "an attempt that is outdated says what took its place",
        "ssm:GetParameter": "connection.ssm_parameter",
        "glue:UpdateTable": "a column is added, or a table written again",
        "glue:GetCatalog": f"REST endpoint: {GUIDE}/glue/latest/dg/iceberg-rest-apis.html",
        "glue:BatchDeletePartition": "an overwrite drops partitions that are gone",
        "rds-db:connect": "auth: iam",
        "redshift:GetClusterCredentials": "auth: iam",
        "redshift:GetClusterCredentialsWithIAM": "auth: iam",
        "redshift-serverless:GetCredentials": "auth: iam",
        "kms:Decrypt": _KEY, "kms:GenerateDataKey": _KEY,
    },
    "GlueRole": {
        "logs:CreateLogGroup": _VPC, "logs:CreateLogStream": _VPC, "logs:PutLogEvents": _VPC,
        "logs:AssociateKmsKey": f"{GUIDE}/glue/latest/dg/encryption-security-configuration.html",
        "glue:GetConnection": _VPC, "ec2:DescribeSubnets": _VPC,
        "ec2:DescribeSecurityGroups": _VPC, "ec2:DescribeVpcEndpoints": _VPC,
        "ec2:DescribeRouteTables": _VPC, "ec2:CreateNetworkInterface": _VPC,
        "ec2:DeleteNetworkInterface": _VPC, "ec2:CreateTags": _VPC, "ec2:DeleteTags": _VPC,
    },
    "EmrRole": {
        "logs:DescribeLogGroups": f"{GUIDE}/emr/latest/EMR-Serverless-UserGuide/logging.html",
        "logs:CreateLogStream": f"{GUIDE}/emr/latest/EMR-Serverless-UserGuide/logging.html",
        "logs:DescribeLogStreams": f"{GUIDE}/emr/latest/EMR-Serverless-UserGuide/logging.html",
        "logs:PutLogEvents": f"{GUIDE}/emr/latest/EMR-Serverless-UserGuide/logging.html",
    },
    "EcsTaskRole": {},
    "EcsExecutionRole": {
        "ecr:GetAuthorizationToken": _TASK, "ecr:BatchCheckLayerAvailability": _TASK,
        "ecr:GetDownloadUrlForLayer": _TASK, "ecr:BatchGetImage": _TASK,
        "logs:CreateLogStream": _TASK, "logs:PutLogEvents": _TASK,
    },
}  # fmt: skip
"""The reason, or the page that gives it, by role and action."""


class _Loader(yaml.CSafeLoader):
    """Reads CloudFormation's tags as ``{tag: value}``."""


def _tagged(loader: yaml.CSafeLoader, tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return {tag: node.value}
    if isinstance(node, yaml.SequenceNode):
        return {tag: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {tag: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _tagged)


@functools.cache
def template(path: Path = TEMPLATE) -> dict[str, Any]:
    """Return a template, its tags as mappings; read once, and not to be changed."""
    read: dict[str, Any] = yaml.load(path.read_text(), Loader=_Loader)
    return read


def statements(resource: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the statements of a role or managed policy, including conditional ones."""
    properties = resource["Properties"]
    documents = [p["PolicyDocument"] for p in properties.get("Policies", ())]
    documents += [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
    for document in documents:
        for statement in document["Statement"]:
            yield statement["If"][1] if "If" in statement else statement


NAMES = {
    "AWS::Partition": "aws", "AWS::Region": "eu-central-1", "AWS::AccountId": "123456789012",
    "AWS::StackName": "extract-jobs", "AWS::NoValue": None,
}  # fmt: skip
"""CloudFormation's own pseudo parameters."""


def parameters_of(read: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return the template's parameters as CloudFormation sees them: lists are split."""
    found = {}
    for name, parameter in read["Parameters"].items():
        value = given.get(name, str(parameter.get("Default", f"given-{name}")))
        found[name] = value.split(",") if parameter["Type"] == "CommaDelimitedList" else value
    return found


class Resolver:
    """Fills in the template for one set of parameters, as CloudFormation would.

    A resource's value is its logical name: ``!Ref GlueJob`` is ``GlueJob``.
    """

    def __init__(self, given: Mapping[str, str] = {}, path: Path = TEMPLATE) -> None:
        self.template = template(path)
        self.values = {**NAMES, **parameters_of(self.template, given)}

    def holds(self, condition: str) -> bool:
        """Return whether a condition of the template is true."""
        return condition == "Always" or bool(self.value(self.template["Conditions"][condition]))

    def resources(self) -> dict[str, dict[str, Any]]:
        """Return the properties of the resources that are created, by logical name."""
        return {
            name: self.value(resource["Properties"])
            for name, resource in self.template["Resources"].items()
            if self.holds(resource.get("Condition", "Always"))
        }

    def value(self, node: Any) -> Any:
        """Return a node with its functions evaluated; ``AWS::NoValue`` is left out."""
        if isinstance(node, list):
            return [v for v in map(self.value, node) if v is not None]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((tag, inner),) = node.items()
            if tag in _FUNCTIONS:
                return _FUNCTIONS[tag](self, inner)
        return {k: v for k, v in ((k, self.value(v)) for k, v in node.items()) if v is not None}

    def ref(self, name: str) -> Any:
        return self.values.get(name, name)

    def sub(self, inner: Any) -> str:
        text, more = inner if isinstance(inner, list) else (inner, {})
        known = {k: self.value(v) for k, v in more.items()}
        return re.sub(r"\$\{([\w:.]+)\}", lambda m: str(known.get(m[1], self.ref(m[1]))), text)


_FUNCTIONS: dict[str, Any] = {
    "Ref": Resolver.ref,
    "Sub": Resolver.sub,
    "GetAtt": lambda self, inner: inner,
    "Condition": lambda self, inner: self.holds(inner),
    "Equals": lambda self, inner: self.value(inner[0]) == self.value(inner[1]),
    "Not": lambda self, inner: not self.value(inner[0]),
    "And": lambda self, inner: all(map(self.value, inner)),
    "Or": lambda self, inner: any(map(self.value, inner)),
    "If": lambda self, inner: self.value(inner[1 if self.holds(inner[0]) else 2]),
    "Join": lambda self, inner: inner[0].join(self.value(inner[1])),
    "Select": lambda self, inner: self.value(inner[1])[int(inner[0])],
}


def allows(role: str, action: str, resource: str, given: Mapping[str, str] = {}) -> bool:
    """Return whether a role or policy of the stack with these parameters allows an action.

    Conditions of statements are ignored.
    """
    made = _made(tuple(sorted(given.items())))
    return role in made and any(
        action in _listed(statement["Action"])
        and any(fnmatchcase(resource, pattern) for pattern in _listed(statement["Resource"]))
        for statement in statements({"Properties": made[role]})
    )


def resource_forms(action: str) -> set[str]:
    """Return the ARNs that an action applies to, with ``*`` for variable parts; none if unknown.

    They include ``*`` itself if the action has no resource, or need not have one.
    """
    from policy_sentry.querying.actions import get_action_data

    service, _, name = action.partition(":")
    rows = (get_action_data(service, name) or {}).get(service, [])
    return {re.sub(r"\$\{\w+\}", "*", row["resource_arn_format"]) for row in rows}


@functools.cache
def _made(given: tuple[tuple[str, str], ...]) -> dict[str, dict[str, Any]]:
    return Resolver(dict(given)).resources()


def _listed(value: Any) -> Iterable[str]:
    return [value] if isinstance(value, str) else value


def allowed() -> dict[str, set[str]]:
    """Return what each role and managed policy of the template allows, with every option on."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, resource in template()["Resources"].items():
        if resource["Type"] in {"AWS::IAM::Role", "AWS::IAM::ManagedPolicy"}:
            found[name] = set()
            for statement in statements(resource):
                actions = statement["Action"]
                found[name] |= {actions} if isinstance(actions, str) else set(actions)
    return found
