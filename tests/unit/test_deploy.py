"""What stops a deployment before AWS is changed, and what is uploaded."""

from __future__ import annotations

import io
import itertools
import json
import sys

import pytest

from infra import deploy, finishing
from infra.deploy import release, wanted
from infra.images import repository_of
from tests.support.permissions import Resolver, allows

FAKE = """#!{python}
import json, sys
with open({log!r}, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
answers = json.loads({answers!r})
# The answer to a command is by its first two words, or by more: the most that fit.
fits = [asked for asked in answers if set(asked.split()) <= set(sys.argv[1:])]
if not fits:
    sys.exit("An error occurred (404): it does not exist: Not Found")
answer = answers[max(fits, key=len)]
print(answer if isinstance(answer, str) else json.dumps(answer))
"""
ACCOUNT = {"sts get-caller-identity": {"Account": "123456789012"}}
STACK = {"Stacks": [{"StackStatus": "CREATE_COMPLETE", "Parameters": [], "Outputs": []}]}


@pytest.fixture
def aws(tmp_path, monkeypatch):
    """Make a command that answers as told, and return how to run the deployment with it."""
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    log = tmp_path / "log"
    log.touch()

    def run(answers, *arguments):
        program = tmp_path / "aws"
        program.write_text(
            FAKE.format(python=sys.executable, log=str(log), answers=json.dumps(answers))
        )
        program.chmod(0o755)
        code = deploy.main([*arguments, "--aws", str(program)])
        return code, log.read_text().splitlines()

    return run


def test_an_absent_aws_cli_is_reported(capsys):
    assert deploy.main(["outputs", "--aws", "/nonexistent/aws"]) == 1
    assert "/nonexistent/aws is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a-name-that-is-too-long-for-buckets", "Upper", "under_score"])
def test_a_name_that_no_bucket_can_have_is_refused(aws, capsys, name):
    code, calls = aws(ACCOUNT, "up", "--stack", name)
    assert code == 1
    assert len(calls) == 1
    # A bucket's name has 63 characters: the rest is "-artifacts-", the account and the region.
    assert "at most 27" in capsys.readouterr().err


def test_what_is_not_built_is_not_deployed(aws, capsys, tmp_path):
    answers = {**ACCOUNT, "cloudformation describe-stacks": STACK,
               "cloudformation deploy": "No changes to deploy"}  # fmt: skip
    answers["cloudformation describe-stacks"]["Stacks"][0]["Outputs"] = [
        {"OutputKey": "ArtifactsBucket", "OutputValue": "b"}
    ]
    code, calls = aws(answers, "up", "--dist", str(tmp_path))
    assert code == 1
    assert "make dist" in capsys.readouterr().err
    assert not [call for call in calls if call.startswith("s3")]


@pytest.mark.parametrize("given", [["--set", "Emr"], ["--parameters", "/nonexistent.json"]])
def test_parameters_that_cannot_be_read_are_reported(aws, capsys, given):
    code, _ = aws(ACCOUNT, "up", *given)
    assert code == 1
    assert given[1] in capsys.readouterr().err


def test_nothing_is_deleted_when_nobody_says_yes(aws, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, calls = aws({"cloudformation describe-stacks": STACK}, "destroy")
    assert code == 0
    assert "Use --yes" in capsys.readouterr().out
    assert not [call for call in calls if "delete-stack" in call]


def test_a_stack_that_is_not_there_is_reported(aws, capsys):
    for command in (["destroy"], ["outputs"], ["schedule", "sales", "rate(1 hour)"]):
        assert aws({}, *command)[0] == 1
        assert "there is no stack extract-jobs" in capsys.readouterr().err


def test_only_what_the_stack_uses_is_uploaded():
    assert "*-glue5.1.gluewheels.zip" in wanted({})
    assert not [x for x in wanted({}) if "emr" in x]
    assert wanted({"GlueVersion": "6.0", "Emr": "yes"})[-2:] == [
        "*-glue6.0.gluewheels.zip", "*-emr.tar.gz",
    ]  # fmt: skip
    cluster = {"EmrClusterArns": "arn:aws:elasticmapreduce:eu-central-1:1:cluster/j"}
    assert "*-emr.tar.gz" in wanted(cluster)
    assert "*-emr.tar.gz" in wanted({**cluster, "Emr": "yes", "EmrImage": "i"})
    assert not [x for x in wanted({"Emr": "yes", "EmrImage": "i", "Glue": "no"}) if x[0] == "*"]


def test_other_contents_go_to_another_folder(tmp_path):
    folders = set()
    for content in ("a", "a", "b"):
        (tmp_path / "SHA256SUMS").write_text(content)
        folders.add(release(tmp_path))
    assert len(folders) == 2


# Deploying again

KEY = "arn:aws:kms:eu-central-1:123456789012:key/made-by-an-earlier-stack"
WHERE = "123456789012-eu-central-1"
NAMES = {
    "AdoptDataBucket": f"extract-jobs-data-{WHERE}",
    "AdoptStateBucket": f"extract-jobs-state-{WHERE}",
    "AdoptTable": "extract-jobs",
}
AS_MADE = {
    "s3api get-bucket-versioning": {"Status": "Enabled"},
    "s3api get-public-access-block": {"PublicAccessBlockConfiguration": {"BlockPublicAcls": True}},
    "s3api get-bucket-policy": {"Policy": json.dumps({"Statement": [{
        "Effect": "Deny", "Action": "s3:*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}
    }]})},
    "s3api get-bucket-lifecycle-configuration": {"Rules": [
        {"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 14}},
        {"Status": "Enabled", "NoncurrentVersionExpiration": {"NoncurrentDays": 30}},
        {"Status": "Enabled", "Prefix": "work/", "Expiration": {"Days": 90}},
    ]},
    "dynamodb describe-continuous-backups": {"ContinuousBackupsDescription": {
        "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "ENABLED"}
    }},
}  # fmt: skip


def left(*kept, key=None):
    """Return what AWS says where an earlier stack has left these things, under a key or none."""
    rule = {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    }
    table = {"TableName": "extract-jobs", "GlobalSecondaryIndexes": [{}]} | (
        {"SSEDescription": {"KMSMasterKeyArn": key}} if key else {}
    )
    found = {**ACCOUNT, **AS_MADE}
    for parameter in kept:
        if parameter == "AdoptTable":
            found["dynamodb describe-table extract-jobs"] = {"Table": table}
            continue
        name = NAMES[parameter]
        found[f"s3api head-bucket {name}"] = {}
        if key:
            rules = {"ServerSideEncryptionConfiguration": {"Rules": [rule]}}
            found[f"s3api get-bucket-encryption {name}"] = rules
    return found


def taken_over(aws, answers, *more):
    """Return what a new stack would be given: it stops where its artifacts bucket is asked for."""
    seen = {}

    def stop(self, template, parameters, **_):
        seen.update(parameters)
        raise deploy.DeployFailed("stopped here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy, "release", lambda _: "folder")
        patch.setattr(deploy, "_upload", lambda *_: None)
        patch.setattr(deploy.Stack, "outputs", lambda _: {"ArtifactsBucket": "b"})
        real = deploy.Stack.deploy
        patch.setattr(
            deploy.Stack, "deploy",
            lambda self, *a, **k: True if self.name.endswith("artifacts") else stop(self, *a, **k),
        )  # fmt: skip
        assert real is not deploy.Stack.deploy
        code, _ = aws(answers, "up", *more)
    return code, seen


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("kept", [
    kept for n in range(4) for kept in itertools.combinations(sorted(NAMES), n)
])  # fmt: skip
def test_a_new_stack_takes_over_exactly_what_is_there_and_its_key(aws, capsys, kept, key):
    _, given = taken_over(aws, left(*kept, key=key))
    assert {name for name in NAMES if given.get(name) == "yes"} == set(kept)
    assert given.get("KmsKey") == (key if kept else None)
    said = capsys.readouterr().out
    assert all(
        (NAMES[name] in said) == (name in kept) for name in ("AdoptDataBucket", "AdoptStateBucket")
    )
    # And the template makes the rest, and lets every role use the key of what is kept.
    made = Resolver(given).resources()
    assert ("DataBucket" in made) == ("DataBucketPolicy" in made) == ("AdoptDataBucket" not in kept)
    assert (
        ("StateBucket" in made) == ("StateBucketPolicy" in made) == ("AdoptStateBucket" not in kept)
    )
    assert ("TrackingTable" in made) == ("AdoptTable" not in kept)
    for role in ("WorkerPolicy", "ConfigManagerRole", "StatusHandlerRole", "ReaperRole",
                 "StateMachineRole"):  # fmt: skip
        assert allows(role, "kms:Decrypt", KEY, given) == bool(kept and key), role


@pytest.mark.parametrize("asked", ["none", "create", KEY + "-other"])
def test_a_key_that_is_not_the_one_of_what_is_there_is_refused_before_anything_is_changed(
    aws, capsys, asked
):
    code, calls = aws(left("AdoptTable", key=KEY), "up", "--set", f"KmsKey={asked}")
    assert code == 1
    assert f"give --set KmsKey={KEY}" in capsys.readouterr().err
    assert not [call for call in calls if "deploy" in call.split()]


def test_what_is_there_under_several_keys_is_refused(aws, capsys):
    answers = left(*NAMES, key=KEY)
    answers["dynamodb describe-table extract-jobs"]["Table"]["SSEDescription"] = {
        "KMSMasterKeyArn": "another"
    }
    assert aws(answers, "up")[0] == 1
    assert "different keys" in capsys.readouterr().err


def test_how_a_bucket_that_is_there_differs_from_the_template_is_reported(aws, capsys):
    answers = left(*NAMES)
    answers["s3api get-bucket-versioning"] = {}
    answers["s3api get-public-access-block"] = {
        "PublicAccessBlockConfiguration": {"BlockPublicAcls": False}
    }
    answers["s3api get-bucket-policy"] = {"Policy": '{"Statement": {"Effect": "Allow"}}'}
    answers["s3api get-bucket-lifecycle-configuration"] = {"Rules": [
        {"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3}},
        {"Status": "Disabled", "NoncurrentVersionExpiration": {}, "Expiration": {"Days": 1}},
    ]}  # fmt: skip
    answers["dynamodb describe-table extract-jobs"]["Table"].pop("GlobalSecondaryIndexes")
    answers["dynamodb describe-continuous-backups"] = {}
    taken_over(aws, answers)
    said = capsys.readouterr().out
    of_both = ("versions are not kept", "public access is not blocked", "plain HTTP is not refused",
               "dropped after 3 days", "replaced objects are kept for ever")  # fmt: skip
    for text in of_both:
        assert said.count(text) == 2
    for text in ("executions are kept for ever", "lacks the index", "no point-in-time recovery"):
        assert said.count(text) == 1


@pytest.mark.parametrize(("encrypted", "asked"), [((), "create"), (("AdoptTable",), KEY)])
def test_what_is_there_without_the_key_that_the_stack_will_have_is_reported(
    aws, capsys, encrypted, asked
):
    answers = left(*NAMES) | left(*encrypted, key=KEY)
    taken_over(aws, answers, "--set", f"KmsKey={asked}")
    lines = [x for x in capsys.readouterr().out.splitlines() if "not encrypted with KmsKey" in x]
    assert {name for name in NAMES if any(f" {NAMES[name]}: " in line for line in lines)} == (
        set(NAMES) - set(encrypted)
    )
    assert len(lines) == len(NAMES) - len(encrypted)
    taken_over(aws, left(*NAMES), "--set", "KmsKey=none")
    assert "Not as the template would make it" not in capsys.readouterr().out


def test_a_stack_that_took_over_all_before_keeps_doing_so(aws):
    stack = {"StackStatus": "CREATE_COMPLETE", "Outputs": [],
             "Parameters": [{"ParameterKey": "Adopt", "ParameterValue": "yes"}]}  # fmt: skip
    answers = {**ACCOUNT, "cloudformation describe-stacks": {"Stacks": [stack]}}
    _, given = taken_over(aws, answers)
    assert {given[name] for name in NAMES} == {"yes"}


@pytest.mark.parametrize(
    ("image", "fits"),
    [
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com/x:1", True),
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com/x:1", False),
        ("docker.io/x:1", False),
    ],
)
def test_an_image_that_emr_serverless_cannot_pull_is_refused(aws, capsys, image, fits):
    aws(ACCOUNT, "up", "--set", f"EmrImage={image}")
    assert ("in its own Region" in capsys.readouterr().err) != fits


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, []),
        ({"VpcId": "v"}, ["SubnetIds", "SubnetAvailabilityZone"]),
        ({"VpcId": "v", "Glue": "no"}, ["SubnetIds"]),
        ({"VpcId": "v", "SubnetIds": "s", "SubnetAvailabilityZone": "a"}, []),
        ({"Ecs": "yes"}, ["EcsImage", "VpcId", "SubnetIds", "SubnetAvailabilityZone"]),
        ({"Ecs": "yes", "Glue": "no", "EcsImage": "i", "VpcId": "v", "SubnetIds": "s"}, []),
    ],
)  # fmt: skip
def test_parameters_that_others_need_are_all_named_before_anything_is_changed(
    aws, capsys, given, missing
):
    code, calls = aws(
        ACCOUNT, "up", *(x for item in given.items() for x in ("--set", "=".join(item)))
    )
    said = capsys.readouterr().err
    expected = " ".join(f"--set {name}=…" for name in missing)
    assert (f" needs {', '.join(missing)} too: add {expected}\n" in said) == bool(missing)
    assert code == 1  # nothing is built, at the latest
    if missing:
        assert len(calls) == 2, calls


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/x@sha256:ab",
         "arn:aws:ecr:eu-central-1:123456789012:repository/team/x"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/x:1",
         "arn:aws-cn:ecr:cn-north-1:123456789012:repository/x"),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com/x",
         "arn:aws-us-gov:ecr:us-gov-west-1:123456789012:repository/x"),
        ("docker.io/library/x:1", ""),
    ],
)  # fmt: skip
def test_the_repository_of_an_image_is_found(image, repository):
    assert repository_of(image) == repository


@pytest.mark.parametrize("before", [None, {"EcsImage": "i"}, {"EcsRepositoryArn": "theirs"}])
def test_tasks_may_pull_the_image_that_the_stack_has(aws, before):
    image = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/x:1"
    if before and "EcsImage" in before:
        before["EcsImage"] = image
    stack = {"StackStatus": "CREATE_COMPLETE", "Outputs": [], "Parameters": [
        {"ParameterKey": k, "ParameterValue": v} for k, v in (before or {}).items()]}  # fmt: skip
    answers = {**ACCOUNT} | (
        {"cloudformation describe-stacks": {"Stacks": [stack]}} if before else {}
    )
    asked = [] if before else ["--set", f"EcsImage={image}"]
    _, given = taken_over(aws, answers, *asked)
    found = {**(before or {}), **given}["EcsRepositoryArn"]
    expected = "arn:aws:ecr:eu-central-1:123456789012:repository/x"
    assert found == ("theirs" if before and "EcsImage" not in before else expected)


@pytest.mark.parametrize("disks", [{}, {"diskEncryptionConfiguration": {"encryptionKeyArn": KEY}}])
def test_the_table_is_protected_and_emrs_disks_are_put_under_the_key(aws, disks):
    outputs = {"TrackingTableName": "t", "EmrApplicationId": "a", "KeyArn": KEY}
    calls = finished(aws, outputs, {"emr-serverless get-application": {"application": disks}})
    assert "dynamodb update-table --table-name t --deletion-protection-enabled" in calls
    encrypted = (
        "emr-serverless update-application --application-id a "
        f"--disk-encryption-configuration encryptionKeyArn={KEY}"
    )
    assert (encrypted in calls) == (not disks)


def test_what_could_not_be_protected_is_reported_and_does_not_stop_the_deployment(aws, capsys):
    outputs = {"TrackingTableName": "t", "EmrApplicationId": "a", "KeyArn": KEY}
    finished(aws, outputs, {})
    said = capsys.readouterr().out
    assert "the table t is not protected from deletion (aws dynamodb update-table" in said
    assert "stop a and deploy again" in said


def finished(aws, outputs, answers):
    """Return the calls that finish a stack with these outputs."""
    described = [{"OutputKey": k, "OutputValue": v} for k, v in outputs.items()]
    stack = {"StackStatus": "CREATE_COMPLETE", "Outputs": described}
    answers = {"cloudformation describe-stacks": {"Stacks": [stack]}, **answers}
    if "emr-serverless get-application" in answers:
        answers |= {"dynamodb update-table": {}, "emr-serverless update-application": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy, "show", lambda o, a: finishing.finish(deploy.Stack(a, o.stack), a))
        code, calls = aws(answers, "outputs")
    assert code == 0
    return calls


@pytest.mark.parametrize(
    ("asked", "there", "expected"),
    [([], {}, ""), (["--set", f"KmsKey={KEY}"], {}, KEY), (["--set", "KmsKey=create"], {}, ""),
     ([], {"KeyArn": KEY}, KEY)],
)  # fmt: skip
def test_artifacts_are_put_under_the_key_once_there_is_one(aws, asked, there, expected):
    described = [{"OutputKey": k, "OutputValue": v}
                 for k, v in {"ArtifactsBucket": "b", **there}.items()]  # fmt: skip
    stack = {"StackStatus": "CREATE_COMPLETE", "Parameters": [], "Outputs": described}
    answers = {**ACCOUNT, "cloudformation describe-stacks": {"Stacks": [stack]},
               "cloudformation deploy": "No changes to deploy"}  # fmt: skip
    _, calls = aws(answers, "up", "--dist", "/nonexistent", *asked)
    (made,) = [call for call in calls if call.startswith("cloudformation deploy")]
    assert (f"--parameter-overrides KmsKey={KEY}" in made) == bool(expected)


def test_tags_are_of_the_stack_and_its_artifacts(aws):
    outputs = [{"OutputKey": "ArtifactsBucket", "OutputValue": "b"}]
    stack = {"StackStatus": "CREATE_COMPLETE", "Parameters": [], "Outputs": outputs}
    answers = {**ACCOUNT, "cloudformation deploy": "No changes to deploy",
               "cloudformation describe-stacks": {"Stacks": [stack]}}  # fmt: skip
    _, calls = aws(answers, "up", "--tags", "team=data", "cost=42")
    (made,) = [call for call in calls if call.startswith("cloudformation deploy")]
    assert made.endswith("--tags team=data cost=42")
