"""Columns from PostgreSQL to the files: their metadata, types by permission, what plan shows."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from extract_jobs.attempt.attempt import mask_key
from extract_jobs.attempt.dry_run import planned
from extract_jobs.cli.plan import plan_text
from extract_jobs.engine.run_splits import Progress
from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.masks import MaskKey
from infra.local.emulator import Emulator
from tests.support.crash import Lake, bucket_of
from tests.support.emulators import set_environment
from tests.support.postgres import Server
from tests.support.specs import make_spec


@pytest.fixture
def lake(tmp_path: Path, pg_database: Server, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("CRASH_PASSWORD", pg_database.password)
    monkeypatch.setenv("MASK_KEY", "k" * 32)
    return Lake(str(tmp_path))


def spec_of(lake: Lake, server: Server, run_id: str, **more: Any) -> ExtractSpec:
    return ExtractSpec.model_validate(
        lake.spec(server, run_id, **{"split": {"strategy": "none"}} | more)
    )


def test_files_contain_types_run_interval_and_versions(pg_database: Server, lake: Lake) -> None:
    pg_database.execute(
        "create type mood as enum ('sad')",
        "create domain positive as numeric(9,2) check (value > 0)",
        "create table t (id int, m mood, amounts positive[], p positive, secret varchar(11))",
        "insert into t values (1, 'sad', '{1.50}', 2.50, 'x'), (2, null, null, null, null)",
    )
    report = run_extract(
        spec_of(
            lake, pg_database, "r1", mode="incremental", watermark={"column": "id"},
            columns={"rename": {"m": "feeling"}, "cast": {"p": "string"},
                     "mask": {"secret": "hash"}, "mask_key": {"env": "MASK_KEY"}},
        )
    )  # fmt: skip
    [file] = lake.visible()
    schema = lake.table(file).schema
    assert {f.name: (f.metadata or {}).get(b"extract.source_type") for f in schema} == {
        "id": b"integer", "feeling": b"mood", "amounts": b"positive[]", "p": b"positive",
        "secret": b"character varying(11)", "_run_id": None, "_extracted_at": None,
    }  # fmt: skip
    shown = {k.decode(): v.decode() for k, v in schema.metadata.items()}
    assert shown["extract.run_id"] == "r1"
    assert shown["extract.attempt"] == "1"
    assert shown["extract.table"] == "s/public.t"
    assert json.loads(shown["extract.interval"]) == report.interval
    assert {k for k in shown if k.startswith("extract.version.")} >= {
        "extract.version.extract-jobs", "extract.version.pyarrow", "extract.version.python",
    }  # fmt: skip


def test_types_by_permission_are_text_and_listed(pg_database: Server, lake: Lake) -> None:
    pg_database.execute(
        "create table t (id int, at timestamptz, day date)",
        "insert into t values (1, 'infinity', '2026-01-02'), (2, '2026-01-02 03:04+00', null)",
    )
    counted = run_extract(spec_of(lake, pg_database, "r1", lossy_types="null"))
    assert (counted.nulled, counted.as_text) == ({"at": 1}, [])
    asked = spec_of(
        lake, pg_database, "r2", lossy_types="string", columns={"cast": {"day": "date"}}
    )
    report = run_extract(asked)
    assert (report.nulled, report.as_text) == ({}, ["at"])
    assert lake.read("at")[1] == "infinity"
    assert [(c.kind, c.column, c.after) for c in report.schema_changes] == [
        ("narrowed", "at", "string")
    ]


def test_permission_is_given_by_column(pg_database: Server, lake: Lake) -> None:
    pg_database.execute(
        "create table t (id int, a timestamptz, b timestamptz, c timestamptz)",
        "insert into t values (1, 'infinity', 'infinity', '2026-01-02 03:04+00')",
    )
    lossy = {"a": "string", "b": "null"}
    report = run_extract(spec_of(lake, pg_database, "r1", lossy_types=lossy))
    assert (report.nulled, report.as_text) == ({"b": 1}, ["a"])
    types = {one["name"]: one["type"] for one in report.columns}
    assert [types[name] for name in "abc"] == ["string", *["timestamp[us, tz=UTC]"] * 2]
    pg_database.execute("update t set c = 'infinity'")
    with pytest.raises(TypeNotRepresentable, match="column c "):
        run_extract(spec_of(lake, pg_database, "r2", lossy_types=lossy))
    with pytest.raises(ConfigError, match="lossy_types: no column 'd'"):
        run_extract(spec_of(lake, pg_database, "r3", lossy_types={"d": "null"}))


def test_a_plan_shows_what_files_go_on_to_have(pg_database: Server, lake: Lake) -> None:
    append = {"write_mode": "append"}
    pg_database.execute("create table t (id int, v int, w text)")
    run_extract(spec_of(lake, pg_database, "r1", target=append))
    pg_database.execute("alter table t drop w", "alter table t alter v type bigint")
    spec = spec_of(lake, pg_database, "r2", target=append)
    lines = plan_text(spec, planned(spec, datetime.now(UTC))).splitlines()
    assert [" ".join(line.split()) for line in lines if "change:" in line] == [
        "change: column v widened: int32 to int64; written as int32, where values fit",
        "change: column w dropped (string); written as NULL",
    ]
    assert any(line.split()[:3] == ["v", "bigint", "int32"] for line in lines)
    assert any(line.split()[:3] == ["w", "-", "string"] for line in lines)


def test_the_key_of_a_mask_from_aws(ministack: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(ministack.environment(), monkeypatch)
    name, secret = f"mask-{uuid4().hex}", uuid4().hex
    with closing(boto3.client("secretsmanager")) as secrets, closing(boto3.client("ssm")) as ssm:
        secrets.create_secret(Name=name, SecretString=secret + "\n")
        ssm.put_parameter(Name=f"/{name}", Value=secret, Type="SecureString")

    def key_at(**place: str) -> MaskKey | None:
        return mask_key(make_spec(columns={"mask": {"a": "hash"}, "mask_key": place}))

    wanted = MaskKey.of(secret, "test")
    assert key_at(secret_id=name) == wanted
    assert key_at(ssm_parameter=f"/{name}") == wanted
    with pytest.raises(ConfigError, match=r"no secret 'nope' .* columns\.mask_key"):
        key_at(secret_id="nope")


class Killed(BaseException):
    """Nothing is cleaned up after it."""


class KilledBeforeTheCommit(Progress):
    def phase(self, name: str) -> None:
        if name == "commit":
            raise Killed


def test_parts_of_an_upload_that_nobody_completed_hold_only_masked_values(
    ministack: Emulator, pg_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(
        {**ministack.environment(), "CRASH_PASSWORD": pg_database.password, "MASK_KEY": "k" * 32},
        monkeypatch,
    )
    uri = bucket_of(ministack, f"masks-{uuid4().hex[:8]}")
    bucket = uri.removeprefix("s3://")
    lake = Lake(f"{uri}/x", ministack.environment())
    pg_database.execute(
        "create table t (id int, a text, b text, c text)",
        "insert into t select 1, 'canary', 'canary', 'canary'",
    )
    masks = {"a": "hash", "b": "redact", "c": "null"}
    spec = spec_of(
        lake, pg_database, "r", columns={"mask": masks, "mask_key": {"env": "MASK_KEY"}},
        target={"compression": "none"},
    )  # fmt: skip
    with pytest.raises(Killed):
        run_extract(spec, progress=KilledBeforeTheCommit())
    with closing(boto3.client("s3")) as s3:
        uploads = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
        for key, upload in ((u["Key"], u["UploadId"]) for u in uploads):
            found = s3.list_parts(Bucket=bucket, Key=key, UploadId=upload)["Parts"]
            parts = [{"PartNumber": p["PartNumber"], "ETag": p["ETag"]} for p in found]
            s3.complete_multipart_upload(
                Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
            )
        objects = [o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]]
        data = [s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in objects]
    assert any(b"PAR1" in one and b"***" in one for one in data)
    assert [key for key, one in zip(objects, data, strict=True) if b"canary" in one] == []
