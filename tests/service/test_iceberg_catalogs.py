"""The same behaviour of an Iceberg table in every catalog, read by another client of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import IntegerType, NestedField

from extract_jobs.commit.expiry import expire_snapshots
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.rollback import roll_back
from extract_jobs.commit.table_log import commit_log
from extract_jobs.errors import ConfigError, WriteFailed
from extract_jobs.iceberg import rest
from extract_jobs.iceberg.table import IcebergTable
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.parts import CatalogSpec
from infra.local.emulator import Emulator
from tests.support.crash import bucket_of
from tests.support.emulators import use
from tests.support.iceberg import glue_catalog, ordered
from tests.support.iceberg_rest import CREDENTIAL, TOKEN, RestServer
from tests.support.sampling import EXHAUSTIVE
from tests.support.specs import make_spec
from tests.support.sqlite_source import write

INCREMENTAL: dict[str, Any] = {"mode": "incremental", "watermark": {"column": "id"}}


@dataclass
class Place:
    """A table of a SQLite file, in one catalog.

    Attributes:
        folder: Has the source.
        base: Where target and state are.
        where: The catalog, as a config names it.
        client: Opens it as another tool does.
    """

    folder: Path
    base: str
    where: dict[str, Any]
    client: Callable[[], Catalog]

    def source(self, *statements: str) -> None:
        write(self.folder / "shop.db", *statements)

    def spec(self, run_id: str, **more: Any) -> ExtractSpec:
        target = {
            "uri": f"{self.base}/t", "format": "iceberg", "catalog": self.where,
            **more.pop("target", {}),
        }  # fmt: skip
        return make_spec(
            self.folder, run_id=run_id, source_type="sqlite", extract_table="t", target=target,
            connection={"path": str(self.folder / "shop.db")}, state_uri=f"{self.base}/state",
            **more,
        )  # fmt: skip

    def run(self, run_id: str, **more: Any) -> Report:
        return run_extract(self.spec(run_id, **more))

    def log(self) -> CommitLog:
        return commit_log(self.spec("any"))

    @property
    def name(self) -> tuple[str, str]:
        return self.where["database"], self.where["table"]

    def table(self) -> Table:
        return self.client().load_table(self.name)

    def rows(self) -> list[dict[str, Any]]:
        return ordered(self.table().scan().to_arrow().to_pylist())


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RestServer]:
    monkeypatch.setenv("CATALOG_TOKEN", TOKEN)
    monkeypatch.setenv("CATALOG_CREDENTIAL", CREDENTIAL)
    with RestServer(tmp_path) as server:
        yield server


@pytest.fixture
def rest_place(tmp_path: Path, server: RestServer) -> Place:
    where = {"type": "rest", "url": server.url, "token": {"env": "CATALOG_TOKEN"},
             "database": "lake", "table": "t"}  # fmt: skip
    return Place(tmp_path, str(tmp_path), where,
                 lambda: RestCatalog("other", uri=server.url, token=TOKEN, **OTHER))  # fmt: skip


OTHER = {"oauth2-server-uri": "http://127.0.0.1:9/unused"}
"""Without it pyiceberg warns."""


CATALOGS = ["sqlite", "glue", "rest", "glue by rest"]


@pytest.fixture(params=CATALOGS if EXHAUSTIVE else CATALOGS[2:])  # others have tests of their own
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "rest":
        found: Place = request.getfixturevalue("rest_place")
        return found
    where = {"database": f"lake_{uuid4().hex[:8]}", "table": "t"}
    if request.param == "sqlite":
        uri = f"sqlite:///{tmp_path}/catalog.db"
        where |= {"type": "sqlite", "path": str(tmp_path / "catalog.db")}
        return Place(tmp_path, str(tmp_path), where, lambda: SqlCatalog("default", uri=uri))
    emulator: Emulator = request.getfixturevalue("ministack")
    use(emulator, monkeypatch)
    base = bucket_of(emulator, f"catalogs-{uuid4().hex[:8]}")
    environment = emulator.environment()
    if request.param == "glue":
        return Place(tmp_path, base, where, lambda: glue_catalog(environment))
    at = {"url": f"{emulator.endpoint_url}/iceberg", "warehouse": "000000000000"}
    signed = {"rest.sigv4-enabled": "true", "rest.signing-name": "glue",
              "rest.signing-region": environment["AWS_REGION"]}  # fmt: skip
    return Place(
        tmp_path, base, {**where, **at, "type": "rest", "sign": "glue"},
        lambda: RestCatalog("other", uri=at["url"], warehouse=at["warehouse"], **signed),
    )  # fmt: skip


def test_rows_are_added_and_replaced_and_columns_come_and_widen(place: Place) -> None:
    place.source("create table t (id integer primary key, n integer)",
                 "insert into t values (1, 10), (2, 20)")  # fmt: skip
    narrow = {"cast": {"n": "int32"}}
    place.run("a", **INCREMENTAL, columns=narrow, target={"partition_by": ["n"]})
    place.source("alter table t add column more text", "insert into t values (3, 10, 'x')")
    place.run("b", **INCREMENTAL, target={"partition_by": ["n"]})
    assert place.rows() == [
        {"id": 1, "n": 10, "more": None}, {"id": 2, "n": 20, "more": None},
        {"id": 3, "n": 10, "more": "x"},
    ]  # fmt: skip
    assert str(place.table().schema().find_type("n")) == "long"
    place.source("delete from t where id < 3")
    place.run("c", target={"partition_by": ["n"]})
    assert [row["id"] for row in place.rows()] == [3]
    assert len(place.table().metadata.snapshots) == 3


def test_a_writer_in_between_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.source("create table t (id integer primary key)", "insert into t values (1)")
    place.run("a", **INCREMENTAL)
    place.source("insert into t values (2)")
    commit, left = IcebergTable._commit, [1]

    def late(self: IcebergTable, catalog: Any, table: Any, given: Any) -> bool:
        if left[0]:
            left[0] -= 1
            other = place.table()
            other.append(other.scan().to_arrow().slice(0, 1))
        return commit(self, catalog, table, given)

    monkeypatch.setattr(IcebergTable, "_commit", late)
    place.run("b", **INCREMENTAL)
    assert [row["id"] for row in place.rows()] == [1, 1, 2]
    assert len(place.table().metadata.snapshots) == 3
    place.run("b", **INCREMENTAL)  # the same run again
    assert len(place.table().metadata.snapshots) == 3


def test_tables_that_are_gone_or_somebody_elses_are_refused(place: Place) -> None:
    place.source("create table t (id integer primary key)", "insert into t values (1)")
    place.run("a", **INCREMENTAL)
    client = place.client()
    if "sign" not in place.where:  # ministack drops no table by REST
        client.drop_table(place.name)
        place.source("insert into t values (2)")
        with pytest.raises(ConfigError, match="is gone from the catalog, and with it the rows"):
            place.run("b", **INCREMENTAL)
    theirs = (place.name[0], "theirs")
    client.create_table(theirs, Schema(NestedField(1, "id", IntegerType())),
                        location=f"{place.base}/theirs")  # fmt: skip
    place.where = {**place.where, "table": "theirs"}
    with pytest.raises(ConfigError, match="was created by someone else"):
        place.run("c")


def test_it_goes_back_and_expires(place: Place) -> None:
    place.source("create table t (id integer primary key)", "insert into t values (1)")
    place.run("a")
    place.source("update t set id = 2")
    place.run("b")
    roll_back(place.log(), 1, run_id="back", keep=False)
    assert [row["id"] for row in place.rows()] == [1]
    later = datetime.now(UTC) + timedelta(days=2)
    if place.where.get("sign"):
        # ministack takes the removal of snapshots, and does nothing: no file may be deleted.
        with pytest.raises(ConfigError, match="took the removal of snapshots and did not do it"):
            expire_snapshots(place.log(), timedelta(days=1), later)
        older = place.table().metadata.snapshots[0].snapshot_id
        assert place.table().scan(snapshot_id=older).to_arrow().num_rows == 1
    else:
        assert expire_snapshots(place.log(), timedelta(days=1), later).snapshots == 2
        assert len(place.table().metadata.snapshots) == 1
    assert [row["id"] for row in place.rows()] == [1]


def test_a_table_that_was_created_before_its_first_commit_gets_it(
    rest_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = rest_place
    place.source("create table t (id integer primary key)", "insert into t values (1)")
    create = IcebergTable._create

    def killed(self: IcebergTable, *arguments: Any) -> None:
        create(self, *arguments)
        raise WriteFailed("killed")

    with monkeypatch.context() as patched:
        patched.setattr(IcebergTable, "_create", killed)
        with pytest.raises(WriteFailed, match="killed"):
            place.run("a", **INCREMENTAL)
    assert place.rows() == []
    place.source("insert into t values (2)")
    place.run("b", **INCREMENTAL)
    assert [row["id"] for row in place.rows()] == [1, 2]
    assert len(place.table().metadata.snapshots) == 2


def test_a_commit_whose_answer_was_lost_is_there_once(
    rest_place: Place, server: RestServer
) -> None:
    rest_place.source("create table t (id integer primary key)", "insert into t values (1)")
    rest_place.run("a", **INCREMENTAL)
    rest_place.source("insert into t values (2)")
    server.lose = True
    with pytest.raises(WriteFailed, match="a retry is safe"):
        rest_place.run("b", **INCREMENTAL)
    assert rest_place.run("b", **INCREMENTAL).commit_seq == 2
    assert [row["id"] for row in rest_place.rows()] == [1, 2]


def test_a_rest_catalog_that_fails_or_refuses(
    rest_place: Place, server: RestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = rest_place
    place.source("create table t (id integer primary key)", "insert into t values (1)")
    for status, kind in ((503, WriteFailed), (500, WriteFailed), (429, WriteFailed),
                         (403, ConfigError), (400, ConfigError), (501, ConfigError)):  # fmt: skip
        server.refuse = status
        with pytest.raises(
            kind, match=r"lake\.t in the rest catalog: the catalog (failed|refused|does)"
        ):
            place.run("a")
    server.refuse = 0
    monkeypatch.setenv("CATALOG_TOKEN", "another")
    with pytest.raises(ConfigError, match=r"refused.*check sign, token or credential") as caught:
        place.run("a")
    assert "another" not in str(caught.value)
    monkeypatch.setattr(rest, "_TIMEOUT", (0.5, 0.1))
    server.hang = True
    with pytest.raises(WriteFailed, match="a retry is safe"):
        place.run("a")
    server.hang = False
    place.where = {**place.where, "url": "http://127.0.0.1:9"}
    with pytest.raises(WriteFailed, match="could not be reached"):
        place.run("a")


GARBAGE = {
    "a page": b"<html>Please log in</html>", "nothing": b"", "null": b"null", "a list": b"[1]",
    "an object": b"{}", "text": b'"text"', "not UTF-8": b'{"a": "\xff"}', "cut": b'{"metadata": {',
    "deep": b"[" * 100_000, "a number": b"1" * 5000,
    "a table of nothing": b'{"metadata-location": "x", "metadata": {}, "config": {}}',
    "a wrong table": b'{"metadata-location": 7, "metadata": {"format-version": 9}, "config": 1}',
}  # fmt: skip
"""What a proxy, or a broken catalog, answers with status 200."""


@pytest.mark.parametrize("what", GARBAGE if EXHAUSTIVE else ["a page", "a table of nothing"])
def test_garbage_ends_a_run_with_an_error_of_ours_and_doubles_nothing(
    rest_place: Place, server: RestServer, what: str
) -> None:
    place = rest_place
    place.source("create table t (id integer primary key)", "insert into t values (1)")
    place.run("r0", **INCREMENTAL)
    rows, number = [1], 0
    while True:
        number += 1
        rows.append(number + 1)
        place.source(f"insert into t values ({number + 1})")
        server.calls, server.garbage = 0, {number: GARBAGE[what]}
        with suppress(ConfigError, WriteFailed):
            place.run(f"r{number}", **INCREMENTAL)
        called, server.garbage = server.calls, {}
        place.run(f"r{number}", **INCREMENTAL)
        assert [row["id"] for row in place.rows()] == rows, number
        if called < number:
            break
    assert number > 5


def test_a_credential_is_exchanged_for_a_token(rest_place: Place) -> None:
    place = rest_place
    place.source("create table t (id integer primary key)", "insert into t values (1)")
    del place.where["token"]
    place.where |= {"credential": {"env": "CATALOG_CREDENTIAL"}, "scope": "all"}
    place.run("a")
    assert [row["id"] for row in place.rows()] == [1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"type": "rest"}, "url is for type rest, which needs it"),
        ({"url": "https://c"}, "url is for type rest"),
        ({"warehouse": "w"}, "warehouse is for type rest"),
        ({"type": "rest", "url": "http://catalog"}, "url must begin with https://, since cred"),
        ({"type": "rest", "url": "https://u:p@catalog"}, "url must not contain a user or passw"),
        ({"type": "rest", "url": "ftp://catalog"}, "url must begin with https://"),
        ({"type": "rest", "url": "https://c", "scope": "s"}, "oauth_url and scope are for cred"),
        ({"type": "rest", "url": "https://c", "sign": "glue", "token": {"env": "T"}},
         "sign and token exclude each other"),
        ({"type": "rest", "url": "https://s3tables.eu-central-1.amazonaws.com/iceberg"},
         "S3 Tables cannot be written"),
        ({"type": "rest", "url": "https://c", "warehouse": "arn:aws:s3tables:eu:1:bucket/b"},
         "S3 Tables cannot be written"),
    ],
)  # fmt: skip
def test_what_no_catalog_is(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CatalogSpec.model_validate({"database": "d", "table": "t", **wrong})
