"""What AWS checks before it starts a job for a state machine.

Is the task definition active, does the step's program exist, and may the state machine's role start
it? All of this only if the emulator checks permissions (`infra.local.permissions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.local.interpreter import MACHINE_ROLE, task_failed
from infra.local.permissions import (
    ACCOUNT,
    REGION,
    is_judging,
    refusal,
    role_of_cluster,
    task_definition,
)


def check_glue_run(parameters: Mapping[str, Any]) -> None:
    """Raise the error of StartJobRun if the state machine may not run this job."""
    job = f"arn:aws:glue:{REGION}:{ACCOUNT}:job/{parameters['JobName']}"
    _must_allow("Glue", "glue:StartJobRun", job)


def check_task(parameters: Mapping[str, Any]) -> None:
    """Raise the error of RunTask if ECS would not start this task.

    RunTask does not accept an inactive definition:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deregister-task-definition-v2.html
    """
    if not is_judging():
        return
    asked = str(parameters["TaskDefinition"])
    cluster = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{parameters['Cluster']}"
    _must_allow("ECS", "ecs:RunTask", asked, {"ecs:cluster": cluster})
    found = task_definition(asked)
    if found.get("status") != "ACTIVE":
        raise task_failed("ECS.ClientException", "TaskDefinition is inactive")
    for role in ("taskRoleArn", "executionRoleArn"):
        service = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
        _must_allow("ECS", "iam:PassRole", found[role], service)


def check_step(parameters: Mapping[str, Any]) -> None:
    """Raise the error of AddJobFlowSteps, or of the step, if the cluster would not run this step.

    The program and the archive that it names must exist, and the cluster's instances must be
    allowed to read them.
    """
    if not is_judging():
        return
    from ministack.services import s3

    cluster = str(parameters["ClusterId"])
    arn = f"arn:aws:elasticmapreduce:{REGION}:{ACCOUNT}:cluster/{cluster}"
    _must_allow("ElasticMapReduce", "elasticmapreduce:AddJobFlowSteps", arn)
    named = [text.partition("#")[0].rpartition("s3://")[2]
             for text in parameters["Step"]["HadoopJarStep"]["Args"]
             if text.split("=")[-1].startswith("s3://")
             and text.partition("#")[0].endswith((".py", ".tar.gz"))]  # fmt: skip
    for name in named:
        bucket, _, key = name.partition("/")
        why = refusal(role_of_cluster(cluster), "s3:GetObject", f"arn:aws:s3:::{name}")
        if why is None and key not in s3._buckets[bucket]["objects"]:  # noqa: SLF001 - its only door
            why = f"NoSuchKey: s3://{name}"
        if why is not None:
            raise task_failed("States.TaskFailed", why)


def _must_allow(
    service: str, action: str, resource: str, context: Mapping[str, str] | None = None
) -> None:
    """Raise a service's AccessDeniedException if the state machine's role may not make a call."""
    why = refusal(MACHINE_ROLE.get(), action, resource, context)
    if why is not None:
        raise task_failed(f"{service}.AccessDeniedException", why)
