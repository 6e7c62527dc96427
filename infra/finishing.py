"""What a stack needs besides CloudFormation, done each time it is created or changed."""

from __future__ import annotations

from collections.abc import Mapping

from infra.aws_cli import Aws, DeployFailed, Stack


def key_there(stack: Stack, given: Mapping[str, str]) -> str:
    """Return the ARN of a stack's key, if there is one before the stack is created or changed.

    With ``KmsKey=create`` there is one from the second deployment on.

    Args:
        stack: The pipeline's stack.
        given: The parameters of this deployment.
    """
    named = given.get("KmsKey", "")
    return named if named.startswith("arn:") else stack.outputs().get("KeyArn", "")


def finish(stack: Stack, aws: Aws) -> None:
    """Protect the tracking table from deletion, and put EMR's disks under the stack's key.

    Neither can fail the deployment: failures are printed with the reason. The template does not
    protect the table, because a first deployment that fails could then not be rolled back; and
    CloudFormation has no property for the key of EMR Serverless's disks.
    """
    outputs = stack.outputs()
    table = outputs["TrackingTableName"]
    _try(
        aws, f"the table {table} is not protected from deletion",
        "dynamodb", "update-table", "--table-name", table, "--deletion-protection-enabled",
    )  # fmt: skip
    application, key = outputs.get("EmrApplicationId"), outputs.get("KeyArn")
    if application and key and _disk_key(aws, application) != key:
        _try(
            aws,
            f"the disks of EMR Serverless are not under {key}: an application can be changed only "
            f"while it is stopped; stop {application} and deploy again",
            "emr-serverless", "update-application", "--application-id", application,
            "--disk-encryption-configuration", f"encryptionKeyArn={key}",
        )  # fmt: skip


def _disk_key(aws: Aws, application: str) -> str:
    try:
        found = aws.json("emr-serverless", "get-application", "--application-id", application)
    except DeployFailed:
        return ""
    disks = found["application"].get("diskEncryptionConfiguration", {})
    return str(disks.get("encryptionKeyArn", ""))


def _try(aws: Aws, otherwise: str, *command: str) -> None:
    try:
        aws.run(*command)
    except DeployFailed as error:
        print(f"Note: {otherwise} ({error})")
