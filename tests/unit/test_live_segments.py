"""Segments of live files: whatever is written, merged, deleted or damaged, the commits decide."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract_jobs.commit import live_files, live_segments
from extract_jobs.commit.live_segments import SCHEMA, Segment, SegmentWriter, Span
from extract_jobs.commit.record import Commit
from extract_jobs.errors import WriteFailed
from extract_jobs.parquet_footer import read_footer
from extract_jobs.storage import ObjectInfo, WrittenFile
from extract_jobs.watermark import Interval, WatermarkValue, may_meet
from tests.support.long_history import STATE, TARGET, CountedStorage, History, hours, written
from tests.support.memory_storage import Killed
from tests.support.sampling import examples, pairs, sample


@pytest.fixture(autouse=True)
def every_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge segments on all levels within a few commits."""
    monkeypatch.setattr(live_files, "LIVE_EVERY", 2)


def live(history: History, commit: Commit | None) -> set[str]:
    return {file.staged.uri for file in history.log.live_files(commit)}


def segments(storage: CountedStorage) -> list[str]:
    return sorted(uri for uri in storage.objects if "/live/segments/" in uri)


def legacy_live(history: History, commit: Commit) -> set[str]:
    """Return the live files as versions before segments read them: commits, and lists in JSON."""
    found, retired = set[str](), set[str]()
    while True:
        found |= {f.staged.uri for f in commit.files} - retired
        retired |= set(commit.retire)
        if commit.overwrites or commit.parent == 0:
            return found
        raw = history.storage.objects.get(f"{STATE}/live/{commit.parent:020d}.json")
        if raw is not None:
            return (
                found
                | {f["staged"]["uri"] for one in json.loads(raw) for f in one["files"]} - retired
            )
        parent = history.log.read(commit.parent)
        assert parent is not None
        commit = parent


def legacy_list(history: History, commit: Commit) -> None:
    """Write the list of all live files that versions before segments write."""
    record = [
        {"seq": one.seq, "interval": one.interval, "files": [f.to_json() for f in one.files]}
        for one in history.log.live(commit)
    ]
    uri = f"{STATE}/live/{commit.seq:020d}.json"
    history.storage.put(uri, json.dumps(record).encode())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append", "retire", "overwrite", "void", "list"]),
        st.sampled_from(["keep", "keep", "delete", "damage"]),
        st.integers(0, 10**6),
    ),
    min_size=1, max_size=24,
)  # fmt: skip


@settings(max_examples=examples(15), deadline=None)
@given(STEPS)
def test_live_files_are_those_of_the_commits_whatever_became_of_segments(
    steps: list[tuple[str, str, int]],
) -> None:
    history, expected, states = History(columns=1), set[str](), dict[int, set[str]]()
    commits: list[Commit] = []
    for step, then, number in steps:
        chance = random.Random(number)
        if step == "list":
            if history.last is not None:
                legacy_list(history, history.last)
            continue
        seq = history.seq + 1
        files = [written(seq, {"p": str(n)}) for n in range(chance.randint(0, 2))]
        gone = (
            set(chance.sample(sorted(expected), len(expected) // 2)) if step == "retire" else set()
        )
        commit = history.commit(
            files, overwrite=step == "overwrite", retire=gone, void=step == "void"
        )
        if step != "void":
            expected = (set() if step == "overwrite" else expected - gone) | {
                file.staged.uri for file in files
            }
            commits.append(commit)
            states[commit.seq] = expected
        for uri in segments(history.storage):
            if then == "delete" and chance.random() < 0.3:
                history.storage.delete_all([uri])
            elif then == "damage" and chance.random() < 0.3:
                data = history.storage.objects[uri]
                at = chance.randrange(len(data))
                history.storage.objects[uri] = data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]
        assert live(history, history.last) == expected
        if history.last is not None:
            assert legacy_live(history, history.last) == expected
    for commit in commits:
        assert live(history, commit) == states[commit.seq]


@settings(max_examples=examples(15), deadline=None)
@given(st.integers(1, 30), st.integers(0, 30), st.integers(1, 12), st.integers(0, 3))
def test_within_an_interval_no_file_that_may_hold_its_rows_is_left_out(
    commits: int, lower: int, length: int, partitions: int
) -> None:
    history = History(columns=1).hourly(commits, partitions)
    history.commit([written(commits + 1, {})], hours(3, 5))  # a backfill
    wanted = [hours(lower, lower + length)]
    found = list(history.log.live(history.last, wanted))
    uris = {file.staged.uri for one in found for file in one.files}
    assert uris <= live(history, history.last)
    needed = {
        file.staged.uri
        for one in history.log.live(history.last)
        if may_meet(Interval.from_json(one.interval) or Interval(), wanted)
        for file in one.files
    }
    assert needed <= uris


class KillingStorage(CountedStorage):
    """Ends its process before or after one of its calls."""

    def __init__(self, history: History, at: int, *, before: bool) -> None:
        super().__init__(history.storage.objects, _folders=history.storage._folders)
        self.at, self.before = at, before
        self.kinds: list[str] = []

    def around(self, call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        self.kinds.append(call.__name__)
        if self.before and len(self.kinds) == self.at:
            raise Killed
        result = call(*args, **more)
        if len(self.kinds) == self.at:
            raise Killed
        return result

    def read(self, uri: str) -> bytes | None:
        found: bytes | None = self.around(super().read, uri)
        return found

    def put(self, uri: str, data: bytes, **more: Any) -> None:
        self.around(super().put, uri, data, **more)

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        found: Iterator[ObjectInfo] = self.around(super().list, prefix, start_after)
        return found

    def delete_all(self, uris: Iterable[str]) -> None:
        for uri in list(uris):  # a request is not atomic
            self.around(super().delete_all, [uri])


def sixteen(*, retires: bool) -> History:
    """Return a table of 16 commits; the next one ends ranges of 2, 4 and 8 of them."""
    history = History(columns=1)
    for number in range(1, 17):
        gone = sorted(live(history, history.last))[:1] if retires and number % 2 else []
        history.commit([written(number, {}), written(number, {})], retire=gone)
    return history


def killed(history: History, at: int, *, before: bool) -> KillingStorage:
    """Commit once more, over a storage that kills at a call; return that storage."""
    storage = KillingStorage(history, at, before=before)
    other = History(storage, 1, history.last, history.seq)
    with pytest.raises(Killed) if at else nullcontext():
        other.commit([written(17, {})])
    return storage


@pytest.mark.parametrize(("moment", "retires"), pairs(["before", "after"], [False, True]), ids=str)
def test_a_kill_around_any_call_while_segments_are_merged_and_deleted(
    moment: str, retires: bool
) -> None:
    calls = killed(sixteen(retires=retires), 0, before=False)
    # On the highest level segments stay beside each other.
    assert [int(uri[-28:-8]) for uri in segments(calls)] == [8, 16]
    begun = sixteen(retires=retires)
    before = live(begun, begun.last)
    for at in sample(range(1, len(calls.kinds) + 1), 2, by=lambda at: calls.kinds[at - 1]):
        history = begun.copy()
        killed(history, at, before=moment == "before")
        base = history.log.finish_last()
        history.seq, history.last = base.seq, base.published
        assert base.published is not None
        own = {f.staged.uri for f in base.published.files} if base.seq == 17 else set()
        assert live(history, base.published) == before | own
        history.hourly(8)
        after = live(history, history.last)
        assert len(after) == len(before | own) + 8
        history.storage.delete_all(segments(history.storage))
        assert live(history, history.last) == after


def test_segments_that_are_merged_while_they_are_read_are_found_again() -> None:
    """And not twice: a longer segment also has commits that were read before."""
    history = History(columns=1).hourly(16)
    everything = live(history, history.last)
    storage, read = history.storage, CountedStorage.read
    merged = False

    def read_late(uri: str) -> bytes | None:
        nonlocal merged
        if "/segments/" in uri and not merged:
            merged = True
            last = history.last
            assert last is not None
            log = live_files.LiveFilesLog(storage, STATE, TARGET, history.log._known)  # type: ignore[arg-type]
            for uri_of_small in segments(storage):
                storage.delete_all([uri_of_small])
            log._write(14, 1, 16)
        return read(storage, uri)

    storage.read = read_late  # type: ignore[method-assign]
    found = [f.staged.uri for f in history.log.live_files(history.last)]
    assert merged
    assert len(found) == len(set(found))
    assert set(found) == everything


def poisons() -> Iterator[tuple[str, Callable[[dict[str, list[Any]]], None]]]:
    def change(column: str, value: Any) -> Callable[[dict[str, list[Any]]], None]:
        return lambda rows: rows[column].__setitem__(0, value)

    yield "another bucket", change("folder", "s3://other/raw/s/t")
    yield "the folder above", change("folder", "s3://lake/raw/s/t/..")
    yield "a segment above", change("name", "../../../precious")
    yield "dots", change("name", "..")
    yield "no name", change("name", "")
    yield "no token", change("token", "")
    yield "a negative size", change("size", -1)
    yield "no rows", change("rows", None)
    yield "another commit", change("seq", 99)
    yield "an interval", change("interval", '{"lower": 3}')
    yield "no JSON", change("partition", "{")
    yield "a number as a partition", change("partition", '{"p": 3}')


@pytest.mark.parametrize(
    ("name", "poison"), list(poisons()), ids=lambda it: it if isinstance(it, str) else ""
)
def test_a_poisoned_segment_is_not_used(
    name: str, poison: Callable[[dict[str, list[Any]]], None], caplog: pytest.LogCaptureFixture
) -> None:
    history = History(columns=1).hourly(4)
    before = live(history, history.last)
    uri = segments(history.storage)[0]
    table = pq.read_table(io.BytesIO(history.storage.objects[uri]))
    rows = table.to_pydict()
    poison(rows)
    sink = io.BytesIO()
    meta = table.schema.metadata
    pq.write_table(pa.table(rows, schema=SCHEMA.with_metadata(meta)), sink)
    history.storage.objects[uri] = sink.getvalue()
    assert live(history, history.last) == before, name
    assert "is not used" in caplog.text


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("/live/", MemoryError()),
        ("/live/", WriteFailed("full")),
        ("/live/", ZeroDivisionError()),
        ("/hint.json", MemoryError()),
        ("/hint.json", WriteFailed("full")),
    ],
)
def test_what_only_saves_time_fails_no_published_run(
    monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    history = History(columns=1).hourly(2)
    put = CountedStorage.put

    def failing(self: CountedStorage, uri: str, data: bytes, **more: Any) -> None:
        if where in uri:
            raise error
        put(self, uri, data, **more)

    monkeypatch.setattr(CountedStorage, "put", failing)
    history.hourly(1)
    assert history.log.finish_last().seq == 3
    assert len(live(history, history.last)) == 3


def test_the_list_of_an_older_version_becomes_a_segment() -> None:
    history = History(columns=1)
    for _ in range(4):
        history.commit([written(history.seq + 1, {})])
        for uri in segments(history.storage):
            history.storage.delete_all([uri])
    assert history.last is not None
    legacy_list(history, history.last)
    everything = live(history, history.last)
    for _ in range(3):
        everything |= {f.staged.uri for f in history.commit([written(history.seq + 1, {})]).files}
    assert not [
        uri for uri in history.storage.objects if uri.endswith("4.json") and "/live/" in uri
    ]
    history.storage.reset()
    assert live(history, history.last) == everything
    assert history.storage.calls["read"] <= 2


def test_files_of_a_segment_are_those_that_were_committed() -> None:
    history = History(columns=1).hourly(3, partitions=2)

    def facts(files: list[WrittenFile]) -> list[tuple[Any, ...]]:
        return sorted(
            (f.staged.uri, f.staged.token, f.staged.size, f.rows, tuple(f.partition.items()))
            for f in files
        )

    commits = [history.log.read(seq) for seq in (1, 2, 3)]
    assert segments(history.storage)
    assert facts(history.log.live_files(history.last)) == facts(
        [file for commit in commits if commit for file in commit.files]
    )


@pytest.mark.parametrize("error", [WriteFailed("it is gone"), OSError("stale handle")])
def test_a_large_segment_that_is_deleted_while_it_is_read_in_parts_is_not_used(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_files, "_READ_WHOLE", 0)
    monkeypatch.setattr(live_files, "_COMMITS_BEFORE_SEGMENTS", 0)
    history = History(columns=1).hourly(9)
    streams: list[io.BytesIO] = []

    class Gone(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if len(streams) == 1 and self.tell() == 4:  # the footer is read already
                raise error
            return super().read(size)

    def open_stream(self: CountedStorage, uri: str, listed: ObjectInfo | None = None) -> Gone:
        del listed
        streams.append(Gone(self.objects[uri]))
        return streams[-1]

    monkeypatch.setattr(CountedStorage, "open", open_stream)
    found = history.log.live(history.last, [hours(0, 9)])
    assert len({f.staged.uri for one in found for f in one.files}) == 9
    assert streams
    assert all(stream.closed for stream in streams)


def test_no_changed_digit_of_what_a_segment_says_about_itself_is_believed() -> None:
    """Pages have checksums, and a footer has none."""
    history = History(columns=1).hourly(5)
    raw = history.storage.objects[segments(history.storage)[-1]]
    at = raw.index(b'{"first"')
    digits = [
        n for n in range(at, raw.index(b"}", raw.index(b'"version"'))) if raw[n] in b"0123456789"
    ]
    assert len(digits) > 5
    for n in digits:
        changed = raw[:n] + bytes([raw[n] ^ 1]) + raw[n + 1 :]
        with pytest.raises(ValueError, match=r".+"):
            Segment.open(io.BytesIO(changed), TARGET)


def test_a_text_that_stands_for_every_row_is_not_spelled_out_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_segments, "_GROUP_BYTES", 2**20)
    long, rows = "x" * 2**10, 2**12
    files = {"seq": 1, "interval": "null", "partition": "{}", "folder": f"{TARGET}/{long}",
             "name": "a", "token": "t", "size": 1, "rows": 1}  # fmt: skip
    writer = SegmentWriter()
    writer.add(pa.table({name: [value] * rows for name, value in files.items()}, schema=SCHEMA))
    raw = writer.close(Span(1, 1, 0, ()), [])
    with pytest.raises(ValueError, match="its size is not valid"):
        list(Segment.open(io.BytesIO(raw), TARGET).tables())


def test_commits_say_what_is_live_even_if_a_record_names_an_overwrite_that_is_none() -> None:
    history = History(columns=1).hourly(3)
    history.storage.delete_all(segments(history.storage))
    assert history.last is not None
    wrong = replace(history.last, live_since=3, seq=4, parent=3, files=())
    assert len(list(history.log.live(wrong))) == 3


@pytest.mark.parametrize("text", ["9" * 5_000, "2026-99-99"])
def test_a_segment_whose_intervals_do_not_compare_is_not_used(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_files, "_COMMITS_BEFORE_SEGMENTS", 0)
    kind = "date" if "-" in text else "integer"
    history = History(columns=1).hourly(9)
    for uri in segments(history.storage):
        segment = Segment.open(io.BytesIO(history.storage.objects[uri]), TARGET)
        writer = SegmentWriter()
        for table in segment.tables():
            writer.add(table)
        covered = {"lower": None, "upper": {"type": kind, "text": text}}
        raw = writer.close(replace(segment.span, covered=(covered,)), [])
        history.storage.objects[uri] = raw
    lower = WatermarkValue("date", "2026-01-01") if kind == "date" else None
    wanted = Interval(lower, None) if lower else hours(0, 3)
    found = history.log.live(history.last, [wanted])
    assert {one.seq for one in found} >= {1, 2, 3}


def test_segments_are_merged_without_spelling_out_what_repeats() -> None:
    """Each of two segments has a dictionary of its own, and Parquet would write out the texts."""
    history = History(columns=1)
    for _ in range(9):
        partition = {"p": f"{history.seq % 3}" + "x" * 200}
        history.commit([written(history.seq + 1, partition) for _ in range(200)])
    merged = max(segments(history.storage), key=lambda uri: len(history.storage.objects[uri]))
    footer = read_footer(io.BytesIO(history.storage.objects[merged]))
    assert (footer.metadata.num_rows, footer.metadata.num_row_groups) == (1600, 1)
    names = footer.metadata.schema.names
    sizes = {name: chunk.uncompressed for name, chunk in zip(names, footer.groups[0], strict=True)}
    assert max(sizes[name] for name in ("interval", "partition", "folder")) < 3_000
    assert {"name", "token"} <= live_segments._plain_columns(footer)
    assert {"interval", "partition", "folder"}.isdisjoint(live_segments._plain_columns(footer))
