"""What an earlier stack of the same name has left: resources, their key, and differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
        differences: How they differ from the template whatever its parameters, one sentence each.
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

    def unlike(self, parameters: Mapping[str, str]) -> tuple[str, ...]:
        """Return how the resources differ from what a new stack would make, one sentence each.

        Args:
            parameters: All parameters of the new stack.
        """
        if parameters.get("KmsKey", "none") == "none":
            return self.differences
        return self.differences + tuple(
            f"{kind} {name}: it is not encrypted with KmsKey, because it was created without a key"
            for kind, name in (
                ("table" if parameter == TABLE else "bucket", name)
                for parameter, name in self.names.items()
            )
            if name not in self.keys
        )


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
        expires = kind == "state"
        differences += [
            f"bucket {name}: {text}" for text in _bucket_differences(aws, name, expires)
        ]
    found = _ask(aws, "dynamodb", "describe-table", "--table-name", stack)
    if found is not None:
        names[TABLE] = stack
        key = found["Table"].get("SSEDescription", {}).get("KMSMasterKeyArn")
        if key:
            keys[stack] = key
        differences += [f"table {stack}: {text}" for text in _table_differences(aws, found)]
    return Kept(names, keys, tuple(differences))


def _bucket_key(aws: Aws, name: str) -> str:
    answer = _ask(aws, "s3api", "get-bucket-encryption", "--bucket", name) or {}
    rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    found = (r.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID") for r in rules)
    return next(filter(None, found), "")


def _bucket_differences(aws: Aws, name: str, expires: bool) -> list[str]:
    """Return how a bucket differs; `expires` is whether the template lets files in work/ expire."""
    found = []
    versioning = _ask(aws, "s3api", "get-bucket-versioning", "--bucket", name) or {}
    if versioning.get("Status") != "Enabled":
        found.append("versions are not kept; the template enables versioning")
    block = _ask(aws, "s3api", "get-public-access-block", "--bucket", name) or {}
    settings = block.get("PublicAccessBlockConfiguration", {})
    if not settings or not all(settings.values()):
        found.append("public access is not blocked; the template blocks all of it")
    policy = _ask(aws, "s3api", "get-bucket-policy", "--bucket", name) or {}
    if not _refuses_plain_http(json.loads(policy.get("Policy", "{}"))):
        found.append("plain HTTP is not refused; the template's bucket policy refuses it")
    lifecycle = _ask(aws, "s3api", "get-bucket-lifecycle-configuration", "--bucket", name) or {}
    rules = [rule for rule in lifecycle.get("Rules", ()) if rule.get("Status") == "Enabled"]
    found += _lifecycle_differences(rules)
    if expires and not any("Days" in rule.get("Expiration", {}) for rule in rules):
        found.append("files of executions are kept for ever; the template deletes them (WorkDays)")
    return found


def _refuses_plain_http(policy: Mapping[str, Any]) -> bool:
    statements = policy.get("Statement", [])
    return any(
        statement.get("Effect") == "Deny"
        and "aws:SecureTransport" in statement.get("Condition", {}).get("Bool", {})
        for statement in ([statements] if isinstance(statements, dict) else statements)
    )


def _lifecycle_differences(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    days = [
        rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
        for rule in rules
        if "AbortIncompleteMultipartUpload" in rule
    ]
    if not days:
        found.append("nothing drops abandoned uploads; the template drops them after 14 days")
    elif min(days) < _LEAST_UPLOAD_DAYS:
        found.append(
            f"uploads are dropped after {min(days)} days, while a commit may need them for "
            f"{_LEAST_UPLOAD_DAYS}: raise it before anything is extracted"
        )
    if not any("NoncurrentVersionExpiration" in rule for rule in rules):
        found.append(
            "replaced objects are kept for ever; the template deletes them (NoncurrentDays)"
        )
    return found


def _table_differences(aws: Aws, described: Mapping[str, Any]) -> list[str]:
    found = []
    if not described["Table"].get("GlobalSecondaryIndexes"):
        found.append("it lacks the index execution_id-index")
    name = described["Table"]["TableName"]
    backups = _ask(aws, "dynamodb", "describe-continuous-backups", "--table-name", name) or {}
    recovery = backups.get("ContinuousBackupsDescription", {})
    status = recovery.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus")
    if status != "ENABLED":
        found.append("it has no point-in-time recovery; the template enables it")
    return found


def _ask(aws: Aws, *command: str) -> Any:
    """Return the answer, ``{}`` if it is empty; None if the resource does not exist."""
    try:
        return aws.json(*command) or {}
    except DeployFailed as error:
        if any(text in str(error) for text in (*_ABSENT, "NoSuch", "NotFoundError")):
            return None
        raise
