"""What stops a deployment before AWS is changed, and what is uploaded."""

from __future__ import annotations

import io
import json
import sys

import pytest

from infra import deploy
from infra.deploy import release, wanted

FAKE = """#!{python}
import json, sys
with open({log!r}, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
answers = json.loads({answers!r})
command = " ".join(sys.argv[1:3])
if command not in answers:
    sys.exit("An error occurred (ValidationError): Stack does not exist")
print(answers[command] if isinstance(answers[command], str) else json.dumps(answers[command]))
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


def test_an_absent_aws_cli_is_told(capsys):
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
def test_parameters_that_cannot_be_read_are_told(aws, capsys, given):
    code, _ = aws(ACCOUNT, "up", *given)
    assert code == 1
    assert given[1] in capsys.readouterr().err


def test_nothing_is_deleted_when_nobody_says_yes(aws, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, calls = aws({"cloudformation describe-stacks": STACK}, "destroy")
    assert code == 0
    assert "Give --yes" in capsys.readouterr().out
    assert not [call for call in calls if "delete-stack" in call]


def test_a_stack_that_is_not_there_is_told(aws, capsys):
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
