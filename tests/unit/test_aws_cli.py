"""How the end of a stack's change is waited for, with a command in the AWS CLI's place."""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace

import pytest

from infra.aws_cli import Aws, DeployFailed, Stack

PROGRAM = """#!{python}
import json, pathlib, sys
if "describe-stack-events" in sys.argv:
    print(json.dumps([{{"LogicalResourceId": "Reaper", "ResourceStatusReason": "no such role"}}]))
if "describe-stacks" in sys.argv:
    left = pathlib.Path({file!r})
    status, *others = json.loads(left.read_text())
    left.write_text(json.dumps(others))
    if not status:
        sys.exit("Stack with id x does not exist")
    print(json.dumps({{"Stacks": [{{"StackStatus": status}}]}}))
if "deploy" in sys.argv:
    print("arn:aws:cloudformation:eu-central-1:1:changeSet/x/1")
if "describe-change-set" in sys.argv:
    print(json.dumps({{"Changes": []}}))
"""


@pytest.fixture
def stack(tmp_path, monkeypatch):
    """Make a stack whose status is one after the other of those given."""
    slept = []
    # Not the module's own function: other tests' threads sleep, too.
    clock = SimpleNamespace(sleep=slept.append, monotonic=time.monotonic)
    monkeypatch.setattr("infra.aws_cli.time", clock)

    def make(*statuses):
        file, program = tmp_path / "statuses.json", tmp_path / "aws"
        file.write_text(json.dumps(statuses))
        program.write_text(PROGRAM.format(python=sys.executable, file=str(file)))
        program.chmod(0o755)
        return Stack(Aws(str(program)), "x"), slept

    return make


def deploy(stack, tmp_path):
    return stack.deploy(tmp_path / "template.yaml", {}, confirm=lambda _: True)


@pytest.mark.parametrize("end", ["CREATE_COMPLETE", "UPDATE_COMPLETE"])
def test_a_change_is_waited_for_until_it_ends(stack, tmp_path, end):
    made, slept = stack("REVIEW_IN_PROGRESS", "CREATE_IN_PROGRESS", end)
    assert deploy(made, tmp_path)
    assert slept == [0.5, 1, 2]


@pytest.mark.parametrize(
    "end", ["ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "CREATE_FAILED", "ROLLBACK_FAILED", ""]
)
def test_a_change_that_ends_otherwise_is_an_error_with_what_failed(stack, tmp_path, end):
    made, _ = stack("UPDATE_IN_PROGRESS", end)
    with pytest.raises(DeployFailed, match=f"is {end or 'gone'}\n  Reaper: no such role"):
        deploy(made, tmp_path)


def test_a_deletion_ends_when_nothing_is_there(stack):
    made, slept = stack("DELETE_IN_PROGRESS", "")
    made.delete()
    assert slept == [0.5, 1]
    made, _ = stack("DELETE_FAILED")
    with pytest.raises(DeployFailed, match="is DELETE_FAILED\n  Reaper"):
        made.delete()


def test_a_change_that_does_not_end_is_given_up_after_an_hour(stack, tmp_path, monkeypatch):
    times = iter([0.0, 10.0, 3601.0])
    monkeypatch.setattr("infra.aws_cli.time.monotonic", lambda: next(times))
    made, _ = stack(*["UPDATE_IN_PROGRESS"] * 3)
    with pytest.raises(DeployFailed, match="still UPDATE_IN_PROGRESS after an hour"):
        deploy(made, tmp_path)
