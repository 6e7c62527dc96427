"""Commit records as they are stored: keys that older versions wrote stay what they were."""

from __future__ import annotations

import json

from extract_jobs.commit.record import Commit

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
