"""Files that are kept on a real S3 API, with the ETags of single and of multipart uploads."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import boto3
import pyarrow.parquet as pq
import pytest

from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from infra.local.emulator import Emulator
from tests.support.crash import bucket_of
from tests.support.emulators import use
from tests.support.specs import make_spec


@pytest.mark.parametrize("parts", [1, 2])
def test_what_was_uploaded_again_is_read(
    parts: int, ministack: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(ministack, monkeypatch)
    drop = bucket_of(ministack, f"drop-{uuid4().hex[:8]}")
    client = boto3.client("s3")

    def put(name: str, first: int) -> None:
        bucket, body = drop.removeprefix("s3://"), f"id\n{first}\n".encode()
        if parts == 1:
            client.put_object(Bucket=bucket, Key=name, Body=body)
            return
        upload = client.create_multipart_upload(Bucket=bucket, Key=name)["UploadId"]
        about = {"Bucket": bucket, "Key": name, "UploadId": upload}
        etag = client.upload_part(**about, PartNumber=1, Body=body)["ETag"]
        client.complete_multipart_upload(
            **about, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
        )

    def spec(run_id: str) -> ExtractSpec:
        return make_spec(
            tmp_path, run_id=run_id, source_type="files", connection={"uri": drop},
            files={"glob": "*.csv"}, extract_table="t", reuse="auto",
            split={"target_bytes": 2**16, "max_connections": 1},
        )  # fmt: skip

    for number in range(3):
        put(f"{number}.csv", number)
    assert run_extract(spec("first")).rows == 3
    put("1.csv", 7)
    put("3.csv", 3)
    second = run_extract(spec("second"))
    assert (second.rows, second.kept_rows) == (2, 2)
    assert sorted(pq.read_table(tmp_path / "target")["id"].to_pylist()) == [0, 2, 3, 7]
