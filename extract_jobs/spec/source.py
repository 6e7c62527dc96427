"""A spec's parts about the source: its connection, and its files."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from extract_jobs.spec.source_types import registration
from extract_jobs.spec.values import Duration, Name, SpecPart


class ConnectionSpec(SpecPart):
    """How to reach a database, and where its credentials are; never the credentials.

    ``secret_id`` names a Secrets Manager secret with the keys that RDS writes (``host``, ``port``,
    ``username``, ``password``, ``dbname``). ``url`` is ``postgresql://user@host:port/database``, or
    a ``jdbc:`` URL, without a password; ``password_env`` names the password's environment variable.
    ``url_env`` names a variable that holds the whole URL, ``ssm_parameter`` an SSM parameter that
    holds either form. Single fields override what the secret or URL says; next to a secret, ``url``
    gives the location and the secret the login. ``path`` is a SQLite file, ``uri`` the folder of a
    file drop. Which fields apply depends on the type of source: see
    `extract_jobs.spec.source_types`.
    """

    secret_id: Name | None = None
    url: Name | None = None
    url_env: Name | None = None
    ssm_parameter: Name | None = None
    password_env: Name | None = None
    host: Name | None = None
    port: int | None = Field(None, ge=1, le=65535)
    database: Name | None = None
    user: Name | None = None
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None = Field(
        None, description="Default: require, or prefer if the host is local."
    )
    sslrootcert: Name | None = Field(
        None, description="File of trusted certificates; rds takes the bundle of RDS and Redshift."
    )
    sslcert: Name | None = Field(None, description="File of the client's certificate, PEM.")
    sslkey: Name | None = Field(
        None, description="File of its private key, PEM, without a passphrase."
    )
    auth: Literal["password", "iam"] = Field(
        "password", description="iam: a token of RDS or Redshift, a new one for each connection."
    )
    region: Name | None = Field(
        None, description="Region of the token; default: the environment's."
    )
    pooled: bool = Field(
        False, description="Behind a pooler or proxy that may switch node or session: one split."
    )
    connect_timeout_seconds: int = Field(10, ge=1, le=300)
    stall_timeout: Duration = Field(
        timedelta(hours=1),
        description="How long a database may send nothing while a run waits for it; not SQLite.",
    )
    path: Name | None = Field(None, description="The file of a SQLite database.")
    uri: Name | None = Field(None, description="Folder that the globs of files start from.")
    driver: Name | None = Field(None, description="Class of the JDBC driver.")
    jars: tuple[Name, ...] = Field((), description="JDBC drivers: files, or folders of them.")
    packages: tuple[Name, ...] = Field((), description="JDBC drivers: Maven coordinates.")
    properties: dict[Name, str] = Field(
        {}, description="Properties of the JDBC driver; never credentials."
    )
    session_init: Name | None = Field(
        None, description="One statement that each JDBC connection begins with."
    )

    @model_validator(mode="after")
    def _has_no_password(self) -> Self:
        if self.url and holds_password(self.url):
            raise ValueError(
                "url holds a password; leave it out and name its environment variable in "
                "password_env, or use secret_id"
            )
        pem = [name for name in ("sslcert", "sslkey") if "-----" in (getattr(self, name) or "")]
        if pem:
            raise ValueError(
                f"{' and '.join(pem)} must be a file's name: a key itself is never in a config; "
                "put it into the secret that secret_id names"
            )
        secret = [name for name in self.properties if _SECRET_NAME.search(name)]
        if secret:
            raise ValueError(
                f"properties holds {', '.join(secret)}: credentials are never in a config; use "
                "password_env or secret_id"
            )
        origins = (self.secret_id, self.ssm_parameter, self.url_env)
        if not (any(origins) or self.url or self.host or self.path or self.uri):
            raise ValueError(
                "one of secret_id, ssm_parameter, url, url_env, host, path or uri is needed"
            )
        # A url next to a secret gives the location, the secret the login.
        if sum(map(bool, origins)) > 1 or (self.url and self.url_env):
            raise ValueError(
                "only one of secret_id, ssm_parameter and url_env can be given, and url cannot be "
                "combined with url_env"
            )
        return self

    @model_validator(mode="after")
    def _token_replaces_password(self) -> Self:
        if self.auth == "iam" and self.password_env:
            raise ValueError("auth iam uses a token instead of a password: drop password_env")
        if self.auth == "iam" and self.sslmode in ("disable", "prefer"):
            raise ValueError(
                f"auth iam needs TLS, sslmode is {self.sslmode}: the token would cross the network "
                "in the clear"
            )
        if self.region and self.auth != "iam":
            raise ValueError("region is the region of an IAM token: it needs auth iam")
        return self


_SECRET_NAME = re.compile(r"pass(?:word|wd|phrase)|pwd|secret|token|access_?key", re.IGNORECASE)
_SECRET_PROPERTY = re.compile(
    # The whole name, or the end of it: trustStorePassword, accessToken; not passfile.
    r"[?&;:,(]\s*(?:pass|[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|access_?key))"
    r"\s*=\s*[^\s;&,)]",
    re.IGNORECASE,
)


def holds_password(url: str) -> bool:
    """Return whether a URL, ``jdbc:`` or not, has a password in any of the usual places."""
    if _SECRET_PROPERTY.search(url):
        return True
    # Oracle: user/password@host. A lone slash takes them from a wallet.
    if re.match(r"jdbc:oracle:[^:]*:[^@]*/[^@]+@", url, re.IGNORECASE):
        return True
    # Up to the last @, since a password may hold an unencoded slash or @. Properties follow a
    # semicolon and may hold an @.
    return re.match(r"(?:jdbc:)?(?:[^:/@;]+:)+//[^@;]*:[^;]*@", url, re.DOTALL) is not None


def connection_problem(source_type: str, connection: ConnectionSpec) -> str | None:
    """Describe the connection's fields that a type of source does not take; None if it takes all.

    A field with its default value counts as not given.
    """
    kind = registration(source_type)
    strange = [
        name
        for name, field in ConnectionSpec.model_fields.items()
        if name not in kind.takes and getattr(connection, name) != field.default
    ]
    if strange:
        return (
            f"a source of type {source_type} takes no {', '.join(strange)}; it takes "
            f"{', '.join(name for name in ConnectionSpec.model_fields if name in kind.takes)}"
        )
    if kind.needs and getattr(connection, kind.needs) is None:
        return f"a source of type {source_type} needs {kind.needs}"
    return None


class TextTypeSpec(SpecPart):
    """A column's type, and how a file writes its values where that is not the usual way."""

    type: Name
    decimal: str | None = Field(None, description="Decimal separator of numbers.")
    thousands: str | None = Field(None, description="Separator between groups of three digits.")
    format: str | None = Field(
        None, min_length=1, description="Format of dates and timestamps, as in strftime: %d.%m.%Y."
    )
    true_values: tuple[str, ...] | None = Field(
        None, min_length=1, description="Texts that mean true; false_values must be given too."
    )
    false_values: tuple[str, ...] | None = Field(None, min_length=1)

    @property
    def written(self) -> dict[str, object]:
        """What is said of how values are written."""
        return self.model_dump(mode="json", exclude={"type"}, exclude_none=True)


class FilesSpec(SpecPart):
    """Which files of a file drop make a table, and how they are read."""

    glob: Name = Field(
        description="Below connection.uri: * and ? within a folder, ** across folders."
    )

    @field_validator("glob")
    @classmethod
    def _stays_below(cls, glob: str) -> str:
        if {".", ".."}.intersection(glob.split("/")):
            raise ValueError(
                "the glob leaves connection.uri through . or ..: name folders below it"
            )
        return glob

    listing: Literal["all", "newest"] = Field(
        "all",
        description="newest, where the names of new files follow those of older ones: an increment "
        "lists from the files of the last day on, and all files once a day. A file that comes "
        "under an earlier name is read then, and not by the next increment.",
    )
    format: Literal["csv", "jsonl", "json", "parquet"] | None = Field(
        None, description="Default: by the names of the files."
    )
    compression: Literal["none", "gzip", "zstd", "bz2", "xz", "lz4", "zip"] | None = Field(
        None, description="Default: by the names of the files."
    )
    partitions: Literal["columns", "ignore"] = Field(
        "columns", description="Whether key=value in the names of folders makes columns."
    )
    types: dict[Name, Name | TextTypeSpec] | None = Field(
        None,
        description="Declared columns and their types, as in columns.cast, or a mapping with the "
        "type and how values are written; None infers them.",
    )
    bad_rows: Literal["fail", "reject"] = Field(
        "fail",
        description="Rows that do not parse: fail the run, or set them aside and count them.",
    )
    header: bool = Field(True, description="Whether the first line of a CSV file names columns.")
    delimiter: str = Field(",", min_length=1, max_length=1)
    quote: str = Field(
        '"', pattern=r"^([\s\S]|none)$", description="none: quotes have no special meaning."
    )
    skip_rows: int = Field(0, ge=0, le=1000, description="Lines before the header of a CSV file.")
    footer_rows: int = Field(
        0, ge=0, le=1000, description="Rows at the end of a CSV file that are left out."
    )
    comment: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="Lines of a CSV file that begin with this character are left out.",
    )
    escape: str | None = Field(None, min_length=1, max_length=1)
    null_values: tuple[str, ...] = Field(("",), description="Unquoted CSV texts that are NULL.")
    path: Name | None = Field(
        None, description="Keys that lead to the array of a JSON file, such as data.items."
    )
    json_dialect: Literal["strict", "lenient"] = Field(
        "strict", description="lenient accepts NaN, Infinity and -Infinity, as Python writes them."
    )
    nanoseconds: Literal["refuse", "truncate"] = Field(
        "refuse",
        description="Digits below microseconds in Parquet timestamps: refuse or truncate them.",
    )
    encoding: Name = "utf-8"
