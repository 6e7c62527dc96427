from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract_jobs.attempt.attempt import make_transform
from extract_jobs.commit.record import Commit
from extract_jobs.errors import SchemaChanged, TypeNotRepresentable
from extract_jobs.planning.schema_change import Drift, columns_after, find_drift, schema_json
from extract_jobs.schema import Column
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.casts import keep
from extract_jobs.transform.columns import AUDIT_FIELDS
from tests.support.nested_values import values_of
from tests.support.sampling import examples
from tests.support.specs import make_spec

PAGE = Path(__file__).parents[2] / "docs" / "schema-change.md"
KINDS = ["added", "dropped", "widened", "narrowed", "reordered", "nullability"]
POLICIES = ["evolve", "freeze", "fail"]
Fields = list[pa.Field]

A, B = pa.field("a", pa.int32()), pa.field("b", pa.string())
CHANGES: dict[str, tuple[Fields, Fields]] = {
    "added": ([A], [A, B]),
    "dropped": ([A, B], [A]),
    "widened": ([A], [pa.field("a", pa.int64())]),
    "narrowed": ([pa.field("a", pa.int64())], [A]),
    "reordered": ([A, B], [B, A]),
    "nullability": ([A], [pa.field("a", pa.int32(), nullable=False)]),
}
"""One change of each kind: the source's columns before and after."""


def table_of(spec: ExtractSpec, fields: Fields) -> tuple[tuple[Column, ...], pa.Schema]:
    """Return columns, and the schema that files would have of them."""
    columns = tuple(
        Column(f.name, str(f.type), f.type, f.nullable, "lossless", "", f.name) for f in fields
    )
    rename = spec.columns.rename
    named = [pa.field(rename.get(f.name, f.name), f.type) for f in fields]
    return columns, pa.schema([*named, *AUDIT_FIELDS])


def drift_of(spec: ExtractSpec, last: Commit | None, fields: Fields) -> Drift:
    return find_drift(spec, last, *table_of(spec, fields))


def commit_of(spec: ExtractSpec, last: Commit | None, drift: Drift) -> Commit:
    drift.check(spec, last)
    schema = schema_json(pa.schema([*drift.layout, *AUDIT_FIELDS]))
    first = Commit(
        commit_id="c", seq=0, parent=0, live_since=0, run_id="r", attempt=1, table_id="t",
        target_uri="x", fingerprint={}, interval=None, watermark=None, schema=[], files=(),
        retire=(), report={},
    )  # fmt: skip
    return replace(
        first,
        seq=1 + (last.seq if last else 0),
        schema=schema,
        columns=columns_after(spec, last, schema),
        source_columns=drift.source,
    )


def spec_of(policy: Any, write_mode: str = "append", **more: Any) -> ExtractSpec:
    target = {"write_mode": write_mode}
    return make_spec(on_schema_change=policy, target=target, **more)


def committed(fields: Fields, **more: Any) -> Commit:
    spec = spec_of("evolve", **more)
    return commit_of(spec, None, drift_of(spec, None, fields))


def changes_of(drift: Drift) -> list[str]:
    return [change.difference for change in drift.changes]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_reported_and_fail_refuses_it(kind: str) -> None:
    before, after = CHANGES[kind]
    last = committed(before)
    for policy in POLICIES:
        drift = drift_of(spec_of({kind: policy}), last, after)
        assert [change.kind for change in drift.changes] == [kind]
        assert bool(drift.refused) == (policy == "fail")
    with pytest.raises(SchemaChanged, match=rf"since commit 1: .*on_schema_change.{kind} is fail"):
        drift.check(spec_of("fail"), last)


def effect(kind: str, policy: str, write_mode: str) -> str:
    before, after = CHANGES[kind]
    drift = drift_of(spec_of(policy, write_mode), committed(before), after)
    [change] = drift.changes
    return "refused" if drift.refused else change.effect


def test_the_page_says_what_the_code_does() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for write_mode in ("append", "overwrite"):
        for kind in KINDS:
            effects = [effect(kind, policy, write_mode) for policy in POLICIES]
            row = f"| `{kind}` | {' | '.join(effects)} |"
            section = text.split(f"### {write_mode}")[1].split("###")[0]
            assert row in section, f"{write_mode}: {row}"


def test_a_column_keeps_its_type_beside_older_files_and_takes_the_new_one_in_their_place() -> None:
    last = committed([A])
    wide = [pa.field("a", pa.int64())]
    assert drift_of(spec_of("evolve"), last, wide).layout.field("a").type == pa.int32()
    replaced = drift_of(spec_of("evolve", "overwrite"), last, wide)
    assert replaced.layout.field("a").type == pa.int64()
    frozen = drift_of(spec_of("freeze", "overwrite"), last, wide)
    assert frozen.layout.field("a").type == pa.int32()


@pytest.mark.parametrize("policy", ["evolve", "freeze"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (pa.int32(), pa.string()),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.decimal128(9, 2), pa.float64()),
        (pa.list_(pa.int32()), pa.int32()),
        (pa.struct([("x", pa.int32())]), pa.map_(pa.string(), pa.int32())),
        (pa.bool_(), pa.int32()),
    ],
)
def test_types_that_say_another_thing_are_refused(
    old: pa.DataType, new: pa.DataType, policy: str
) -> None:
    drift = drift_of(spec_of(policy), committed([pa.field("a", old)]), [pa.field("a", new)])
    assert drift.refused == (f"column a is {old} in older files and now {new}",)


PROMOTIONS = [
    (pa.int16(), pa.int32()),
    (pa.int32(), pa.int64()),
    (pa.float32(), pa.float64()),
    (pa.decimal128(9, 2), pa.decimal128(12, 2)),
]


@pytest.mark.parametrize(("old", "new"), PROMOTIONS, ids=str)
def test_new_files_have_the_wider_type_if_that_is_asked_for(
    old: pa.DataType, new: pa.DataType
) -> None:
    spec, last = spec_of({"widened": "new_files"}), committed([pa.field("a", old)])
    wider = drift_of(spec, last, [pa.field("a", new)])
    assert [str(change) for change in wider.changes] == [
        f"column a widened: {old} to {new}; written as {new}, older files keep {old}"
    ]
    last = commit_of(spec, last, wider)
    assert last.columns["a"] == str(new)
    assert drift_of(spec, last, [pa.field("a", new)]).changes == ()
    # A file's type never narrows again, whatever the source does.
    narrower = drift_of(spec_of({"narrowed": "evolve"}), last, [pa.field("a", old)])
    assert narrower.layout.field("a").type == new
    assert narrower.changes[0].effect == f"written as {new}, where values fit"


def test_new_files_can_be_asked_for_after_the_change() -> None:
    wide = [pa.field("a", pa.int64())]
    evolve, last = spec_of("evolve"), committed([A])
    last = commit_of(evolve, last, drift_of(evolve, last, wide))
    assert last.columns["a"] == "int32"
    spec = spec_of({"widened": "new_files"})
    assert changes_of(drift_of(spec, last, wide)) == ["column a widened: int32 to int64"]
    assert drift_of(spec, last, wide).layout.field("a").type == pa.int64()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (pa.int32(), pa.float64()),
        (pa.int32(), pa.decimal128(12, 0)),
        (pa.decimal128(9, 2), pa.decimal128(12, 4)),
        (pa.date32(), pa.timestamp("us")),
    ],
    ids=str,
)
def test_a_type_that_readers_do_not_take_for_the_older_one_is_written_as_before(
    old: pa.DataType, new: pa.DataType
) -> None:
    spec, last = spec_of({"widened": "new_files"}), committed([pa.field("a", old)])
    drift = drift_of(spec, last, [pa.field("a", new)])
    assert drift.layout.field("a").type == old
    assert drift.changes[0].effect == f"written as {old}, where values fit"


def test_only_a_widened_column_can_have_new_files() -> None:
    for policy in ("new_files", {"added": "new_files"}):
        with pytest.raises(ValueError, match="'evolve', 'freeze' or 'fail'"):
            spec_of(policy)


def test_new_files_of_a_table_that_is_replaced_are_all_files() -> None:
    drift = drift_of(
        spec_of({"widened": "new_files"}, "overwrite"), committed([A]), [pa.field("a", pa.int64())]
    )
    assert drift.changes[0].effect == "written as int64"


def struct_of(*fields: Any) -> pa.Field:
    return pa.field("s", pa.struct(fields))


X, Y = ("x", pa.int32()), ("y", pa.string())
INNER: dict[str, tuple[pa.Field, pa.Field]] = {
    "added": (struct_of(X), struct_of(X, Y)),
    "dropped": (struct_of(X, Y), struct_of(X)),
    "widened": (struct_of(X), struct_of(("x", pa.int64()))),
    "narrowed": (struct_of(("x", pa.int64())), struct_of(X)),
    "reordered": (struct_of(X, Y), struct_of(Y, X)),
}
"""One change of each kind inside of a struct."""


def nested(data_type: pa.DataType, how: str) -> pa.DataType:
    deeper = pa.struct([("z", data_type)])
    return {
        "s": data_type, "list": pa.list_(pa.list_(data_type)), "s.z": deeper,
        "s.value": pa.map_(pa.string(), data_type),
    }[how]  # fmt: skip


@pytest.mark.parametrize("how", ["s", "list", "s.z", "s.value"])
@pytest.mark.parametrize("kind", INNER)
def test_fields_follow_the_rules_of_columns_at_every_depth(kind: str, how: str) -> None:
    """As if they were columns: the same changes, effects, refusals and types."""
    path = "s" if how == "list" else how
    for policy in POLICIES:
        for write_mode in ("append", "overwrite"):
            spec = spec_of(policy, write_mode)
            before, after = ([pa.field("s", nested(f.type, how))] for f in INNER[kind])
            inner = drift_of(spec, committed(before), after)
            flat_before, flat_after = (list(f.type) for f in INNER[kind])
            flat = drift_of(spec, committed(flat_before), flat_after)
            wanted = [
                change.model_copy(
                    update={"column": f"{path}.{change.column}" if change.column else path}
                )
                for change in flat.changes
            ]
            assert list(inner.changes) == wanted
            assert bool(inner.refused) == bool(flat.refused)
            assert inner.layout.field("s").type == nested(pa.struct(list(flat.layout)), how)


def test_what_is_refused_inside_is_named_by_its_path() -> None:
    before = struct_of(X, ("deep", pa.list_(pa.struct([("a", pa.int32())]))))
    after = struct_of(("x", pa.string()), ("deep", pa.list_(pa.struct([("a", pa.bool_()), Y]))))
    drift = drift_of(spec_of({"narrowed": "evolve"}), committed([before]), [after])
    assert drift.refused == (
        "column s.x is int32 in older files and now string",
        "column s.deep.a is int32 in older files and now bool",
    )
    upper = drift_of(spec_of("evolve"), committed([struct_of(X)]), [struct_of(("X", pa.int32()))])
    assert "column s.X differs from s.x of older files only in its case" in upper.refused


def test_a_field_that_is_frozen_out_is_let_in_later() -> None:
    last = committed([struct_of(X)])
    freeze, evolve = spec_of("freeze"), spec_of("evolve")
    last = commit_of(freeze, last, drift_of(freeze, last, [struct_of(X, Y)]))
    assert last.columns["s"] == "struct<x: int32>"
    assert drift_of(freeze, last, [struct_of(X, Y)]).changes == ()
    thawed = drift_of(evolve, last, [struct_of(X, Y)])
    assert changes_of(thawed) == ["column s.y added (string)"]


def test_keys_of_maps_and_items_of_lists_are_widened_too() -> None:
    spec = spec_of({"widened": "new_files"})
    before = [pa.field("m", pa.map_(pa.int32(), pa.list_(pa.int16())))]
    after = [pa.field("m", pa.map_(pa.int64(), pa.list_(pa.int32())))]
    drift = drift_of(spec, committed(before), after)
    assert changes_of(drift) == [
        "column m.key widened: int32 to int64",
        "column m.value widened: int16 to int32",
    ]
    assert drift.layout.field("m").type == after[0].type


NESTED = st.recursive(
    st.sampled_from([pa.int32(), pa.int64()]),
    lambda inner: st.one_of(
        inner.map(pa.list_),
        inner.map(lambda item: pa.map_(pa.string(), item)),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(
            lambda fields: pa.struct(list(fields.items()))
        ),
    ),
    max_leaves=6,
).filter(pa.types.is_nested)


def with_fields_of(kind: pa.DataType, value: Any) -> Any:
    """Return a nested value with the fields of a type alone, in their order."""
    if value is None or not pa.types.is_nested(kind):
        return value
    if pa.types.is_struct(kind):
        return {field.name: with_fields_of(field.type, value[field.name]) for field in kind}
    if pa.types.is_map(kind):
        return [(key, with_fields_of(kind.item_type, item)) for key, item in value]
    return [with_fields_of(kind.value_type, item) for item in value]


@settings(max_examples=examples(40), deadline=None)
@given(st.data(), NESTED, NESTED, st.sampled_from(["evolve", {"widened": "new_files"}]))
def test_no_value_of_a_field_is_lost_whatever_the_type_was_before(
    data: st.DataObject, before: pa.DataType, after: pa.DataType, policy: Any
) -> None:
    last = committed([pa.field("s", before)])
    drift = drift_of(spec_of(policy), last, [pa.field("s", after)])
    if drift.refused:
        return
    target = drift.layout.field("s").type
    array = pa.array(data.draw(st.lists(values_of(after), max_size=4)), after)
    try:
        found = keep(array, target, "s")
    except TypeNotRepresentable:
        return
    found.validate(full=True)
    assert [with_fields_of(after, value) for value in found.to_pylist()] == array.to_pylist()
    last = commit_of(spec_of(policy), last, drift)
    assert drift_of(spec_of(policy), last, [pa.field("s", after)]).changes == ()


def test_hashes_inside_do_not_mix_with_raw_numbers() -> None:
    masks = {"mask": {"s.x": "hash"}, "mask_key": {"env": "K"}}
    hashed, raw = spec_of("evolve", columns=masks), spec_of({"narrowed": "evolve"})
    columns, _ = table_of(hashed, [struct_of(X)])
    schema = pa.schema([struct_of(("x", pa.string())), *AUDIT_FIELDS])
    first = find_drift(hashed, None, columns, schema, key="0001")
    last = commit_of(hashed, None, first)
    drift = drift_of(raw, last, [struct_of(X)])
    assert drift.refused == ("column s.x is string in older files and now int32",)


def test_a_column_whose_type_cannot_be_read_back_is_remembered_all_the_same() -> None:
    strange = pa.field("s", pa.duration("s"))
    spec, last = spec_of("evolve"), committed([A, strange])
    gone = drift_of(spec, last, [A])
    assert (gone.layout.names, gone.changes[0].effect) == (["a"], "not written")
    last = commit_of(spec, last, gone)
    assert last.columns["s"] == "duration[s]"
    assert drift_of(spec, last, [A, strange]).refused == ()
    [problem] = drift_of(spec, last, [A, pa.field("s", pa.int32())]).refused
    assert problem == "column s is duration[s] in older files and now int32"


def test_names_that_differ_in_case_from_older_files_are_refused() -> None:
    upper = [pa.field("A", pa.int32())]
    spec = spec_of("evolve")
    assert "A differs from a of older files" in drift_of(spec, committed([A]), upper).refused[0]
    assert drift_of(spec_of("evolve", "overwrite"), committed([A]), upper).refused == ()
    assert drift_of(spec_of("freeze"), committed([A]), upper).refused == ()  # left out
    keeps = spec_of({"dropped": "freeze"}, "overwrite")
    assert "differs" in drift_of(keeps, committed([A]), upper).refused[0]


def test_a_rename_is_a_drop_and_an_addition() -> None:
    spec = spec_of("evolve", columns={"rename": {"a": "z"}})
    drift = drift_of(spec, committed([A, B]), [A, B])
    assert changes_of(drift) == ["column z added (int32)", "column a dropped (int32)"]
    assert drift.layout.names == ["a", "b", "z"]


def test_a_policy_that_changes_lets_in_what_it_kept_out() -> None:
    last = committed([A])
    freeze, evolve = spec_of("freeze"), spec_of("evolve")
    frozen = commit_of(freeze, last, drift_of(freeze, last, [A, B]))
    assert drift_of(freeze, frozen, [A, B]).changes == ()
    assert drift_of(spec_of("fail"), frozen, [A, B]).refused == ()  # it was let through, as it is
    thawed = drift_of(evolve, frozen, [A, B])
    assert changes_of(thawed) == ["column b added (string)"]
    assert [c.name for c in thawed.columns] == ["a", "b"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"columns": {"key": ["b"]}}, "columns.key"),
        ({"mode": "incremental", "watermark": {"column": "b"}}, "watermark.column"),
    ],
)
def test_a_column_that_is_left_out_cannot_be_needed(more: dict[str, Any], said: str) -> None:
    [problem] = drift_of(spec_of("freeze", **more), committed([A]), [A, B]).refused
    assert problem == f"column b is left out by on_schema_change.added, but {said} names it"


def test_a_partition_by_a_column_that_is_left_out_is_refused_like_any() -> None:
    at = pa.field("at", pa.timestamp("us"))
    target = {"write_mode": "overwrite", "partition_by": ["day(at)"]}
    spec = make_spec(on_schema_change="freeze", target=target)
    drift = drift_of(spec, committed([A]), [A, at])
    now = datetime(2026, 3, 4, tzinfo=UTC)
    make_transform(spec, drift.columns, now, now, layout=drift.layout)  # as runs do, before `check`
    with pytest.raises(SchemaChanged, match=r"but target\.partition_by names it"):
        drift.check(spec, committed([A]))


def test_masks_are_reported_and_a_hash_does_not_mix_with_raw_numbers() -> None:
    key = {"env": "K"}
    hashed = spec_of("evolve", columns={"mask": {"a": "hash"}, "mask_key": key})
    columns, _ = table_of(hashed, [A])
    schema = pa.schema([("a", pa.string()), *AUDIT_FIELDS])
    first = find_drift(hashed, None, columns, schema, key="0001")
    assert first.source == [
        {"name": "a", "type": "string", "nullable": True, "mask": "hash with key 0001"}
    ]
    last = commit_of(hashed, None, first)
    assert find_drift(hashed, last, columns, schema, key="0001").changes == ()
    assert find_drift(hashed, last, columns, schema).changes == ()  # a preview reads no key
    [change] = find_drift(hashed, last, columns, schema, key="0002").changes
    assert str(change) == (
        "column a masked: hash with key 0001 to hash with key 0002; older files keep what they hold"
    )
    raw = drift_of(spec_of("evolve"), last, [A])
    assert raw.refused == ("column a is string in older files and now int32",)
    plain = find_drift(hashed, committed([A]), columns, schema, key="0001")
    assert plain.refused == ("column a is int32 in older files and now string",)


INCREMENT = {"mode": "incremental", "watermark": {"column": "b"}}


@pytest.mark.parametrize(
    ("write_mode", "key", "more", "refused"),
    [
        ("append", ["a"], INCREMENT, "columns.key"),
        ("append", ["b"], INCREMENT, None),
        ("append", ["a"], {}, None),
        ("overwrite", ["a"], {}, None),
        ("overwrite_partitions", [], {}, "target.partition_by"),
    ],
)
def test_rows_recognized_by_a_hash_need_its_key_again(
    write_mode: str, key: list[str], more: dict[str, Any], refused: str | None
) -> None:
    """With another key the same rows would be other ones, and so be there twice."""
    spec = make_spec(
        columns={"mask": {"a": "hash"}, "mask_key": {"env": "K"}, "key": key},
        target={"write_mode": write_mode, "partition_by": ["a"] if refused and not key else []},
        **more,
    )
    columns, _ = table_of(spec, [A, B])
    hashed = [] if spec.target.partition_by else [("a", pa.string())]
    schema = pa.schema([*hashed, B, *AUDIT_FIELDS])
    last = commit_of(spec, None, find_drift(spec, None, columns, schema, key="0001"))
    last = replace(last, partition_by=spec.target.partition_by)
    assert find_drift(spec, last, columns, schema, key="0001").refused == ()
    found = find_drift(spec, last, columns, schema, key="0002").refused
    assert found == (() if refused is None else found[:1])
    assert not refused or f"so {refused} would not recognize" in found[0]


@pytest.mark.parametrize(
    ("old", "new", "alike"),
    [
        (pa.int32(), pa.int64(), True),
        (pa.int32(), pa.string(), True),
        (pa.decimal128(9, 2), pa.decimal128(12, 2), True),
        (pa.decimal128(9, 2), pa.decimal128(12, 4), False),
        (pa.date32(), pa.timestamp("us"), False),
    ],
)
def test_a_partition_column_may_change_while_folders_are_named_alike(
    old: pa.DataType, new: pa.DataType, alike: bool
) -> None:
    partitioned = {"partition_by": ["p"], "write_mode": "append"}
    spec = make_spec(target=partitioned)
    _, schema = table_of(spec, [A])

    def drift(data_type: pa.DataType, last: Commit | None) -> Drift:
        columns, _ = table_of(spec, [A, pa.field("p", data_type)])
        return find_drift(spec, last, columns, schema)

    last = replace(commit_of(spec, None, drift(old, None)), partition_by=("p",))
    changed = drift(new, last)
    assert [c.column for c in changed.changes] == ["p"]
    assert (changed.refused == ()) == alike
    assert changed.layout.names == ["a"]


def test_a_column_may_move_into_the_path_and_out_when_all_is_replaced() -> None:
    flat = spec_of("freeze", "overwrite")
    deep = make_spec(
        on_schema_change="freeze", target={"partition_by": ["b"], "write_mode": "overwrite"}
    )
    columns, schema = table_of(flat, [A, B])
    without = pa.schema([f for f in schema if f.name != "b"])
    last = commit_of(flat, None, find_drift(flat, None, columns, schema))
    into = find_drift(deep, last, columns, without)
    assert (into.changes, into.layout.names, len(into.columns)) == ((), ["a"], 2)
    last = replace(commit_of(deep, last, into), partition_by=("b",))
    out = find_drift(flat, last, columns, schema)
    assert (out.changes, out.layout.names) == ((), ["a", "b"])


def test_a_reordering_of_many_columns_is_reported_in_short() -> None:
    fields = [pa.field(f"c{n}", pa.int32()) for n in range(300)]
    moved = [fields[0], *fields[2:], fields[1]]
    [change] = drift_of(spec_of("evolve"), committed(fields), moved).changes
    assert change.before == ", ".join([*(f"c{n}" for n in range(1, 21)), "…"])
    assert change.after == ", ".join([*(f"c{n}" for n in range(2, 22)), "…"])


TYPES = [pa.int16(), pa.int32(), pa.int64(), pa.string(), pa.date32(), pa.float64()]
field_lists = st.lists(
    st.tuples(st.sampled_from("abcdAB"), st.sampled_from(TYPES), st.booleans()),
    min_size=1, max_size=5, unique_by=lambda f: f[0].casefold(),
).map(lambda found: [pa.field(*one) for one in found])  # fmt: skip
policies = st.one_of(
    st.sampled_from(["evolve", "freeze"]),
    st.fixed_dictionaries({kind: st.sampled_from(["evolve", "freeze"]) for kind in KINDS}),
)


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.tuples(field_lists, policies), min_size=2, max_size=6))
def test_files_beside_each_other_agree_whatever_happens(
    runs: list[tuple[Fields, Any]],
) -> None:
    """One type and one spelling a name, older columns first, and each change told once."""
    last: Commit | None = None
    for fields, policy in runs:
        spec = spec_of(policy)
        drift = drift_of(spec, last, fields)
        if drift.refused:
            continue
        if last is not None:
            older = [name for name in last.columns if not name.startswith("_")]
            assert drift.layout.names[: len(older)] == older
            assert all(str(drift.layout.field(n).type) == last.columns[n] for n in older)
        names = [name.casefold() for name in drift.layout.names]
        assert len(set(names)) == len(names)
        assert {c.name for c in drift.columns} <= set(drift.layout.names)
        last = commit_of(spec, last, drift)
        assert drift_of(spec, last, fields).changes == ()
        assert drift_of(spec_of("fail"), last, fields).refused == ()


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(field_lists, min_size=2, max_size=5), st.sampled_from(["append", "overwrite"]))
def test_frozen_files_never_change(runs: list[Fields], write_mode: str) -> None:
    spec = spec_of("freeze", write_mode)
    first = drift_of(spec, None, runs[0])
    last = commit_of(spec, None, first)
    for fields in runs[1:]:
        drift = drift_of(spec, last, fields)
        if not drift.refused:
            assert drift.layout == first.layout
            last = commit_of(spec, last, drift)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(field_lists, min_size=2, max_size=4))
def test_an_overwrite_that_evolves_takes_the_table_as_it_is(runs: list[Fields]) -> None:
    spec = spec_of("evolve", "overwrite")
    last: Commit | None = None
    for fields in runs:
        drift = drift_of(spec, last, fields)
        assert drift.refused == ()
        assert [(f.name, f.type) for f in drift.layout] == [(f.name, f.type) for f in fields]
        last = commit_of(spec, last, drift)
