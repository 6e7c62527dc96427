"""Where targets and state live: S3 buckets and local folders, behind one contract.

Promises that a staged file is invisible until it is completed, and that a put-if-absent has one
winner. Imports only `errors`.
"""

from __future__ import annotations

from extract_jobs.errors import ConfigError
from extract_jobs.storage.contract import (
    PROBE,
    AbandonedUpload,
    ObjectInfo,
    OpenStorage,
    StagedFile,
    StagingWriter,
    Storage,
    WrittenFile,
    changed_message,
    encoded,
    is_probe,
    join,
)

__all__ = [
    "PROBE",
    "AbandonedUpload",
    "ObjectInfo",
    "OpenStorage",
    "StagedFile",
    "StagingWriter",
    "Storage",
    "WrittenFile",
    "changed_message",
    "encoded",
    "is_probe",
    "join",
    "open_storage",
]


def open_storage(uri: str) -> Storage:
    """Return the storage that ``uri`` lives in.

    S3 clients are built from the environment: ``AWS_ENDPOINT_URL`` is honoured, with path-style
    addresses, and so is everything botocore reads.

    Raises:
        ConfigError: The scheme is neither ``s3``, ``file`` nor none.
    """
    if uri.startswith("s3://"):
        from extract_jobs.storage.s3 import S3Storage

        return S3Storage.from_environment()
    if uri.startswith("file://") or "://" not in uri:
        from extract_jobs.storage.local import LocalStorage

        return LocalStorage()
    raise ConfigError(f"{uri}: expected s3://bucket/key, file:///path or a path")
