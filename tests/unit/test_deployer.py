"""The policy of whoever deploys: against the templates, IAM's lists, and IAM's limits."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase

import pytest

from infra.deployer import LONGEST, PARTS, deployer_policy
from tests.support.permissions import TEMPLATE, resource_forms, template

WHERE = ("a-stack-with-a-longer-name", "123456789012", "ap-southeast-2")
OF_AN_ADMINISTRATOR = "lake_formation.yaml"
"""Whoever deploys the pipeline grants nothing in Lake Formation."""
TEMPLATES = [
    template(path)
    for path in sorted(TEMPLATE.parent.glob("*.yaml"))
    if path.name != OF_AN_ADMINISTRATOR
]
CREATES = {
    "AWS::IAM::ManagedPolicy": "iam:CreatePolicy",
    "AWS::S3::BucketPolicy": "s3:PutBucketPolicy",
    "AWS::SNS::TopicPolicy": "sns:SetTopicAttributes",
    "AWS::SNS::Subscription": "sns:Subscribe",
    "AWS::CloudWatch::Alarm": "cloudwatch:PutMetricAlarm",
    "AWS::ECS::TaskDefinition": "ecs:RegisterTaskDefinition",
    "AWS::EC2::SecurityGroupIngress": "ec2:AuthorizeSecurityGroupIngress",
    "AWS::EC2::SecurityGroupEgress": "ec2:AuthorizeSecurityGroupEgress",
    "AWS::StepFunctions::StateMachine": "states:CreateStateMachine",
    "AWS::EMRServerless::Application": "emr-serverless:CreateApplication",
}
"""What makes a resource, where that is not ``<service>:Create<kind>``."""


def granted():
    return [
        (action, [resource] if isinstance(resource, str) else resource, statement)
        for part in PARTS
        for statement in deployer_policy(part, *WHERE)["Statement"]
        for resource in [statement["Resource"]]
        for action in statement["Action"]
    ]


def test_every_kind_of_resource_of_the_templates_can_be_made():
    kinds = {r["Type"] for read in TEMPLATES for r in read["Resources"].values()}
    assert kinds >= {"AWS::S3::Bucket", "AWS::Lambda::Function"}
    for kind in kinds:
        _, service, name = kind.lower().split("::")
        action = CREATES.get(kind, f"{service}:create{name}")
        assert any(fnmatchcase(action.lower(), given.lower()) for given, *_ in granted()), kind


def test_every_action_exists_and_is_for_its_resource():
    assert {action.split(":")[0] for action, *_ in granted()} >= {"s3", "iam", "cloudformation"}
    for action, resources, _ in granted():
        if "*" in action:
            continue
        forms = resource_forms(action)
        assert forms, f"there is no action {action}"
        if resources == ["*"]:
            assert "*" in forms, action
        else:
            assert any(
                fnmatchcase(arn, form) or fnmatchcase(form, arn)
                for arn in resources
                for form in forms - {"*"}
            ), action


@pytest.mark.parametrize("part", PARTS)
def test_a_part_fits_into_a_managed_policy(part):
    document = deployer_policy(part, *WHERE)
    assert len(re.sub(r"\s", "", json.dumps(document))) <= LONGEST
    names = [statement["Sid"] for statement in document["Statement"]]
    assert len(names) == len(set(names))


def test_no_data_and_no_secret_can_be_read():
    actions = {action for action, *_ in granted()}
    data = "arn:aws:s3:::a-stack-with-a-longer-name-data-123456789012-ap-southeast-2/x"
    for action, resources, _ in granted():
        if action.startswith("s3:") and "Object" in action:
            assert not any(fnmatchcase(data, arn) for arn in resources), action
    assert not {a for a in actions if a.split(":")[0] in {"secretsmanager", "ssm"}}
    reading = {"dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan"}
    assert not actions & (reading | {"lambda:InvokeFunction", "states:StartExecution"})
    assert "*" not in {action.partition(":")[2] for action in actions}


def test_only_roles_and_policies_of_the_stack_can_be_made_or_handed_on():
    of_iam = [one for one in granted() if one[0].startswith("iam:")]
    assert {"iam:CreateRole", "iam:PassRole"} <= {action for action, *_ in of_iam}
    for action, resources, statement in of_iam:
        own = all("/a-stack-with-a-longer-name-" in arn for arn in resources)
        assert own or statement["Condition"], action


def test_only_cloudformation_can_delete_a_key():
    (statement,) = [s for action, _, s in granted() if action == "kms:ScheduleKeyDeletion"]
    asked = statement["Condition"]["ForAnyValue:StringEquals"]
    assert asked == {"aws:CalledVia": "cloudformation.amazonaws.com"}
