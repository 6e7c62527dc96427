"""The templates beside the code that they are for: roles, names, alarms, suppressions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from extract_jobs.storage.s3_client import PERMISSIONS
from extract_jobs.tracking import EXECUTION_INDEX
from tests.support.permissions import (
    NEEDED,
    SEEN,
    WORKER,
    WORKER_ROLES,
    allowed,
    statements,
    template,
)

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "infra").glob("*.yaml"))


@pytest.mark.parametrize("role", sorted(allowed()))
def test_a_role_allows_what_is_called_or_needed_and_nothing_else(role):
    expected = set(SEEN.get(role, ())) | set(NEEDED[role])
    assert allowed()[role] - expected == set(), "allowed, and in neither table"
    assert expected - allowed()[role] == set(), "in a table, and not allowed"
    assert not set(SEEN.get(role, ())) & set(NEEDED[role]), "in both tables"


def test_the_tables_know_every_role_and_no_other():
    assert set(NEEDED) == set(allowed())
    assert set(SEEN) <= set(allowed())


def test_workers_may_make_every_call_that_storage_makes():
    needed = {part.strip() for text in PERMISSIONS.values() for part in text.split(" and ")}
    assert needed <= allowed()[WORKER]
    resources = template()["Resources"]
    for role in WORKER_ROLES:
        assert resources[role]["Properties"]["ManagedPolicyArns"] == [{"Ref": WORKER}]


def test_only_what_knows_no_resource_is_allowed_on_all_of_them():
    anywhere = {
        action
        for resource in template()["Resources"].values()
        if resource["Type"] in {"AWS::IAM::Role", "AWS::IAM::ManagedPolicy"}
        for statement in statements(resource)
        if statement["Resource"] == "*"
        for action in ([statement["Action"]] if isinstance(statement["Action"], str)
                       else statement["Action"])
    }  # fmt: skip
    assert {action.split(":")[0] for action in anywhere} == {"ecr", "ec2", "logs", "xray"}
    assert not [action for action in anywhere if "*" in action]
    assert {a for a in anywhere if a.startswith("ec2")} <= {
        a for a in allowed()["GlueRole"] if a.startswith("ec2:Describe")
    }


def test_every_role_can_be_bounded_and_trusts_one_service():
    for name, resource in template()["Resources"].items():
        if resource["Type"] == "AWS::IAM::Role":
            properties = resource["Properties"]
            assert properties["PermissionsBoundary"]["If"][0] == "HasBoundary", name
            (trust,) = properties["AssumeRolePolicyDocument"]["Statement"]
            assert list(trust["Principal"]) == ["Service"], name


def test_the_tracking_table_is_the_one_that_the_code_knows():
    table = template()["Resources"]["TrackingTable"]["Properties"]
    assert [k["AttributeName"] for k in table["KeySchema"]] == ["table_id", "run_id"]
    (index,) = table["GlobalSecondaryIndexes"]
    assert index["IndexName"] == EXECUTION_INDEX
    assert [k["AttributeName"] for k in index["KeySchema"]] == ["execution_id", "table_id"]


def test_what_holds_data_outlives_the_stack():
    resources = template()["Resources"]
    holding = {"AWS::S3::Bucket", "AWS::S3::BucketPolicy", "AWS::DynamoDB::Table", "AWS::KMS::Key"}
    for name, resource in resources.items():
        if resource["Type"] in holding:
            # Except where the stack was never finished: an empty bucket would be in the way.
            assert resource["DeletionPolicy"] == "RetainExceptOnCreate", name
            assert resource["UpdateReplacePolicy"] == "Retain", name


def test_uploads_are_left_alone_for_longer_than_a_commit_may_need_them():
    buckets = [r for r in template()["Resources"].values() if r["Type"] == "AWS::S3::Bucket"]
    assert len(buckets) == 2
    for bucket in buckets:
        rules = bucket["Properties"]["LifecycleConfiguration"]["Rules"]
        days = [r["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] for r in rules
                if "AbortIncompleteMultipartUpload" in r]  # fmt: skip
        assert days == [14]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_suppression_says_why(path):
    text = path.read_text()
    skips = re.findall(r"- id: CKV_\w+\n +comment: (\S.*)", text)
    assert len(skips) == text.count("- id: CKV_")
    assert all(len(comment) > 40 for comment in skips)
    for position in (m.start() for m in re.finditer("ignore_checks", text)):
        assert text[:position].splitlines()[-2].lstrip().startswith("#")
