"""One table of a config with many: what is checked of the others, and what that costs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from extract_jobs.config import (
    SourceConfig,
    load_config,
    open_config,
    resolve_tables,
    source_config,
    specs_for,
    with_tags,
)
from extract_jobs.config.tables import place_of
from extract_jobs.errors import ConfigError
from extract_jobs.spec.uris import NormalUris, normal_uri

HEAD = """\
version: 1
source: {name: shop, type: postgres, connection: {url: "postgresql://me@db/shop"}}
defaults: {target: {uri: "s3://lake/raw/{source_name}/{schema}/{table}"}}
tables:
"""
FILES = """\
version: 1
source: {name: drop, type: files, connection: {uri: /in}}
defaults: {target: {uri: "/out/{table}"}}
tables:
"""


def target_of(config: SourceConfig, name: str, **more: Any) -> str:
    [spec] = specs_for(config, [name], run_id_for=lambda _: "r", **more)
    return spec.target.uri


@pytest.mark.parametrize(
    "other",
    [
        "two: {mode: fulll}",
        "two: 5",
        "two: {target: {uri: 's3://lake/{tabel}'}}",
        "two: {target: 7}",
        "two: {watermark: {column: at}}",
        "two: {target: {uri: 's3://lake/raw/shop/public/one'}, modus: full}",
        "two: {target: {catalog: {database: raw}}}",
    ],
)
def test_what_is_wrong_with_another_table_alone_stops_none_but_that(other: str) -> None:
    text = f"{HEAD}  one: {{}}\n  {other}\n"
    config = open_config(text, "shop.yml")
    assert target_of(config, "one") == "s3://lake/raw/shop/public/one"
    with pytest.raises(ConfigError, match=r"^shop\.yml:6: tables\.two"):
        target_of(config, "two")
    with pytest.raises(ConfigError, match=r"^shop\.yml:6: tables\.two"):
        load_config(text, "shop.yml")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("two: {target: {uri: s3://lake/raw/shop/public/ONE/}}", "has the same target.uri as one"),
        ("two: {target: {uri: s3://lake/raw/shop/public/one/x}}", "target.uri is inside the"),
        ("two: {state_uri: s3://lake/raw/shop/public/one}", "state path is inside the target of"),
        ("two: {target: {uri: s3://lake/raw/shop}}", "one: its target.uri is inside the target of"),
        ("two: {target: {catalog: {database: raw, table: one}}}", "the same target.catalog as one"),
        (
            "two: {target: {uri: s3://lake/_extract}, state_uri: s3://x}",
            "one: its state path is inside",
        ),
    ],
)
def test_a_place_that_another_table_uses_is_refused(other: str, message: str) -> None:
    one = "one: {target: {catalog: {database: raw, table: '{table}'}}}"
    text = f"{HEAD}  {one}\n  {other}\n  three: {{target: {{uri: s3://elsewhere/x}}}}\n"
    with pytest.raises(ConfigError) as every:
        load_config(text, "shop.yml")
    with pytest.raises(ConfigError) as found:
        target_of(open_config(text, "shop.yml"), "one")
    assert message in str(found.value)
    assert str(found.value) in str(every.value)


def test_a_glob_that_reads_what_a_table_writes_is_refused_from_both_sides() -> None:
    text = f"{FILES}  one: {{files: {{glob: 'a/**'}}}}\n"
    text += "  two: {files: {glob: b/*}, target: {uri: /in/a/two}, state_uri: /state}\n"
    for name in ("one", "two"):
        with pytest.raises(ConfigError, match="may match what is written for two"):
            target_of(open_config(text, "drop.yml"), name)


def test_overrides_are_compared_with_tables_that_nobody_asked_for() -> None:
    config = open_config(f"{HEAD}  one: {{}}\n  two: {{}}\n", "shop.yml")
    there = {"target": {"uri": "s3://lake/raw/shop/public/two"}}
    with pytest.raises(ConfigError, match="the overrides, two has the same target"):
        target_of(config, "one", overrides=there)


def test_tags_that_cannot_be_read_are_refused_whoever_is_asked_for() -> None:
    """Else a table would be left out of the runs of its tag without a word."""
    config = open_config(f"{HEAD}  one: {{tags: [daily]}}\n  two: {{modus: x}}\n", "shop.yml")
    assert with_tags(config, ["daily"]) == ["one"]
    assert resolve_tables(config, ["t*"]) == ["two"]
    with pytest.raises(ConfigError, match=r"shop\.yml:6: tables\.two\.tags"):
        open_config(f"{HEAD}  one: {{tags: [daily]}}\n  two: {{tags: daily}}\n", "shop.yml")


def test_a_place_is_known_without_checking_its_table() -> None:
    text = """\
version: 1
source: {name: drop, type: files, connection: {uri: /in}}
defaults: {target: {uri: "/out/{schema}/{table}"}, state_uri: state, files: {glob: "d/*"}}
tables:
  plain: {}
  a.b: {target: {uri: "file:///out/{table}/x"}}
  '"a b".c/d': {target: {uri: "~nobody/{table}"}, files: {glob: "*.csv"}}
  ~tilde: {target: {uri: "{table}"}}
  named: {target: {catalog: {database: "{schema}", table: "{table}"}}}
  lite: {target: {format: iceberg, catalog: {type: sqlite, path: cat.db, database: d, table: t}}}
  nulls: {target: {catalog: {path: null, url: null, database: d, table: nulls}}}
  nowhere: {state_uri: null, target: {uri: s3://bucket/x}}
"""
    config = load_config(text, "drop.yml", "/home/me")
    for name, table in config.tables.items():
        assert config.tables.places[name] == place_of(table), name
    assert len(config.tables.places) == 8


def test_asking_for_one_table_resolves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of tables: and their folders are looked at once, not once a table."""
    resolved: list[str] = []
    looked: list[str] = []
    resolve, islink = source_config.resolve_table, os.path.islink
    monkeypatch.setattr(
        source_config, "resolve_table", lambda *a: (resolved.append(a[1]), resolve(*a))[1]
    )
    monkeypatch.setattr("posixpath.islink", lambda path: (looked.append(path), islink(path))[1])
    head = HEAD.replace("s3://lake/raw", str(tmp_path / "lake"))
    counts = []
    for count in (10, 100):
        resolved.clear(), looked.clear()
        tables = "".join(f"  t{n}: {{}}\n" for n in range(count))
        assert target_of(open_config(head + tables, "shop.yml"), "t7").endswith("/t7")
        assert resolved == ["t7"]
        counts.append(len(looked))
    assert counts[1] - counts[0] == 2 * 90, "a target and a state each, and no folder above them"


def test_many_uris_are_brought_into_the_same_form_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep")
    (tmp_path / "loop").symlink_to("loop")
    normal = NormalUris()
    for uri in (
        "link", "link/x", "link/../y", "./link//x/", "real/./deep", "..", "", "/", "//tmp//a",
        "loop/x", "none/../link/z", f"{tmp_path}/link/t", f"file://{tmp_path}/link/%6C",
        "file:///", "s3://bucket/a/../b/", f"file://host{tmp_path}/loop", "~/x",
    ):  # fmt: skip
        assert normal(uri) == normal_uri(uri), uri
    assert normal.overlap(f"{tmp_path}/real/deep/a", "link")
    assert not normal.overlap("real/deeper", "link")
