"""What each role of `infra/template.yaml` is for: what code was seen to call, what services need.

Two tables, held against the template both ways: a role allows nothing that is in neither, and
everything that is in one. `SEEN` is what the end-to-end test of the deployed stack records, which
fails where it records anything else. `NEEDED` is kept by hand, from the pages that it names; no
test can show that AWS asks for nothing more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).parents[2] / "infra" / "template.yaml"
GUIDE = "https://docs.aws.amazon.com"
WORKER = "WorkerPolicy"
"""What every worker's role may do beside its own."""
WORKER_ROLES = ("GlueRole", "EmrRole", "EcsTaskRole")

SEEN: Mapping[str, frozenset[str]] = {
    "ConfigManagerRole": frozenset({"s3:GetObject", "s3:PutObject", "dynamodb:PutItem",
                                    "dynamodb:Query"}),
    "StatusHandlerRole": frozenset({"s3:GetObject", "s3:ListBucket", "dynamodb:GetItem",
                                    "dynamodb:UpdateItem", "dynamodb:Query"}),
    "ReaperRole": frozenset({
        "states:ListExecutions", "s3:GetObject", "s3:ListBucket", "dynamodb:Query",
        "dynamodb:BatchGetItem", "dynamodb:UpdateItem", "glue:GetJobRuns", "ecs:ListTasks",
    }),
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
        "s3:ListBucket": "without it S3 answers 403 for a config that is absent",
        "dynamodb:BatchGetItem": "a rerun reads again what the index does not show as ended",
    },
    "StatusHandlerRole": {
        **_FUNCTION,
        "dynamodb:BatchGetItem": "the summary reads again what the index does not show as ended",
    },
    "ReaperRole": {
        **_FUNCTION,
        "emr-serverless:ListJobRuns": "a run of job_type emr: no emulator has EMR Serverless",
        "elasticmapreduce:ListSteps": "a run of job_type emr on a running cluster",
        "ecs:DescribeTasks": "a run of job_type ecs while tasks of the cluster run",
    },
    "ReaperScheduleRole": {
        "lambda:InvokeFunction": f"{GUIDE}/scheduler/latest/UserGuide/setting-up.html",
    },
    "StateMachineRole": {
        "lambda:InvokeFunction": f"{GUIDE}/step-functions/latest/dg/connect-lambda.html",
        "s3:GetObject": _MAP, "s3:PutObject": _MAP, "s3:ListMultipartUploadParts": _MAP,
        "s3:AbortMultipartUpload": _MAP, "states:StartExecution": _MAP,
        "states:DescribeExecution": _MAP, "states:StopExecution": _MAP,
        "glue:StartJobRun": _GLUE, "glue:GetJobRun": _GLUE, "glue:GetJobRuns": _GLUE,
        "glue:BatchStopJobRun": _GLUE,
        "emr-serverless:StartJobRun": _EMR, "emr-serverless:GetJobRun": _EMR,
        "emr-serverless:CancelJobRun": _EMR,
        "elasticmapreduce:AddJobFlowSteps": _STEP, "elasticmapreduce:DescribeStep": _STEP,
        "elasticmapreduce:CancelSteps": _STEP,
        "ecs:RunTask": _ECS, "ecs:DescribeTasks": _ECS, "ecs:StopTask": _ECS,
        "iam:PassRole": f"{_ECS} and {_EMR}",
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
        "glue:BatchDeletePartition": "an overwrite drops partitions that are gone",
        "rds-db:connect": "auth: iam",
        "redshift:GetClusterCredentials": "auth: iam",
        "redshift:GetClusterCredentialsWithIAM": "auth: iam",
        "redshift-serverless:GetCredentials": "auth: iam",
        "kms:Decrypt": _KEY, "kms:GenerateDataKey": _KEY,
    },
    "GlueRole": {
        "s3:GetObject": "Glue fetches script and wheels as the job",
        "logs:CreateLogGroup": _VPC, "logs:CreateLogStream": _VPC, "logs:PutLogEvents": _VPC,
        "logs:AssociateKmsKey": f"{GUIDE}/glue/latest/dg/encryption-security-configuration.html",
        "glue:GetConnection": _VPC, "ec2:DescribeSubnets": _VPC,
        "ec2:DescribeSecurityGroups": _VPC, "ec2:DescribeVpcEndpoints": _VPC,
        "ec2:DescribeRouteTables": _VPC, "ec2:CreateNetworkInterface": _VPC,
        "ec2:DeleteNetworkInterface": _VPC, "ec2:CreateTags": _VPC, "ec2:DeleteTags": _VPC,
    },
    "EmrRole": {
        "s3:GetObject": "EMR fetches script and archive as the job",
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
"""Why, or the page that says so, by role and action."""


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's tags as ``{tag: value}``."""


def _tagged(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return {tag: node.value}
    if isinstance(node, yaml.SequenceNode):
        return {tag: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {tag: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _tagged)


def template() -> dict[str, Any]:
    """Return the template, its tags as mappings."""
    read: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader=_Loader)
    return read


def statements(resource: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the statements of a role or managed policy, those under a condition too."""
    properties = resource["Properties"]
    documents = [p["PolicyDocument"] for p in properties.get("Policies", ())]
    documents += [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
    for document in documents:
        for statement in document["Statement"]:
            yield statement["If"][1] if "If" in statement else statement


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
