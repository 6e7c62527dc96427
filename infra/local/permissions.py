"""Permissions as the template grants them: checked on every call, and logged.

If the emulator runs with ``AUTH=true``, it checks each call against the caller's policies.
Functions get a session of their role from the emulator; job services get one from here. The
emulator does not implement all of IAM: that a call is allowed here proves little, that it is
denied shows a mistake.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ACCOUNT = "000000000000"
HOST = "127.0.0.1"
REGION = "us-east-1"


def note_calls(log: Path) -> None:
    """Write each checked call to a file, one JSON object per line.

    Its keys: ``role`` (its name; empty for a caller without one), ``action``, ``resource`` and
    ``allowed``.
    """
    from ministack.core import iam_evaluator

    judge, lock = iam_evaluator.enforce, threading.Lock()

    def enforce(  # noqa: PLR0917 - ministack's signature
        access_key_id: str, iam_action: str, service: str, region: str, resource_arn: str = "*",
        service_context: dict[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        # Plain HTTP, because it never leaves this machine: policies that require TLS count as met.
        iam_evaluator.pin_request_origin(HOST, True)
        if iam_action == "glue:GetDatabase":
            # ministack takes every Name for a table's name.
            resource_arn = resource_arn.replace(":table/", ":database/")
        if iam_action == "ecs:ListTasks":
            # On AWS this call is checked without a resource, with the cluster as a condition.
            service_context = {**(service_context or {}), "ecs:cluster": resource_arn}
            resource_arn = "*"
        denied = judge(access_key_id, iam_action, service, region, resource_arn, service_context)
        noted = {
            "role": _role(access_key_id),
            "action": iam_action,
            "resource": resource_arn,
            "allowed": denied is None,
        }
        with lock, log.open("a") as file:
            file.write(json.dumps(noted) + "\n")
        return denied

    iam_evaluator.enforce = enforce


def session_of(role_arn: str) -> dict[str, str]:
    """Return the variables of a session of a role; none without a role or if nothing is checked."""
    from ministack.services import sts

    if not is_judging() or not role_arn:
        return {}
    name = role_arn.rsplit("/", 1)[-1]
    digest = hashlib.sha256(role_arn.encode()).hexdigest()
    session = {
        "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/worker",
        "UserId": f"{name}:worker",
        "SecretAccessKey": digest,
        "SessionToken": f"token-{digest}",
    }
    key = f"ASIA{digest[:16].upper()}"
    sts.register_session(key, session)
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
        "AWS_SESSION_TOKEN": session["SessionToken"],
    }


def is_judging() -> bool:
    """Return whether the emulator checks permissions at all."""
    from ministack import app

    return bool(app.AUTH)


def refusal(
    role_arn: str, action: str, resource: str, context: Mapping[str, str] | None = None
) -> str | None:
    """Return why a role may not make a call; None if it may, or if nothing is checked.

    Args:
        role_arn: The caller's role.
        action: Such as ``ecs:RunTask``.
        resource: ARN of the resource.
        context: Condition keys of the request.
    """
    from ministack.core import iam_evaluator

    session = session_of(role_arn)
    if not session:
        return None
    key, service = session["AWS_ACCESS_KEY_ID"], action.split(":", maxsplit=1)[0]
    denied = iam_evaluator.enforce(key, action, service, REGION, resource, dict(context or {}))
    who = role_arn.rsplit("/", 1)[-1]
    return None if denied is None else f"{who} is not authorized to perform {action} on {resource}"


def role_of_glue_job(name: str) -> str:
    """Return the ARN of a Glue job's role; empty if there is no such job."""
    from ministack.services import glue

    return str((glue._jobs.get(name) or {}).get("Role", ""))  # noqa: SLF001 - its only door


def role_of_task(definition: str) -> str:
    """Return the ARN of a task definition's role; empty if there is no such definition."""
    return str(task_definition(definition).get("taskRoleArn", ""))


def task_definition(definition: str) -> dict[str, Any]:
    """Return ECS's description of a task definition; empty if there is no such definition."""
    from ministack.services import ecs

    return ecs._task_defs.get(definition.rsplit("/", 1)[-1]) or {}  # noqa: SLF001 - its only door


def role_of_cluster(cluster_id: str) -> str:
    """Return the ARN of the role of an EMR cluster's instances; empty if there is no such cluster.

    The instance profile is assumed to have its role's name.
    """
    from ministack.services import emr

    found = emr._clusters.get(cluster_id) or {}  # noqa: SLF001 - its only door
    name = found.get("Ec2InstanceAttributes", {}).get("IamInstanceProfile", "")
    return f"arn:aws:iam::{ACCOUNT}:role/{name}" if name else ""


def _role(access_key_id: str) -> str:
    """Return the name of the role whose session a key belongs to."""
    from ministack.services import sts

    session = sts._sessions.get(access_key_id) or {}  # noqa: SLF001 - its only door
    return str(session.get("Arn", "")).split("/")[1] if session else ""
