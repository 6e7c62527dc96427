"""Sessions for AWS clients, each its own, which share what botocore reads of its package's data."""

from __future__ import annotations

import functools
from typing import Any

import boto3.session
import botocore.loaders
import botocore.session


def new_session() -> Any:
    """Return a new boto3 session; the default one is shared, and not safe between threads.

    Its clients read endpoints and service models once a process: 0.1 s less for each session but
    the first.
    """
    inner = botocore.session.get_session()
    inner.register_component("data_loader", _loader())
    return boto3.session.Session(botocore_session=inner)


@functools.cache
def _loader() -> Any:
    return botocore.loaders.Loader()
