"""Parameters that other parameters need: checked before anything is changed.

CloudFormation would notice most of them halfway through a deployment, and roll it back.
"""

from __future__ import annotations

from collections.abc import Mapping

from infra.aws_cli import DeployFailed


def check_needed(parameters: Mapping[str, str]) -> None:
    """Refuse parameters that need others which are not given.

    Args:
        parameters: The parameters of the stack. Those that are left out have their defaults.

    Raises:
        DeployFailed: Some are missing; the message names all of them.
    """
    ecs = parameters.get("Ecs") == "yes"
    network = ecs or bool(parameters.get("VpcId"))
    needed = {
        "EcsImage": ecs,
        "VpcId": network,
        "SubnetIds": network,
        "SubnetAvailabilityZone": network and parameters.get("Glue", "yes") == "yes",
    }
    missing = [
        name
        for name, is_needed in needed.items()
        if is_needed and parameters.get(name, "") in {"", "none"}
    ]
    if missing:
        given = "Ecs=yes" if ecs else "VpcId"
        raise DeployFailed(
            f"{given} needs {', '.join(missing)} too: add "
            + " ".join(f"--set {name}=…" for name in missing)
        )
