"""JSON lines: what is JSON and what is not, and several objects in a line."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ConfigError, SourceQueryFailed
from extract_jobs.sources.files.json_array import ArrayLines
from tests.support.files import batches_of, files_spec, read_all

NOT_STRICT = ['{"a": NaN}', '{"a": -Infinity}', '{"a": {"b": Infinity}}', '{"a": [1, NaN]}']
NEVER = ['{"a": 1,}', '{"a": [1, ]}', '{"a": nan}', '{"a": -NaN}', '{"a": Inf}', '{"a": [-inf]}',
         '{"a":{"b":infinity}}']  # fmt: skip


def rows(folder: Path, text: str, **given: Any) -> list[dict[str, Any]]:
    (folder / "x.jsonl").write_bytes(text.encode())
    return list(read_all(files_spec(folder, "*.jsonl", **given)).to_pylist())


@pytest.mark.parametrize("declared", [None, {"a": "string"}])
@pytest.mark.parametrize("line", [*NOT_STRICT, *NEVER])
def test_what_is_no_json_is_refused(
    tmp_path: Path, line: str, declared: dict[str, str] | None
) -> None:
    with pytest.raises(SourceQueryFailed, match="line 2: the row is not valid JSON"):
        rows(tmp_path, f'{{"a": 1}}\n{line}\n', types=declared)


@pytest.mark.parametrize("line", NEVER)
def test_lenient_takes_what_python_writes_and_no_more(tmp_path: Path, line: str) -> None:
    with pytest.raises(SourceQueryFailed, match="line 1"):
        rows(tmp_path, line, json_dialect="lenient")


def test_lenient_gives_python_its_numbers_back(tmp_path: Path) -> None:
    values = [1.5, math.inf, -math.inf]
    text = "".join(json.dumps({"a": v, "l": [v]}) + "\n" for v in [*values, math.nan])
    found = rows(tmp_path, text, json_dialect="lenient")
    assert [row["a"] for row in found[:3]] == values
    assert [row["l"] for row in found[:3]] == [[v] for v in values]
    assert math.isnan(found[3]["a"])
    assert math.isnan(found[3]["l"][0])


@pytest.mark.parametrize(
    "number",
    ["12345678901234567891e2", "-1234567890123456789E-3", "1.5e-400", "1e-0400", "4.56789e-322",
     "1.00000000000000000e99999999999999999999"],
)  # fmt: skip
def test_numbers_that_no_double_holds_keep_their_digits(tmp_path: Path, number: str) -> None:
    line = f'{{"a": {number}, "l": [{number}], "o": {{"n": {number}}}, "s": "1e-400"}}'
    [found] = rows(tmp_path, line)
    assert found == {"a": number, "l": [number], "o": f'{{"n":"{number}"}}', "s": "1e-400"}


@pytest.mark.parametrize("number", ["12345678901234500e2", "1.5e-300", "1e-5", "0e-400"])
def test_numbers_with_an_exponent_that_doubles_hold_are_doubles(
    tmp_path: Path, number: str
) -> None:
    assert rows(tmp_path, f'{{"a": {number}}}') == [{"a": float(number)}]


def test_what_looks_like_it_in_a_string_is_text(tmp_path: Path) -> None:
    values = [",]", "a: NaN", "[-inf", "} {", "}{", "x,}", "\\", '"}{"']
    text = "".join(json.dumps({"a": v}) + "\n" for v in values)
    assert [row["a"] for row in rows(tmp_path, text)] == values


@pytest.mark.parametrize("declared", [None, {"a": "int64", "b": "string"}])
def test_objects_in_one_line_are_rows(tmp_path: Path, declared: dict[str, str] | None) -> None:
    text = '{"a": 1}{"a":2, "b": "}{"} \t {"a":3}\n{"a":4}\n\n{"a":5}{"a":6}'
    found = rows(tmp_path, text, types=declared)
    assert [(row["a"], row["b"]) for row in found] == [
        (1, None), (2, "}{"), (3, None), (4, None), (5, None), (6, None)
    ]  # fmt: skip


@pytest.mark.parametrize("line", ['{"a":1}{"a":}', '{"a":1}x{"a":2}', '{"a":1}, {"a":2}'])
def test_a_line_with_a_part_that_is_not_json_is_refused_or_set_aside_whole(
    tmp_path: Path, line: str
) -> None:
    with pytest.raises(SourceQueryFailed, match="line 2"):
        rows(tmp_path, f'{{"a":0}}\n{line}\n')
    found = rows(
        tmp_path, f'{{"a":0}}\n{line}\n{{"a":3}}', bad_rows="reject", state_uri=str(tmp_path / "s")
    )
    assert [row["a"] for row in found] == [0, 3]
    [rejected] = (tmp_path / "s").rglob("*.jsonl")
    assert json.loads(rejected.read_text())["row"] == line


def test_half_of_a_surrogate_pair_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SourceQueryFailed, match="line 1: the row has half of a surrogate pair"):
        rows(tmp_path, '{"a": "\\ud800"}\n')
    assert rows(tmp_path, '{"a": "\\ud83d\\ude00"}\n') == [{"a": "\U0001f600"}]


@pytest.mark.parametrize("before", ["", "x"])
def test_a_bad_row_in_other_alphabets_is_reported_like_any_other(
    tmp_path: Path, before: str
) -> None:
    """DuckDB's message about the row may end in half of a character, wherever it is cut."""
    text = before + "é" * 200
    with pytest.raises(SourceQueryFailed, match="line 1: the row has half of a surrogate pair"):
        rows(tmp_path, f'{{"a": "{text}", "b": "\\ud800", "c": "{text}"}}\n')


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.text())
OBJECTS = st.dictionaries(st.sampled_from(["a", "b"]), SCALARS, min_size=1)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(OBJECTS, st.sampled_from(["", " ", "\n", "\r\n"])), min_size=1))
def test_joined_or_not_the_objects_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, objects: list[tuple[dict[str, Any], str]]
) -> None:
    folder = tmp_path_factory.mktemp("json")
    types = {"a": "string", "b": "string"}
    apart = "".join(json.dumps(o) + "\n" for o, _ in objects)
    joined = "".join(json.dumps(o) + end for o, end in objects)
    assert rows(folder, joined, types=types) == rows(folder, apart, types=types)


@pytest.mark.parametrize("declared", [None, {"a": "string"}])
def test_arrays_of_any_depth_arrive_as_json(
    tmp_path: Path, declared: dict[str, str] | None
) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    assert rows(tmp_path, f'{{"a":{deep}}}\n', types=declared) == [{"a": deep}]
    found = rows(tmp_path, '{"a":[[1]]}\n{"a":[2,{}]}\n{"a":[]}\n', types=declared)
    assert [row["a"] for row in found] == ["[[1]]", "[2,{}]", "[]"]


def array_rows(folder: Path, text: str | bytes, **given: Any) -> list[dict[str, Any]]:
    (folder / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_all(files_spec(folder, "*.json", format="json", **given)).to_pylist()


ELEMENTS = [{"a": 1, "t": 'x,]}"\\\n\u2028'}, {"a": None, "t": ""}, {"a": 3, "t": "[{"}]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("declared", [None, {"a": "int64", "t": "string"}])
def test_an_array_of_objects_is_read_element_by_element(
    tmp_path: Path, indent: int | None, declared: dict[str, str] | None
) -> None:
    text = json.dumps(ELEMENTS, indent=indent)
    assert array_rows(tmp_path, f"\ufeff \n{text}\r\n", types=declared) == ELEMENTS
    before = {"meta": {"data": [1, {"items": []}], "n": -1.5e3}, "data ": None}
    inside = {**before, "data": {"x": [[]], "items": ELEMENTS, "y": "]"}, "z": True}
    text = json.dumps(inside, indent=indent)
    assert array_rows(tmp_path, text, path="data.items", types=declared) == ELEMENTS


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


class Slow:
    """A stream that gives few bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self.data, self.step = data, step

    def read(self, size: int) -> bytes:
        found, self.data = self.data[: min(size, self.step)], self.data[min(size, self.step) :]
        return found


@settings(max_examples=40, deadline=None)
@given(
    st.lists(JSON_VALUES), st.sampled_from([None, 1]), st.integers(1, 7), JSON_VALUES, st.booleans()
)
def test_elements_are_what_json_says(
    values: list[Any], indent: int | None, step: int, other: Any, ascii_only: bool
) -> None:
    whole = {"o": other, "k": values, "p": other}
    data = json.dumps(whole, indent=indent, ensure_ascii=ascii_only).encode()
    stream = ArrayLines(Slow(data, step), "k", "x")
    found = b"".join(iter(lambda: stream.read(step), b""))
    lines = found.split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == values


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r"\[ is expected, and the file ends"),
        ('{"a": 1}', r"\[ is expected"),
        ('{"a": 1}\n{"a": 2}\n', r"\[ is expected.*files.format: jsonl"),
        ('[{"a": 1}', r", or \] is expected, and the file ends"),
        ('[{"a": 1', "the file ends inside of a value"),
        ('[{"a": "1', "the file ends inside of a value"),
        ('[{"a": 1}] x', "something follows the end"),
        ('[{"a": 1}][{"a": 2}]', "something follows the end"),
        ('[{"a": 1},]', "a value is expected"),
        ('[{"a": 1} {"a": 2}]', r", or \] is expected"),
        ('[{"a": "x\ny"}]', "a string has a line end in it"),
    ],
)
def test_what_is_no_array_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SourceQueryFailed, match=problem):
        array_rows(tmp_path, text or " ", types={"a": "int64"})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"b": []}', "there is no key 'a' of files.path"),
        ('{"a": {"b": []}, "a": {"b": []}}', "the key 'a' appears twice"),
        ('{"a": {"c": []}}', "there is no key 'b'"),
        ('{"a": {"b": {}}}', r"\[ is expected"),
        ('{"a": {"b": []}', ", or } is expected, and the file ends"),
    ],
)
def test_a_path_that_leads_to_no_array_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SourceQueryFailed, match=problem):
        array_rows(tmp_path, text, path="a.b", types={"a": "int64"})


def test_elements_that_are_no_rows_are_bad_rows(tmp_path: Path) -> None:
    text = '[\n{"a": 1},\n3,\n{"a": 1, "a": 2},\n[{"a": 4}],\n{"a": 5}\n]'
    with pytest.raises(SourceQueryFailed, match="line 2: the row is not one JSON object"):
        array_rows(tmp_path, text)
    given = {"types": {"a": "int64"}, "bad_rows": "reject"}
    assert array_rows(tmp_path, text, **given) == [{"a": 1}, {"a": 5}]


def test_files_path_is_for_arrays_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(ConfigError, match=r"files\.path is for files\.format json"):
        read_all(files_spec(tmp_path, "*.jsonl", path="a"))
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ConfigError, match="json if the file is one array"):
        read_all(files_spec(tmp_path, "*.json"))


def test_memory_holds_one_element_at_a_time() -> None:
    element = b'{"a": "' + b"x" * 1000 + b'"},'
    count = 5_000

    class Endless:
        left = count

        def read(self, size: int) -> bytes:
            some = min(self.left, max(1, size // len(element)))
            first, self.left = self.left == count, self.left - some
            text = (b"[" if first else b"") + element * some
            return text if self.left or not some else text[:-1] + b"]"

    stream = ArrayLines(Endless(), None, "x")
    tracemalloc.start()
    read = sum(len(part) for part in iter(lambda: stream.read(2**16), b""))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read == count * len(element)
    assert most < 3 * 2**20


def _objects(chance: random.Random) -> str:
    values: list[Any] = [
        None, True, 7, -1.5, 1e300, 10**30, "x", "", "7", 'a"b', [1, None], ["x"], {"y": [2]}, [],
    ]  # fmt: skip
    names = ["a", "b/c", "d~", "e'f", "\u00e9", 'g"', "h"]
    found = {name: chance.choice(values) for name in chance.sample(names, chance.randrange(5))}
    return json.dumps(found) + "\n"


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_lack_most_keys_are_read_as_all_others(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    text = "".join(_objects(chance) for _ in range(30))
    expected = rows(tmp_path, text)
    monkeypatch.setattr("extract_jobs.sources.files.jsonl_rows._CELLS", 5)
    assert rows(tmp_path, text) == expected


def test_a_key_of_its_own_in_each_line_makes_small_batches(tmp_path: Path) -> None:
    """1,500 lines stand for 2.25 million values."""
    text = "".join(f'{{"k{n}": {n}}}\n' for n in range(1500))
    (tmp_path / "x.jsonl").write_text(text)
    filled = 0
    for batch in batches_of(files_spec(tmp_path, "*.jsonl")):
        assert batch.num_rows * batch.num_columns <= 2**21
        filled += sum(len(column) - column.null_count for column in batch.columns)
    assert filled == 1500


def test_data_in_the_place_of_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extract_jobs.sources.files.texts.MOST_COLUMNS", 100)
    text = "".join(f'{{"{n}": 1}}\n' for n in range(101))
    with pytest.raises(ConfigError, match="101 columns, and a table may have 100"):
        rows(tmp_path, text)
    assert len(rows(tmp_path, text, types={"100": "int64"})) == 101
