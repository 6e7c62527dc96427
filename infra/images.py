"""Images in ECR: whose they are, and which of them a service accepts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from infra.aws_cli import DeployFailed

_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?"
    r"/(?P<name>[a-z0-9._/-]+)"
)
"""An image in ECR: https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html"""


def repository_of(image: str) -> str:
    """Return the ARN of the ECR repository of an image; empty if it is not in ECR."""
    found = _IMAGE.match(image)
    if found is None:
        return ""
    region = found["region"]
    return f"arn:{partition_of(region)}:ecr:{region}:{found['account']}:repository/{found['name']}"


def partition_of(region: str) -> str:
    """Return the partition of a Region, which its ARNs begin with."""
    return {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(region.rsplit("-", 2)[0], "aws")


def check_image(parameters: Mapping[str, str], region: str) -> None:
    """Refuse an image that EMR Serverless does not accept.

    https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/application-custom-image.html

    Raises:
        DeployFailed: It is not in ECR, or in another Region's.
    """
    image = parameters.get("EmrImage", "")
    found = _IMAGE.match(image)
    if image and (found is None or found["region"] != region):
        raise DeployFailed(
            f"EmrImage={image}: EMR Serverless only accepts images from ECR in its own Region; "
            f"push it to <account>.dkr.ecr.{region}.amazonaws.com"
        )
