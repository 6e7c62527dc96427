"""Commit records as they are stored: keys that older versions wrote stay what they were."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from extract_jobs.commit import record
from extract_jobs.commit.record import Commit
from extract_jobs.errors import ConfigError

STORED = {
    "version": 1, "commit_id": "c", "seq": 1, "parent": 0, "live_since": 1, "run_id": "r",
    "attempt": 1, "table_id": "shop/orders", "target_uri": "/lake", "fingerprint": {},
    "interval": None, "watermark": None, "schema": [], "files": [], "retire": [], "report": {},
}  # fmt: skip
COVERED = {"lower": None, "upper": {"type": "integer", "text": "5"}}


def test_covered_intervals_are_stored_under_their_old_key() -> None:
    commit = Commit.from_bytes(json.dumps(STORED | {"ground": [COVERED]}).encode(), "x")
    assert commit.covered == (COVERED,)
    written = json.loads(commit.to_bytes())
    assert written["ground"] == [COVERED]
    assert "covered" not in written
    assert Commit.from_bytes(commit.to_bytes(), "x") == commit


def test_a_record_without_optional_keys_is_read() -> None:
    commit = Commit.from_bytes(json.dumps(STORED).encode(), "x")
    assert (commit.covered, commit.partition_by, commit.objects) == ((), (), None)


def wide(columns: int) -> Commit:
    names = [f"column_{number}" for number in range(columns)]
    schema = [{"name": name, "type": "int64", "nullable": True} for name in names]
    stored = STORED | {
        "schema": schema, "source_columns": schema, "columns": dict.fromkeys(names, "int64"),
        "report": {"schema": schema},
    }  # fmt: skip
    return Commit.from_bytes(json.dumps(stored).encode(), "x")


def test_a_record_of_many_columns_does_not_repeat_them() -> None:
    """Bytes a column; one of few columns is plain JSON, which earlier versions read."""
    small, large = wide(50).to_bytes(), wide(5_000).to_bytes()
    assert json.loads(small)["seq"] == 1
    assert len(large) <= 20 * 5_000
    assert Commit.from_bytes(large, "x") == wide(5_000)


@pytest.mark.parametrize("damage", [
    lambda raw: raw[:-1], lambda raw: raw + b"x", lambda raw: raw[:1000] + b"x" + raw[1001:],
    lambda raw: raw[:2], lambda _: gzip.compress(b"{"), lambda _: gzip.compress(b""),
    lambda raw: raw + raw,
])  # fmt: skip
def test_a_compressed_record_that_is_damaged_is_refused(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ConfigError, match="x is not a commit record"):
        Commit.from_bytes(damage(wide(1_000).to_bytes()), "x")


def test_a_record_is_decompressed_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_MAX_BYTES", 2**20)
    bomb = gzip.compress(b" " * 2**24)
    assert len(bomb) < 2**15
    with pytest.raises(ConfigError, match="too large"):
        Commit.from_bytes(bomb, "x")


def test_a_record_that_would_be_too_large_to_read_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = wide(1_000)
    monkeypatch.setattr(record, "_MAX_BYTES", 2**16)
    with pytest.raises(ConfigError, match="cannot be read back, so nothing was committed"):
        whole.to_bytes()


@pytest.mark.parametrize("wrong", [
    {"retire": ("/elsewhere/x",)}, {"attempt": "1"}, {"schema": [{"name": 5}]}, {"parent": 7},
])  # fmt: skip
def test_a_record_that_no_run_could_read_is_not_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="which was not written"):
        dataclasses.replace(Commit.from_bytes(json.dumps(STORED).encode(), "x"), **wrong).check()
