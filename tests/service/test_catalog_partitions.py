"""The Glue Data Catalog commit by commit, on moto: its calls counted, and some of them failed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import awswrangler
import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from extract_jobs.catalog import CatalogOutcome, update_catalog
from extract_jobs.commit.log import CommitLog, next_commit
from extract_jobs.commit.record import Base, Commit
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import StagedFile, WrittenFile, join
from extract_jobs.storage.local import LocalStorage
from extract_jobs.transform.partitions import folder, values_of
from tests.support.emulators import MotoServer, set_environment
from tests.support.sampling import EXHAUSTIVE
from tests.support.specs import make_spec

COLUMNS = {"id": "int32", "Name": "string", "at": "timestamp[us, tz=UTC]"}
DONE = CatalogOutcome("updated")


@dataclass
class Lake:
    """A table whose commits are records alone: nothing is staged."""

    spec: ExtractSpec
    log: CommitLog
    calls: Counter[str]
    failures: dict[str, list[str]]
    newest: Commit | None = None
    columns: dict[str, str] = field(default_factory=lambda: dict(COLUMNS))
    partition_by: tuple[str, ...] = ("k",)

    def commit(
        self,
        values: Iterable[str | None] = (),
        *,
        overwrite: bool = False,
        replaces: Iterable[str | None] = (),
    ) -> Commit:
        """Publish one file for each value; ``replaces`` names partitions whose files go."""
        gone = set(replaces)
        run = f"run-{uuid4().hex[:8]}"
        files = [self._file(run, {"k": value}) for value in values]
        commit = next_commit(
            Base(self.newest.seq if self.newest else 0, self.newest),
            replaces=(lambda f: f.partition["k"] in gone) if gone else None,
            overwrite=overwrite, log=self.log, commit_id=run, run_id=run, attempt=1,
            table_id=self.spec.table_id, target_uri=self.spec.target.uri, fingerprint={},
            interval=None, watermark=None, schema=[], files=tuple(files), report={},
            partition_by=self.partition_by, columns=dict(self.columns),
        )  # fmt: skip
        self.newest = self.log.prepare(commit)
        return self.newest

    def _file(self, run: str, partition: dict[str, str | None]) -> WrittenFile:
        uri = join(self.spec.target.uri, folder(partition), f"{run}.parquet")
        return WrittenFile(StagedFile(uri, run, 1, {}), 1, partition)

    def update(self, commit: Commit) -> CatalogOutcome:
        self.calls.clear()
        return update_catalog(self.spec, self.log, commit)

    @property
    def where(self) -> dict[str, str]:
        assert self.spec.target.catalog
        return self.spec.target.catalog.model_dump(include={"database", "table"})

    def partitions(self) -> list[str]:
        return sorted(v for [v] in awswrangler.catalog.get_partitions(**self.where).values())

    def parameters(self) -> dict[str, str]:
        return dict(awswrangler.catalog.get_table_parameters(**self.where))


@pytest.fixture
def lake(moto_server: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    set_environment(moto_server.environment(), monkeypatch)
    calls: Counter[str] = Counter()
    failures: dict[str, list[str]] = {}

    def called(model: Any, **_: Any) -> Any:
        calls[model.name] += 1
        codes = failures.get(model.name)
        code = codes.pop(0) if codes else None
        if code is None:
            return None
        answer = {"Error": {"Code": code, "Message": "secret value"}, "ResponseMetadata": {}}
        return SimpleNamespace(status_code=400), answer

    session = boto3.Session()
    session.events.register("before-call.glue", called)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
    name = f"lake_{uuid4().hex[:8]}"
    spec = make_spec(
        tmp_path,
        target={
            "uri": f"s3://{name}/orders",
            "partition_by": ["k"],
            "catalog": {"database": name, "table": "orders"},
        },
        connection={"host": "h"},
    )
    storage = LocalStorage()
    return Lake(spec, CommitLog(storage, str(tmp_path / "state"), storage), calls, failures)


def test_many_partitions_in_batches_and_then_only_what_a_commit_touches(lake: Lake) -> None:
    count = 10_000 if EXHAUSTIVE else 1_000
    assert lake.update(lake.commit(f"{n:05d}" for n in range(count))) == DONE
    assert lake.calls["BatchCreatePartition"] == count // 100

    assert lake.update(lake.commit(["00001", "new", None])) == DONE
    assert lake.calls == {"GetTable": 1, "BatchCreatePartition": 1, "UpdateTable": 1}

    kept = [f"{n:05d}" for n in range(count) if n % 20]
    assert lake.update(lake.commit(kept, overwrite=True)) == DONE
    assert lake.calls["BatchDeletePartition"] == (count // 20 + 2) // 25 + 1
    assert lake.partitions() == kept


def test_replaced_partitions_stay_and_those_left_without_files_go(lake: Lake) -> None:
    lake.update(lake.commit(["a/b", "c%d", None, "e"]))
    again = lake.commit(["e"], replaces=["a/b", None, "e"])
    assert lake.update(again) == DONE
    assert lake.calls["GetPartitions"] == 0
    assert lake.partitions() == ["c%d", "e"]
    assert lake.update(again) == DONE  # an attempt that is repeated
    assert lake.calls == {"GetTable": 1}
    assert lake.partitions() == ["c%d", "e"]


def test_the_table_names_its_run_and_its_schema(lake: Lake) -> None:
    commit = lake.commit(["a"])
    lake.update(commit)
    shown = lake.parameters()
    assert shown["extract_run_id"] == commit.run_id
    assert shown["extract_commit"] == "1"
    assert shown["extract_table"] == "sales/public.orders"
    assert json.loads(shown["extract_schema"]) == COLUMNS
    assert (shown["classification"], shown["EXTERNAL"]) == ("parquet", "TRUE")


def test_columns_are_added_types_widen_and_none_is_dropped(lake: Lake) -> None:
    lake.update(lake.commit(["a"]))
    lake.columns = {"id": "int64", "note": "list<element: decimal128(38, 2)>"}
    assert lake.update(lake.commit(["b"])) == DONE
    assert awswrangler.catalog.get_table_types(**lake.where) == {
        "id": "bigint", "name": "string", "at": "timestamp", "note": "array<decimal(38,2)>",
        "k": "string",
    }  # fmt: skip


def test_a_failure_in_the_middle_is_reported_and_the_next_run_repairs_it(lake: Lake) -> None:
    assert lake.update(lake.commit(["a"])) == DONE
    many = lake.commit([f"{n:03d}" for n in range(250)], replaces=["a"])
    lake.failures["BatchCreatePartition"] = [None, "AccessDeniedException"]  # type: ignore[list-item]
    failed = lake.update(many)
    assert failed.state == "failed"
    assert failed.error == (
        "Glue refused BatchCreatePartition (AccessDeniedException): the role needs "
        "glue:BatchCreatePartition"
    )
    assert 0 < len(lake.partitions()) < 250
    assert lake.parameters()["extract_commit"] == "1"
    assert lake.update(lake.commit(["new"])) == DONE
    assert len(lake.partitions()) == 251
    assert lake.calls["BatchCreatePartition"] == 2  # 151 that were missing


@pytest.mark.parametrize("call", ["UpdateTable", "BatchCreatePartition"])
def test_another_writer_in_between_is_waited_for(lake: Lake, call: str) -> None:
    lake.update(lake.commit(["a"]))
    lake.failures[call] = ["ConcurrentModificationException"] * 2
    assert lake.update(lake.commit(["b"])) == DONE
    assert lake.calls[call] == 3
    assert lake.partitions() == ["a", "b"]
    lake.failures[call] = ["AccessDeniedException"]
    assert lake.update(lake.commit(["c"])).state == "failed"
    assert lake.calls[call] == 1


@pytest.mark.parametrize("call", ["GetTable", "UpdateTable", "BatchCreatePartition"])
@pytest.mark.parametrize("code", ["ThrottlingException", "InternalServiceException"])
def test_a_busy_glue_is_waited_for(lake: Lake, call: str, code: str) -> None:
    lake.update(lake.commit(["a"]))
    lake.failures[call] = [code] * 3
    assert lake.update(lake.commit(["b"])) == DONE
    assert lake.partitions() == ["a", "b"]


def test_a_glue_that_stays_busy_is_not_waited_for_for_ever(lake: Lake) -> None:
    lake.update(lake.commit(["a"]))
    target = {**lake.spec.target.model_dump(), "catalog_wait_seconds": 1}
    spec = ExtractSpec.model_validate({**lake.spec.model_dump(), "target": target})
    lake.failures["UpdateTable"] = ["ThrottlingException"] * 1_000
    begun = time.monotonic()
    outcome = update_catalog(spec, lake.log, lake.commit(["b"]))
    assert 0.3 < time.monotonic() - begun < 5
    assert outcome.retryable
    assert outcome.error == "Glue refused UpdateTable (ThrottlingException)"
    lake.failures["UpdateTable"] = ["AccessDeniedException"]
    assert not update_catalog(spec, lake.log, lake.commit(["c"])).retryable


def test_a_slower_run_changes_nothing_that_a_later_one_has_done(lake: Lake) -> None:
    first = lake.commit(["a", "b"])
    second = lake.commit(["c"], overwrite=True)
    assert lake.update(second) == DONE
    assert lake.update(first) == DONE
    assert lake.calls == {"GetTable": 1}
    assert lake.partitions() == ["c"]


def test_partitions_that_a_person_added_elsewhere_stay(lake: Lake) -> None:
    lake.update(lake.commit(["a"]))
    awswrangler.catalog.add_parquet_partitions(
        **lake.where, partitions_values={"s3://other/k=x/": ["x"]}
    )
    awswrangler.catalog.upsert_table_parameters({"extract_commit": "0"}, **lake.where)
    assert lake.update(lake.commit(["b"], overwrite=True)) == DONE
    assert lake.partitions() == ["b", "x"]


def test_all_columns_that_athena_does_not_support_are_reported_at_once(lake: Lake) -> None:
    lake.columns = {
        "id": "int32", "ID": "int32", "up per": "string", "t": "time64[us]",
        "n": "decimal256(40, 2)", "k": "string",
    }  # fmt: skip
    outcome = lake.update(lake.commit(["a"]))
    assert outcome.error == (
        "column 'ID': another column is also named 'id'; see columns.rename; column 'up per': the "
        "catalog accepts only letters, digits and _; see columns.rename; column 't': Athena has no "
        "type for time64[us]; column 'n': Athena has no type for decimal256(40, 2); partition 'k': "
        "another column is also named 'k'"
    )
    assert lake.calls == {}


def test_other_partition_fields_are_refused(lake: Lake) -> None:
    lake.update(lake.commit(["a"]))
    lake.partition_by = ("k", "m")
    outcome = lake.update(lake.commit(["a"]))
    assert outcome.error is not None
    assert "is partitioned by k, the target by k, m: drop the table" in outcome.error


def test_a_name_that_the_catalog_would_change_is_refused(lake: Lake) -> None:
    catalog = {"database": "db", "table": "My-Orders"}
    target = lake.spec.target.model_dump() | {"catalog": catalog}
    with pytest.raises(ValidationError, match=r"target\.catalog\.table 'My-Orders' is not valid"):
        make_spec(connection={"host": "h"}, target=target)


@given(st.lists(st.none() | st.text(min_size=1), min_size=1, max_size=4))
def test_values_of_a_folder_are_what_it_was_made_of(values: list[str | None]) -> None:
    path = folder({f"p{n}": value for n, value in enumerate(values)})
    null = "__HIVE_DEFAULT_PARTITION__"
    assert values_of(path) == [None if value == null else value for value in values]
