# ruff: noqa: DTZ001  naive timestamps are a type of their own here

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.masks import MaskKey
from extract_jobs.transform.partitions import folder
from extract_jobs.transform.transform import (
    PartitionField,
    Transform,
    choose_columns,
    parse_partitions,
)
from tests.support.specs import make_columns, make_description, make_spec

NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)


def build(schema: pa.Schema, spec: ExtractSpec) -> Transform:
    columns = choose_columns(make_description(schema), spec)
    return Transform.build(
        columns, spec, run_id=spec.run_id, extracted_at=NOW, extract_date=NOW.date()
    )


def one_column(values: pa.Array) -> pa.RecordBatch:
    return pa.record_batch({"c": values})


def cast_one(values: pa.Array, to: str) -> pa.Array:
    batch = one_column(values)
    return build(batch.schema, make_spec(columns={"cast": {"c": to}})).apply(batch).column("c")


def keys(values: pa.Array, partition: str, **overrides: Any) -> list[str | None]:
    batch = one_column(values)
    spec = make_spec(target={"partition_by": [partition]}, **overrides)
    [array] = build(batch.schema, spec).partition_keys(batch)
    return array.cast(pa.string()).to_pylist()


def chosen(names: list[str], **columns: Any) -> list[str]:
    schema = pa.schema([(n, pa.int64()) for n in names])
    return [c.name for c in choose_columns(make_description(schema), make_spec(columns=columns))]


def refusal(names: list[str], **overrides: Any) -> str:
    schema = pa.schema([(n, pa.string()) for n in names])
    with pytest.raises(ConfigError) as caught:
        choose_columns(make_description(schema), make_spec(**overrides))
    return str(caught.value)


def test_exclude_wins_over_include_and_source_order_is_kept() -> None:
    names = ["id", "a_1", "b", "a_2"]
    assert chosen(names, include=["a_*", "id"], exclude=["*_2"]) == ["id", "a_1"]


def test_globs_are_case_sensitive() -> None:
    assert chosen(["Id", "id"], include=["I*"]) == ["Id"]


def test_a_column_spelled_like_a_glob_matches_only_itself() -> None:
    assert chosen(["a[1]", "a1", "b"], include=["a[1]"]) == ["a[1]"]


@pytest.mark.parametrize(
    ("names", "pattern", "expected"),
    [
        (["a*", "ab"], "a*", ["a*"]),
        (["a1", "a[0-9]b"], "a[0-9]*", ["a[0-9]b"]),
        (["a1", "a[1]", "a[1]x"], "a[1]*", ["a[1]", "a[1]x"]),
        (["a?b", "axb"], "a?b", ["a?b"]),
        (["x\ny", "xy"], "x*y", ["x\ny", "xy"]),
        (["a.b", "axb"], "a.*", ["a.b"]),
        (["(a|b)+", "ab"], "(*", ["(a|b)+"]),
        (["é", "e\u0301"], "?", ["é"]),
    ],
)
def test_globs_are_no_regular_expressions(
    names: list[str], pattern: str, expected: list[str]
) -> None:
    assert chosen(names, include=[pattern]) == expected


@pytest.mark.parametrize("pattern", ["[ab]_secret", "[ab]*", "[!c]?"])
def test_a_glob_that_may_mean_a_set_of_characters_is_refused(pattern: str) -> None:
    for keys in ({"include": ["c", pattern]}, {"exclude": [pattern]}):
        with pytest.raises(ConfigError, match=r"\[ is an ordinary character here"):
            chosen(["a_secret", "c"], **keys)


@given(st.lists(st.text(min_size=1, max_size=4), min_size=2, unique_by=str.casefold))
def test_excluding_a_column_by_its_name_excludes_only_that_one(names: list[str]) -> None:
    names = [name for name in names if name.casefold() not in ("_run_id", "_extracted_at")]
    for name in names[1:]:
        assert chosen(names, exclude=[name]) == [n for n in names if n != name]


def test_columns_may_swap_their_names() -> None:
    batch = pa.record_batch({"a": pa.array([1]), "b": ["x"], "c": pa.array([2])})
    swapped = {"rename": {"a": "b", "b": "a"}, "mask": {"a": "null"}, "cast": {"c": "string"}}
    made = build(batch.schema, make_spec(columns=swapped))
    [row] = made.apply(batch).drop_columns(["_run_id", "_extracted_at"]).to_pylist()
    assert row == {"b": None, "a": "x", "c": "2"}
    in_path = build(
        batch.schema, make_spec(columns=swapped | {"mask": {}}, target={"partition_by": ["a"]})
    )
    assert in_path.schema.names == ["a", "c", "_run_id", "_extracted_at"]
    assert in_path.partitions == (PartitionField("b", "a"),)
    assert in_path.apply(batch).column("a").to_pylist() == ["x"]
    assert in_path.partition_keys(batch)[0].to_pylist() == ["1"]


def test_a_glob_may_match_nothing_but_a_table_may_not_lose_all_columns() -> None:
    assert chosen(["a"], exclude=["secret*"]) == ["a"]
    assert "no column is left of 'a'" in refusal(["a"], columns={"exclude": ["*"]})


def test_unknown_names_are_reported_at_once_with_the_nearest() -> None:
    message = refusal(
        ["amount", "created_at", "Customer"],
        mode="incremental",
        watermark={"column": "updated_at"},
        columns={
            "include": ["amuont", "*"],
            "exclude": ["creatd_at"],
            "rename": {"customer": "x"},
            "cast": {"amounts": "string"},
            "mask": {"zzz": "null"},
        },
        target={"partition_by": ["day(created_att)"]},
    )
    for expected in [
        "columns.include: no column 'amuont' (nearest: amount",
        "columns.exclude: no column 'creatd_at' (nearest: created_at",
        "columns.rename: no column 'customer' (nearest: Customer",
        "columns.cast: no column 'amounts' (nearest: amount",
        "columns.mask: no column 'zzz' (columns: amount, created_at, Customer",
        "target.partition_by: no column 'created_att' (nearest: created_at",
        "watermark.column: no column 'updated_at' (nearest: created_at",
        "sales/public.orders: ",
    ]:
        assert expected in message


def test_names_that_collide_are_reported_with_both_origins() -> None:
    assert "column 'Id' and column 'id' would have the same name" in refusal(["Id", "id"])
    assert "column 'id' and column 'id' would have the same name" in refusal(["id", "id"])
    renamed = refusal(["a", "b"], columns={"rename": {"b": "A"}})
    assert "column 'a' and column 'b' (renamed to 'A') would have the same name" in renamed
    assert "column '_RUN_ID' and the audit column '_run_id'" in refusal(["_RUN_ID"])
    by_run = refusal(["Extract_Date"], target={"partition_by": ["extract_date"]})
    assert "column 'Extract_Date' and the partition 'extract_date'" in by_run


def test_casts_and_partitions_that_cannot_be_are_reported_at_once() -> None:
    schema = pa.schema(
        [
            ("f", pa.float64()),
            ("l", pa.list_(pa.int32())),
            ("d", pa.date32()),
            ("b", pa.binary()),
            ("e", pa.date32()),
            ("m", pa.list_(pa.int32())),
        ]
    )
    spec = make_spec(
        columns={"cast": {"f": "varchar", "l": "string", "d": "int32"}},
        target={"partition_by": ["m", "hour(e)", "b"]},
    )
    with pytest.raises(ConfigError) as caught:
        choose_columns(make_description(schema), spec)
    for expected in ["no such type; the types are string,", "which has no cast to string",
                     "which has no cast to int32", "m cannot use type list",
                     "hour(e) cannot use type date32", "b cannot use type binary"]:  # fmt: skip
        assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["decimal(39,2)", "decimal(2,3)", "decimal(0,0)", "decimal"])
def test_decimals_beyond_38_digits_are_no_types(name: str) -> None:
    assert "no such type" in refusal(["a"], columns={"cast": {"a": name}})


def test_float_partitions_are_refused() -> None:
    with pytest.raises(ConfigError, match="c cannot use type double"):
        keys(pa.array([1.5]), "c")


def test_partitions_over_masked_or_left_out_columns_are_refused() -> None:
    masked = refusal(["a"], columns={"mask": {"a": "redact"}}, target={"partition_by": ["a"]})
    assert "'a' is masked, so all its rows would be in one folder" in masked
    left_out = refusal(["a", "b"], columns={"exclude": ["a"]}, target={"partition_by": ["a"]})
    assert "'a' is left out" in left_out


def test_the_watermark_column_must_be_extracted() -> None:
    message = refusal(["a", "b"], columns={"exclude": ["a"]}, watermark={"column": "a"})
    assert "watermark.column: 'a' is left out" in message


def test_partition_fields_are_named_after_column_and_function() -> None:
    assert parse_partitions(["c", "day(created at)", "extract_date", "run_id"]) == (
        PartitionField("c", "c"),
        PartitionField("created at_day", "created at", "day"),
        PartitionField("extract_date"),
        PartitionField("run_id"),
    )


def test_the_schema_of_the_files() -> None:
    schema = pa.schema([
        pa.field("id", pa.int64(), nullable=False), ("day", pa.date32()),
        ("ts", pa.timestamp("ms", "Europe/Zurich")), ("t", pa.timestamp("s")), ("s", pa.string()),
    ])  # fmt: skip
    spec = make_spec(
        columns={"rename": {"s": "text", "day": "d"}, "cast": {"id": "string"}},
        target={"partition_by": ["day"]},
    )
    made = build(schema, spec)
    assert made.schema == pa.schema([
        ("id", pa.string()), ("ts", pa.timestamp("us", "UTC")), ("t", pa.timestamp("us")),
        ("text", pa.string()), ("_run_id", pa.string()),
        ("_extracted_at", pa.timestamp("us", "UTC")),
    ])  # fmt: skip
    assert made.partitions == (PartitionField("d", "day"),)
    assert made.schema.field("id").metadata == {b"extract.source_type": b"int64"}


def test_apply_keeps_every_row_and_adds_the_audit_columns() -> None:
    batch = pa.record_batch({"a": pa.array([1, None, 3]), "b": ["x", "y", None]})
    made = pickle.loads(pickle.dumps(build(batch.schema, make_spec(run_id="r7"))))
    out = made.apply(batch)
    assert out.schema == made.schema
    assert out.to_pylist() == [
        {"a": a, "b": b, "_run_id": "r7", "_extracted_at": NOW}
        for a, b in [(1, "x"), (None, "y"), (3, None)]
    ]


def test_masks() -> None:
    batch = pa.record_batch({
        "name": ["Ann", None], "born": pa.array([date(2000, 1, 1)] * 2), "mail": ["a@b", "c@d"],
        "pin": ["12x", "34"],
    })  # fmt: skip
    spec = make_spec(columns={
        "mask": {"name": "redact", "born": "redact", "mail": "null", "pin": "null"},
        "cast": {"pin": "int32"},
    })  # fmt: skip
    out = build(batch.schema, spec).apply(batch).drop_columns(["_run_id", "_extracted_at"])
    assert out.to_pylist() == [
        {"name": "***", "born": None, "mail": None, "pin": None},
        {"name": None, "born": None, "mail": None, "pin": None},
    ]
    assert out.schema.field("pin").type == pa.int32()


@pytest.mark.parametrize(
    ("values", "to", "expected"),
    [
        (pa.array(["1.50", None]), "decimal(10,2)", [Decimal("1.50"), None]),
        (pa.array([7]), "decimal(3,1)", [Decimal("7.0")]),
        (pa.array([7]), "decimal(38,30)", [Decimal(7)]),
        (pa.array([0.5]), "decimal(3,1)", [Decimal("0.5")]),
        (pa.array([Decimal("1.5")]), "float64", [1.5]),
        (pa.array(["inf", "1.5"]), "float32", [float("inf"), 1.5]),
        (pa.array([1, 0]), "boolean", [True, False]),
        (pa.array(["true", "0"]), "boolean", [True, False]),
        (pa.array([datetime(2026, 1, 2)], pa.timestamp("us")), "date", [date(2026, 1, 2)]),
        (pa.array(["2026-01-02T03:04:05.6+02:00"]), "timestamptz",
         [datetime(2026, 1, 2, 1, 4, 5, 600000, UTC)]),
        (pa.array([date(1500, 1, 2)]), "timestamp", [datetime(1500, 1, 2)]),
        (pa.array([Decimal("1.50")]), "string", ["1.50"]),
        (pa.array(["x"]), "binary", [b"x"]),
        (pa.array([127]), "int8", [127]),
        (pa.array([], pa.int64()), "boolean", []),
        (pa.array([None, None], pa.int64()), "boolean", [None, None]),
    ],
)  # fmt: skip
def test_casts(values: pa.Array, to: str, expected: list[Any]) -> None:
    assert cast_one(values, to).to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "to"),
    [
        (pa.array(["secret42x"]), "int64"),
        (pa.array([4242]), "int8"),
        (pa.array([42.5]), "int32"),
        (pa.array([42.5]), "decimal(10,0)"),
        (pa.array([Decimal("42.55")]), "decimal(10,1)"),
        (pa.array([4242]), "decimal(3,0)"),
        (pa.array([2**53 + 1]), "float64"),
        (pa.array([1e300]), "float32"),
        (pa.array(["1e4242"]), "float64"),
        (pa.array([42]), "boolean"),
        (pa.array([datetime(2042, 1, 2, 3)], pa.timestamp("us")), "date"),
        (pa.array(["2042-01-02 03:04:05"]), "timestamptz"),
        (pa.array([b"\xff42"]), "string"),
    ],
)
def test_a_value_that_cannot_be_cast_is_refused_and_not_shown(values: pa.Array, to: str) -> None:
    with pytest.raises(TypeNotRepresentable) as caught:
        cast_one(values, to)
    message = str(caught.value)
    assert "column 'c'" in message
    assert str(values.type) in message
    assert "42" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


HASH = {"mask": {"c": "hash"}, "mask_key": {"env": "K"}}


def test_a_hash_is_text_of_what_the_cast_gives_and_may_name_folders() -> None:
    key = MaskKey.of("k" * 16, "test")
    batch = one_column(pa.array(["1.50", None]))
    spec = make_spec(columns=HASH | {"cast": {"c": "decimal(9,2)"}}, target={"partition_by": ["c"]})
    made = Transform.build(
        choose_columns(make_description(batch.schema), spec), spec,
        run_id="r", extracted_at=NOW, extract_date=NOW.date(), mask_key=key,
    )  # fmt: skip
    [folders] = made.partition_keys(batch)
    assert folders.cast(pa.string()) == key.hashed(pa.array(["1.5", None]))
    assert "k" * 16 not in repr(made)
    with pytest.raises(TypeNotRepresentable) as caught:
        made.partition_keys(one_column(pa.array(["secret"])))
    assert "secret" not in str(caught.value)


def test_a_layout_orders_types_and_fills() -> None:
    batch = pa.record_batch({"n": pa.array([1], pa.int64()), "d": [date(2026, 1, 2)]})
    layout = pa.schema([("gone", pa.string()), ("d", pa.timestamp("us")), ("n", pa.int32())])
    spec = make_spec()
    made = Transform.build(
        choose_columns(make_description(batch.schema), spec), spec,
        run_id="r", extracted_at=NOW, extract_date=NOW.date(), layout=layout,
    )  # fmt: skip
    assert made.schema.names == ["gone", "d", "n", "_run_id", "_extracted_at"]
    assert made.schema.field("n").metadata == {b"extract.source_type": b"int64"}
    [row] = made.apply(batch).select(["gone", "d", "n"]).to_pylist()
    assert row == {"gone": None, "d": datetime(2026, 1, 2), "n": 1}
    assert [a.to_pylist() for a in made.stored(batch, ["n"])] == [[1]]
    wide = pa.record_batch({"n": pa.array([2**40]), "d": batch.column("d")})
    with pytest.raises(TypeNotRepresentable, match="'n' is int64 now and int32 in the files"):
        made.apply(wide)


def test_timestamps_finer_than_microseconds_are_refused() -> None:
    batch = one_column(pa.array([1], pa.timestamp("ns")))
    with pytest.raises(TypeNotRepresentable, match="timestamp"):
        build(batch.schema, make_spec()).apply(batch)


def test_a_batch_of_another_shape_is_refused() -> None:
    made = build(pa.schema([("a", pa.int64())]), make_spec())
    with pytest.raises(TypeNotRepresentable, match="expected int64, the source gave int32"):
        made.apply(pa.record_batch({"a": pa.array([1], pa.int32())}))
    with pytest.raises(TypeNotRepresentable, match="expected columns"):
        made.apply(pa.record_batch({"b": pa.array([1])}))


ZURICH = pa.timestamp("us", "Europe/Zurich")


@pytest.mark.parametrize(
    ("values", "partition", "expected"),
    [
        (pa.array([-5, None, 12]), "c", ["-5", None, "12"]),
        (pa.array([True, False]), "c", ["true", "false"]),
        (pa.array([date(2026, 1, 31), date(1500, 2, 3)]), "c", ["2026-01-31", "1500-02-03"]),
        (pa.array([Decimal("1.50")]), "c", ["1.50"]),
        (pa.array(["a b", "ü", "x=y"]), "c", ["a b", "ü", "x=y"]),
        (pa.array([0, 500_000, 1_000_001], pa.timestamp("us")), "c",
         ["1970-01-01 00:00:00", "1970-01-01 00:00:00.5", "1970-01-01 00:00:01.000001"]),
        (pa.array([0], ZURICH), "c", ["1970-01-01 00:00:00"]),
        (pa.array([datetime(2026, 1, 31, 23, 59, 59, 999999), None], pa.timestamp("us")),
         "year(c)", ["2026", None]),
        (pa.array([datetime(2026, 1, 31, 23)], pa.timestamp("us")), "month(c)", ["2026-01"]),
        (pa.array([datetime(1969, 12, 31, 23)], pa.timestamp("us")), "day(c)", ["1969-12-31"]),
        (pa.array([datetime(2026, 1, 31, 13, 59)], pa.timestamp("us")), "hour(c)",
         ["2026-01-31-13"]),
        (pa.array([datetime(2026, 1, 31, 23, 30, tzinfo=UTC)], ZURICH), "hour(c)",
         ["2026-01-31-23"]),
        (pa.array([date(2026, 1, 31), date(2026, 2, 1)]), "month(c)", ["2026-01", "2026-02"]),
        (pa.array([1, 2]), "extract_date", ["2026-03-04", "2026-03-04"]),
        (pa.array([1]), "run_id", ["run-1"]),
    ],
)  # fmt: skip
def test_partition_values(values: pa.Array, partition: str, expected: list[str | None]) -> None:
    assert keys(values, partition) == expected


def test_partition_values_are_of_the_cast_column() -> None:
    spec = {"columns": {"cast": {"c": "timestamptz"}}}
    assert keys(pa.array(["2026-01-01T00:30:00+02:00"]), "day(c)", **spec) == ["2025-12-31"]


@pytest.mark.parametrize("text", ["", "__HIVE_DEFAULT_PARTITION__"])
def test_a_text_that_no_folder_can_spell_is_null_only_by_permission(text: str) -> None:
    with pytest.raises(TypeNotRepresentable, match="lossy_types: null"):
        keys(pa.array(["a", text]), "c")
    assert keys(pa.array(["a", text, None]), "c", lossy_types="null") == ["a", None, None]


@pytest.mark.parametrize("function", ["year", "month", "day", "hour"])
@pytest.mark.parametrize("microseconds", [316_516_204_800_000_000, -124_334_438_400_000_000])
def test_a_year_without_four_digits_has_no_folder(function: str, microseconds: int) -> None:
    """Cut to length, 12000-01 would be in the folder of the year 1200."""
    values = pa.array([0, microseconds, None], pa.timestamp("us"))
    with pytest.raises(
        TypeNotRepresentable, match=f"a year below 0 or above 9999, for which {function}"
    ):
        keys(values, f"{function}(c)")
    [first, *others] = keys(values, f"{function}(c)", lossy_types="null")
    assert first is not None
    assert first.startswith("1970")
    assert others == [None, None]


def test_folders_are_escaped_as_hive_does() -> None:
    assert folder({"a=b": "x/y%{}[]^\\:*?'\"#\t\x7f=é +&", "n": None}) == (
        "a%3Db=x%2Fy%25%7B}%5B%5D%5E%5C%3A%2A%3F%27%22%23%09%7F%3Dé +&/n=__HIVE_DEFAULT_PARTITION__"
    )


@given(st.lists(st.one_of(st.none(), st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)))))
def test_day_partitions_say_what_python_says(moments: list[datetime | None]) -> None:
    assert keys(pa.array(moments, pa.timestamp("us")), "day(c)") == [
        m and f"{m:%Y-%m-%d}".rjust(10, "0") for m in moments
    ]


def test_make_columns_spells_types_as_arrow_does() -> None:
    [column] = make_columns(pa.schema([("a b", pa.int8())]))
    assert (column.source_type, column.expression) == ("int8", '"a b"')
