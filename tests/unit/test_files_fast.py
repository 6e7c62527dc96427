"""The fast ways of reading files see exactly what the exact ways see, or leave it to them."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ExtractError, SourceQueryFailed
from extract_jobs.schema import Column
from extract_jobs.sources.files import blocks as blocks_module
from extract_jobs.sources.files import inspection, jsonl_rows
from extract_jobs.sources.files import reader as reader_module
from extract_jobs.sources.files.ahead import in_order
from extract_jobs.sources.files.blocks import Block
from extract_jobs.sources.files.convert import batch_of
from extract_jobs.sources.files.csv_typed import typed_batch
from extract_jobs.sources.files.jsonl_alike import alike
from extract_jobs.sources.files.jsonl_rows import JsonLines
from extract_jobs.sources.files.jsonl_typed import can_be_typed, typed_lines
from extract_jobs.sources.files.source import FilesSource
from extract_jobs.sources.files.type_inference import TypeProfile, by_patterns, observe
from tests.support.files import files_spec, read_all
from tests.support.sampling import examples

many = settings(
    max_examples=examples(12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

PLAIN = (
    ("0", "7", "-20", "123456789012345678", "9223372036854775807"),
    ("0.5", "-0.25", "12.", ".5", "17", "21168.23", "0.00"),
    ("1e5", "nan", "NaN", "inf", "-Infinity", "-0", "2.5"),
    ("true", "False", "TRUE"),
    ("2024-02-29", "0001-01-01", "9999-12-31"),
    ("2024-01-01 10:00", "2024-01-01T23:59"),
    ("2024-01-01 10:00:00.123456", "1969-12-31T00:00:01.000001"),
    ("2024-01-01T10:00Z", "2024-01-01T10:00+02", "2024-01-01 10:00:00-02:30"),
    ("text", "é", '"a,b"', '"a\nb"', '"a""b"'),
)
"""Fields of columns, each of one type."""
ODD = (
    "", '""', " 1", "1 ", "+1", "007", "-07", "--1", "1-", "1.2.3", ".", "-", "-.", "00.5", "0x1F",
    "0X1f", "1_000", "1e999", "1e-999", "nan(x)", "١", "9" * 19, "9" * 39, "9" * 15 + ".5",
    "0.1234567890123456789", "t", "T", "tRue", "1", "0000-01-01", "2024-02-30", "2024-1-1",
    "2024-01-01 24:00", "2024-01-01T10:00:61", "2024-01-01T10", "2024-01-01T10:00:00.1234567",
    "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00", "a\0b", "1\0", "1\r2", 'a"b', '"1"', '" 1"',
    "NULL", "null", "#N/A", "1,2", "a\r\nb", "\ufeff1",
)  # fmt: skip
"""Fields that some reader of numbers, days or CSV takes for what they are not."""
BARE = [text for text in (*ODD, *(one for column in PLAIN for one in column)) if '"' not in text]


@many
@given(
    pool=st.lists(st.sampled_from(BARE), min_size=1, max_size=3),
    before=st.lists(st.sampled_from(BARE), max_size=2),
    seed=st.integers(0, 2**32),
)
def test_plain_texts_have_the_profile_that_the_patterns_find(
    pool: list[str], before: list[str], seed: int
) -> None:
    chance = random.Random(seed)
    known = TypeProfile()
    for text in before:
        known |= by_patterns(pa.array([text]), TypeProfile())
    known = TypeProfile() if known.is_settled else known
    for _ in range(10):
        texts = [mutated(chance.choice(pool), chance) for _ in range(chance.randint(1, 4))]
        values = pa.array(["?", *texts]).slice(1)
        assert observe(values, known) == by_patterns(values, known), texts


def mutated(text: str, chance: random.Random) -> str:
    """Return a text, sometimes with another character in it."""
    if not text or chance.random() < 0.7:
        return text
    at = chance.randrange(len(text))
    return text[:at] + chance.choice("0123456789-+.eT: Z/\n\0é") + text[at + chance.randint(0, 1) :]


@many
@given(
    kinds=st.lists(st.sampled_from(PLAIN), min_size=1, max_size=4),
    odd=st.sampled_from(ODD),
    with_odd=st.integers(0, 3),
    seed=st.integers(0, 2**32),
    size=st.sampled_from([10, 60, 10_000]),
    bad_rows=st.sampled_from(["fail", "reject"]),
)
def test_csv_is_read_as_the_exact_way_reads_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kinds: list[tuple[str, ...]],
    odd: str,
    with_odd: int,
    seed: int,
    size: int,
    bad_rows: str,
) -> None:
    """With no odd field, or a few anywhere: the same types and values, or the same error."""
    chance = random.Random(seed)
    rows = [[chance.choice([*kind, ""]) for kind in kinds] for _ in range(12)]
    for _ in range(with_odd):
        chance.choice(rows)[chance.randrange(len(kinds))] = odd
    text = "".join(",".join(row) + "\n" for row in [[f"c{i}" for i in range(len(kinds))], *rows])
    (tmp_path / "f.csv").write_bytes(text.encode())
    for module in (blocks_module, reader_module):
        monkeypatch.setattr(module, "BLOCK_BYTES", size)
    spec = files_spec(tmp_path, "f.csv", bad_rows=bad_rows)
    with monkeypatch.context() as exact:
        exact.setattr(reader_module, "typed_batch", lambda *_, **__: None)
        exact.setattr("extract_jobs.sources.files.type_inference._plain", lambda _: None)
        for module in (inspection, reader_module):
            exact.setattr(module, "in_order", lambda work, items, **_: map(work, items))
        expected = outcome(spec)
    assert outcome(spec) == expected


def outcome(spec) -> object:
    """Return the rows and their types, or what refused them."""
    try:
        columns = FilesSource.open(spec).describe().columns
        table = read_all(spec)
    except ExtractError as error:
        return type(error), str(error)
    return columns, repr(table.to_pylist())


@settings(many, max_examples=examples(4))
@given(
    kinds=st.lists(st.sampled_from([*PLAIN, ODD]), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
    observed_bytes=st.sampled_from([1, 2**20]),
)
def test_small_files_have_the_types_together_that_they_have_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[tuple[str, ...]],
    seed: int,
    observed_bytes: int,
) -> None:
    folder, chance = tmp_path_factory.mktemp("drop"), random.Random(seed)
    pools = [chance.sample(kind, 2) for kind in kinds]
    for i in range(9):
        names = chance.sample([f"c{j}" for j in range(len(kinds))], chance.randint(1, len(kinds)))
        rows = [names, *([chance.choice(pools[int(n[1:])]) for n in names] for _ in range(2))]
        text = "".join(",".join(row) + "\n" for row in rows)
        (folder / f"{i}.csv").write_text(text, newline="")
    spec = files_spec(folder, "*.csv")
    monkeypatch.setattr(inspection, "THREADS", 1)
    monkeypatch.setattr(inspection, "_OBSERVED_BYTES", observed_bytes)
    with monkeypatch.context() as alone:
        alone.setattr(inspection, "_HANDFUL", 1)
        expected = outcome(spec)
    assert outcome(spec) == expected


def test_plain_columns_of_every_type_do_go_the_fast_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ways = []

    def watched(*given, **named) -> pa.RecordBatch | None:
        ways.append(batch := typed_batch(*given, **named))
        return batch

    monkeypatch.setattr(reader_module, "typed_batch", watched)
    rows = [[kind[i % len(kind)] for kind in PLAIN] for i in range(30)]
    names = [f"c{i}" for i in range(len(PLAIN))]
    text = "".join(",".join(row) + "\n" for row in [names, *rows])
    (tmp_path / "f.csv").write_text(text, newline="")
    table = read_all(files_spec(tmp_path, "f.csv"))
    assert [str(kind) for kind in table.schema.types] == [
        "int64", "double", "double", "bool", "date32[day]", "timestamp[us]", "timestamp[us]",
        "timestamp[us, tz=UTC]", "string",
    ]  # fmt: skip
    assert table.num_rows == len(rows)
    assert len(ways) == 1
    assert ways[0] is not None


JSON_VALUES = (
    ("0", "7", "-20", "9223372036854775807"),
    ("0.5", "-0.25", "17", "1e5", "1.10", "2.5E-3"),
    ("true", "false"),
    (
        '"text"',
        '"\u00e9"',
        r'"\u00e9\n\"\\"',
        r'"\ud83d\ude00"',
        '"2024-01-01"',
        '"2024-01-01 10:00"',
        '"7"',
    ),
    ('"text"', '"é"', '": x"', '","', '"{"', '"}"', '""'),
    ("12.50", "0.00", "17.00", "-0.50", "0.0000001", "0.0000010", "1234567.1234567", "3"),
)
"""Values of keys, each of one type."""
ODD_VALUES = (
    "12345678901234567890", "1e400", "1e-400", "0.1234567890123456789", "1.0", "-0", "-0.0", "NaN",
    "Infinity", "-Infinity", "nan", "01", "+1", "1.", ".5", "0x1F", "True", "[]", "[1, null]", "{}",
    '{"a": [1.50]}', r'"\u0000"', r'"\ud800"', r'"\x"', '"a\tb"', '""', "1 2", "1,", '1, "k0": 2',
    '1, "new": 3', '1, "K0": 3', '1}{"k0": 2', '1} {"k0": 2', '1}\n\n{"k0": 2', "1,\n", "",
)  # fmt: skip
"""Values, and what else may stand in their place, that some reader of JSON takes for others."""


@settings(many, max_examples=examples(5))
@given(
    kinds=st.lists(st.sampled_from(JSON_VALUES), min_size=1, max_size=4),
    odd=st.sampled_from(ODD_VALUES),
    with_odd=st.integers(0, 2),
    seed=st.integers(0, 2**32),
    size=st.sampled_from([30, 10_000]),
    bad_rows=st.sampled_from(["fail", "reject"]),
    missing=st.sampled_from([0.0, 0.1]),
)
def test_json_lines_are_read_as_the_exact_way_reads_them(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kinds: list[tuple[str, ...]],
    odd: str,
    with_odd: int,
    seed: int,
    size: int,
    bad_rows: str,
    missing: float,
) -> None:
    """With no odd value, or a few anywhere: the same types and values, or the same error."""
    chance = random.Random(seed)
    rows = [[chance.choice([*kind, "null"]) for kind in kinds] for _ in range(12)]
    for _ in range(with_odd):
        chance.choice(rows)[chance.randrange(len(kinds))] = odd
    lines = []
    for row in rows:
        pairs = [f'"k{i}": {value}' for i, value in enumerate(row) if chance.random() >= missing]
        lines.append("{" + ", ".join(pairs) + "}\n")
    (tmp_path / "f.jsonl").write_text("".join(lines), newline="")
    for module in (blocks_module, reader_module):
        monkeypatch.setattr(module, "BLOCK_BYTES", size)
    spec = files_spec(tmp_path, "f.jsonl", bad_rows=bad_rows)
    with monkeypatch.context() as exact:
        exact.setattr(reader_module, "typed_lines", lambda *_, **__: None)
        exact.setattr(jsonl_rows, "alike", lambda _: None)
        exact.setattr("extract_jobs.sources.files.type_inference._plain", lambda _: None)
        for module in (inspection, reader_module):
            exact.setattr(module, "in_order", lambda work, items, **_: map(work, items))
        expected = outcome(spec)
    assert outcome(spec) == expected


def test_plain_keys_of_every_type_do_go_the_fast_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ways = []

    def watched(*given, **named) -> pa.RecordBatch | None:
        ways.append(batch := typed_lines(*given, **named))
        return batch

    monkeypatch.setattr(reader_module, "typed_lines", watched)
    lines = [
        ", ".join(f'"k{j}": {kind[i % len(kind)]}' for j, kind in enumerate(JSON_VALUES))
        for i in range(30)
    ]
    (tmp_path / "day=1").mkdir()
    (tmp_path / "day=1" / "f.jsonl").write_text("".join("{" + line + "}\n" for line in lines))
    table = read_all(files_spec(tmp_path, "*/f.jsonl"))
    kinds = [str(kind) for kind in table.schema.types]
    assert kinds == ["int64", "double", "bool", "string", "string", "double", "string"]
    assert table.column("day").unique().to_pylist() == ["1"]
    assert len(ways) == 1
    assert ways[0] is not None


@many
@given(
    kinds=st.lists(st.sampled_from(JSON_VALUES), min_size=1, max_size=4),
    odd=st.lists(st.sampled_from(ODD_VALUES), max_size=1),
    seed=st.integers(0, 2**32),
    blanks=st.sampled_from(["", " "]),
)
def test_objects_alike_are_what_the_exact_way_finds(
    kinds: list[tuple[str, ...]], odd: list[str], seed: int, blanks: str
) -> None:
    """Profiles and values are the same, or the block is left to the exact way."""
    chance = random.Random(seed)
    pools = [chance.sample([*(v for v in kind if "\\" not in v), "null"], 2) for kind in kinds]
    rows = [[chance.choice(pool) for pool in pools] for _ in range(6)]
    for value in odd:
        chance.choice(rows)[chance.randrange(len(kinds))] = value
    names = ["plain", "é k", "a:b", ","]
    lines = [
        "{" + f",{blanks}".join(f'"{n}":{blanks}{v}' for n, v in zip(names, row)) + "}\n"  # noqa: B905
        for row in rows
    ]
    block = Block("".join(lines).encode(), 0, 1)
    parser = JsonLines.of_this_thread()
    with pytest.MonkeyPatch.context() as exact:
        exact.setattr(jsonl_rows, "alike", lambda _: None)
        profiles, texts = parser.observe(block, {}, {}, lenient=False, uri="u")
    assert parser.observe(block, {}, {}, lenient=False, uri="u")[0] == profiles
    columns = [
        Column(name, "", profile.arrow_type(), True, "lossless", "", name)
        for name, profile in profiles.items()
        if profile.kinds <= {"text"} or profile.arrow_type() != pa.string()
    ]
    same = alike(block.data)
    if same is None or texts.faults or not can_be_typed(columns):
        assert odd or same
        return
    found = same.batch(columns)
    names = [column.name for column in columns]
    [texts] = parser.parse(block, names, lenient=False)
    read = batch_of(texts, columns, "u", None, forms={})
    assert found is None or found.equals(read)


@pytest.mark.parametrize("text", ['": x', "é", "12.50", "{[,"])
@pytest.mark.parametrize("blanks", ["", " "])
def test_objects_with_the_same_keys_are_alike(text: str, blanks: str) -> None:
    line = f'{{"a":{blanks}1,{blanks}"b":{blanks}"{text[1:] if text[0] == chr(34) else text}"}}'
    found = alike(f"{line}\n{line}".encode())
    assert found is not None
    assert found.keys == ("a", "b")
    assert found.texts("b")[0].to_pylist() == [text.strip('"')] * 2


def test_objects_that_differ_or_have_a_key_twice_are_not_alike() -> None:
    for lines in (
        '{"a":1}\n{"b":1}\n', '{"a":1,"a":2}\n', '{"a":1}\n\n', '{"a":1}{"a":1}\n', '{"a":"\\n"}\n',
        '{"a":1,"b":2}\n{"b":1,"a":2}\n', '{"a":{"b":1}}\n', '{"a":1}\r\n', "[]\n", "\n", "",
        '{"a":"1}\n{"a":1"}\n', '{"a":}\n', '{"a":"}\n', '{ "a":1}\n{"a":1}\n',
    ):  # fmt: skip
        found = alike(lines.encode())
        assert found is None or found.profiles({"a": TypeProfile()}) is None, lines


# Blocks ahead


def test_results_come_in_order_and_an_error_after_those_before_it() -> None:
    late = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert late.wait(5)  # the first is done last
        elif item == 1:
            late.set()
        return 10 * item

    def items() -> Iterator[int]:
        yield from range(3)
        raise SourceQueryFailed("the fourth")

    with ThreadPoolExecutor(2) as pool:
        results = in_order(work, items(), pool=pool, ahead=3, alone=lambda _: False)
        assert [next(results), next(results), next(results)] == [0, 10, 20]
        with pytest.raises(SourceQueryFailed, match="the fourth"):
            next(results)


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_items_are_held_than_allowed(ahead: int) -> None:
    """Those after one that has to be alone are not even read before it is done."""
    held, most, after_alone = set(), 0, []

    def items() -> Iterator[int]:
        nonlocal most
        for item in range(10):
            if 5 in held:
                after_alone.append(item)
            held.add(item)
            most = max(most, len(held))
            yield item

    with ThreadPoolExecutor(2) as pool:
        for item in in_order(int, items(), pool=pool, ahead=ahead, alone=lambda item: item == 5):
            held.remove(item)
    assert most == ahead
    assert not after_alone


def test_the_first_bad_row_of_a_file_is_named_however_many_threads_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 50)
    rows = ["1,2"] * 30 + ["bad"] + ["1,2"] * 30 + ["worse"] + ['1,"never closed']
    (tmp_path / "f.csv").write_text("\n".join(["a,b", *rows]))
    with pytest.raises(SourceQueryFailed, match="line 32: the row has 1 fields, expected 2"):
        read_all(files_spec(tmp_path, "f.csv"))
