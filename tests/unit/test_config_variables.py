"""Variables of the environment in a config, and tags."""

from __future__ import annotations

import pytest

from extract_jobs.config import load_config, resolve_tables, with_tags
from extract_jobs.errors import ConfigError

CONFIG = """\
version: 1
source: {{name: s, type: postgres, connection: {{url: "{url}", password_env: MY_DB}}}}
defaults: {{target: {{uri: "{uri}"}}}}
tables: {{t: {table}}}
"""


def config(url: str = "postgresql://me@db/x", uri: str = "/lake/{table}", table: str = "") -> str:
    return CONFIG.format(url=url, uri=uri, table=table)


def test_a_variable_and_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_HOST", "db.example.com")
    monkeypatch.delenv("LAKE", raising=False)
    loaded = load_config(
        config("postgresql://me@${DB_HOST}/${DB:-shop}", "${LAKE:-/data}/{table}",
               """{where: "a = '$${x}' and b = '${EMPTY:-}'"}"""), "c.yml",
    )  # fmt: skip
    assert loaded.source.connection.url == "postgresql://me@db.example.com/shop"
    assert loaded.tables["t"].location.target.uri == "/data/t"
    assert loaded.tables["t"].config.where == "a = '${x}' and b = ''"


def test_a_number_may_come_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITS", "3")
    loaded = load_config(config(table='{max_connections: "${SPLITS}", on_empty: nothing}'), "c.yml")
    assert loaded.tables["t"].config.split.max_connections == 3


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("${NOWHERE}", "c.yml:4: tables.t.where: the variable NOWHERE is not set; set it, or"),
        ("${no name}", "c.yml:4: tables.t.where: expected ${NAME} or ${NAME:-default}"),
        ("${OPEN", "c.yml:4: tables.t.where: expected ${NAME} or ${NAME:-default}"),
        ("${DB_PASSWORD}", "c.yml:4: tables.t.where: ${DB_PASSWORD} looks like a secret"),
        ("${GITHUB_TOKEN:-x}", "c.yml:4: tables.t.where: ${GITHUB_TOKEN} looks like a secret"),
        ("${AWS_SECRET_ACCESS_KEY}", "looks like a secret"),
        ("${AWS_ACCESS_KEY_ID}", "looks like a secret"),
        ("${DB_PASS}", "looks like a secret"),
        ("${TLS_PASSPHRASE}", "looks like a secret"),
        ("${MY_DB}", "c.yml:4: tables.t.where: ${MY_DB} looks like a secret"),
    ],
)
def test_variables_that_are_refused(monkeypatch: pytest.MonkeyPatch, value: str, told: str) -> None:
    for name in ("DB_PASSWORD", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID",
                 "DB_PASS", "TLS_PASSPHRASE", "MY_DB"):  # fmt: skip
        monkeypatch.setenv(name, "hunter2")
    with pytest.raises(ConfigError) as raised:
        load_config(config(table=f'{{where: "a = {value}"}}'), "c.yml")
    assert told in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_password_in_the_url_is_refused_wherever_it_comes_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORD", "hunter2")
    with pytest.raises(ConfigError, match="password") as raised:
        load_config(config("postgresql://me:${WORD}@db/x"), "c.yml")
    assert "hunter2" not in str(raised.value)


def test_what_aliases_share_is_filled_in_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE", "/lake")
    text = config(uri="/x/{table}").replace(
        "tables: {t: }",
        'tables:\n  a: &one {target: {uri: "${LAKE}/{table}"}}\n  b: *one\n',
    )
    found = load_config(text, "c.yml").tables
    assert [table.location.target.uri for table in found.values()] == ["/lake/a", "/lake/b"]


TAGGED = """\
version: 1
source: {name: s, type: postgres, connection: {host: db}}
defaults: {target: {uri: "/lake/{table}"}, tags: [nightly]}
tables: {a: {tags: [hourly, small]}, b: , c: {tags: []}, "tag:b": {tags: [hourly]}}
"""


def test_tables_are_selected_by_their_tags() -> None:
    loaded = load_config(TAGGED, "c.yml")
    assert with_tags(loaded, ["hourly"]) == ["a", "tag:b"]
    assert with_tags(loaded, ["small", "nightly"]) == ["a", "b"]
    assert resolve_tables(loaded, ["tag:nightly", "c"]) == ["b", "c"]
    assert resolve_tables(loaded, ["tag:b"]) == ["tag:b"], "a table's own name comes first"
    with pytest.raises(ConfigError, match="no table matches tag:weekly"):
        resolve_tables(loaded, ["tag:weekly"])
    with pytest.raises(ConfigError, match="tags"):
        load_config(TAGGED.replace("small", "'a b'"), "c.yml")


MANY_WRONG = """\
version: 1
source:
  name: s
  type: ${KIND:-postgres}
  max_connections: ${MOST}
  connection: {url: "postgresql://me@${HOST}/db"}
defaults:
  target: {uri: "${LAKE}/{table}", partition_by: ["week(at)"]}
  mode: ${MODE}
tables:
  a: {where: "${COLUMN} > 1", colums: {}}
  b: {split: {max_connections: "${SPLITS}", strategy: nothing}}
  c: &same {where: "x = ${VALUE}", on_empty: perhaps}
  d: *same
  e: {target: {uri: "/lake/{tabel}"}}
  f: {split: "${SPLIT}"}
"""


def test_variables_that_are_not_set_hide_no_other_problem() -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(MANY_WRONG, "c.yml")
    lines = str(raised.value).splitlines()[1:]
    unset = [line for line in lines if "is not set" in line]
    assert [line.partition("variable ")[2].split()[0] for line in unset] == [
        "MOST", "HOST", "LAKE", "MODE", "COLUMN", "SPLITS", "VALUE", "SPLIT",
    ]  # fmt: skip
    rest = "\n".join(line for line in lines if line not in unset)
    for told in ("no such function", "colums", "tables.b.split.strategy", "tables.c.on_empty",
                 "tables.d.on_empty", "tables.e.target.uri"):  # fmt: skip
        assert told in rest
    assert "$" not in rest, "nothing is said of a value that is not known"
    assert rest.count("\n") == 5


HEAD = """\
version: 1
source: {name: s, type: postgres, connection: {url: "postgresql://me@db/x"}}
"""
DEFAULTS = 'defaults: {target: {uri: "/lake/{table}"}}\n'


@pytest.mark.parametrize(
    ("rest", "other"),
    [
        (DEFAULTS + 'tables: {t: {mode: incremental, where: "${X}"}}',
         "tables.t: mode incremental needs watermark.column"),
        (DEFAULTS + 'tables: {t: {mode: incremental, split: "${X}"}}',
         "tables.t: mode incremental needs watermark.column"),
        (DEFAULTS + 'tables: {t: {mode: incremental, watermark: {lag: "${X}"}}}',
         "tables.t: mode incremental needs watermark.column"),
        (DEFAULTS + 'tables: {t: {columns: {key: [a, a], exclude: ["${X}"]}}}',
         "tables.t.columns: key names one column twice"),
        (DEFAULTS + 'tables: {t: {colums: {include: ["${X}"]}}}', "tables.t.colums: unknown key"),
        (DEFAULTS + 'tables: {t: {colums: "${X}"}}', "tables.t.colums: unknown key"),
        (DEFAULTS.replace("}}", '}, wehre: "${X}"}') + "tables: {t: }",
         "defaults.wehre: unknown key"),
        ('defaults: "${X}"\ntables: {t: {tags: 3}}', "tables.t.tags: expected a list"),
    ],
)  # fmt: skip
def test_a_variable_that_is_not_set_hides_no_conflict(rest: str, other: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(HEAD + rest, "c.yml")
    heading, *lines = str(raised.value).splitlines()
    assert heading == "c.yml: 2 problems"
    assert sum("the variable X is not set" in line for line in lines) == 1
    assert any(other in line for line in lines)


@pytest.mark.parametrize(
    "rest",
    [
        DEFAULTS + 'tables: {t: "${X}"}',
        'defaults: "${X}"\ntables: {t: }',
        'defaults: {target: "${X}"}\ntables: {t: {target: {partition_by: [run_id]}}}',
        DEFAULTS + 'tables: "${X}"',
        DEFAULTS + 'tables: {t: {mode: incremental, watermark: "${X}"}}',
        DEFAULTS + 'tables: {t: {mode: incremental, watermark: {column: "${X}"}}}',
        DEFAULTS + 'tables: {t: {mode: "${X}", watermark: {column: a, lower: 1}}}',
        DEFAULTS + 'tables: {t: {mode: incremental, watermark: {column: a}, '
        'target: {write_mode: overwrite_partitions, partition_by: ["${X}"]}}}',
        DEFAULTS + 'tables: {t: {columns: {key: ["${X}", "${X}"]}}}',
    ],
)  # fmt: skip
def test_nothing_is_said_that_depends_on_a_variable_that_is_not_set(rest: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(HEAD + rest, "c.yml")
    lines = str(raised.value).removeprefix("c.yml: 2 problems\n").splitlines()
    assert all("the variable X is not set" in line for line in lines)


def test_a_variable_without_quotes_in_a_flow_mapping_is_explained() -> None:
    for rest in ("tables: {t: {where: ${X}}}", "tables: {t: {tags: [${X}]}}"):
        with pytest.raises(ConfigError, match=r"c\.yml:4: not valid YAML: .*; put a value with \$"):
            load_config(HEAD + DEFAULTS + rest, "c.yml")


@pytest.mark.parametrize("split", ["nothing", "[1]", "3"])
def test_a_split_that_is_no_mapping_is_refused_with_its_line(split: str) -> None:
    text = "version: 1\nsource: {name: s, type: postgres, connection: {url: 'postgresql://h/d'}}\n"
    text += f"defaults: {{target: {{uri: 's3://l/{{table}}'}}}}\ntables:\n  t: {{split: {split}}}\n"
    with pytest.raises(ConfigError, match=r"c\.yml:5: tables\.t\.split: "):
        load_config(text, "c.yml")
