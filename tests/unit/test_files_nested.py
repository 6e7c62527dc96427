"""Structs, maps and lists of Parquet files, nested to any depth, and what a run makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract_jobs.attempt.dry_run import planned
from extract_jobs.catalog import athena_type
from extract_jobs.cli.plan import plan_text
from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.run import run_extract
from extract_jobs.sources.files.parquet_types import with_variants
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.types import printed_type
from tests.support.files import files_spec, read_all
from tests.support.nested_values import LEAVES, values_of
from tests.support.readers import by_duckdb, by_pyarrow, files_of

NAMES = st.lists(st.sampled_from(["a", "b c", "ä", 'd"', "e.f"]), min_size=1, unique=True)
TYPES = st.recursive(
    st.sampled_from(list(LEAVES)),
    lambda inner: st.one_of(
        inner.map(pa.list_),
        st.tuples(st.sampled_from([pa.int64(), pa.string(), pa.date32()]), inner).map(
            lambda both: pa.map_(*both)
        ),
        NAMES.flatmap(
            lambda names: st.tuples(*[inner] * len(names)).map(
                lambda types: pa.struct(list(zip(names, types, strict=True)))
            )
        ),
    ),
    max_leaves=5,
)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_nested_values_arrive_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("n")
    kind = data.draw(TYPES)
    values = data.draw(st.lists(values_of(kind), min_size=1, max_size=6))
    table = pa.table({"x": pa.array(values, kind)})
    pq.write_table(table, folder / "a.parquet", row_group_size=data.draw(st.integers(1, 3)))
    found = read_all(files_spec(folder, "*.parquet")).column("x")
    assert found.type == kind
    assert found.to_pylist() == table.column("x").to_pylist()
    found.validate(full=True)
    # Commits keep types as text.
    assert printed_type(str(kind)) == kind


def nested_table(**more: Any) -> pa.Table:
    address = pa.struct([("street", pa.string()), ("zip", pa.int32())])
    item = pa.struct([("sku", pa.string()), ("price", pa.decimal128(9, 2))])
    tags = pa.map_(pa.string(), pa.list_(pa.int64()))
    first = {"sku": "x", "price": Decimal("1.50")}
    columns = {
        "id": pa.array([1, 2, 3]),
        "address": pa.array([{"street": "a", "zip": 1}, None, {"street": None, "zip": 3}], address),
        "items": pa.array([[first, None], [], None], pa.list_(item)),
        "tags": pa.array([[("k", [1, None])], None, []], tags),
    }
    return pa.table(columns | more)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_nested_values_of_any_type_are_read_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("w")
    kind = data.draw(TYPES.filter(pa.types.is_nested))
    values = data.draw(st.lists(values_of(kind), min_size=1, max_size=4))
    table = pa.table({"n": list(range(len(values))), "x": pa.array(values, kind)})
    pq.write_table(table, folder / "a.parquet")
    target = extract(folder)
    for rows in (by_pyarrow(target), by_duckdb(target)):
        found = [row["x"] for row in sorted(rows, key=lambda row: row["n"])]
        assert found == table.column("x").to_pylist()


def extract(folder: Path, run: str = "r", **given: Any) -> str:
    run_extract(files_spec(folder, "*.parquet", run_id=run, **given))
    return f"{folder}/_out/t"


def test_a_run_writes_what_readers_read(tmp_path: Path) -> None:
    table = nested_table()
    pq.write_table(table, tmp_path / "a.parquet")
    target = extract(tmp_path)
    for rows in (by_pyarrow(target), by_duckdb(target)):
        mine = [{name: row[name] for name in table.schema.names} for row in rows]
        assert mine == table.to_pylist()
    [file] = Path(target).glob("*.parquet")
    types = {field.name: athena_type(str(field.type)) for field in pq.read_schema(file)}
    assert types["address"] == "struct<street:string,zip:int>"
    assert types["items"] == "array<struct<sku:string,price:decimal(9,2)>>"
    assert types["tags"] == "map<string,array<bigint>>"


def test_athena_takes_no_field_whose_name_it_would_change() -> None:
    with pytest.raises(ValueError, match="only letters, digits and _"):
        athena_type("struct<b c: int64>")
    with pytest.raises(ValueError, match=r"two fields of .* would have the same name"):
        athena_type("struct<b: int64, B: int64>")


def test_leaves_arrive_by_the_rules_of_their_type(tmp_path: Path) -> None:
    leaves = {
        "u": pa.array([2**64 - 1], pa.uint64()),
        "h": pa.array([1.5], pa.float16()),
        "t": pa.array([1], pa.time64("us")),
        "n": pa.array([1_000], pa.timestamp("ns")),
        "z": pa.array([0], pa.timestamp("ms", "Europe/Rome")),
        "d": pa.array(["x"]).dictionary_encode(),
        "e": pa.array([Decimal(7)], pa.decimal256(50, 0)),
        "b": pa.array([b"xy"], pa.binary(2)),
        "l": pa.array(["y"], pa.large_string()),
        "w": pa.array([[1]], pa.large_list(pa.int8())),
        "f": pa.array([[1, 2]], pa.list_(pa.int8(), 2)),
        "i": pa.array([bytes(16)], pa.uuid()),
    }
    values = pa.StructArray.from_arrays(list(leaves.values()), list(leaves))
    pq.write_table(
        pa.table({"s": pa.ListArray.from_arrays([0, 1], values)}), tmp_path / "a.parquet"
    )
    assert read_all(files_spec(tmp_path, "*.parquet")).to_pylist() == [
        {
            "s": [
                {
                    "u": Decimal(2**64 - 1),
                    "h": 1.5,
                    "t": "00:00:00.000001",
                    "n": datetime.fromisoformat("1970-01-01 00:00:00.000001"),
                    "z": datetime(1970, 1, 1, tzinfo=UTC),
                    "d": "x",
                    "e": "7",
                    "b": b"xy",
                    "l": "y",
                    "w": [1],
                    "f": [1, 2],
                    "i": "00000000-0000-0000-0000-000000000000",
                }
            ]
        }
    ]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (pa.array([1], pa.timestamp("ns")), r"of type timestamp\[ns\], has no faithful form"),
        (pa.array([-(2**62)], pa.timestamp("us")), "outside years 1 to 9999"),
    ],
)
def test_a_value_inside_that_has_no_faithful_form_fails_the_read(
    tmp_path: Path, values: pa.Array, problem: str
) -> None:
    inside = pa.StructArray.from_arrays([values], ["t"])
    pq.write_table(pa.table({"s": inside}), tmp_path / "a.parquet")
    with pytest.raises(TypeNotRepresentable, match=f"a value of column 's.t', .*{problem}"):
        read_all(files_spec(tmp_path, "*.parquet"))


def test_what_is_inside_of_a_struct_that_is_null_is_not_looked_at(tmp_path: Path) -> None:
    times = pa.array([-(2**62), 0], pa.timestamp("us"))
    inside = pa.StructArray.from_arrays([times], ["t"], mask=pa.array([True, False]))
    pq.write_table(pa.table({"s": inside}), tmp_path / "a.parquet")
    found = read_all(files_spec(tmp_path, "*.parquet")).column("s").to_pylist()
    assert found == [None, {"t": datetime.fromisoformat("1970-01-01")}]


def test_structs_of_files_that_differ_have_the_fields_of_all(tmp_path: Path) -> None:
    one = pa.struct([("a", pa.int32()), ("b", pa.string())])
    other = pa.struct([("c", pa.bool_()), ("a", pa.int64())])
    pq.write_table(
        pa.table({"l": pa.array([[{"a": 1, "b": "x"}]], pa.list_(one))}), tmp_path / "1.parquet"
    )
    pq.write_table(
        pa.table({"l": pa.array([[{"c": True, "a": 2**40}]], pa.list_(other))}),
        tmp_path / "2.parquet",
    )
    pq.write_table(pa.table({"l": pa.nulls(1)}), tmp_path / "3.parquet")
    assert read_all(files_spec(tmp_path, "*.parquet")).column("l").to_pylist() == [
        [{"a": 1, "b": "x", "c": None}],
        [{"a": 2**40, "b": None, "c": True}],
        None,
    ]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    ("empty", "full", "kind"),
    [
        ({"a": None, "b": 1}, {"a": 5, "b": 1}, "struct<a: int64, b: int64>"),
        ({"a": None, "b": 1}, {"a": {"x": True}, "b": 1}, "struct<a: struct<x: bool>, b: int64>"),
        ([None], [5], "list<item: int64>"),
    ],
)
def test_a_field_without_a_value_takes_the_type_of_other_files(
    tmp_path: Path, empty: Any, full: Any, kind: str, first: int
) -> None:
    """As pandas writes a field that is None in every row."""
    for number, value in enumerate([empty, full] if first else [full, empty]):
        table = pa.table({"s": pa.array([value, None])})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    found = read_all(files_spec(tmp_path, "*.parquet")).column("s")
    assert str(found.type) == kind
    both = [empty, None, full, None] if first else [full, None, empty, None]
    assert found.to_pylist() == both


def test_a_field_without_a_value_in_any_file_is_text(tmp_path: Path) -> None:
    table = pa.table({"s": pa.array([{"a": None, "b": [None]}])})
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_all(files_spec(tmp_path, "*.parquet")).column("s")
    assert str(found.type) == "struct<a: string, b: list<item: string>>"
    assert found.to_pylist() == table.column("s").to_pylist()


@pytest.mark.parametrize("at", ["2024-01-01", "1969-12-31", "0800-02-03"])
def test_int96_inside_of_a_struct_is_cut_off_where_that_is_allowed(tmp_path: Path, at: str) -> None:
    below = (0, 1, 999, None)
    whole = datetime.fromisoformat(at)
    # Only nanoseconds near today fit into 64 bits: far values are written in microseconds.
    near = at > "1700"
    unit = "ns" if near else "us"
    start = pa.scalar(whole, pa.timestamp("us")).cast(pa.int64()).as_py() * (1000 if near else 1)
    values = [None if n is None else start + (n if near else 0) for n in below]
    times = pa.array(values, pa.int64()).view(pa.timestamp(unit))
    inside = pa.StructArray.from_arrays([times], ["t"])
    pq.write_table(
        pa.table({"s": inside}), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True
    )
    if near:
        with pytest.raises(TypeNotRepresentable, match=r"'s', of type INT96.*nanoseconds: trunc"):
            read_all(files_spec(tmp_path, "*.parquet"))
    run = run_extract(files_spec(tmp_path, "*.parquet", nanoseconds="truncate"))
    assert run.cut_to_microseconds == ({"s": 2} if near else {})
    rows = by_pyarrow(f"{tmp_path}/_out/t")
    assert [row["s"]["t"] for row in rows] == [whole, whole, whole, None]


@pytest.mark.parametrize("fields", [["a", "A"], ["a", "a"], ["x, y"], ["p: q"], ["r<s"]])
def test_fields_that_readers_would_mix_up_are_refused(tmp_path: Path, fields: list[str]) -> None:
    inside = pa.StructArray.from_arrays([pa.array([1])] * len(fields), fields)
    pq.write_table(pa.table({"s": inside}), tmp_path / "a.parquet")
    with pytest.raises(TypeNotRepresentable, match="column 's' is of type struct"):
        read_all(files_spec(tmp_path, "*.parquet"))


def test_fields_of_two_files_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    for name in ("a", "A"):
        table = pa.table({"s": pa.array([{name: 1}])})
        pq.write_table(table, tmp_path / f"{ord(name)}.parquet")
    with pytest.raises(TypeNotRepresentable, match="no type holds both"):
        read_all(files_spec(tmp_path, "*.parquet"))


@pytest.mark.parametrize("sql", ["[interval '1 day']", "{'a': {'b': interval '1 day'}}"])
def test_what_is_refused_outside_is_refused_inside(tmp_path: Path, sql: str) -> None:
    duckdb.sql(f"copy (select 1 as id, {sql} as c) to '{tmp_path}/a.parquet'")
    with pytest.raises(TypeNotRepresentable, match="column 'c' is of type INTERVAL"):
        read_all(files_spec(tmp_path, "*.parquet"))


def test_all_columns_that_cannot_be_read_are_named_at_once(tmp_path: Path) -> None:
    fields = {"fine": pa.array([1]), "a,b": pa.array([1])}
    odd = pa.StructArray.from_arrays(list(fields.values()), list(fields))
    inside = pa.StructArray.from_arrays([odd, odd, pa.array([1])], ["one", "two", "three"])
    columns = {"x": pa.array([1]), "s": pa.ListArray.from_arrays([0, 1], inside), "o": odd}
    pq.write_table(pa.table(columns), tmp_path / "1.parquet")
    pq.write_table(pa.table({"x": pa.array(["y"])}), tmp_path / "2.parquet")
    with pytest.raises(TypeNotRepresentable) as caught:
        read_all(files_spec(tmp_path, "*.parquet"))
    text = str(caught.value)
    for told in (
        r"1\.parquet: column 's\.one' is of type struct<.*>, 's\.two' is of type struct<",
        r"1\.parquet: column 'o' is of type struct<",
        r"column 'x' is int64 in .*1\.parquet and string in .*2\.parquet, and no type holds both",
    ):
        assert re.search(told, text)
    assert "s.three" not in text
    spec = files_spec(tmp_path, "*.parquet", columns={"exclude": ["x", "s"]})
    with pytest.raises(TypeNotRepresentable, match=r"^[^;]*column 'o'[^;]*$"):
        read_all(spec)


def test_a_variant_is_found_at_any_depth(tmp_path: Path) -> None:
    # DuckDB writes none below the top.
    duckdb.sql(f"copy (select 42::variant as v, {{'a b': 1}} as s) to '{tmp_path}/a.parquet'")
    text = str(pq.read_metadata(tmp_path / "a.parquet").schema)
    assert with_variants(text) == {"v"}
    head, *columns, end = text.splitlines()[1:]
    inside = ["  optional group field_id=-1 out er {", *(f"  {line}" for line in columns), "  }"]
    other = ["  optional binary field_id=-1 b (String);"]
    assert with_variants("\n".join([head, *other, *inside, *other, end])) == {"out er"}


def test_nested_columns_are_json_where_that_is_asked_for(tmp_path: Path) -> None:
    more = pa.array(
        [[(date(2024, 1, 31), float("nan"))], None, []], pa.map_(pa.date32(), pa.float64())
    )
    pq.write_table(nested_table(more=more), tmp_path / "a.parquet")
    cast = dict.fromkeys(["address", "items", "tags", "more"], "json")
    rows = by_duckdb(extract(tmp_path, columns={"cast": cast}))
    texts = [[row[name] for name in cast] for row in rows]
    assert texts == [
        [
            '{"street":"a","zip":1}',
            '[{"sku":"x","price":"1.50"},null]',
            '{"k":[1,null]}',
            '{"2024-01-31":"NaN"}',
        ],
        [None, "[]", None, None],
        ['{"street":null,"zip":3}', None, "{}", "{}"],
    ]
    for line in texts[0]:
        json.loads(line)


def test_binary_is_base64_in_json_even_if_it_is_empty(tmp_path: Path) -> None:
    table = pa.table({"b": pa.array([[b"", b"\xff", None]], pa.list_(pa.binary()))})
    pq.write_table(table, tmp_path / "a.parquet")
    [row] = by_pyarrow(extract(tmp_path, columns={"cast": {"b": "json"}}))
    assert row["b"] == '["","/w==",null]'


def test_a_map_with_one_key_twice_is_no_json_object(tmp_path: Path) -> None:
    table = pa.table({"m": pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64()))})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(TypeNotRepresentable, match="column 'm'"):
        extract(tmp_path, columns={"cast": {"m": "json"}})
    assert by_pyarrow(extract(tmp_path, run="2"))[0]["m"] == [("k", 1), ("k", 2)]


@pytest.mark.parametrize(
    ("cast", "message"),
    [
        ({"id": "json"}, "'id' to json: it is read as int64"),
        ({"address": "string"}, "no cast to string; cast it to json"),
    ],
)
def test_json_is_only_the_text_of_nested_columns(
    tmp_path: Path, cast: dict[str, str], message: str
) -> None:
    pq.write_table(nested_table(), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=message):
        extract(tmp_path, columns={"cast": cast})


def masked(folder: Path, monkeypatch: pytest.MonkeyPatch, mask: dict[str, str]) -> Iterator[Any]:
    monkeypatch.setenv("MASK_KEY", "0123456789abcdef")
    columns = {"mask": mask, "mask_key": {"env": "MASK_KEY"}}
    yield from by_pyarrow(extract(folder, columns=columns))


def test_masks_of_fields_reach_every_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pa.array(["a", None, None])
    pq.write_table(nested_table(plain=plain), tmp_path / "a.parquet")
    mask = {
        "address.street": "hash", "plain": "hash", "items.sku": "redact", "items.price": "redact",
        "tags.value": "null",
    }  # fmt: skip
    first, second, third = masked(tmp_path, monkeypatch, mask)
    # A field's hash is that of a column with the same value.
    assert first["address"] == {"street": first["plain"], "zip": 1}
    assert len(first["plain"]) == 64
    assert first["items"] == [{"sku": "***", "price": None}, None]
    assert first["tags"] == [("k", None)]
    assert (second["address"], second["items"], second["tags"]) == (None, [], None)
    assert third["address"] == {"street": None, "zip": 3}


def test_a_plan_shows_the_masks_of_fields(tmp_path: Path) -> None:
    pq.write_table(nested_table(), tmp_path / "a.parquet")
    masks = {"address.street": "redact", "address.zip": "null", "tags": "null"}
    spec = files_spec(tmp_path, "*.parquet", columns={"mask": masks})
    lines = plan_text(spec, planned(spec, datetime.now(UTC))).splitlines()
    shown = {line.split()[0]: line for line in lines if line.strip()}
    assert "masked inside" in shown["address"]
    assert "masked inside: street: redact, zip: null" in shown["address"]
    assert "masked: null" in shown["tags"]
    assert "masked" not in shown["items"]


def test_a_masked_field_is_masked_in_json_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(nested_table(), tmp_path / "a.parquet")
    columns = {"mask": {"address.street": "redact"}, "cast": {"address": "json"}}
    rows = by_pyarrow(extract(tmp_path, columns=columns))
    assert rows[0]["address"] == '{"street":"***","zip":1}'


def test_masks_in_another_order_are_the_same_masks(tmp_path: Path) -> None:
    masks = {"address.zip": "null", "address.street": "redact"}
    for run, order in enumerate((sorted(masks), sorted(masks, reverse=True))):
        pq.write_table(nested_table(), tmp_path / f"{run}.parquet")
        columns = {"mask": {name: masks[name] for name in order}}
        spec = files_spec(
            tmp_path, "*.parquet", run_id=str(run), mode="incremental", columns=columns
        )
        report = run_extract(spec)
        assert (report.rows, report.schema_changes) == (3, [])


@pytest.mark.parametrize("name", ["address.stret", "id.x", "tags.k", "address."])
def test_a_mask_of_a_field_that_there_is_not_is_refused(tmp_path: Path, name: str) -> None:
    pq.write_table(nested_table(), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"columns\.mask: no (field|column)"):
        extract(tmp_path, columns={"mask": {name: "null"}})


def test_a_mask_within_a_masked_field_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([{"b": {"c": 1}}])}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"'a\.b\.c' lies within 'a\.b', which is masked"):
        extract(tmp_path, columns={"mask": {"a.b": "redact", "a.b.c": "null"}})


def addressed(folder: Path, number: int, **address: Any) -> None:
    kinds = {"street": pa.string(), "zip": pa.int32(), "city": pa.string(), "wide": pa.int64()}
    fields = [(name.replace("wide", "zip"), kinds[name]) for name in address]
    values = {name.replace("wide", "zip"): value for name, value in address.items()}
    column = pa.array([[values], None], pa.list_(pa.struct(fields)))
    pq.write_table(pa.table({"n": [number, -number], "a": column}), folder / f"{number}.parquet")


def test_fields_are_added_dropped_and_widened_as_columns_are(tmp_path: Path) -> None:
    """With `mode: full` and `append`, each run knows only the columns of the files there are."""
    new_files = {"on_schema_change": {"widened": "new_files"}}

    def run(number: int, more: dict[str, Any], **address: Any) -> list[str]:
        for older in tmp_path.glob("*.parquet"):
            older.unlink()
        addressed(tmp_path, number, **address)
        spec = files_spec(tmp_path, "*.parquet", run_id=str(number))
        data = spec.model_dump() | more
        data["target"]["write_mode"] = "append"
        report = run_extract(ExtractSpec.model_validate(data))
        return [str(change) for change in report.schema_changes]

    assert run(1, {}, street="x", zip=1) == []
    assert run(2, {}, zip=2, street="y", city="c") == [
        "column a.city added (string); extracted",
        "column a reordered: street, zip to zip, street; files keep the order that they had",
    ]
    assert run(3, {}, street="z", wide=3) == [
        "column a.zip widened: int32 to int64; written as int32, where values fit",
        "column a.city dropped (string); written as NULL",
        "column a reordered: zip, street to street, zip; files keep the order that they had",
    ]
    with pytest.raises(TypeNotRepresentable, match=r"column 'a\.zip' is int64 now and int32 in"):
        run(4, {}, street="z", wide=2**40)
    assert run(5, new_files, street="z", wide=2**40) == [
        "column a.zip widened: int32 to int64; written as int64, older files keep int32"
    ]
    wanted = {
        1: {"street": "x", "zip": 1, "city": None},
        2: {"street": "y", "zip": 2, "city": "c"},
        3: {"street": "z", "zip": 3, "city": None},
        5: {"street": "z", "zip": 2**40, "city": None},
    }
    target = f"{tmp_path}/_out/t"
    widest = pq.read_schema(files_of(target)[-1])
    newest = ds.dataset(files_of(target), schema=widest).to_table().to_pylist()
    for rows in (by_duckdb(target), newest):
        assert {row["n"]: row["a"] for row in rows} == {
            **{n: [a] for n, a in wanted.items()},
            **dict.fromkeys([-n for n in wanted]),
        }
