"""What MySQL types arrive as, beside what the database's own client prints of them."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.run import run_extract
from tests.support.mysql_servers import MysqlServer, quoted
from tests.support.mysql_source import read_all, snapshot_of, source
from tests.support.mysql_torture import ROWS, client_prints, columns_of, make, printed

Server = MysqlServer


@pytest.fixture
def torture(mysql_database: Server) -> Server:
    make(mysql_database)
    return mysql_database


def floats(values: list[bytes | None], single: bool) -> list[Any]:
    """Read printed floats into their bits, so that -0 is not 0."""
    code = "<f" if single else "<d"
    return [None if value is None else struct.pack(code, float(value)) for value in values]


def test_every_type_arrives_as_the_client_prints_it(
    torture: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = read_all(source(torture, monkeypatch, extract_table="torture"))
    assert table.num_rows == ROWS
    wrong = {}
    clients = client_prints(torture)
    for name, column in columns_of(torture).items():
        arrived = table.column(name)
        assert arrived.type == column.arrow, name
        client = clients[name]
        values: list[Any] = arrived.to_pylist()
        if pa.types.is_floating(column.arrow):
            single = column.arrow == pa.float32()
            client = floats(client, single)
            code = "<f" if single else "<d"
            shown: list[Any] = [None if v is None else struct.pack(code, v) for v in values]
        elif column.arrow == pa.bool_():
            shown = [None if v is None else str(int(v)).encode() for v in values]
        else:
            shown = [printed(value, column.type) for value in values]
        if column.type == "decimal(10,3) unsigned zerofill":
            client = [v and b"%.3f" % float(v) for v in client]
        # The client prints NULL and the text NULL alike.
        shown = [None if value == b"NULL" else value for value in shown]
        if shown != client:
            wrong[name] = [(a, b) for a, b in zip(shown, client, strict=True) if a != b][:2]
    assert not wrong


def test_what_is_written_reads_back_equal_in_duckdb_and_pyarrow(
    torture: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = source(torture, monkeypatch, extract_table="torture")
    table = read_all(found)
    assert table.num_rows > 3
    target = tmp_path / "target"
    changes = {
        "target": found.spec.target.model_copy(update={"uri": str(target)}),
        "state_uri": str(tmp_path / "state"),
        "report_uri": str(tmp_path / "report.json"),
    }
    run_extract(found.spec.model_copy(update=changes))
    files = sorted(target.rglob("*.parquet"))
    back = pq.read_table(files[0], partitioning=None)
    for name in columns_of(torture):
        assert back.column(name).to_pylist() == table.column(name).to_pylist(), name
    with duckdb.connect() as connection:
        rows = connection.execute(f"select * from read_parquet('{files[0]}') order by id")
        read = rows.to_arrow_table()
    for name, column in columns_of(torture).items():
        values = read.column(name).cast(column.arrow).to_pylist()
        assert values == table.column(name).to_pylist(), name


def test_a_query_gives_the_types_of_its_columns(
    torture: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = source(torture, monkeypatch, extract_table="torture")
    names = ", ".join(quoted(name) for name in columns_of(torture))
    query = source(
        torture, monkeypatch, extract_table="q", query=f"select {names} from torture order by id"
    )
    of_table, of_query = read_all(table), read_all(query)
    assert of_table.num_rows > 3
    for name in columns_of(torture):
        assert of_query.column(name).type == of_table.column(name).type, name
        assert of_query.column(name).to_pylist() == of_table.column(name).to_pylist(), name


ODD_DATES = "create table t (id int primary key, d date, at datetime(6), ts timestamp null)"
ODD_ROWS = """insert into t values (1, '2024-01-01', '2024-01-01', '2024-01-01 00:00:01'),
    (2, '0000-00-00', '0000-00-00', '0000-00-00 00:00:00'), (3, '2024-02-31', '2024-00-00', null),
    (4, '0000-01-01', '0000-12-31 23:59:59.999999', null)"""


@pytest.mark.parametrize("column", ["d", "at", "ts"])
def test_odd_dates_are_refused(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    mysql_database.execute(ODD_DATES, ODD_ROWS)
    found = source(mysql_database, monkeypatch, extract_table="t", columns={"include": [column]})
    with snapshot_of(found) as snapshot, pytest.raises(TypeNotRepresentable) as error:
        list(snapshot.reader.only([column]).read(snapshot.splits(found.spec)[0]))
    assert f"column {column} " in str(error.value)
    assert "lossy_types" in str(error.value)
    assert "0000" not in str(error.value)


def test_odd_dates_become_null_and_are_counted(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_database.execute(ODD_DATES, ODD_ROWS)
    found = source(mysql_database, monkeypatch, extract_table="t", lossy_types="null")
    with snapshot_of(found) as snapshot:
        batches = list(snapshot.reader.read(snapshot.splits(found.spec)[0]))
        assert snapshot.reader.nulled == {"d": 3, "at": 3, "ts": 1}
    table = pa.Table.from_batches(batches)
    assert [v and str(v) for v in table["d"].to_pylist()] == ["2024-01-01", None, None, None]


@pytest.mark.parametrize("how", [{"lossy_types": "string"}, {"columns": {"cast": {
    "d": "string", "at": "string", "ts": "string"}}}])  # fmt: skip
def test_odd_dates_arrive_as_text_where_that_is_allowed(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    mysql_database.execute(ODD_DATES, ODD_ROWS)
    table = read_all(source(mysql_database, monkeypatch, extract_table="t", **how))
    assert table["d"].to_pylist() == ["2024-01-01", "0000-00-00", "2024-02-31", "0000-01-01"]
    assert table["at"].to_pylist()[3] == "0000-12-31 23:59:59.999999"
    assert table["ts"].to_pylist()[:2] == ["2024-01-01 00:00:01", "0000-00-00 00:00:00"]


INVALID = {
    "utf8mb4": (4, "ok?", "c328"),
    "utf8mb3": (3, "ok?", "ff"),
    "ascii": (1, "ok?", "e9"),
    "sjis": (2, "ok?", "81"),
    "big5": (2, "ok?", "a1"),
    "utf16": (4, "\0o\0k\0?", "d800"),
}
"""Most bytes of a letter, good text, and bytes that are none."""


@pytest.mark.parametrize("charset", INVALID)
def test_invalid_text_is_refused_or_becomes_null(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch, charset: str
) -> None:
    smuggle(mysql_database, charset)
    with pytest.raises(TypeNotRepresentable, match="not valid in its character set"):
        read_all(source(mysql_database, monkeypatch, extract_table="t"))
    table = read_all(source(mysql_database, monkeypatch, extract_table="t", lossy_types="null"))
    assert table["c"].to_pylist() == ["ok?", None]


def test_text_too_large_to_convert_is_refused_and_never_null(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB's functions give NULL for a text above max_allowed_packet; MySQL converts it."""
    mysql_database.execute("set global max_allowed_packet = 67108864")
    mysql_database.execute(
        "create table t (id int, c longtext charset sjis)",
        "insert into t values (1, repeat('a', 20000000)), (2, null), (3, 'b')",
        "set global max_allowed_packet = 16777216",
    )
    if not mysql_database.is_mariadb:
        table = read_all(source(mysql_database, monkeypatch, extract_table="t"))
        assert table["c"].to_pylist() == ["a" * 20000000, None, "b"]
        return
    with pytest.raises(TypeNotRepresentable, match="max_allowed_packet"):
        read_all(source(mysql_database, monkeypatch, extract_table="t"))
    found = source(mysql_database, monkeypatch, extract_table="t", lossy_types="null")
    with snapshot_of(found) as snapshot:
        batches = list(snapshot.reader.read(snapshot.splits(found.spec)[0]))
        assert snapshot.reader.nulled == {"c": 1}
    assert pa.Table.from_batches(batches)["c"].to_pylist() == [None, None, "b"]


def smuggle(server: Server, charset: str) -> None:
    """Make a table whose text is not valid in its character set, as old clients and dumps left it.

    The server checks what it is given, so the rows are put into a binary column, and their files
    under the name of the other table.
    """
    widest, good, bad = INVALID[charset]
    server.execute(
        f"create table t (id int, c varchar(20) charset {charset}) engine=myisam",
        f"create table raw (id int, c varbinary({20 * widest})) engine=myisam",
        f"insert into raw values (1, x'{good.encode().hex()}'), (2, x'{bad}')",
        "flush tables",
    )
    folder = server.directory / "data" / server.database.replace(" ", "@0020")
    for ending in ("MYD", "MYI"):
        shutil.copy(folder / f"raw.{ending}", folder / f"t.{ending}")
    server.execute("flush tables")
    assert server.rows("select hex(c) from t order by id")[1] == (bad.upper(),)


def test_what_has_no_form_is_refused_with_all_its_columns(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_database.execute(
        "create table t (id int, g geometry, p point)",
        "insert into t values (1, st_geomfromtext('POINT(1 2)', 4326), point(3, 4))",
    )
    with pytest.raises(TypeNotRepresentable, match=r"g is of type geometry.*p is of type point"):
        source(mysql_database, monkeypatch, extract_table="t").describe()
    cast = {"cast": {"g": "string", "p": "binary"}}
    table = read_all(source(mysql_database, monkeypatch, extract_table="t", columns=cast))
    assert table["g"].to_pylist() == ["POINT(1 2)"]
    assert table["p"].to_pylist()[0][:5] == b"\0\0\0\0\1"
    excluded = {"exclude": ["g", "p"]}
    source(mysql_database, monkeypatch, extract_table="t", columns=excluded).describe()
