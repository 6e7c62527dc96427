"""JSON that is nested 100,000 deep ends in a clear error or is ignored, wherever it comes from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract_jobs.connections.databases import ENGINES
from extract_jobs.connections.urls import from_secret
from extract_jobs.errors import ConfigError
from extract_jobs.tracking.batch import parse_batch
from tests.support.files import files_spec, read_all

ROOT = Path(__file__).parents[2]
DEEP = "[" * 100_000
ELSEWHERE = {
    "live_segments.py",  # its own context manager turns whatever damage raises into ValueError
    "catalog.py",  # the plan of a statement, whose depth PostgreSQL bounds
    "retry_policy.py",  # what this code wrote itself
    "json_array.py",  # one string
    "objects.py",  # its tuple of errors has it
}


def unguarded(module: ast.Module) -> Iterator[int]:
    """Yield the lines of calls of ``json.loads`` that no handler of RecursionError is around."""
    inside: set[ast.AST] = set()
    for node in ast.walk(module):
        by: list[ast.expr] = []
        if isinstance(node, ast.Try):
            by = [one.type for one in node.handlers if one.type]
        elif isinstance(node, ast.With):
            by = [one.context_expr for one in node.items]
        if isinstance(node, ast.Try | ast.With) and any(
            "RecursionError" in ast.unparse(b) for b in by
        ):
            inside.update(found for part in node.body for found in ast.walk(part))
    for node in ast.walk(module):
        reads = isinstance(node, ast.Call) and ast.unparse(node.func) in {"json.loads", "json.load"}
        if reads and node not in inside:
            yield node.lineno


def test_whoever_reads_json_expects_it_to_be_nested_deeply() -> None:
    files = [*(ROOT / "extract_jobs").rglob("*.py"), *(ROOT / "entrypoints").rglob("*.py")]
    found = {path: list(unguarded(ast.parse(path.read_text()))) for path in files}
    assert sum(map(bool, found.values())) == len(ELSEWHERE)
    assert {path.name for path, lines in found.items() if lines} == ELSEWHERE


def test_a_parquet_file_with_deep_metadata_is_read(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2]}).replace_schema_metadata(
        {"geo": DEEP, "org.apache.spark.sql.parquet.row.metadata": DEEP}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    assert read_all(files_spec(tmp_path, "in.parquet")).column("id").to_pylist() == [1, 2]


def test_a_deep_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="the secret is not a JSON object"):
        from_secret(DEEP, "the secret", ENGINES["postgres"])


def test_what_is_deep_is_no_batch() -> None:
    assert parse_batch(DEEP, "s3://b/x") is None
