"""An Iceberg table in S3 and the Glue Data Catalog, from its first commit to its expiry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from botocore.client import BaseClient

from extract_jobs.commit.expiry import expire_snapshots
from extract_jobs.commit.rollback import roll_back
from extract_jobs.commit.table_log import commit_log
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import open_storage
from tests.support.crash import bucket_of
from tests.support.emulators import MotoServer, use
from tests.support.iceberg import glue_catalog, ordered
from tests.support.permissions import WORKER, allows
from tests.support.specs import make_spec
from tests.support.sqlite_source import write

DAY = timedelta(days=1)
ON = "arn:aws:glue:eu-central-1:123456789012:"


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Glue's operations that were called."""
    names: set[str] = set()
    call = BaseClient._make_api_call

    def noted(self: BaseClient, operation: str, given: dict[str, object]) -> object:
        if self.meta.service_model.service_name == "glue":
            names.add(operation)
        return call(self, operation, given)

    monkeypatch.setattr(BaseClient, "_make_api_call", noted)
    return names


def test_runs_rollback_and_expiry_need_what_the_template_allows(
    moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, called: set[str]
) -> None:
    use(moto_server, monkeypatch)
    bucket = bucket_of(moto_server, f"iceberg-{uuid4().hex[:8]}")
    database = f"lake_{uuid4().hex[:8]}"
    source = tmp_path / "shop.db"

    def spec(run_id: str) -> ExtractSpec:
        target = {"uri": f"{bucket}/t", "format": "iceberg",
                  "catalog": {"database": database, "table": "t"}}  # fmt: skip
        return make_spec(
            tmp_path, run_id=run_id, source_type="sqlite", extract_table="t", target=target,
            connection={"path": str(source)}, state_uri=f"{bucket}/state",
        )  # fmt: skip

    def rows() -> list[dict[str, object]]:
        table = glue_catalog(moto_server.environment()).load_table(f"{database}.t")
        return ordered(table.scan().to_arrow().to_pylist())

    write(source, "create table t (id integer primary key)", "insert into t values (1), (2)")
    run_extract(spec("a"))
    write(source, "alter table t add column note text", "delete from t where id = 1")
    run_extract(spec("b"))
    assert rows() == [{"id": 2, "note": None}]
    log = commit_log(spec("any"))
    roll_back(log, 1, run_id="back", keep=False)
    assert rows() == [{"id": 1}, {"id": 2}]

    before = {one.uri for one in open_storage(bucket).list(f"{bucket}/t/")}
    expired = expire_snapshots(log, DAY, datetime.now(UTC) + 2 * DAY)
    assert expired.snapshots == 2
    assert before - {one.uri for one in open_storage(bucket).list(f"{bucket}/t/")} == set(
        expired.files
    )
    assert rows() == [{"id": 1}, {"id": 2}]
    run_extract(spec("c"))
    assert rows() == [{"id": 2, "note": None}]

    assert called == {"GetDatabase", "CreateDatabase", "GetTable", "CreateTable", "UpdateTable"}
    for name in called:
        for resource in ("catalog", f"database/{database}", f"table/{database}/t"):
            assert allows(WORKER, f"glue:{name}", ON + resource), name
