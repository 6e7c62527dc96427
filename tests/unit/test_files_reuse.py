"""A full extract keeps the files of objects that have not changed, and reads none of them.

With the real files source, and a bucket in memory whose ETags are those of S3. Whatever happens,
the lake equals what a run without reuse makes of the same objects.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import extract_jobs.run
from extract_jobs.attempt import reuse
from extract_jobs.commit.sealed import seal, without_seal
from extract_jobs.errors import FilesDamaged, SourceUnavailable
from extract_jobs.reporting.report import Report
from extract_jobs.sources import open_source
from extract_jobs.sources.files.objects import Listed
from extract_jobs.sources.files.parts import part_bytes, parts_of
from extract_jobs.sources.splits import ObjectRange
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import ObjectInfo, open_storage
from tests.support.memory_storage import Bucket, Killed, Process
from tests.support.sampling import EXHAUSTIVE, MORE, sample
from tests.unit import test_objects_protocol
from tests.unit.test_objects_protocol import (
    DROP,
    STATE,
    TARGET,
    assert_tidy,
    extract,
    spec_for,
)

_source_in_memory = test_objects_protocol._source_in_memory
KIB = 2**10
OVERWRITE = {"uri": TARGET, "write_mode": "overwrite"}


def spec(run_id: str = "r", **more: Any) -> ExtractSpec:
    """Every object is a part of its own."""
    return spec_for(
        run_id,
        **{
            "mode": "full",
            "target": OVERWRITE,
            "reuse": "auto",
            "split": {"target_bytes": 64 * KIB, "max_connections": 1},
            "files": {"glob": "**/*"},
            "engine": "processes",  # a Spark of other tests would take its splits elsewhere
            **more,
        },
    )


def put(bucket: Bucket, name: str, text: str) -> None:
    bucket.objects[f"{DROP}/{name}"] = (text.encode(), None)


def filled(**texts: str) -> Bucket:
    bucket = Bucket()
    for name, text in texts.items():
        put(bucket, f"{name}.csv", text)
    return bucket


def stored(bucket: Bucket) -> pa.Table:
    found = [
        pq.read_table(io.BytesIO(data)).drop_columns(["_run_id", "_extracted_at"])
        for uri, (data, _) in bucket.objects.items()
        if uri.startswith(TARGET + "/")
    ]
    return pa.concat_tables(found)


def lake(bucket: Bucket) -> pa.Table:
    table = stored(bucket)
    return table.sort_by([(name, "ascending") for name in table.column_names])


class Runs:
    """Runs of one table; each is compared with a run without reuse after the same history."""

    def __init__(self, bucket: Bucket, **more: Any) -> None:
        self.bucket, self.more, self.count = bucket, more, 0
        self.opened: list[str] = []

    def __call__(self, **more: Any) -> Report:
        self.count += 1
        process, fields = Process("p"), self.more | more
        other = Bucket(dict(self.bucket.objects))
        report = extract(self.bucket, spec(f"run-{self.count}", **fields), process)
        opened = [call.split()[-1] for call in process.calls if call.startswith("open ")]
        self.opened = [u.removeprefix(f"{DROP}/") for u in opened if u.startswith(DROP)]
        whole = extract(other, spec("whole", **fields | {"reuse": "never"}))
        assert lake(self.bucket).equals(lake(other))
        assert report.rows + report.kept_rows == whole.rows
        return report


ABC = {"a": "id,n\n1,x\n", "b": "id,n\n2,y\n", "c": "id,n\n3,z\n"}


def test_what_has_not_changed_is_neither_inspected_nor_read() -> None:
    run = Runs(filled(**ABC))
    first = run()
    assert (first.rows, first.kept_rows, first.not_reused) == (3, 0, "this is the first run")
    second = run()
    assert (second.rows, second.kept_rows, second.kept_ranges, second.source_rows) == (0, 3, 3, 3)
    assert second.reconciled
    assert len(run.opened) == 1  # the sample
    put(run.bucket, "aa.csv", "id,n\n4,w\n")
    third = run()
    assert (third.rows, third.kept_rows) == (1, 3)
    assert run.opened.count("aa.csv") == 2  # inspected and read
    assert len(run.opened) == 3
    again = run(reuse="reread")
    assert (again.rows, again.not_reused) == (4, "reuse: reread reads everything")
    assert run().kept_rows == 4


CHANGES: dict[str, tuple[dict[str, str | None], int]] = {
    "replaced, with as many bytes": ({"b.csv": "id,n\n7,y\n"}, 2),
    "gone": ({"c.csv": None}, 2),
    "moved": ({"c.csv": None, "d.csv": ABC["c"]}, 2),
    "two that change places": ({"b.csv": ABC["c"], "c.csv": ABC["b"]}, 1),
    "a text makes the column text": ({"d.csv": "id,n\nx,1\n"}, 0),
    "a column more": ({"d.csv": "id,n,m\n1,1,1\n"}, 0),
    "a fraction makes the column a double": ({"d.csv": "id,n\n0.5,1\n"}, 0),
    "a longer number of the same type": ({"d.csv": "id,n\n123456,1\n"}, 3),
    "empty": ({"b.csv": ""}, 2),
}


@pytest.mark.parametrize(("changes", "kept"), CHANGES.values(), ids=CHANGES)
def test_only_what_has_changed_is_read(changes: dict[str, str | None], kept: int) -> None:
    run = Runs(filled(**ABC))
    run()
    for name, text in changes.items():
        if text is None:
            del run.bucket.objects[f"{DROP}/{name}"]
        else:
            put(run.bucket, name, text)
    assert run().kept_ranges == kept
    after = run()
    assert after.rows == 0


def test_a_type_that_only_one_object_asked_for_goes_with_it() -> None:
    """Its text made the column text; what is left are integers, as a new look at all shows."""
    run = Runs(
        filled(a="id,n\n1,x\n", b="id,n\ntext,y\n", c="id,n\n3,z\n"), on_schema_change="evolve"
    )
    run()
    put(run.bucket, "b.csv", "id,n\n2,y\n")
    run()
    assert set(run.opened) == {"a.csv", "b.csv", "c.csv"}
    del run.bucket.objects[f"{DROP}/c.csv"]
    run()


def test_an_object_that_showed_nothing_new_may_go() -> None:
    run = Runs(filled(**ABC, d="id,n\n1,x\n"))
    run()
    del run.bucket.objects[f"{DROP}/d.csv"]
    put(run.bucket, "c.csv", "id,n\n9,x\n")
    assert run().kept_ranges == 2
    assert run.opened.count("a.csv") + run.opened.count("b.csv") <= 1


def test_a_column_without_values_gets_its_type_from_the_first_one() -> None:
    run = Runs(filled(a="id,n\n1,\n"))
    assert {c["name"]: c["type"] for c in run().columns}["n"] == "string"
    put(run.bucket, "b.csv", "id,n\n2,7\n")
    run()


def test_folders_name_columns_of_what_is_kept() -> None:
    bucket = Bucket()
    put(bucket, "day=1/a.csv", "id\n1\n")
    put(bucket, "day=2/a.csv", "id\n2\n")
    run = Runs(bucket)
    run()
    bucket.objects[f"{DROP}/day=3/a.csv"] = bucket.objects.pop(f"{DROP}/day=1/a.csv")
    report = run()
    assert (report.rows, report.kept_rows) == (1, 1)


def test_an_object_of_a_part_that_moves_to_another_folder_is_read() -> None:
    bucket = Bucket()
    for day in (1, 2, 3):
        put(bucket, f"day={day}/a.csv", "id\n1\n")
    run = Runs(bucket, split={"target_bytes": 2**20, "max_connections": 1})
    assert run().splits == 1
    bucket.objects[f"{DROP}/day=4/a.csv"] = bucket.objects.pop(f"{DROP}/day=3/a.csv")
    assert run().kept_rows == 0


def test_a_type_that_a_cast_hides_in_the_files_counts() -> None:
    run = Runs(filled(**ABC), columns={"cast": {"id": "string"}})
    run()
    put(run.bucket, "d.csv", "id,n\n0.5,1\n")
    assert "columns" in run().not_reused


def test_files_that_were_inspected_together_have_shown_it_together() -> None:
    texts = {f"f{n:03}": f"id\n{n}\n" for n in range(70)}
    run = Runs(filled(**texts | {"f041": "id\nx\n"}), split={"max_connections": 1})
    run()
    del run.bucket.objects[f"{DROP}/f041.csv"]
    run()


def test_files_of_a_local_folder_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file of the same time and size looks like the first one."""
    monkeypatch.setattr(extract_jobs.run, "open_source", open_source)
    found, target, state = tmp_path / "in" / "a.csv", tmp_path / "lake", tmp_path / "state"
    found.parent.mkdir()
    for number, text in enumerate(("id\n1\n", "id\n2\n", "id\nx\n")):
        found.write_text(text)
        os.utime(found, (1e9, 1e9))
        fields = {
            "connection": {"uri": str(found.parent)},
            "target": {"uri": str(target), "write_mode": "overwrite"},
            "state_uri": str(state), "report_uri": str(tmp_path / "report.json"),
        }  # fmt: skip
        report = extract_jobs.run.run_extract(
            spec(f"r{number}", **fields), open_storage=open_storage
        )
        assert report.not_reused.startswith("a local file's time and size do not prove")
        values = pq.read_table(target).column("id").to_pylist()
        assert [str(value) for value in values] == [text.split()[1]]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"files": {"glob": "**/*", "null_values": ["x"]}}, "files changed"),
        ({"columns": {"exclude": ["n"]}}, "columns changed"),
        ({"columns": {"cast": {"id": "string"}}}, "columns changed"),
        ({"target": {**OVERWRITE, "file_bytes": 2**24}}, "target changed"),
    ],
)  # fmt: skip
def test_other_settings_need_all_rows(more: dict[str, Any], what: str) -> None:
    run = Runs(filled(**ABC))
    run()
    report = run(**more)
    assert (report.kept_rows, report.not_reused) == (0, what)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"files": {"glob": "**/*", "bad_rows": "reject"}}, "sets aside"),
        ({"split": {"strategy": "none"}}, "split.strategy none"),
        ({"mode": "incremental", "target": {"uri": TARGET}}, "increments"),
        ({"target": {**OVERWRITE, "partition_by": ["extract_date"]}}, "own partitions"),
    ],
)  # fmt: skip
def test_an_extract_that_cannot_keep_files_says_why(more: dict[str, Any], what: str) -> None:
    bucket = filled(**ABC)
    assert what in extract(bucket, spec("first", **more)).not_reused
    put(bucket, "d.csv", ABC["a"])
    assert what in extract(bucket, spec("second", **more)).not_reused


def test_another_version_of_the_code_needs_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Runs(filled(**ABC))
    run()
    monkeypatch.setattr(reuse, "READING_VERSION", "0")
    monkeypatch.setattr("extract_jobs.sources.files.source.READING_VERSION", "0")
    assert run().not_reused == "versions changed"
    assert len(run.opened) == 6  # each is inspected and read


def test_a_lost_or_damaged_list_of_objects_is_no_reason_to_fail() -> None:
    run = Runs(filled(**ABC))
    run()
    for damage in (b"damaged", None):
        uri = max(
            u for u in run.bucket.objects if u.startswith(f"{STATE}/objects/run-{run.count}/")
        )
        if damage is None:
            del run.bucket.objects[uri]
        else:
            run.bucket.objects[uri] = (damage, None)
        report = run()
        assert (report.kept_rows, report.rows) == (3, 0)
        assert len(run.opened) == 4  # three to inspect, and the sample


def test_an_object_is_recognized_by_its_etag_even_if_a_list_says_otherwise() -> None:
    """A part of the record is the whole of it: what is kept goes by the record of what was read."""
    run = Runs(filled(**ABC))
    run()
    uri = next(u for u in run.bucket.objects if u.startswith(f"{STATE}/reads/"))
    found = without_seal(json.loads(run.bucket.objects[uri][0]))
    found["moment"]["parts"][f"{DROP}/a.csv"] = "0" * 64
    run.bucket.objects[uri] = (seal(found), None)
    report = run()
    assert (report.rows, report.kept_rows) == (1, 2)


def test_contents_under_one_etag_are_noticed_by_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """No storage should do it; one in a hundred of what is kept is compared all the same."""
    monkeypatch.setattr("tests.support.memory_storage.etag", lambda data: '"same"')
    bucket = filled(a=ABC["a"])
    extract(bucket, spec("first"))
    put(bucket, "a.csv", "id,n\n7,x\n")
    with pytest.raises(
        FilesDamaged, match=rf"{DROP}/a\.csv were to be kept as unchanged, but rows"
    ):
        extract(bucket, spec("second"))
    assert lake(bucket)["id"].to_pylist() == [1]
    assert extract(bucket, spec("third")).not_reused.startswith("kept rows have differed")
    assert lake(bucket)["id"].to_pylist() == [7]


def test_an_object_replaced_while_the_rest_is_kept_fails_the_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    bucket, process = filled(**ABC), Process("p")
    extract(bucket, spec("first"))
    put(bucket, "d.csv", "id,n\n4,w\n")

    def replace_it(call: str) -> None:
        if call.startswith("put_if_absent") and "/plans/" in call:
            put(bucket, "d.csv", "id,n\n5,w\n")

    process.after = replace_it
    with pytest.raises(SourceUnavailable, match=r"d\.csv was replaced or deleted since it was"):
        extract(bucket, spec("second"), process)
    report = extract(bucket, spec("second", attempt=2))
    assert (report.rows, report.kept_rows) == (1, 3)
    assert lake(bucket)["id"].to_pylist() == [1, 2, 3, 5]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_attempt_that_is_killed_around_any_call_is_made_good(moment: str) -> None:
    large = "\n".join(["id,note", *(f"{n},{n:0100}" for n in range(600)), ""])
    want = sorted([*range(600), *range(600), 4])
    for at in sample(range(1, 50), 4):
        bucket, process = filled(large=large, a="id,note\n-1,x\n"), Process("victim")
        fields = {"split": {"target_bytes": 16 * KIB, "max_connections": 1}}
        extract(bucket, spec("first", **fields))
        put(bucket, "b.csv", large)
        put(bucket, "a.csv", "id,note\n4,x\n")

        def kill(call: str, process: Process = process, at: int = at) -> None:
            process.dead = process.dead or len(process.calls) == at
            process.check()

        setattr(process, moment, kill)
        with pytest.raises(Killed):
            extract(bucket, spec("r", **fields), process)
        extract(bucket, spec("r", attempt=2, **fields))
        assert sorted(lake(bucket)["id"].to_pylist()) == want, process.calls[-1]
        extract(bucket, spec("next", **fields))
        assert sorted(lake(bucket)["id"].to_pylist()) == want, process.calls[-1]
        assert_tidy(bucket)


def test_random_histories() -> None:
    """Objects of several formats' worth of text come, go, move and change; groups hold several."""
    rng = random.Random(5)
    values = ["1", "22", "0.5", "", "x", "2026-01-01", "true", "99999999999999999999"]
    kept = 0
    for _ in range(MORE if EXHAUSTIVE else 1):
        run = Runs(
            Bucket(), split={"target_bytes": 128 * KIB, "max_connections": 1}, empty_source="accept"
        )
        narrow = rng.random() < 0.5
        for number in range(12):
            put(run.bucket, f"{number:02}.csv", f"id,n\n{number},{number}\n")
        run()
        for _ in range(4):
            for _ in range(rng.randint(0, 3)):
                there = sorted(u for u in run.bucket.objects if u.startswith(DROP))
                what, some = rng.randint(0, 3), rng.choice(there)
                value = str(rng.randint(0, 99)) if narrow else rng.choice(values)
                if what == 0 and len(there) > 1:
                    del run.bucket.objects[some]
                elif what == 1:
                    put(run.bucket, f"{rng.randint(0, 24):02}.csv", f"id,n\n{value},1\n")
                elif what == 2:
                    put(run.bucket, some.rsplit("/", 1)[1], f"id,n\n1,{value}\n2,{value}\n")
                else:
                    run.bucket.objects[f"{DROP}/{rng.randint(0, 24):02}.csv"] = (
                        run.bucket.objects.pop(some)
                    )
            kept += run().kept_ranges
    assert kept > 4


# --- parts and pages ------------------------------------------------------------------------------


def whole(one: Listed) -> list[tuple[ObjectRange, int]]:
    return [
        (ObjectRange(one.info.uri, one.info.etag or "", one.info.size), one.info.size + 64 * KIB)
    ]


def listed(name: str, size: int, etag: str = "e") -> Listed:
    return Listed(ObjectInfo(f"s3://b/{name}", size, etag=etag), 1)


def test_a_change_of_one_object_changes_few_parts() -> None:
    rng = random.Random(3)
    size = 16 * 2**20
    objects = [listed(f"{n:05}.csv", rng.randint(0, 2**21)) for n in range(0, 4000, 2)]
    before = list(parts_of(objects, size, whole))
    weights = [sum(its for _, its in part.pages) for part in before]
    assert max(weights) <= 2 * size
    assert size / 2 < sum(weights) / len(weights) < 1.5 * size
    for number in rng.sample(range(2000), 12):
        more, fewer = list(objects), list(objects)
        more.insert(number, listed(f"{2 * number - 1:05}.csv", rng.randint(0, 2**21)))
        del fewer[number]
        for changed in (more, fewer):
            same = {p.digest for p in before} & {p.digest for p in parts_of(changed, size, whole)}
            assert len(same) >= len(before) - 4


def test_parts_keep_their_size_while_a_table_grows() -> None:
    sizes = {part_bytes(spec(split={}), total * 2**20) for total in range(512, 1024, 7)}
    assert sizes == {16 * 2**20}
    assert part_bytes(spec(split={}), 2**50) == 128 * 2**20
    assert part_bytes(spec(split={}), 3 * 2**30) == 64 * 2**20


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_large_object_is_read_in_several_pages_and_kept_as_a_whole(form: str) -> None:
    bucket = Bucket()

    def drop(rows: range) -> None:
        table = pa.table({"id": list(rows), "note": [f"{n:0100}" for n in rows]})
        if form == "parquet":
            sink = io.BytesIO()
            pq.write_table(
                table, sink, row_group_size=100, compression="none", use_dictionary=False
            )
            bucket.objects[f"{DROP}/large.parquet"] = (sink.getvalue(), None)
        elif form == "csv":
            lines = [f"{row['id']},{row['note']}" for row in table.to_pylist()]
            put(bucket, "large.csv", "\n".join(["id,note", *lines, ""]))
        else:
            lines = [json.dumps(row) for row in table.to_pylist()]
            put(bucket, "large.jsonl", "\n".join([*lines, ""]))

    drop(range(1000))
    run = Runs(bucket, split={"target_bytes": 16 * KIB, "max_connections": 1})
    first = run()
    assert (first.rows, first.splits > 2) == (1000, True)
    second = run()
    assert (second.rows, second.kept_rows, second.kept_ranges) == (0, 1000, first.splits)
    drop(range(1, 1001))
    third = run()
    assert (third.rows, third.kept_rows) == (1000, 0)


def killed_with_pages(bucket: Bucket, attempt: int, pages: int, **fields: Any) -> None:
    """Let an attempt be killed when it has staged some pages."""
    process = Process("victim")

    def kill(call: str) -> None:
        if call.startswith("put ") and "/staged/" in call:
            notes = sum(c.startswith("put ") and "/staged/" in c for c in process.calls)
            process.dead = notes > pages
            process.check()

    process.before = kill
    with pytest.raises(Killed):
        extract(bucket, spec("r", attempt=attempt, **fields), process)


def test_an_attempt_takes_over_the_pages_of_a_large_object() -> None:
    rows = [f"{n},{n:0100}" for n in range(1000)]
    bucket = filled(large="\n".join(["id,note", *rows, ""]))
    fields = {"split": {"target_bytes": 16 * KIB, "max_connections": 1}}
    killed_with_pages(bucket, 1, 1, **fields)
    report = extract(bucket, spec("r", attempt=2, **fields))
    assert (report.rows, report.resumed_splits) == (1000, 1)
    assert lake(bucket)["id"].to_pylist() == list(range(1000))
    assert extract(bucket, spec("next", **fields)).kept_rows == 1000


def test_pages_of_two_versions_of_an_object_are_not_taken_over_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The object was replaced between two attempts; records of both have names at random."""
    fields = {"split": {"target_bytes": 16 * KIB, "max_connections": 1}}
    numbers = itertools.count()  # records of the second attempt are listed last

    def text(version: str) -> str:
        return "\n".join(["id,note", *(f"{n},{version}{n:0100}" for n in range(1000)), ""])

    bucket = filled(large=text("old"))
    with monkeypatch.context() as patched:
        patched.setattr(uuid, "uuid4", lambda: uuid.UUID(int=next(numbers)))
        killed_with_pages(bucket, 1, 4, **fields)
        put(bucket, "large.csv", text("new"))
        killed_with_pages(bucket, 2, 2, **fields)
    report = extract(bucket, spec("r", attempt=3, **fields))
    assert report.resumed_splits == 2
    assert all(note.startswith("new") for note in lake(bucket)["note"].to_pylist())


# --- values ---------------------------------------------------------------------------------------

DIGESTS = {
    "1": "f5877dd105699086097ca6b821a9466c94b273533f1be11353699b13a8feb69c",
}
"""By `sources.READING_VERSION`: of values and types of every form of text, and of Parquet."""


def test_other_values_for_the_same_objects_are_another_version() -> None:
    """If this fails because a change gives other values or types, raise `READING_VERSION`.

    Otherwise runs would keep files with the values of the version before.
    """
    texts = {
        "a.csv": "i,w,f,d,b,day,t,z,s\n"
        "1,123456789012345678901,0.5,1.10,true,2026-01-31,2026-01-31 10:00:00.5,"
        "2026-01-31T10:00Z,a\n"
        "-7,2,1e3,12345678901234567.25,False,0001-01-01,2026-01-31T10:00,"
        '2026-01-31 10:00+02:00,"q,"""\n'
        ",,,,,,,,\n",
        "a.jsonl": '{"i": 1, "f": 0.5, "b": true, "s": "x", "l": [1, 2], '
        '"o": {"k": [1.50]}, "m": "t"}\n'
        '{"i": null, "f": 1e3, "l": [], "o": null, "m": {"a": "\\u00e9"}}\n',
    }
    digest = hashlib.sha256()

    def add(bucket: Bucket) -> None:
        extract(bucket, spec("r"))
        found = stored(bucket)
        types = [[field.name, str(field.type)] for field in found.schema]
        digest.update(json.dumps([types, found.to_pylist()], default=str).encode())

    for name, text in texts.items():
        bucket = Bucket()
        put(bucket, name, text)
        add(bucket)
    values = [
        pa.array([1, None], pa.int8()), pa.array([2**40, None], pa.uint64()),
        pa.array([0.1, None], pa.float32()), pa.array(["1.50", None]).cast(pa.decimal128(9, 2)),
        pa.array([True, None]), pa.array(["x", None]).dictionary_encode(), pa.array([b"x", None]),
        pa.array([1, None], pa.date32()),
        pa.array([10**15, None], pa.timestamp("us", "Europe/Paris")),
        pa.array([1, None], pa.time64("us")), pa.array([5, None], pa.duration("ms")),
        pa.array([[1], None], pa.list_(pa.int32())), pa.array([{"a": 1}, None]),
    ]  # fmt: skip
    sink = io.BytesIO()
    pq.write_table(pa.table(values, [f"c{n}" for n in range(len(values))]), sink)
    add(Bucket({f"{DROP}/a.parquet": (sink.getvalue(), None)}))
    assert digest.hexdigest() == DIGESTS[reuse.READING_VERSION]
