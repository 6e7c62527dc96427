"""Parts of a spec that are about the source: how to reach it, and its files."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from extract_jobs.spec_values import Name, SpecPart

SourceType = Literal[
    "postgres", "mysql", "sqlite", "sqlserver", "oracle", "redshift", "jdbc", "files"
]


class ConnectionSpec(SpecPart):
    """How to reach a database, and where its credentials are; never the credentials.

    ``secret_id`` names a Secrets Manager secret with the keys that RDS writes (``host``, ``port``,
    ``username``, ``password``, ``dbname``). ``url`` is ``postgresql://user@host:port/database``
    without a password, which ``password_env`` names the environment variable of. ``url_env`` names
    a variable that holds the whole URL, ``ssm_parameter`` an SSM parameter that holds either form.
    Single fields override what the secret or URL says. ``path`` is a SQLite file, ``uri`` the
    folder of a file drop.
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
        None, description="Default: require, or prefer where the host is local."
    )
    sslrootcert: Name | None = Field(
        None, description="File of trusted certificates; rds takes the bundle of RDS and Redshift."
    )
    auth: Literal["password", "iam"] = Field(
        "password", description="iam: a token of RDS or Redshift, made anew for each connection."
    )
    region: Name | None = Field(None, description="Of the token; default: the environment's.")
    pooled: bool = Field(
        False, description="Behind a pooler or proxy that may switch node or session: one split."
    )
    connect_timeout_seconds: int = Field(10, ge=1, le=300)
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
        # Up to the last @: a password may hold a slash or an @ that somebody forgot to encode.
        if self.url and re.match(r"^[^:/@]+://[^@]*:.*@", self.url, re.DOTALL):
            raise ValueError(
                "url holds a password; leave it out and name its environment variable in "
                "password_env, or use secret_id"
            )
        if self.url and re.search(r"[?&]password=", self.url, re.IGNORECASE):
            raise ValueError("url holds a password parameter; use password_env or secret_id")
        origins = (self.secret_id, self.ssm_parameter, self.url, self.url_env)
        if not (any(origins) or self.host or self.path or self.uri):
            raise ValueError(
                "one of secret_id, ssm_parameter, url, url_env, host, path or uri is needed"
            )
        if sum(map(bool, origins)) > 1:
            raise ValueError("only one of secret_id, ssm_parameter, url and url_env can be given")
        return self


class FilesSpec(SpecPart):
    """Which files of a file drop make a table, and how they are read."""

    glob: Name = Field(description="Below connection.uri: * and ? within a folder, ** across.")
    format: Literal["csv", "jsonl", "parquet"] | None = Field(
        None, description="Default: by the names of the files."
    )
    compression: Literal["none", "gzip", "zstd"] | None = Field(
        None, description="Default: by the names of the files."
    )
    types: dict[Name, Name] | None = Field(
        None, description="Declared columns and their types, as in columns.cast; None infers them."
    )
    bad_rows: Literal["fail", "reject"] = Field(
        "fail", description="Rows that do not parse: fail the run, or are put aside and counted."
    )
    header: bool = Field(True, description="Whether the first line of a CSV file names columns.")
    delimiter: str = Field(",", min_length=1, max_length=1)
    quote: str = Field('"', min_length=1, max_length=1)
    escape: str | None = Field(None, min_length=1, max_length=1)
    null_values: tuple[str, ...] = Field(("",), description="Unquoted CSV texts that are NULL.")
    encoding: Name = "utf-8"
