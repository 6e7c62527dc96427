"""Hostile names of schema, table and columns, through whole runs: right, or refused and why."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from duckdb import connect

from extract_jobs import cli
from extract_jobs.config import load_config, specs_for
from extract_jobs.errors import ConfigError
from extract_jobs.run import run_extract
from extract_jobs.sources.postgres.sql import quote_name, quote_text
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.crash import bucket_of
from tests.support.emulators import MotoServer, set_environment
from tests.support.postgres import Server

LONG = "é" * 31
HOSTILE = [
    'we"ird', "do.ts.in.it", "..", " blanks ", "semi; drop table x; --", "/*x*/ $$ $1 :name",
    "Ünïcödé ☃ 😀", LONG, "UPPER", "select", "quo'te\\", "\\", "new\nline\tcr\r", "esc\x1b[31m",
    "per%s cent%20%(x)s", "{brace}", "a/b=c#", "glob*[a]?", "x" * 63, "_hidden", "c0",
]  # fmt: skip
EARLY = datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)


@pytest.fixture(scope="module")
def hostile(pg: Server) -> Iterator[Server]:
    """A database of a hostile name, with a schema and a table of each of the names.

    A table has the columns of `columns_of`, and three rows.
    """
    server = dataclasses.replace(pg, database="dat'ab\"ase %20 \\ ☃")
    quoted = quote_name(server.database)
    with pg.connect() as connection:
        connection.execute(f"drop database if exists {quoted} with (force)".encode())
        connection.execute(f"create database {quoted}".encode())
    for name in HOSTILE:
        at, part, value = map(quote_name, columns_of(name))
        table = f"{quote_name(name)}.{quote_name(name)}"
        server.execute(
            f"create schema {quote_name(name)}",
            f"create table {table} ({at} timestamptz primary key, {part} text, {value} int)",
        )
        for i in range(3):
            moment = EARLY + timedelta(seconds=i)
            values = f"'{moment}', {quote_text(f'{name}/{i % 2}')}, {i}"
            server.execute(f"insert into {table} values ({values})")
    yield server
    with pg.connect() as connection:
        connection.execute(f"drop database {quoted} with (force)".encode())


def columns_of(name: str) -> tuple[str, str, str]:
    """A watermark, a partition, and a value; none longer than the 63 bytes that there are."""
    most = name.encode()[:61].decode(errors="ignore")
    return name, f"p{most}", f"v{most}"


def config_text(server: Server, uri: str, name: str, **table: Any) -> str:
    at, part, value = columns_of(name)
    stripped = at == at.strip()
    return json.dumps({
        "version": 1,
        "source": {"name": "hostile", "type": "postgres", "connection": {
            "host": server.host, "port": server.port, "user": server.user,
            "database": server.database, "password_env": "TEST_PG_PASSWORD",
        }},
        "tables": {f"{quote_name(name)}.{quote_name(name)}": {
            "mode": "incremental",
            "watermark": {"column": at},
            "where": f"{quote_name(value)} >= 0 or {quote_name(value)} is null",
            "columns": {"rename": {value: f"{value}'"}, "cast": {value: "int64"}, "key": [at]},
            "split": {"strategy": "range", "column": at, "target_bytes": 8192},
            "target": {
                "uri": uri,
                "partition_by": [part, *([f"month({at})"] if stripped else [])],
            },
            **table,
        }},
    }, ensure_ascii=False)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_in_every_path(hostile, monkeypatch, tmp_path, capsys, name):
    monkeypatch.setenv("TEST_PG_PASSWORD", hostile.password)
    at, _, value = columns_of(name)
    lake = tmp_path / "lake"
    text = config_text(hostile, f"{lake}/{{schema}}/{{table}}", name)
    file = tmp_path / "hostile.yml"
    file.write_text(text)
    config = load_config(text, "hostile.yml")
    (table,) = config.tables

    def run(run_id: str):
        (spec,) = specs_for(config, [table], run_id_for=lambda _: run_id)
        return spec, run_extract(spec)

    if name == LONG:
        # 255 bytes is what a local folder's name may have; an object's key has no such bound.
        with pytest.raises(ConfigError, match="File name too long"):
            run("r1")
        return
    spec, first = run("r1")
    assert (first.rows, first.source_rows, first.reconciled) == (3, 3, True)
    quoted = f"{quote_name(name)}.{quote_name(name)}"
    hostile.execute(f"insert into {quoted} values ('{EARLY + timedelta(days=1)}', 'x', 3)")
    try:
        assert run("r2")[1].rows == 1
    finally:
        hostile.execute(f"delete from {quoted} where {quote_name(value)} = 3")

    # One folder each for schema and table, whatever is in their names.
    files = sorted(Path(spec.target.uri).rglob("*.parquet"))
    assert Path(spec.target.uri).parent.parent == lake
    assert all(path.is_relative_to(lake) for path in files)
    assert Path(spec.state_uri, "commits").is_dir()
    with connect() as database:
        listed = [str(path) for path in files]
        read = database.sql(
            "from read_parquet($files, hive_partitioning = false)", params={"files": listed}
        )
        assert set(read.columns) == {at, f"{value}'", "_run_id", "_extracted_at"}
        assert sorted(row[0] for row in read.project(quote_name(f"{value}'")).fetchall()) == [
            0, 1, 2, 3,
        ]  # fmt: skip
    assert pq.read_schema(files[0]).field(f"{value}'").type == "int64"
    report = json.loads(Path(spec.report_uri).read_text())
    assert {column["name"] for column in report["schema"]} >= {at, f"{value}'"}

    assert cli.main(["status", str(file)]) == 0
    if not name.isprintable():
        assert cli.main(["plan", str(file), table]) == 0
    printed = capsys.readouterr()
    assert all(line.isprintable() for line in (printed.out + printed.err).split("\n"))
    assert "Traceback" not in printed.err


def test_names_that_meet_without_regard_to_case_are_refused_with_both(hostile, monkeypatch):
    monkeypatch.setenv("TEST_PG_PASSWORD", hostile.password)
    hostile.execute(
        'create schema "Case"', 'create table "Case"."T" ("a" int, "A" int)',
        'create table "Case".t ("a" int)',
    )  # fmt: skip
    try:
        text = config_text(hostile, "/nowhere/{schema}/{table}", "x")
        data = json.loads(text)
        data["tables"] = {
            name: {"target": {"uri": "/nowhere/{schema}/{table}"}} for name in ("Case.T", "Case.t")
        }
        with pytest.raises(ConfigError, match=r"(?s)Case\.t has the same|Case\.t: has the same"):
            load_config(json.dumps(data), "x.yml")
        del data["tables"]["Case.t"]
        config = load_config(json.dumps(data), "x.yml")
        (spec,) = specs_for(config, ["Case.T"], run_id_for=lambda _: "r")
        with pytest.raises(ConfigError, match="column 'a' and column 'A' would have the same name"):
            run_extract(spec)
    finally:
        hostile.execute('drop schema "Case" cascade')


CATALOGUED = ["UPPER", "select", "Ünïcödé ☃ 😀", "new\nline\tcr\r", "a/b=c#", 'we"ird', "c0"]


def test_hostile_names_in_the_catalog(
    hostile: Server, moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import awswrangler

    set_environment(
        {**moto_server.environment(), "TEST_PG_PASSWORD": hostile.password}, monkeypatch
    )
    bucket = bucket_of(moto_server, "hostile-names")
    for name in CATALOGUED:
        at, part, value = columns_of(name)
        text = config_text(
            hostile, "", name,
            columns={"rename": {at: "at", part: "part", value: "value"}},
            target={
                "uri": f"{bucket}/{{schema}}/{{table}}", "partition_by": [part],
                "catalog": {"database": "hostile_{schema}", "table": "{table}"},
            },
        )  # fmt: skip
        config = load_config(text, "hostile.yml")
        (spec,) = specs_for(config, list(config.tables), run_id_for=lambda _: "r1")
        assert spec.target.catalog is not None
        assert run_extract(spec).catalog == "updated", name
        found = spec.target.catalog.model_dump(include={"database", "table"})
        types = awswrangler.catalog.get_table_types(**found)
        assert {"at", "value", "part"} <= types.keys()
        partitions = sorted(awswrangler.catalog.get_partitions(**found).values())
        assert partitions == [[f"{name}/0"], [f"{name}/1"]]
        if all(c.isascii() and (c.isalnum() or c == "_") for c in at + part + value):
            assert run_extract(renamed_back(spec)).catalog == "updated", name
        else:
            with pytest.raises(
                ConfigError, match=r"the catalog accepts only letters.*columns\.rename"
            ):
                run_extract(renamed_back(spec))


def renamed_back(spec: ExtractSpec) -> ExtractSpec:
    """The same table into another place, under its own names."""
    data = spec.model_dump(mode="json")
    data["columns"]["rename"] = {}
    data["target"]["uri"] += "-plain"
    data["target"]["catalog"]["table"] += "_plain"
    data["state_uri"] += "-plain"
    return ExtractSpec.model_validate(data)
