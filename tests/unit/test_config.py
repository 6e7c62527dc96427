"""Source config × event → specs."""

from __future__ import annotations

import copy
import gc
import time
from importlib import import_module
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract_jobs.config import (
    SourceConfig,
    job_settings,
    load_config,
    map_concurrency,
    resolve_tables,
    specs_for,
)
from extract_jobs.config.locations import catalog_name, fill, segment, table_parts
from extract_jobs.config.model import TableConfig
from extract_jobs.config.resolve import merge
from extract_jobs.config.spellings import CAST_TYPES
from extract_jobs.config.worker_sizes import (
    EMR_GB,
    EMR_MOST_GB,
    GlueWorker,
    bigger_glue_worker,
    emr_container_gb,
    emr_worker,
)
from extract_jobs.errors import ConfigError
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.source_types import BUILT_IN
from extract_jobs.transform.types import TYPE_NAMES
from tests.support.sampling import EXHAUSTIVE

HEAD = """\
version: 1
source:
  name: sales
  type: postgres
  connection: {secret_id: lake/sales}
  max_connections: 40
"""
DEFAULTS = """\
defaults:
  target: {uri: "s3://lake/raw/{source_name}/{schema}/{table}", partition_by: [extract_date]}
"""


def config_of(tables: str, defaults: str = DEFAULTS, head: str = HEAD) -> SourceConfig:
    return load_config(f"{head}{defaults}tables:\n{tables}", "sales.yml")


def specs_of(config: SourceConfig, overrides: Any = None, **kwargs: Any) -> list[ExtractSpec]:
    tables = list(config.tables)
    return specs_for(config, tables, run_id_for=lambda _: "r1", overrides=overrides, **kwargs)


def problems_of(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(text, "sales.yml")
    lines = str(caught.value).splitlines()
    if len(lines) > 1:
        assert lines[0] == f"sales.yml: {len(lines) - 1} problems"
        return lines[1:]
    return lines


# --- layers --------------------------------------------------------------------------------------


def test_a_table_gets_its_own_values_over_the_defaults_key_by_key() -> None:
    config = config_of(
        """\
  public.customers: {}
  public.orders:
    job_type: ecs
    mode: incremental
    watermark: {column: updated_at, delay: 1m}
    target: {partition_by: ["day(created_at)"], write_mode: append}
  open_invoices:
    query: "select * from invoices where state = 'open'"
""",
        DEFAULTS + "  job_type: glue\n  max_connections: 5\n",
    )
    customers, orders, invoices = specs_of(config)
    assert customers.target.uri == "s3://lake/raw/sales/public/customers"
    assert customers.target.partition_by == ("extract_date",)
    assert customers.split.max_connections == 5
    assert (customers.job_type, orders.job_type) == ("glue", "ecs")
    assert orders.target.uri == "s3://lake/raw/sales/public/orders"
    assert orders.target.partition_by == ("day(created_at)",)
    assert orders.watermark is not None
    assert orders.watermark.column == "updated_at"
    assert invoices.query == "select * from invoices where state = 'open'"
    assert invoices.target.uri == "s3://lake/raw/sales/query/open_invoices"
    assert orders.state_uri == "s3://lake/_extract/sales/public.orders"
    assert orders.report_uri == "s3://lake/_extract/sales/public.orders/reports/r1/attempt-1.json"
    assert orders.tracking_table is None


def test_reports_go_below_the_base_that_is_given() -> None:
    config = config_of("  public.orders:\n")
    [spec] = specs_of(config, report_base="s3://b/reports/", attempt=2, tracking_table="t")
    assert spec.report_uri == "s3://b/reports/sales/public.orders/r1/attempt-2.json"
    assert (spec.attempt, spec.tracking_table) == (2, "t")


def test_null_takes_a_value_of_the_defaults_away() -> None:
    defaults = DEFAULTS + "  where: not deleted\n  columns: {cast: {a: string, b: string}}\n"
    config = config_of(
        "  t1:\n  t2: {where: null, columns: {cast: {a: null}}}\n  t3: {columns: null}\n", defaults
    )
    first, second, third = specs_of(config)
    assert (first.where, second.where) == ("not deleted", None)
    assert (dict(first.columns.cast), dict(second.columns.cast), dict(third.columns.cast)) == (
        {"a": "string", "b": "string"},
        {"b": "string"},
        {},
    )


def test_null_is_a_value_for_lossy_types_and_masks() -> None:
    [spec] = specs_of(config_of("  t: {lossy_types: null, columns: {mask: {email: null, a: ~}}}\n"))
    assert spec.lossy_types == "null"
    assert spec.columns.mask == {"email": "null", "a": "null"}
    [spec] = specs_of(config_of("  t:\n"), {"columns": {"mask": {"email": None}}}, confirmed=True)
    assert spec.columns.mask == {"email": "null"}


def test_max_connections_is_short_for_the_split_s_in_every_layer() -> None:
    config = config_of(
        "  t1:\n  t2: {split: {max_connections: 3}}\n  t3: {max_connections: 4}\n"
        "  t4: {max_connections: 4, split: {max_connections: 2}}\n",
        DEFAULTS + "  max_connections: 6\n",
    )
    assert [s.split.max_connections for s in specs_of(config)] == [6, 3, 4, 2]
    overridden = specs_of(config, {"max_connections": 1})
    assert [s.split.max_connections for s in overridden] == [1, 1, 1, 1]


def test_the_default_number_of_connections_gives_way_to_a_small_budget() -> None:
    head = HEAD.replace("max_connections: 40", "max_connections: 3")
    [spec] = specs_of(config_of("  t:\n", head=head))
    assert spec.split.max_connections == 2
    [line] = problems_of(f"{head}{DEFAULTS}tables:\n  t: {{max_connections: 3}}\n")
    assert line == (
        "sales.yml:10: tables.t.max_connections: 3 splits at a time use 4 connections, but "
        "source.max_connections is 3; give 2 or less"
    )


def test_overrides_go_over_everything() -> None:
    config = config_of("  t1: {mode: incremental, watermark: {column: u}}\n  t2: {}\n")
    upper = {"watermark": {"column": "v", "lower": "2026-01-01", "upper": "2026-02-01"}}
    first, second = specs_of(config, {"mode": "incremental", **upper})
    for spec in (first, second):
        assert spec.watermark is not None
        assert (spec.mode, spec.watermark.column) == ("incremental", "v")
        assert (spec.watermark.lower, spec.watermark.upper) == ("2026-01-01", "2026-02-01")
    assert config.tables["t2"].config.mode == "full", "the config itself has not changed"


def test_problems_of_overrides_name_them_or_the_table_that_they_do_not_fit() -> None:
    config = config_of("  public.a:\n  public.b: {mode: full, watermark: {column: u}}\n")
    with pytest.raises(ConfigError) as caught:
        specs_of(config, {"mdoe": "full", "target": {"compression": "lz4"}})
    assert str(caught.value).splitlines()[1:] == [
        "sales.yml: overrides.target.compression: 'lz4' is not zstd, snappy, gzip or none",
        "sales.yml: overrides.mdoe: unknown key; did you mean mode?",
    ]
    with pytest.raises(ConfigError) as caught:
        specs_of(config, {"mode": "incremental"})
    assert str(caught.value) == (
        "sales.yml:10: tables.public.a: with the overrides, mode incremental needs watermark.column"
    )
    with pytest.raises(
        ConfigError, match=r"with the overrides, public\.b has the same target\.uri"
    ):
        specs_of(config, {"target": {"uri": "s3://lake/one"}})
    with pytest.raises(ConfigError, match="expected a mapping of table keys"):
        specs_of(config, ["mode"])


def test_a_run_id_that_cannot_be_one_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"^t: run_id: "):
        specs_for(config_of("  t:\n"), ["t"], run_id_for=lambda _: "a/b")


VALUES = st.recursive(
    st.integers() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abcdef"), inner, min_size=1, max_size=4),
    max_leaves=12,
)
LAYERS = st.dictionaries(st.sampled_from("abcdef"), VALUES, max_size=5)


def leaves(data: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(data, dict):
        return {path: data}
    return {p: v for key, value in data.items() for p, v in leaves(value, (*path, key)).items()}


@given(LAYERS, LAYERS)
def test_merging_keeps_all_of_the_upper_layer_and_what_it_leaves_of_the_lower(
    below: dict[str, Any], above: dict[str, Any]
) -> None:
    before = copy.deepcopy((below, above))
    merged = leaves(merge(below, above))
    assert (below, above) == before
    upper, lower = leaves(above), leaves(below)
    assert upper.items() <= merged.items()
    for path, value in lower.items():
        hidden = any(p[: len(path)] == path or path[: len(p)] == p for p in upper)
        assert hidden or merged[path] == value
    assert merged.keys() <= upper.keys() | lower.keys()


@given(LAYERS, LAYERS, LAYERS)
def test_merging_is_associative(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    # Where a scalar lies between two mappings, order decides; such layers are left out.
    kinds: dict[tuple[str, ...], set[bool]] = {}
    for layer in (a, b, c):
        stack: list[tuple[tuple[str, ...], Any]] = [((), layer)]
        while stack:
            path, value = stack.pop()
            kinds.setdefault(path, set()).add(isinstance(value, dict))
            if isinstance(value, dict):
                stack += [((*path, k), v) for k, v in value.items()]
    if all(len(k) == 1 for k in kinds.values()):
        assert leaves(merge(merge(a, b), c)) == leaves(merge(a, merge(b, c)))


def test_a_config_s_tables_say_all_that_a_spec_leaves_to_a_person() -> None:
    """A field that is added to the spec has its place in the config, with the same meaning."""
    own = {"state_uri", "target", "job_type", "row_security", "on_waiting_ddl"}
    given_elsewhere = {
        "version", "run_id", "attempt", "source_name", "source_type", "connection",
        "extract_table", "report_uri", "tracking_table", "limit", "reruns",
    }  # fmt: skip
    spec, table = ExtractSpec.model_fields, TableConfig.model_fields
    assert spec.keys() - given_elsewhere <= table.keys()
    for name in spec.keys() & table.keys() - own:
        assert spec[name].annotation == table[name].annotation, name
        assert spec[name].default == table[name].default, name


# --- places --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("orders", "orders"),
        ("a/b", "a%2Fb"),
        ("..", "%2E."),
        (".", "%2E"),
        ("_temp", "%5Ftemp"),
        ("a=b c%d", "a%3Db%20c%25d"),
        ("Ünï", "%C3%9Cn%C3%AF"),
    ],
)
def test_a_name_is_one_visible_segment(name: str, encoded: str) -> None:
    assert segment(name) == encoded


@given(st.text("aZ0._-~/\\%{}?#[]= \t\n\"'äß😀\u0301", min_size=1, max_size=8))
def test_two_names_never_share_a_segment(name: str) -> None:
    from urllib.parse import unquote

    assert unquote(segment(name)) == name
    assert not set(segment(name)) & set("/?#[]{} ")
    assert segment(name)[0] not in "._"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("public.orders", ("public", "orders")),
        ("orders", ("public", "orders")),
        ("a.b.c", ("a", "b.c")),
        ('"My.Schema"."a ""b"""', ("My.Schema", 'a "b"')),
        ('"a.b"', ("public", "a.b")),
        ('crm."Ord.ers"', ("crm", "Ord.ers")),
        (".x", ("public", ".x")),
        ("x.", ("public", "x.")),
    ],
)
def test_schema_and_table_of_a_name(name: str, parts: tuple[str, str]) -> None:
    assert table_parts(name) == parts
    assert table_parts(name, is_query=True) == ("query", name)


@pytest.mark.parametrize(
    ("connection", "schema"),
    [
        ("url: 'mysql://me@db/shop'", "shop"),
        ("url: 'mysql://me@db:3306/sh%20op?sslmode=require'", "sh%20op"),
        ("url: 'mysql://me@db/?dbname=shop'", "shop"),
        ("url: 'mysql://me@db/other', database: shop", "shop"),
        ("secret_id: shop/login, database: shop", "shop"),
        ("secret_id: shop/login", "default"),
    ],
)
def test_the_schema_of_mysql_is_its_database(connection: str, schema: str) -> None:
    config = load_config(
        f"version: 1\nsource: {{name: s, type: mysql, connection: {{{connection}}}}}\n"
        "defaults: {target: {uri: 's3://lake/{schema}/{table}'}}\n"
        "tables: {orders: , crm.people: , q: {query: select 1}}\n",
        "sales.yml",
    )
    assert [spec.target.uri for spec in specs_of(config)] == [
        f"s3://lake/{schema}/orders", "s3://lake/crm/people", "s3://lake/query/q",
    ]  # fmt: skip


def test_placeholders_are_filled_in_everywhere_and_only_once() -> None:
    config = config_of(
        "  s.Big-Table: {state_uri: 's3://state/{schema}', "
        "target: {catalog: {database: 'raw_{source_name}', table: '{schema}_{table}'}}}\n"
        "  '{table}':\n"
    )
    first, second = specs_of(config)
    assert first.target.catalog is not None
    assert (first.target.catalog.database, first.target.catalog.table) == (
        "raw_sales", "s_big_table",
    )  # fmt: skip
    assert first.state_uri == "s3://state/s/sales/s.Big-Table"
    assert second.target.uri == "s3://lake/raw/sales/public/%7Btable%7D"
    assert catalog_name("Ünï-1") == "_n__1"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("s3://b/{tabel}", r"unknown placeholder \{tabel\}; did you mean table\? \(known: "),
        ("s3://b/{}", r"unknown placeholder \{\} "),
        ("s3://b/{table.__class__}", r"unknown placeholder"),
        ("s3://b/{table", "unbalanced brace"),
        ("s3://b/{{table}}", "unbalanced brace"),
    ],
)
def test_unknown_placeholders(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fill(template, {"source_name": "s", "schema": "s", "table": "t"}, segment)


@pytest.mark.parametrize(
    ("target", "state"),
    [
        ("s3://lake/raw/{table}", "s3://lake/_extract/sales/t"),
        ("/data/raw/{table}", "/data/raw/_extract/sales/t"),
        ("file:///data/{table}/", "file:///data/_extract/sales/t"),
        ("out/{table}", "out/_extract/sales/t"),
        ("{table}", "_extract/sales/t"),
    ],
)
def test_state_is_at_the_bucket_s_root_or_beside_the_folder(target: str, state: str) -> None:
    [spec] = specs_of(config_of("  t:\n", f"defaults: {{target: {{uri: '{target}'}}}}\n"))
    assert spec.state_uri == state


def test_two_tables_in_one_place_are_refused_by_both_names() -> None:
    lines = problems_of(
        HEAD + DEFAULTS + "tables:\n  public.orders:\n  orders:\n  public.Orders:\n"
        "  x: {target: {uri: s3://lake/one}}\n  y: {target: {uri: s3://lake/ONE/}}\n"
        "  z: {target: {uri: s3://lake/one/deep/in}}\n"
    )
    assert lines == [
        (
            "sales.yml:11: tables.orders: has the same target.uri as public.orders: "
            "s3://lake/raw/sales/public/orders"
        ),
        (
            "sales.yml:12: tables.public.Orders: has the same target.uri as public.orders: "
            "s3://lake/raw/sales/public/Orders"
        ),
        (
            "sales.yml:12: tables.public.Orders: has the same state path as public.orders: "
            "s3://lake/_extract/sales/public.Orders"
        ),
        "sales.yml:14: tables.y: has the same target.uri as x: s3://lake/ONE/",
        (
            "sales.yml:15: tables.z: its target.uri is inside the target of y, whose readers "
            "would see its files"
        ),
    ]


def test_local_places_are_compared_as_paths() -> None:
    lines = problems_of(
        HEAD + "tables:\n  a: {target: {uri: /data/x}}\n  b: {target: {uri: 'file:///data/./x/'}}\n"
        "  c: {target: {uri: /data/y}, state_uri: /data/x/state}\n"
    )
    assert [line.split(": ", 2)[1] for line in lines] == ["tables.b", "tables.c"]
    assert "state path is inside the target of" in lines[1]


def test_one_catalog_table_for_two_is_refused() -> None:
    [line] = problems_of(
        HEAD + "tables:\n"
        "  a-b: {target: {uri: /d/1, catalog: {database: raw, table: '{table}'}}}\n"
        "  a_b: {target: {uri: /d/2, catalog: {database: raw, table: '{table}'}}}\n"
    )
    assert line.endswith("tables.a_b: has the same target.catalog as a-b: raw.a_b")


# --- problems ------------------------------------------------------------------------------------


def test_every_problem_is_reported_at_once_with_its_line() -> None:
    assert problems_of(
        """\
version: 1
source:
  name: sales/eu
  type: postgres
  connection: {secret_id: a, url_env: DATABASE_URL}
  max_connection: 4
defaults:
  job_type: gleu
  target:
    uri: s3://lake/{tabel}
    file_bytes: 256MBB
tables:
  public.a:
    mdoe: full
    partition_by: [x]
  public.b: 3
  public.c: {watermark: {lag: soon}, target: {uri: s3://lake}}
  public.d: {mode: incremental, target: {uri: s3://lake/d, write_mode: overwrite}}
extra: 1
"""
    ) == [
        "sales.yml:3: source.name: string should match pattern '^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$'",
        (
            "sales.yml:5: source.connection: only one of secret_id, ssm_parameter and url_env can "
            "be given, and url cannot be combined with url_env"
        ),
        "sales.yml:6: source.max_connection: unknown key; did you mean max_connections?",
        "sales.yml:8: defaults.job_type: 'gleu' is not glue, emr or ecs; did you mean glue?",
        (
            "sales.yml:10: defaults.target.uri: unknown placeholder {tabel}; did you mean table? "
            "(known: {source_name}, {schema}, {table})"
        ),
        (
            "sales.yml:11: defaults.target.file_bytes: '256MBB' is not a size such as 268435456, "
            "256MB or 256MiB"
        ),
        "sales.yml:14: tables.public.a.mdoe: unknown key; did you mean mode?",
        (
            "sales.yml:15: tables.public.a.partition_by: unknown key; did you mean "
            "target.partition_by?"
        ),
        "sales.yml:16: tables.public.b: expected a mapping, or nothing",
        (
            "sales.yml:17: tables.public.c.watermark.lag: 'soon' is not a duration such as 90s, "
            "1m, 2h or 1d; or 'soon' should be a valid integer, unable to parse string as an "
            "integer"
        ),
        "sales.yml:19: extra: unknown key; known here: version, source, defaults, tables",
    ]


def test_a_wrong_value_hides_nothing_that_does_not_depend_on_it() -> None:
    lines = problems_of(
        HEAD + "defaults: {job_type: gleu, target: {uri: 's3://lake/{tabel}'}}\ntables:\n"
        "  a: {mode: incremental}\n  b: {target: {file_bytes: x}, where: '1;'}\n"
        "  c: {mode: incremental, watermrk: {column: x}}\n  d: {mode: incrementel}\n"
    )
    assert [line.split(": ")[:2] for line in lines] == [
        ["sales.yml:7", "defaults.job_type"],
        ["sales.yml:7", "defaults.target.uri"],
        ["sales.yml:9", "tables.a"],
        ["sales.yml:10", "tables.b.target.file_bytes"],
        ["sales.yml:10", "tables.b.where"],
        ["sales.yml:11", "tables.c.watermrk"],
        ["sales.yml:12", "tables.d.mode"],
    ]
    assert "mode incremental needs watermark.column" in lines[2]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("columns: {cast: {id: bigint}}",
         "columns.cast.id: 'bigint': no such type; did you mean int64?"),
        ("columns: {cast: {id: 'decimal(50,2)'}}",
         "columns.cast.id: 'decimal(50,2)': no such type"),
        ("target: {partition_by: ['week(at)']}",
         "target.partition_by[0]: 'week(at)': no such function; the functions are year"),
        ("target: {partition_by: ['moth(at)']}",
         "target.partition_by[0]: 'moth(at)': no such function"),
        ("target: {partition_by: ['weekly(at)']}",
         "target.partition_by[0]: 'weekly(at)': no such function"),
        ("target: {partition_by: ['sum(eur)']}",
         "target.partition_by[0]: 'sum(eur)': no such function"),
        ("target: {partition_by: ['day(at']}",
         "target.partition_by[0]: 'day(at': expected day(column)"),
    ],
)  # fmt: skip
def test_types_and_functions_that_there_are_not_are_found_offline(table: str, problem: str) -> None:
    [line] = problems_of(HEAD + DEFAULTS + f"tables: {{t: {{{table}}}}}\n")
    assert line.startswith(f"sales.yml:9: tables.t.{problem}")


def test_a_column_whose_name_looks_like_a_function_must_be_included() -> None:
    table = "t: {target: {partition_by: ['sum(eur)']}}"
    [line] = problems_of(f"{HEAD}{DEFAULTS}tables: {{{table}}}\n")
    assert line.endswith("""add columns.include: ["*", 'sum(eur)']""")


def test_types_and_functions_that_there_are_pass_offline() -> None:
    casts = [*TYPE_NAMES, "decimal( 38 , 0 )"]
    assert set(CAST_TYPES) == set(TYPE_NAMES)
    given = ", ".join(f"c{n}: '{one.replace('p,s', '9,2')}'" for n, one in enumerate(casts))
    config_of(
        f"  t:\n    columns: {{include: ['*', 'sum(eur)'], cast: {{{given}}}}}\n"
        "    target: {partition_by: ['day(a b)', 'sum(eur)', x, 'total (eur)', run_id]}\n"
    )


def test_a_duplicate_key_hides_no_other_problem() -> None:
    assert problems_of(
        HEAD + DEFAULTS + "tables:\n  a: {mdoe: full}\n  b: {mode: full, mode: incremental}\n  a:\n"
    ) == [
        "sales.yml:10: tables.a.mdoe: unknown key; did you mean mode?",
        "sales.yml:11: tables.b.mode: given twice; the first is on line 11",
        "sales.yml:12: tables.a: given twice; the first is on line 10",
    ]


def test_a_table_says_what_its_watermark_is_for() -> None:
    """Full is the default: who gives a table a watermark mostly means the other mode."""
    tables = (
        "tables:\n  a: {watermark: {column: u}}\n  b: {mode: full, watermark: {column: u}}\n  c:\n"
    )
    shared = HEAD + 'defaults: {target: {uri: "s3://lake/{table}"}, watermark: {column: u}}\n'
    [line] = problems_of(shared + tables)
    assert line == (
        "sales.yml:9: tables.a.watermark: the default mode, full, extracts all rows every time: "
        "add mode: incremental, or mode: full"
    )


def test_problems_of_filled_in_values_stand_where_the_values_came_from() -> None:
    lines = problems_of(
        HEAD + "defaults:\n  target:\n    uri: s3://lake/{tabel}\ntables:\n  a:\n  b:\n"
        "  c: {target: {uri: s3://lake}}\n"
        "  d: {mode: incremental, target: {uri: s3://lake/d, write_mode: overwrite}}\n"
    )
    assert [line.split(": ")[0] for line in lines] == [
        "sales.yml:9", "sales.yml:13", "sales.yml:14",
    ]  # fmt: skip
    assert "defaults.target.uri: unknown placeholder {tabel}" in lines[0]
    assert "tables.c.target: 's3://lake' has no path below the bucket" in lines[1]
    assert "mode incremental needs watermark.column; write_mode overwrite needs" in lines[2]


def test_locations_of_other_schemes_are_refused_offline() -> None:
    lines = problems_of(
        HEAD + "defaults: {target: {uri: 's3://lake/{table}'}}\ntables:\n  fine:\n"
        "  a: {target: {uri: 's3a://lake/a'}}\n  b: {state_uri: 'gs://lake/b'}\n"
        "  c: {target: {uri: 'file:///lake/c'}, state_uri: state}\n"
    )
    expected = "expected s3://bucket/folder, file:///folder or a path"
    assert [line.split(": ", 1)[1] for line in lines] == [
        f"tables.a.target: 's3a://lake/a': {expected}",
        f"tables.b: state_uri: 'gs://lake/b/sales/b': {expected}",
    ]


def test_a_condition_is_checked_where_it_stands_and_with_the_overrides() -> None:
    lines = problems_of(
        f"{HEAD}{DEFAULTS}  where: random() < 0.5\ntables:\n  a: {{}}\n  b: {{where: 'x = 1;'}}\n"
        "  c: {where: null}\n"
    )
    assert [line.split(": ")[:2] for line in lines] == [
        ["sales.yml:9", "defaults.where"], ["sales.yml:12", "tables.b.where"],
    ]  # fmt: skip
    assert "uses random" in lines[0]
    assert "a semicolon" in lines[1]
    with pytest.raises(ConfigError, match=r"overrides\.where: .*not one expression"):
        specs_of(config_of("  a: {}\n"), {"where": "x = 1 limit 1"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "sales.yml: is empty; expected version, source, defaults and tables"),
        ("# nothing\n", "sales.yml: is empty; expected version, source, defaults and tables"),
        ("- a\n", "sales.yml: is not a mapping; expected version, source, defaults and tables"),
        (HEAD, "sales.yml:1: tables: is required"),
        (HEAD + "tables:\n", "sales.yml:7: tables: lists no tables"),
        (HEAD + "tables: {}\n", "sales.yml:7: tables: lists no tables"),
        (HEAD + "tables: [a]\n", "sales.yml:7: tables: expected a mapping"),
        (HEAD + "defaults: 3\ntables: {a: {target: {uri: /x/a}}}\n",
         "sales.yml:7: defaults: expected a mapping"),
        (HEAD + "tables: {a: }\n", "sales.yml:7: tables.a.target: is required"),
        (HEAD + "tables: {'': {target: {uri: /x/y}}}\n",
         "sales.yml:7: tables: a table with no name"),
        (HEAD.replace("1", "2", 1) + "tables: {a: {target: {uri: /x/a}}}\n",
         "sales.yml:1: version: 2 is not 1, the only version that this extract-jobs reads"),
        (HEAD + "defaults: {query: select 1}\ntables: {a: {target: {uri: /x/a}}}\n",
         "sales.yml:7: defaults.query: a query belongs to one table; move it there"),
        (HEAD + "tables: {a: {mdoe: , target: {uri: /x/a}}}\n",
         "sales.yml:7: tables.a.mdoe: unknown key; did you mean mode?"),
    ],
)  # fmt: skip
def test_a_file_that_lacks_something(text: str, expected: str) -> None:
    assert problems_of(text) == [expected]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("{type: date, fromat: x}", ".fromat: unknown key; did you mean format?"),
        ("{format: x}", ".type: is required"),
        ("3", ": expected text, found 3; put it in quotes; or expected a mapping"),
    ],
)
def test_a_declared_type_that_is_wrong_is_reported_once(given: str, problem: str) -> None:
    text = HEAD + 'tables: {a: {target: {uri: x}, files: {glob: "*", types: {b: %s}}}}\n'
    found = problems_of(text % given)
    assert [one for one in found if "types.b" in one] == [
        f"sales.yml:7: tables.a.files.types.b{problem}"
    ]


def test_a_word_or_a_mapping_that_is_neither_is_reported_where_it_is_wrong() -> None:
    text = HEAD + "tables: {a: {on_schema_change: %s, modes: full}}\n"
    missing = "sales.yml:7: tables.a.target: is required"
    unknown = "sales.yml:7: tables.a.modes: unknown key; did you mean mode?"
    place = "sales.yml:7: tables.a.on_schema_change"
    word = "'evolv' is not evolve, freeze or fail; did you mean evolve?"
    assert set(problems_of(text % "{aded: fail, dropped: drop}")) == {
        missing,
        unknown,
        f"{place}.aded: unknown key; did you mean added?",
        f"{place}.dropped: 'drop' is not evolve, freeze or fail",
    }
    assert set(problems_of(text % "evolv")) == {
        missing,
        unknown,
        f"{place}: expected a mapping; or {word}",
    }


def test_a_connection_with_another_type_s_fields_is_refused_where_it_stands() -> None:
    config = (
        "version: 1\nsource:\n  name: s\n  type: sqlite\n  connection: {path: /x.db, host: db}\n"
        "tables: {t: {target: {uri: /d/t}}}\n"
    )
    [line] = problems_of(config)
    assert line.startswith("sales.yml:5: source.connection: a source of type sqlite takes no host")


def test_a_secret_in_a_config_is_refused_and_not_repeated() -> None:
    base = (
        "version: 1\nsource: {name: s, type: postgres, connection: {%s}}\n"
        "tables: {t: {target: {uri: /d/t}}}\n"
    )
    [line] = problems_of(base % "host: db, password: hunter2")
    assert "a config holds no secret; use connection.secret_id" in line
    assert "hunter2" not in line
    [line] = problems_of(base % "url: 'postgresql://me:hunter2@db/x'")
    assert "url holds a password" in line
    assert "hunter2" not in line
    [line] = problems_of(base % "host: db, port: hunter2")
    assert "hunter2" not in line


def test_thousands_of_problems_are_cut_short_and_counted() -> None:
    tables = "".join(f"  t{i}:\n" for i in range(1000))
    with pytest.raises(ConfigError) as caught:
        load_config(HEAD + "tables:\n" + tables, "sales.yml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "sales.yml: 1000 problems"
    assert lines[-1] == "… and 900 more"
    assert len(lines) == 102


# --- events --------------------------------------------------------------------------------------


def test_tables_are_selected_by_name_and_glob_in_the_config_s_order() -> None:
    config = config_of("  public.b:\n  public.a:\n  crm.a:\n  'odd[1]':\n")
    assert resolve_tables(config, "*") == ["public.b", "public.a", "crm.a", "odd[1]"]
    assert resolve_tables(config, ["crm.a", "public.b"]) == ["public.b", "crm.a"]
    assert resolve_tables(config, ["public.*", "public.a"]) == ["public.b", "public.a"]
    assert resolve_tables(config, ["odd[1]"]) == ["odd[1]"]
    assert resolve_tables(config, ("*.a",)) == ["public.a", "crm.a"]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ([], "empty list"),
        ("public.a", r'expected "\*" or a list'),
        (None, r'expected "\*" or a list'),
        ({"public.a": 1}, r'expected "\*" or a list'),
        (["public.aa"], r"extract_tables\[0\]: the config has no table public.aa; did you mean"),
        (["PUBLIC.A"], r"did you mean public.a\?"),
        (["public.a", "public.a"], r"extract_tables\[1\]: public.a is given twice"),
        (["nope.*"], r"no table matches nope.\*"),
        ([3], r"3 is not the name of a table"),
    ],
)
def test_a_selection_that_is_wrong(selection: Any, message: str) -> None:
    config = config_of("  public.a:\n  public.b:\n")
    with pytest.raises(ConfigError, match=message):
        resolve_tables(config, selection)


def test_job_settings_are_complete_and_know_what_was_said() -> None:
    config = config_of(
        "  t: {job_type: emr, emr: {application_id: a1}, glue: {worker_type: G.2X}}\n",
        DEFAULTS + "  retry: {max_attempts: 5}\n",
    )
    [settings] = job_settings(config, ["t"])
    assert settings.job_type == "emr"
    assert settings.emr.application_id == "a1"
    assert settings.glue.model_fields_set == {"worker_type"}
    assert settings.retry.model_dump() == {"max_attempts": 5, "backoff_seconds": 60}
    overridden = job_settings(config, ["t"], {"ecs": {"memory": 8192}, "job_type": "ecs"})[0]
    assert (overridden.job_type, overridden.ecs.memory) == ("ecs", 8192)
    assert job_settings(config, ["t"]) == [settings]


def test_an_emr_job_has_one_place_to_run() -> None:
    [line] = problems_of(
        HEAD + DEFAULTS + "  emr: {application_id: a}\ntables: {t: {emr: {cluster_id: j}}}\n"
    )
    assert "tables.t.emr: application_id and cluster_id are both given" in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("emr: {executor_cores: 4}", "executor_cores: 4 and executor_memory_gb: 4 fit no worker"),
        ("emr: {executor_cores: 4}", "at least 8 GB, Spark's overhead included"),
        ("emr: {executor_cores: 4}", "set executor_memory_gb to 7 or more"),
        ("emr: {executor_cores: 3}", "executor_cores: 3 is not one of 1, 2, 4, 8 or 16"),
        ("emr: {executor_memory_gb: 110}", "emr.executor_memory_gb: 110"),
        ("ecs: {cpu: 1000}", "cpu: 1000 is not one of 256, 512, 1024"),
        ("ecs: {memory: 512}", "memory: 512 is not a Fargate size for cpu: 1024"),
        ("ecs: {memory: 512}", "expected 2048 to 8192 in steps of 1024"),
        ("ecs: {cpu: 256}", "expected 512, 1024 or 2048"),
        ("glue: {worker_type: G.3X}", "G.3X"),
    ],
)
def test_sizes_that_no_service_has_are_refused(settings: str, message: str) -> None:
    [line] = problems_of(HEAD + DEFAULTS + f"tables: {{t: {{{settings}}}}}\n")
    assert message in line


@pytest.mark.parametrize(
    "settings",
    [
        "emr: {executor_cores: 4, executor_memory_gb: 7}",
        "emr: {executor_cores: 3, executor_memory_gb: 1, cluster_id: j}",
        "emr: {executor_cores: 16, executor_memory_gb: 109}",
        "ecs: {cpu: 256, memory: 512}",
        "ecs: {cpu: 16384, memory: 122880}",
        "glue: {worker_type: G.12X}",
    ],
)
def test_sizes_that_a_service_has_are_taken(settings: str) -> None:
    assert config_of(f"  t: {{{settings}}}\n")


def test_sizes_may_be_completed_by_the_table() -> None:
    given = DEFAULTS + "  ecs: {cpu: 4096}\n  emr: {executor_cores: 8}\n"
    config_of("  t: {ecs: {memory: 8192}, emr: {executor_memory_gb: 15}}\n", given)


def test_every_worker_of_emr_has_a_size_that_there_is() -> None:
    for memory in range(1, EMR_MOST_GB + 1):
        for cores in EMR_GB:
            cpus, size = emr_worker(memory, cores)
            assert cpus >= cores
            assert size in EMR_GB[cpus]
            assert size >= memory * 1.1


def test_a_size_that_an_old_item_names_and_no_service_has_is_asked_for_as_it_is() -> None:
    assert emr_worker(EMR_MOST_GB + 1, 2) == (2, emr_container_gb(EMR_MOST_GB + 1))
    assert emr_worker(4, 32) == (32, emr_container_gb(4))
    assert bigger_glue_worker(cast(GlueWorker, "Standard")) == "Standard"


def test_the_map_runs_as_many_tables_as_the_source_has_connections_for() -> None:
    config = config_of(
        "  a: {max_connections: 3}\n  b: {max_connections: 7}\n  c: {max_connections: 39}\n"
    )
    assert map_concurrency(config, ["a"]) == 10
    assert map_concurrency(config, ["a", "b"]) == 5
    assert map_concurrency(config, ["a", "b", "c"]) == 1
    assert map_concurrency(config, ["a", "b", "c"], {"max_connections": 1}) == 20


def test_many_tables_take_time_in_proportion() -> None:
    """Four times the tables take about four times the CPU, where comparing all pairs takes 16."""

    def seconds(count: int) -> float:
        tables = "".join(
            f"  public.t{i}:\n    mode: incremental\n"
            "    watermark: {column: updated_at, delay: 1m}\n"
            f"    where: tenant = {i % 1000} and not deleted\n"
            for i in range(count)
        )
        started = time.thread_time()
        specs = specs_of(config_of(tables), {"where": "id > 0"}, confirmed=True)
        assert len(specs) == count
        return time.thread_time() - started

    def least(count: int) -> float:
        """Return the least of some tries, without collections of other tests' garbage."""
        gc.disable()
        try:
            return min(seconds(count) for _ in range(3))
        finally:
            gc.enable()

    seconds(10)  # what is imported and compiled once
    count = 2_500 if EXHAUSTIVE else 150
    assert least(4 * count) < 9 * least(count)


def test_a_name_without_its_schema_is_suggested_with_it() -> None:
    config = config_of("  public.orders:\n  public.customers:\n")
    for entry in ("order", "orders", "Orders"):
        with pytest.raises(ConfigError, match=r"did you mean public\.orders\?"):
            resolve_tables(config, [entry])


@pytest.mark.parametrize(
    ("kind", "connection", "strategy"),
    [
        ("postgres", "{host: db}", "rowid"),
        ("postgres", "{host: db}", "hash"),
        ("mysql", "{host: db}", "ctid"),
        ("mysql", "{host: db}", "rowid"),
        ("sqlite", "{path: x.db}", "ctid"),
        ("oracle", "{host: db}", "ctid"),
        ("files", "{uri: /drop}", "range"),
    ],
)
def test_a_strategy_that_the_source_lacks_is_refused(
    kind: str, connection: str, strategy: str
) -> None:
    head = f"version: 1\nsource: {{name: s, type: {kind}, connection: {connection}}}\n"
    files = "files: {glob: 'x.csv'}, " if kind == "files" else ""
    split = f"{{strategy: {strategy}, column: c}}"
    table = f"tables:\n  t: {{{files}target: {{uri: /lake/t}}, split: {split}}}\n"
    [line] = problems_of(head + table)
    assert line.startswith(f"sales.yml:4: tables.t.split.strategy: '{strategy}': a source of type")


def test_what_the_registrations_say_of_strategies_is_what_the_sources_say() -> None:
    assert set(BUILT_IN) >= {"postgres", "mysql", "sqlite", "jdbc", "files"}
    for name, found in BUILT_IN.items():
        module = import_module(found.opens.partition(":")[0])
        assert module.FEATURES.strategies == found.strategies, name


@pytest.mark.parametrize(("given", "expected"), [
    ("system", "system"), ("rds", "rds"), ("ca.pem", "/configs/ca.pem"),
])  # fmt: skip
def test_trusted_certificates_are_a_path_unless_a_word_names_them(
    given: str, expected: str
) -> None:
    text = (
        "version: 1\nsource: {name: s, type: postgres, connection: "
        f"{{host: h, database: d, user: u, sslrootcert: {given}}}}}\n"
        "tables: {a: {target: {uri: 's3://lake/a'}}}\n"
    )
    assert load_config(text, "s.yml", "/configs").source.connection.sslrootcert == expected


def test_paths_start_from_the_config_s_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    head = "version: 1\nsource: {name: s, type: sqlite, connection: {path: data/x.db}}\n"
    text = (
        "tables:\n  a: {target: {uri: 'out/{table}'}, spill_folder: ~/spill}\n"
        "  b: {target: {uri: '~/lake/{table}'}, state_uri: ~/state}\n"
        "  c: {target: {uri: 's3://lake/~/{table}'}}\n"
        "  ~d: {target: {uri: './{table}/x'}}\n  e: {target: {uri: '/abs/{table}'}}\n"
    )
    config = load_config(head + text, "shop.yml", "/configs")
    a, b, c, d, e = specs_of(config)
    assert a.connection.path == "/configs/data/x.db"
    assert (a.target.uri, a.spill_folder) == ("/configs/out/a", "/home/me/spill")
    assert a.state_uri == "/configs/out/_extract/s/a"
    assert (b.target.uri, b.state_uri) == ("/home/me/lake/b", "/home/me/state/s/b")
    assert (c.target.uri, e.target.uri) == ("s3://lake/~/c", "/abs/e")
    assert d.target.uri == "/configs/~d/x"
    [moved, *_] = specs_of(config, {"target": {"compression": "gzip"}})
    assert moved.target.uri == "/configs/out/a"


@pytest.mark.parametrize("tables", [["nope"], "nope", ["*"]])
def test_specs_of_tables_that_the_config_lacks_are_refused(tables: Any) -> None:
    config = config_of("  public.note: {}\n")
    with pytest.raises(ConfigError, match=r"there is no '(nope|\*)'"):
        specs_for(config, tables, run_id_for=lambda _: "r")
    [spec] = specs_for(config, "public.note", run_id_for=lambda _: "r")
    assert spec.extract_table == "public.note"
