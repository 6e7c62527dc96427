"""YAML as people write it, and the lines of its values."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract_jobs.config import load_config
from extract_jobs.config.file import MAX_DEPTH, parse_yaml
from extract_jobs.errors import ConfigError

Path = tuple[str | int, ...]

KEYS = st.text("abcxyz._-", min_size=1, max_size=6).filter(
    lambda t: t[0] not in "-." and "<" not in t
)
SCALARS = st.integers(-10, 10**6) | st.text("ab:#- '\"\\é\n{}[]&*!|>%@`", max_size=8)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.dictionaries(KEYS, inner, min_size=1, max_size=4)
        | st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=15,
)


class Writer:
    """Writes block YAML with comments between, and remembers the line of every path."""

    def __init__(self, draw: Any) -> None:
        self.lines: list[str] = []
        self.at: dict[Path, int] = {}
        self._draw = draw

    def put(self, path: Path, text: str) -> int:
        for _ in range(self._draw(st.integers(0, 2))):
            self.lines.append(self._draw(st.sampled_from(["", "   # note: not a key", "#"])))
        self.lines.append(text)
        self.at[path] = len(self.lines)
        return len(self.lines)

    def write(self, data: Any, path: Path, indent: str) -> int:
        """Write a collection and return the line of its first entry."""
        pairs = data.items() if isinstance(data, dict) else enumerate(data)
        first = None
        for key, value in pairs:
            here = (*path, key)
            lead = f"{indent}{key}:" if isinstance(data, dict) else f"{indent}-"
            if isinstance(value, dict | list):
                line = self.put(here, lead)
                inside = self.write(value, here, indent + "  ")
                if isinstance(key, int):
                    self.at[here] = inside  # an item has no key: it begins where its value does
            else:
                line = self.put(here, f"{lead} {json.dumps(value)}")
            first = first or line
        assert first is not None
        return first


@st.composite
def documents(draw: Any) -> tuple[str, Any, dict[Path, int]]:
    data = draw(st.dictionaries(KEYS, TREES, min_size=1, max_size=5))
    writer = Writer(draw)
    writer.write(data, (), "")
    return "\n".join(writer.lines) + "\n", data, writer.at


@given(documents())
def test_data_and_lines_of_any_document(document: tuple[str, Any, dict[Path, int]]) -> None:
    text, data, lines = document
    file = parse_yaml(text, "f")
    assert file.data == data
    assert {path: file.line(path) for path in lines} == lines


@given(st.integers(0, 30), st.integers(0, 30), st.booleans())
def test_a_misspelt_key_is_reported_with_its_line_wherever_it_is(
    above: int, below: int, flow: bool
) -> None:
    head = "version: 1\nsource: {name: s, type: postgres, connection: {host: db}}\ntables:\n"
    before = "".join(f"  t{i}:\n    target: {{uri: /d/t{i}}}\n" for i in range(above))
    wrong = "  wrong:\n    target:\n"
    wrong += (
        "      {uri: /d/w,\n       wriet_mode: append}\n"
        if flow
        else "      uri: /d/w\n      wriet_mode: append\n"
    )
    after = "".join(f"  u{i}: {{target: {{uri: /d/u{i}}}}}\n" for i in range(below))
    with pytest.raises(ConfigError) as caught:
        load_config(head + before + wrong + after, "f")
    assert str(caught.value) == (
        f"f:{3 + 2 * above + 4}: tables.wrong.target.wriet_mode: unknown key; "
        "did you mean write_mode?"
    )


def test_keys_and_dates_are_text_as_written() -> None:
    text = "on: 1\nno: 2\n2026: 3\n~: 4\n2026-01-01: 5\nday: 2026-01-01\nat: 2026-01-01 10:00:00\n"
    assert parse_yaml(text, "f").data == {
        "on": 1, "no": 2, "2026": 3, "~": 4, "2026-01-01": 5,
        "day": "2026-01-01", "at": "2026-01-01 10:00:00",
    }  # fmt: skip


def test_only_text_that_looks_like_a_number_is_one() -> None:
    text = "[10, -3, 010, 1_000, 12:30:00, 0x10, 1.5, .inf, yes, Off, null, '7']"
    assert parse_yaml(text, "f").data == [
        10, -3, "010", "1_000", "12:30:00", "0x10", 1.5, ".inf", True, False, None, "7",
    ]  # fmt: skip


def test_anchors_and_merge_keys() -> None:
    text = "a: &x {k: 1, l: {m: 2}}\nb: *x\nc:\n  <<: *x\n  k: 3\nd: {<<: [{z: 1}, *x], y: 2}\n"
    file = parse_yaml(text, "f")
    assert file.data["b"] == {"k": 1, "l": {"m": 2}}
    assert file.data["c"] == {"k": 3, "l": {"m": 2}}
    assert file.data["d"] == {"z": 1, "k": 1, "l": {"m": 2}, "y": 2}
    assert (file.line(("c", "k")), file.line(("c", "l")), file.line(("b",))) == (5, 1, 2)


def test_a_line_is_that_of_the_nearest_ancestor_that_exists() -> None:
    file = parse_yaml("a:\n  b:\n    - 1\n    - {c: 2}\n", "f")
    assert file.line(("a", "b", 1, "nope", "deeper")) == 4
    assert file.line(("a", "b", 9)) == 2
    assert file.line(("nope",)) == 1


LAUGHS = "a: &a [1,2,3,4,5,6,7,8,9,0]\n" + "".join(
    f"{k}: &{k} [{','.join([f'*{p}'] * 10)}]\n"
    for p, k in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3: a: given twice; the first is on line 1"),
        ("t:\n  on: 1\n  'on': 2\n", "f:3: t.on: given twice; the first is on line 2"),
        ("a: [1\nb: 2\n", "f:2: not valid YAML: "),
        ("a: b: c\n", "f:1: not valid YAML: mapping values are not allowed in this context"),
        ("a:\n\tb: 1\n", "f:2: not valid YAML: found character that cannot start any token"),
        ("a: @x\n", "quote values that begin with @"),
        ("a: *x\n", "f:1: not valid YAML: found undefined alias"),
        ("tables:\n  *: {}\n", "quote a name, glob or value that begins with *"),
        ("files: {glob: *.csv}\n", "quote a name, glob or value that begins with *"),
        ("a: 1\n---\nb: 2\n", "f:2: not valid YAML: "),
        ("a: \x01\n", "f: not valid YAML: "),
        ("a: !!python/object/apply:os.system [x]\n", "f:1: a: the tag tag:yaml.org,2002:python"),
        ("a: !custom x\n", "f:1: a: the tag !custom is not supported"),
        ("a: !!binary aGk=\n", "f:1: a: the tag tag:yaml.org,2002:binary is not supported"),
        ("? [a]\n: b\n", "f:1: a key must be text, not a list or a mapping"),
        ("a: &a [*a]\n", "f:1: a[0]: an alias that contains itself"),
        ("a: {<<: 3}\n", "f:1: a: << needs a mapping, or a list of mappings"),
        ("[" * 100_000, f"f:1: nested more than {MAX_DEPTH} levels deep"),
        ("a: " + "{b: " * 60 + "1" + "}" * 60, f"f:1: nested more than {MAX_DEPTH} levels deep"),
        (LAUGHS, "aliases expand this to more than 2,000,000 values"),
        (b"a: 1\nb: \xff\n", "f:2: not UTF-8 text"),
    ],
)
def test_what_is_not_taken(text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f")
    assert message in str(caught.value)


def test_a_mapping_that_merges_itself_comes_to_an_end() -> None:
    assert parse_yaml("a: &a {b: 1, <<: *a}\n", "f").data == {"a": {"b": 1}}


def test_laughs_between_defaults_and_tables_do_not_explode() -> None:
    maps = "x0: &m0 {k: 1}\n" + "".join(
        f"x{i}: &m{i} {{{', '.join(f'k{j}: *m{i - 1}' for j in range(10))}}}\n" for i in range(1, 9)
    )
    text = f"{maps}defaults: {{columns: *m8}}\ntables: {{t: {{columns: *m8}}}}\n"
    with pytest.raises(ConfigError, match="aliases expand this to more than"):
        load_config(text, "f")


def test_a_byte_order_mark_is_no_part_of_the_file() -> None:
    assert parse_yaml(b"\xef\xbb\xbfa: 1\n", "f").data == {"a": 1}


def test_a_file_above_ten_megabytes_is_refused_before_it_is_read() -> None:
    text = "a: 1\n" * (2**21 + 2)
    for document in (text, text.encode()):
        with pytest.raises(ConfigError, match=r"c\.yml: is 10,485,7\d\d .*10,485,760 at most"):
            parse_yaml(document, "c.yml")


@pytest.mark.parametrize("place", ["", "    "], ids=["at the top", "in a table"])
def test_many_unknown_keys_take_little_time(place: str) -> None:
    """Looking for the likeliest name, and for other problems, of each took minutes for 100,000."""
    keys = "".join(f"{place}k{number}: 1\n" for number in range(10_000))
    text = """\
version: 1
source: {name: s, type: postgres, connection: {secret_id: a}}
tables:
  t:
    target: {uri: s3://lake/t}
"""
    began = time.process_time()
    with pytest.raises(ConfigError) as refused:
        load_config(text + keys, "f")
    assert time.process_time() - began < 4
    lines = str(refused.value).splitlines()
    assert lines[0] == "f: 10000 problems"
    assert lines[-1] == "… and 9900 more"
    assert all("known here: " in line for line in lines[1:-1])


@pytest.mark.parametrize(("given", "said"), [
    ("mode: incremental, watermark: {column: u, delay: 99999999999d}", "longer than 36500d"),
    (f"mode: incremental, watermark: {{column: u, delay: {'9' * 5_000}d}}", "a text of 5,001 char"),
    (f"mode: incremental, watermark: {{column: u, lag: {'9' * 5_000}}}", "lag: "),
    (f"split: {{max_connections: {'9' * 5_000}}}", "max_connections: "),
    (f"split: {{target_bytes: {'9' * 5_000}MiB}}", "a text of 5,003 characters is not a size"),
    (f"split: {{target_bytes: {':'.join(['59'] * 50_000)}}}", "a text of 149,999 characters"),
    (f"target: {{uri: s3://b/t, partition_by: ['{'day(' * 50_000}']}}", "partition_by"),
    ("keep_retired: 999999999999d", "longer than 36500d"),
    ("statement_timeout: 25d", "24d or less"),
])  # fmt: skip
def test_numbers_without_bounds_are_refused_and_not_repeated(given: str, said: str) -> None:
    text = f"""\
version: 1
source: {{name: s, type: postgres, connection: {{secret_id: a}}}}
defaults: {{target: {{uri: "s3://lake/{{table}}"}}}}
tables:
  t: {{{given}}}
"""
    with pytest.raises(ConfigError) as refused:
        load_config(text, "f")
    assert said in str(refused.value)
    assert len(str(refused.value)) < 10_000


def test_a_number_of_many_digits_is_a_bound_of_a_watermark() -> None:
    text = f"""\
version: 1
source: {{name: s, type: postgres, connection: {{secret_id: a}}}}
defaults: {{target: {{uri: "s3://lake/{{table}}"}}}}
tables:
  t: {{mode: incremental, watermark: {{column: u, initial: {"9" * 1_000}}}}}
"""
    load_config(text, "f")
