"""Checksums of state records: a letter or digit that changes is noticed, whatever it says then."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from extract_jobs.commit.claims import Claims
from extract_jobs.commit.plans import Plans
from extract_jobs.commit.reads import RangeRead, Reads
from extract_jobs.commit.record import Commit
from extract_jobs.commit.sealed import check_seal, seal, sealed, without_seal
from extract_jobs.commit.staged_ranges import StagedRange
from extract_jobs.errors import ConfigError
from extract_jobs.storage import StagedFile, WrittenFile, open_storage

URI = "s3://lake/t/r.parquet"
FILE = WrittenFile(StagedFile(URI, "0" * 32, 10, {"kind": "s3"}), 3, {"day": "1"})
MOMENT: dict[str, dict[str, Any]] = {"key": {}, "parts": {"t": {}}, "snapshot": {"xmin": "7"}}
RANGE = RangeRead("t", 0, 100, 3, (URI,))
COMMIT = Commit(
    commit_id="c", seq=3, parent=2, live_since=1, run_id="r", attempt=1, table_id="s/t",
    target_uri="s3://lake/t", fingerprint={}, interval=None, watermark=None,
    schema=[{"name": "é", "type": "int64", "nullable": False}], files=(FILE,),
    retire=("s3://lake/t/old.parquet",), report={"rows": 3},
)  # fmt: skip

RECORDS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "commit": (COMMIT.to_bytes(), lambda raw: Commit.from_bytes(raw, "x", 3)),
    "reads": (Reads(2, MOMENT, {"a": "b"}, (RANGE,)).to_bytes(), Reads.from_bytes),
    "staged": (
        StagedRange(2, MOMENT, {"a": "b"}, RANGE, (FILE,)).to_bytes(),
        lambda raw: StagedRange.from_bytes(raw, "s3://lake/t"),
    ),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_flipped_bit_is_refused_or_changes_nothing(kind: str) -> None:
    whole, read = RECORDS[kind]
    wanted = read(whole)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        try:
            found = read(bytes(damaged))
        except (ValueError, ConfigError):
            continue
        assert found == wanted, f"byte {at}"


@pytest.mark.parametrize("change", [
    lambda raw: raw.replace(b"old.parquet", b"odd.parquet"),
    lambda raw: raw.replace(b'"rows": 3', b'"rows": 2', 1),
    lambda raw: raw.replace("é".encode(), "è".encode()),
])  # fmt: skip
def test_a_commit_record_that_is_still_valid_json_is_refused(
    change: Callable[[bytes], bytes],
) -> None:
    with pytest.raises(ConfigError, match="its checksum does not match"):
        Commit.from_bytes(change(COMMIT.to_bytes()), "x", 3)


def test_a_record_of_a_version_without_checksums_is_read_where_there_were_such() -> None:
    for kind, (whole, read) in RECORDS.items():
        old = json.dumps(without_seal(json.loads(whole))).encode()
        if kind == "commit":
            assert read(old) == read(whole)
        else:
            with pytest.raises(ValueError, match="it has no checksum"):
                read(old)


def test_a_changed_plan_or_claim_is_refused(tmp_path: Any) -> None:
    state = str(tmp_path)
    storage = open_storage(state)
    plans = Plans(storage, state)
    assert plans.pin("r", 1, {"upper": "2026"}) == {"version": 1, "upper": "2026"}
    claims = Claims(storage, state, lambda seq: False)
    claims.fence("r", "somebody")
    for path, read in (
        (tmp_path / "plans/r/1.json", lambda: plans.read("r", 1)),
        (tmp_path / "claims/r/1.json", lambda: claims.fenced_by("r")),
    ):
        path.write_bytes(path.read_bytes().replace(b"2026", b"2027").replace(b"some", b"same"))
        with pytest.raises(ConfigError, match=r"r/1\.json is"):
            read()


def test_a_checksum_is_of_all_that_comes_before_it() -> None:
    long = b"".join(sealed({"a": 1}, {"b": range(600), "c": ()}))
    assert without_seal(json.loads(long)) == {"a": 1, "b": list(range(600)), "c": []}
    check_seal(long, needed=True)
    raw = seal({"a": "é", "b": [1]})
    assert json.loads(raw).keys() == {"a", "b", "checksum"}
    check_seal(raw, needed=True)
    for damaged in (raw.replace(b"1]", b"2]"), b" " + raw):
        with pytest.raises(ValueError, match="does not match"):
            check_seal(damaged)
