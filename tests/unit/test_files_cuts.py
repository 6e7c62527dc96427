"""Where records end, whatever is quoted: blocks, byte ranges and lines against Python's own csv."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extract_jobs.errors import SourceQueryFailed
from extract_jobs.sources import ReadRequest
from extract_jobs.sources.files import blocks as blocks_module
from extract_jobs.sources.files.blocks import Dialect, blocks, cut_csv, cut_lines
from extract_jobs.sources.files.csv_rows import Header, parse_csv, row_blocks
from extract_jobs.sources.files.source import FilesSource
from extract_jobs.spec.parts import SplitSpec
from extract_jobs.spec.source import FilesSpec
from tests.support.files import files_spec
from tests.support.sampling import examples

fields = st.one_of(
    st.text(st.sampled_from('a,"\n\r é'), max_size=6).map(
        lambda text: '"' + text.replace('"', '""') + '"'
    ),
    # Quotes within an unquoted field stand for themselves.
    st.from_regex(r"(?:[ab é][ab\" é]{0,4})?", fullmatch=True),
    st.just('"quoted"tail'),
)
records = st.lists(fields, min_size=2, max_size=2).map(",".join)
ends = st.sampled_from(["\n", "\r\n", "\n\n", "\r\n\r\n"])
texts = st.tuples(st.lists(st.tuples(records, ends), max_size=12), st.booleans()).map(
    lambda drawn: "".join(r + e for r, e in drawn[0]).rstrip("\r\n" if drawn[1] else "")
)
HEADER = Header(("x", "y"))
FILES = FilesSpec(glob="*", null_values=())
many = settings(
    max_examples=examples(50),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def by_python(text: str) -> list[tuple[int, list[str]]]:
    """Return line and fields of each record that is no blank line."""
    # Lines are what ends in a newline: StringIO would cut at carriage returns too.
    reader, line, found = csv.reader(re.findall(r"[^\n]*\n|[^\n]+", text)), 1, []
    for record in reader:
        if record:
            found.append((line, record))
        line = reader.line_num + 1
    return found


@pytest.fixture
def block_bytes(monkeypatch: pytest.MonkeyPatch):
    def set_to(size: int) -> None:
        monkeypatch.setattr(blocks_module, "BLOCK_BYTES", size)

    return set_to


@many
@given(text=texts, size=st.integers(1, 40))
def test_blocks_hold_the_very_records_that_python_reads(block_bytes, text: str, size: int) -> None:
    block_bytes(size)
    found = []
    for _, block in row_blocks(io.BytesIO(text.encode()), FILES, "f", HEADER):
        rows = parse_csv(block, HEADER.names, header=HEADER, files=FILES)
        assert not rows.faults
        lines = [line for line, _ in rows.locate()]
        values = zip(*(column.to_pylist() for column in rows.columns), strict=True)
        found += list(zip(lines, map(list, values), strict=True))
    assert found == by_python(text)


@many
@given(text=texts, size=st.integers(1, 40), escape=st.booleans())
def test_both_ways_to_cut_agree(block_bytes, text: str, size: int, escape: bool) -> None:
    """Counting quotes, and a pattern of records: with an escape there is only the pattern."""
    block_bytes(size)
    dialect = Dialect(escape="\x01" if escape else None)
    data = text.encode()
    found = list(blocks(io.BytesIO(data), cut_csv(dialect), "f"))
    assert b"".join(b.data for b in found) == data
    starts = {b.offset for b in found}
    whole = blocks_module.record_starts(data, Dialect())
    blank = {i + 1 for i, byte in enumerate(data) if byte in b"\r\n"}
    assert starts <= {*whole, *blank, 0}


@settings(max_examples=examples(150), deadline=None)
@given(
    text=st.text(st.sampled_from('a,"\\\\\n\n\r'), max_size=40),
    quote=st.sampled_from(['"', ""]),
    escape=st.sampled_from(["\\", None]),
    final=st.booleans(),
)
def test_hostile_text_is_cut_where_the_exact_way_ends_a_record(
    text: str, quote: str, escape: str | None, final: bool
) -> None:
    """The fast way may leave a record that ends in just a carriage return to the next block."""
    data, dialect = text.encode(), Dialect(quote=quote, escape=escape)
    found, ends = cut_csv(dialect)(data, final), [0]
    while ends[-1] < len(data):
        rest = data[ends[-1] :]
        record = blocks_module._record(dialect).match(rest)
        open_ended = record and record.end() == len(rest) and not record[0].endswith(b"\n")
        if record is None or (not final and (open_ended or not record[1])):
            break
        ends.append(ends[-1] + record.end())
    assert found in ends
    if final:
        assert (found == len(data)) == (ends[-1] == len(data))  # what is left is refused
    else:
        assert all(end <= found or data[end - 1 : end] != b"\n" for end in ends)


@many
@given(text=texts, size=st.integers(1, 30), target=st.integers(1, 60))
def test_ranges_of_csv_are_disjoint_and_exhaustive(
    block_bytes, tmp_path: Path, text: str, size: int, target: int
) -> None:
    block_bytes(size)
    data = 'x,y\n"head\n""er",one\n' + text
    (tmp_path / "f.csv").write_bytes(data.encode())
    spec = files_spec(tmp_path, "*.csv", null_values=[])
    assert read_in_splits(spec, target) == [r for _, r in by_python(data)][1:]


lines = st.lists(
    st.one_of(
        st.dictionaries(st.sampled_from(["x", "y"]), st.text(max_size=5), min_size=2).map(
            json.dumps
        ),
        st.just(""),
    ),
    max_size=15,
)


@settings(many, max_examples=examples(25))
@given(lines=lines, end=st.sampled_from(["\n", "\r\n"]), last=st.booleans(),
       target=st.integers(8, 80))  # fmt: skip
def test_ranges_of_json_lines_are_disjoint_and_exhaustive(
    tmp_path: Path, lines: list[str], end: str, last: bool, target: int
) -> None:
    text = json.dumps({"x": "é", "y": "1"}) + end + end.join(lines) + (end if last else "")
    (tmp_path / "f.jsonl").write_bytes(text.encode())
    spec = files_spec(tmp_path, "*.jsonl", types={"x": "string", "y": "string"})
    rows = [json.loads(line) for line in text.splitlines() if line]
    assert read_in_splits(spec, target) == [[row["x"], row["y"]] for row in rows]


def read_in_splits(spec, target: int) -> list[list[object]]:
    """Read every split as a process of its own would; they must be whole and in order."""
    spec = spec.model_copy(update={"split": SplitSpec.model_construct(target_bytes=target)})
    source = FilesSource.open(spec)
    with source.snapshot(ReadRequest(source.describe().columns)) as snapshot:
        splits = snapshot.splits(spec)
        parts = [part for split in splits for part in split.objects]
        assert [p.start for p in parts[1:]] == [p.end for p in parts[:-1]]
        assert (parts[0].start, parts[-1].end) == (0, None)
        batches = [batch for split in splits for batch in snapshot.reader.read(split)]
    return [list(row.values()) for batch in batches for row in batch.to_pylist()]


def test_a_quote_that_is_never_closed_is_reported_with_its_line(block_bytes) -> None:
    for size in (3, 1000):
        block_bytes(size)
        stream = io.BytesIO(b'1,"a\nb"\n2,"open\n3,x\n')
        with pytest.raises(SourceQueryFailed, match=r"f, line 3: .*a quote is not closed"):
            list(blocks(stream, cut_csv(Dialect()), "f"))


def test_a_record_without_a_quote_is_not_said_to_have_one_open(block_bytes, monkeypatch) -> None:
    block_bytes(10)
    monkeypatch.setattr(blocks_module, "MAX_RECORD_BYTES", 100)
    stream = io.BytesIO(b"1,a\n2," + b"x" * 1_000)
    with pytest.raises(SourceQueryFailed, match=r"f, line 2: .*a record may have 100 bytes\. If a"):
        list(blocks(stream, cut_csv(Dialect()), "f"))


def test_lines_that_end_in_just_carriage_returns_are_lines(block_bytes) -> None:
    block_bytes(3)
    found = list(row_blocks(io.BytesIO(b"x,y\r1,2\r3,4"), FILES, "f"))
    assert [b.line for _, b in found if b.data] == [2, 3]
    assert found[0][0].names == ("x", "y")


def test_json_lines_are_cut_at_newlines_only() -> None:
    assert cut_lines(b'{"a":\r1}\n{"b"', False) == 9
    assert cut_lines(b'{"b"', True) == 4
