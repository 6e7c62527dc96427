"""State records that something else than a run has written: refused, and nothing is touched.

Each record is a real one with one thing changed. Around it lie files that do not belong to the
table; whatever a record says, they must still be there afterwards, and nowhere a file more.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from datetime import UTC, datetime, timedelta

import pytest

import extract_jobs.run
from extract_jobs.commit.live_files import _Walk
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.commit.record_check import is_below
from extract_jobs.commit.sealed import seal, without_seal
from extract_jobs.errors import ConfigError
from extract_jobs.run import run_extract
from extract_jobs.storage import open_storage
from tests.support.memory_source import MemorySource
from tests.support.specs import make_spec

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A local table with one commit that still has to be published, and a stranger's file."""
    source = MemorySource([1, 2, 3])
    monkeypatch.setattr(extract_jobs.run, "open_source", lambda *_: source)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_text("not ours")
    table = Table(tmp_path)
    table.extract("first")
    table.extract("second")
    table.path("outcomes", 2).unlink()
    return table


class Table:
    def __init__(self, folder):
        self.folder = folder

    def extract(self, run_id, **overrides):
        overrides = {"target": {"write_mode": "append"}} | overrides
        spec = make_spec(self.folder, run_id=run_id, extract_table="t", **overrides)
        return run_extract(spec, clock=lambda: NOW)

    def path(self, kind, seq):
        return self.folder / f"state/{kind}/{seq:020d}.json"

    def change(self, change, seq=2):
        path = self.path("commits", seq)
        record = json.loads(path.read_text())
        change(record)
        path.write_bytes(seal(without_seal(record)))

    def log(self):
        state = f"{self.folder}/state"
        return CommitLog(open_storage(state), state, open_storage(state), f"{self.folder}/target")

    def files(self):
        return {p: p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}


def put(*path, value):
    """Return a change that sets one value, its path given by keys and positions."""

    def change(record):
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    return change


def test_the_record_as_it_was_written_is_published(table):
    assert len(list((table.folder / "target").rglob("*.parquet"))) == 2
    assert table.log().finish_last().seq == 2
    table.extract("third")
    assert len(list((table.folder / "target").rglob("*.parquet"))) == 3


OUTSIDE = [
    "{folder}/elsewhere/precious",
    "{folder}/target/../elsewhere/precious",
    "{folder}/target",
    "{folder}/target/",
    "{folder}/targets/precious",
    "{folder}/target/./../elsewhere/precious",
    "file://{folder}/target/%2e%2e/elsewhere/precious",
    "elsewhere/precious",
    "s3://lake/target/precious",
    "file://other/target/precious",
    "https://host/target/precious",
    "",
    "{folder}/target/a\0b",
]


@pytest.mark.parametrize("place", OUTSIDE)
@pytest.mark.parametrize("what", ["retire", "files"])
def test_a_record_that_names_a_file_outside_the_target_is_refused(table, what, place):
    uri = place.format(folder=table.folder)
    where = ("retire",) if what == "retire" else ("files", 0, "staged", "uri")
    table.change(put(*where, value=[uri] if what == "retire" else uri))
    before = table.files()
    with pytest.raises(
        ConfigError, match=rf"commits/0+2\.json is not .*{what} names a file outside"
    ):
        table.log().finish_last()
    with pytest.raises(ConfigError, match=r"commits/0+2\.json"):
        table.extract("third")
    changed = {p for p in table.files().items() ^ before.items() if "report" not in p[0].name}
    assert changed == set()


@pytest.mark.parametrize("path", [
    "{folder}/elsewhere/precious",
    "{folder}/target/.extract_staging/t/../../../elsewhere/precious",
    "{folder}/target/.extract_staging/t/another.parquet.staged",
    "elsewhere/precious", "", "a\0b", None, 7, {},
])  # fmt: skip
def test_a_record_that_stages_another_file_is_refused(table, path):
    given = path.format(folder=table.folder) if isinstance(path, str) else path
    table.change(put("files", 0, "staged", "upload", "path", value=given))
    before = table.files()
    with pytest.raises(ConfigError, match="names a staged file that is not its own"):
        table.log().finish_last()
    assert {p for p, _ in table.files().items() ^ before.items()} <= {
        table.folder / "state/claims/second/1.json"
    }


def test_a_staged_file_without_its_time_is_refused(table):
    table.change(lambda record: record["files"][0]["staged"]["upload"].pop("mtime_ns"))
    with pytest.raises(ConfigError, match="names a staged file that is not its own"):
        table.log().finish_last()


def test_intervals_of_another_kind_than_the_column_are_refused(table):
    """Numbers do not compare with dates, and an interval says which rows are there already."""
    days = {name: {"type": "date", "text": f"2026-01-0{n}"} for n, name in
            enumerate(("lower", "upper"), start=1)}  # fmt: skip
    table.change(put("ground", value=[days]))
    with pytest.raises(ConfigError, match=r"commit 2 holds intervals of another type"):
        table.extract("third", mode="incremental", watermark={"column": "id"})


def test_a_record_of_another_target_is_not_published(table, tmp_path):
    other = str(tmp_path / "elsewhere")

    def move(record):
        record["target_uri"] = other
        for file in record["files"]:
            file["staged"]["uri"] = file["staged"]["uri"].replace("/target/", "/elsewhere/")

    table.change(move)
    before = table.files()
    with pytest.raises(ConfigError, match=r"its files went to .*elsewhere, but target.uri is"):
        table.log().finish_last()
    assert table.files() == before


MIXED = {"lower": {"type": "integer", "text": "1"}, "upper": {"type": "date", "text": "2026-01-01"}}
WRONG = {
    "version": 2, "seq": [0, 1, 3, -1, "2", 2.5, None, True, 10**30], "parent": [2, 3, -1, "1"],
    "live_since": [0, 2**70, "1", -5], "run_id": ["", "a/b", "x" * 200, 5, ".\n"],
    "attempt": [0, -1, "1", 1.5], "commit_id": [5, None], "table_id": [5],
    "target_uri": [5, None],
    "fingerprint": ["x", {"a": 1}, []], "interval": ["x", {}, {"lower": 5, "upper": None}, MIXED],
    "watermark": ["x", {"type": "integer", "text": "x"}, {"type": "x", "text": "1"}, {"text": "1"},
                  {"type": "integer", "text": "9" * 5_000}, {"type": "date", "text": "2026-13-45"},
                  {"type": "timestamptz", "text": "2026-01-01 25:00:00+00"}],
    "schema": ["x", [5], [{}], [{"name": "id"}], [{"name": 1, "type": "int64", "nullable": True}],
               [{"name": "id", "type": "int64", "nullable": "no"}]],
    "files": ["x", [5], [{}], {}], "retire": ["x", [5], {}], "report": ["x", None, []],
    "watermark_column": [5], "ground": ["x", [5], [{"lower": 5}], [MIXED]],
    "partition_by": ["x", [5]],
    "columns": ["x", [], {"id": 5}], "objects": [5, "../../secrets.json", "objects/x/y", ""],
    "source_columns": ["x", [{}], [{"name": "id", "type": "int64", "nullable": True, "mask": 5}]],
    "position": ["x", {"lsn": 5}, []],
    "surprise": ["a key that a later version may have"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, values in WRONG.items()
     for value in (values if isinstance(values, list) else [values])],
)  # fmt: skip
def test_a_field_of_another_type_or_range_is_refused(table, key, value):
    table.change(put(key, value=value))
    before = table.files()
    with pytest.raises(ConfigError, match=r"commits/0+2\.json") as refused:
        table.log().finish_last()
    assert "Traceback" not in str(refused.value)
    assert table.files() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", -1), ("size", "5"), ("size", 1.5), ("token", ""), ("token", 5), ("upload", "x")],
)
def test_a_staged_file_of_another_form_is_refused(table, field, value):
    table.change(put("files", 0, "staged", field, value=value))
    with pytest.raises(ConfigError, match=r"commits/0+2\.json is not"):
        table.log().finish_last()


@pytest.mark.parametrize("value", [{"id": 5}, "x", None, ["id"]])
def test_a_partition_of_another_form_is_refused(table, value):
    table.change(put("files", 0, "partition", value=value))
    with pytest.raises(ConfigError, match=r"commits/0+2\.json is not"):
        table.log().finish_last()


def test_a_missing_field_is_refused(table):
    later = {
        f.name
        for f in fields(Commit)
        if f.default is not MISSING or f.default_factory is not MISSING
    }
    stored = without_seal(json.loads(table.path("commits", 2).read_text()))
    needed = stored.keys() - later - {"ground"}
    assert {"files", "retire", "target_uri", "seq"} <= needed
    for key in needed:  # the others are those that earlier versions did not write
        whole = table.path("commits", 2).read_bytes()
        table.change(lambda record, key=key: record.pop(key))
        with pytest.raises(ConfigError, match=r"commits/0+2\.json is not"):
            table.log().newest()
        table.path("commits", 2).write_bytes(whole)


def test_a_commit_that_retires_its_own_file_or_names_one_twice_is_refused(table):
    whole = table.path("commits", 2).read_bytes()
    table.change(lambda r: r.update(retire=[r["files"][0]["staged"]["uri"]]))
    with pytest.raises(ConfigError, match="retire names a file of the commit itself"):
        table.log().finish_last()
    table.path("commits", 2).write_bytes(whole)
    table.change(lambda r: r["files"].append(r["files"][0]))
    with pytest.raises(ConfigError, match="files names a file twice"):
        table.log().finish_last()


@pytest.mark.parametrize("kind", ["commits", "outcomes", "claims", "plans", "hint", "live"])
@pytest.mark.parametrize("raw", [
    b"", b"x", b"null", b"5", b"[]", b'"x"', b"\xff\xfe", b"{}", b'{"version": 1}',
    b"[" * 100_000, b'{"version":1,"a":' + b"[" * 100_000,
    b'{"version": 1, "seq": ' + b"9" * 5_000 + b"}", b'{"seq": 1e999}', b'{"seq": {}}',
    b'{"version": 1, "interval": 5, "schema": 5, "extract_date": 5}',
])  # fmt: skip
def test_any_content_of_a_record_is_a_clear_error_or_harmless(table, kind, raw):
    places = {
        "claims": table.folder / "state/claims/second/1.json",
        "plans": table.folder / "state/plans/third/2.json",
        "hint": table.folder / "state/hint.json",
        "live": table.path("live", 64),
    }
    place = places.get(kind) or table.path(kind, 2)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(raw)
    stranger = table.folder / "elsewhere/precious"
    try:
        table.extract("third")
    except ConfigError as error:
        assert place.name in str(error) or kind == "hint", str(error)[:300]  # noqa: PT017
    else:
        assert kind in {"hint", "live"}
    assert stranger.read_text() == "not ours"


def test_a_list_of_live_files_that_names_others_is_not_used(tmp_path, table):
    log = table.log()
    log.finish_last()
    last = log.read(2)
    before = log.live_files(last)
    assert len(before) == 2
    record = [
        {"seq": one.seq, "interval": one.interval, "files": [f.to_json() for f in one.files]}
        for one in log.live(log.read(1))
    ]
    record[0]["files"][0]["staged"]["uri"] = str(tmp_path / "elsewhere/precious")
    path = table.path("live", 1)
    path.parent.mkdir()
    path.write_text(json.dumps(record))
    walk = _Walk(log._live_log(), last, floor=0)
    assert walk._list_at(1) is None
    record[0]["files"][0]["staged"]["uri"] = before[1].staged.uri
    path.write_text(json.dumps(record))
    assert _Walk(log._live_log(), last, floor=0)._list_at(1) is not None


@pytest.mark.parametrize(
    ("uri", "folder", "below"),
    [
        ("s3://b/t/x", "s3://b/t", True),
        ("s3://b/t/a=1/x", "s3://b/t/", True),
        ("s3://b/t", "s3://b/t", False),
        ("s3://b/tt/x", "s3://b/t", False),
        ("s3://c/t/x", "s3://b/t", False),
        ("s3://b/t/../u/x", "s3://b/t", False),
        ("s3://b/t//x", "s3://b/t", False),
        ("/b/t/x", "s3://b/t", False),
        ("s3://b/t/x", "/b/t", False),
        ("/lake/t/x", "/lake/t", True),
        ("file:///lake/t/x", "/lake/t", True),
        ("/lake/t/x", "file:///lake/t", True),
        ("file:///lake/t/a%20b", "file:///lake/t", True),
        ("lake/t/x", "lake/t", True),
        ("lake/t/x", "./lake/t/", True),
        ("/lake/t/..x", "/lake/t", True),
        ("/lake/t/../x", "/lake/t", False),
        ("/lake/T/x", "/lake/t", False),
        ("/work/../lake/t/x", "/work/../lake/t", True),
        ("/work/../lake/t/../x", "/work/../lake/t", False),
        ("/work/../lake/t/x", "/lake/t", False),
    ],
)
def test_what_lies_below_a_folder(uri, folder, below):
    assert is_below(uri, folder) == below


def test_recovery_drops_nothing_that_a_poisoned_record_names(table):
    table.change(put("files", 0, "staged", "uri", value=str(table.folder / "elsewhere/precious")))
    with pytest.raises(ConfigError):
        table.log().recover(
            f"{table.folder}/target", abandon_after=timedelta(0), now=datetime.now(UTC)
        )
    assert (table.folder / "elsewhere/precious").read_text() == "not ours"
