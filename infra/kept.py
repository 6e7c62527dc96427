"""What an earlier stack of the same name has left: resources, their key, and differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.aws_cli import Aws, DeployFailed

DATA, STATE, TABLE = "AdoptDataBucket", "AdoptStateBucket", "AdoptTable"
"""Parameter of the template for each resource that may exist."""
_ABSENT = ("(404)", "Not Found", "NoSuchBucket", "ResourceNotFoundException", "not found")
_LEAST_UPLOAD_DAYS = 14


@dataclass(frozen=True, slots=True)
class Kept:
    """Existing resources.

    Attributes:
        names: Names of buckets and table, by the parameter that adopts each; only existing ones.
        keys: ARN of the KMS key, by the name of what is encrypted with it.
        differences: How they differ from the template, one sentence each.
    """

    names: Mapping[str, str]
    keys: Mapping[str, str]
    differences: tuple[str, ...]

    def parameters(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the parameters that let a new stack take over what exists.

        Args:
            given: The person's parameters; a key among them must be that of the existing resources.

        Raises:
            DeployFailed: The resources have another key than given, or several keys.
        """
        found: dict[str, str] = dict.fromkeys(self.names, "yes")
        keys = sorted(set(self.keys.values()))
        if not keys:
            return found
        encrypted = "; ".join(f"{name} with {key}" for name, key in sorted(self.keys.items()))
        if len(keys) > 1:
            raise DeployFailed(
                f"what an earlier stack has left is encrypted with different keys: {encrypted}. "
                "Give one of them as KmsKey and the others as OtherKeyArns, and set Adopt… "
                "yourself, or move the data"
            )
        if given.get("KmsKey", keys[0]) != keys[0]:
            raise DeployFailed(
                f"what an earlier stack has left is encrypted ({encrypted}), and with "
                f"KmsKey={given['KmsKey']} nothing could read it: give --set KmsKey={keys[0]}, or "
                "leave KmsKey out"
            )
        return {**found, "KmsKey": keys[0]}


def find_kept(aws: Aws, stack: str, account: str, region: str) -> Kept:
    """Find the buckets and table of an earlier stack; read-only.

    Raises:
        DeployFailed: AWS refused to answer.
    """
    names, keys, differences = {}, {}, []
    for parameter, kind in ((DATA, "data"), (STATE, "state")):
        name = f"{stack}-{kind}-{account}-{region}"
        if _ask(aws, "s3api", "head-bucket", "--bucket", name) is None:
            continue
        names[parameter] = name
        key = _bucket_key(aws, name)
        if key:
            keys[name] = key
        differences += [f"bucket {name}: {text}" for text in _bucket_differences(aws, name)]
    found = _ask(aws, "dynamodb", "describe-table", "--table-name", stack)
    if found is not None:
        names[TABLE] = stack
        key = found["Table"].get("SSEDescription", {}).get("KMSMasterKeyArn")
        if key:
            keys[stack] = key
        if not found["Table"].get("GlobalSecondaryIndexes"):
            differences.append(f"table {stack}: it lacks the index execution_id-index")
    return Kept(names, keys, tuple(differences))


def _bucket_key(aws: Aws, name: str) -> str:
    answer = _ask(aws, "s3api", "get-bucket-encryption", "--bucket", name) or {}
    rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    found = (r.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID") for r in rules)
    return next(filter(None, found), "")


def _bucket_differences(aws: Aws, name: str) -> list[str]:
    found = []
    versioning = _ask(aws, "s3api", "get-bucket-versioning", "--bucket", name) or {}
    if versioning.get("Status") != "Enabled":
        found.append("versions are not kept; the template enables versioning")
    block = _ask(aws, "s3api", "get-public-access-block", "--bucket", name) or {}
    settings = block.get("PublicAccessBlockConfiguration", {})
    if not settings or not all(settings.values()):
        found.append("public access is not blocked; the template blocks all of it")
    lifecycle = _ask(aws, "s3api", "get-bucket-lifecycle-configuration", "--bucket", name) or {}
    days = [
        rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
        for rule in lifecycle.get("Rules", ())
        if rule.get("Status") == "Enabled" and "AbortIncompleteMultipartUpload" in rule
    ]
    if not days:
        found.append("nothing drops abandoned uploads; the template drops them after 14 days")
    elif min(days) < _LEAST_UPLOAD_DAYS:
        found.append(
            f"uploads are dropped after {min(days)} days, while a commit may need them for "
            f"{_LEAST_UPLOAD_DAYS}: raise it before anything is extracted"
        )
    return found


def _ask(aws: Aws, *command: str) -> Any:
    """Return the answer, ``{}`` if it is empty; None if the resource does not exist."""
    try:
        return aws.json(*command) or {}
    except DeployFailed as error:
        if any(text in str(error) for text in (*_ABSENT, "NoSuch", "NotFoundError")):
            return None
        raise
