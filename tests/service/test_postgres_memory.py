"""Rows of any width are read within a bounded memory, measured in a process of its own."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.run import run_extract
from tests.support.postgres import Server
from tests.support.postgres_source import snapshot_of, source

LIMIT_MB = 600
CHILD = """
import json, pickle, sys
import pyarrow.compute as pc
from tests.support.postgres_source import snapshot_of, source
from extract_jobs.sources.splits import Split

def peak():
    # Not `getrusage`: what it tells of a child begins with its parent's size.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))

with open(sys.argv[1], "rb") as file:
    reader = pickle.load(file)
before, rows = peak(), []
for batch in reader.read(Split(0)):
    lengths = pc.binary_length(batch.column("v")).to_pylist()
    rows += zip(batch.column("id").to_pylist(), batch.column("size").to_pylist(), lengths)
    del batch
print(json.dumps({"before": before, "peak": peak(), "rows": rows}))
"""
TABLES = {
    "20 rows of 20 MB": (
        "external",
        "select i, 20000000 from generate_series(1, 20) i",
        "mixed",
    ),
    "2,000 rows of 1 kB and some of 20 MB among them": (
        "extended",
        "select i, case i % 100 when 5 then 20000000 else 1000 end from generate_series(1, 2000) i",
        "mixed",
    ),
    "12,000 rows just below what counts as wide": (
        "external",
        "select i, 16000 from generate_series(1, 12000) i",
        "mixed",
    ),
    "one row of 100 MB": ("extended", "select i, 100000000 from generate_series(1, 1) i", "mixed"),
}


@pytest.mark.parametrize("case", TABLES)
def test_memory_is_bounded_whatever_the_width(pg_database: Server, monkeypatch, tmp_path, case):
    storage, rows, width = TABLES[case]
    pg_database.execute(
        "create table t (id int, size int, v text)",
        f"alter table t alter column v set storage {storage}",
        f"insert into t select i, n, repeat('x', n) from ({rows}) as r(i, n)",
        "analyze t",
    )
    found = source(pg_database, monkeypatch, extract_table="t")
    with snapshot_of(found) as snapshot:
        assert snapshot.reader.width == width
        file = tmp_path / "reader"
        file.write_bytes(pickle.dumps(snapshot.reader))
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(file)],
            check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        count = snapshot.count()
    shown = json.loads(child.stdout)
    assert all(size == length for _, size, length in shown["rows"])
    assert sorted(i for i, _, _ in shown["rows"]) == list(range(1, count + 1))
    sys.stdout.write(f"{case}: {shown['before']:.0f} MB before, {shown['peak']:.0f} MB at most\n")
    assert shown["peak"] < LIMIT_MB


def test_a_query_over_wide_rows_is_read_row_by_row(pg_database: Server, monkeypatch):
    pg_database.execute(
        "create table t (id int, size int, v text)",
        "alter table t alter column v set storage external",
        "insert into t select i, 0, repeat('x', 300000) from generate_series(1, 20) i",
        "create view v as select * from t",
    )
    for what, width in (
        ({"query": "select id, v from t"}, "wide"),
        ({"extract_table": "v"}, "wide"),
        ({"query": "select id from t"}, "narrow"),
    ):
        found = source(pg_database, monkeypatch, **what)
        with snapshot_of(found) as snapshot:
            assert snapshot.reader.width == width
            splits = snapshot.splits(found.spec)
            rows = [r for s in splits for b in snapshot.reader.read(s) for r in b.to_pylist()]
        assert len(rows) == 20
        assert all(len(row.get("v", "x" * 300000)) == 300000 for row in rows)


@pytest.mark.parametrize("kind", ["text", "bytea", "varchar"])
def test_the_server_does_not_send_a_value_that_is_too_large(
    pg_database: Server, monkeypatch, tmp_path, kind
):
    """A value of 500 MB would be refused all the same, once it has taken a gigabyte."""
    pg_database.execute(
        f"create table t (id int, v {kind} not null)",
        "alter table t alter column v set storage external",
        f"insert into t select i, repeat('x', 20000 * i)::{kind} from generate_series(1, 40) i",
        "analyze t",
    )
    spec = source(
        pg_database, monkeypatch, tmp_path, extract_table="t", max_value_bytes=700_000
    ).spec
    lengths = []
    real = pa.array
    monkeypatch.setattr(
        "extract_jobs.sources.postgres.rows.pa.array",
        lambda values, *rest: (lengths.extend(len(v) for v in values if isinstance(v, str | bytes)),
                               real(values, *rest))[1],
    )  # fmt: skip
    with pytest.raises(
        TypeNotRepresentable, match=r"^reading t: .*'v' has a value of 7\d0,000 bytes"
    ):
        run_extract(spec)
    assert 0 < max(lengths) <= 700_000
    whole = spec.model_copy(update={"run_id": "r-2", "max_value_bytes": 800_000})
    assert run_extract(whole).rows == 40
