"""The AWS region, from either variable that names it."""

from __future__ import annotations

import os


def name_the_region() -> None:
    """Use ``AWS_REGION`` if boto3 has no other region, as other SDKs do.

    Runtimes and people set either variable or both; boto3 reads only ``AWS_DEFAULT_REGION``.
    Executors and worker processes inherit it.
    """
    region = os.environ.get("AWS_REGION")
    if region and not os.environ.get("AWS_DEFAULT_REGION"):
        os.environ["AWS_DEFAULT_REGION"] = region
