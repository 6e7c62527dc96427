"""The JSON Schema and the reference page say what the models say."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from extract_jobs.config import load_config
from extract_jobs.config.file import parse_yaml
from extract_jobs.config.model import (
    SCHEMA_PATH,
    ConfigModel,
    TableConfig,
    json_schema,
    schema_text,
)
from extract_jobs.config.problems import key_paths, model_at
from extract_jobs.errors import ConfigError
from extract_jobs.spec.values import parse_duration

ROOT = Path(__file__).parents[2]
EXAMPLES = [
    ROOT / "extract_jobs" / "cli" / "example_config.yml",
    *sorted((ROOT / "infra").rglob("*/sales.yml")),
]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def yaml_blocks() -> list[Any]:
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(
            re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
        )
        if "version: 1" in block
    ]


def validate(text: str) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(parse_yaml(text, "example").data)


def test_the_shipped_schema_is_current() -> None:
    assert SCHEMA_PATH.read_text() == schema_text(), "run python -m extract_jobs.config.model"
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.parent.name)
def test_example_files_are_valid(path: Path) -> None:
    validate(path.read_text())
    load_config(path.read_bytes(), path.name)


@pytest.mark.parametrize("block", yaml_blocks())
def test_examples_of_the_pages_are_valid(block: str) -> None:
    validate(block)
    load_config(block, "example")


def test_the_pages_have_examples() -> None:
    names = {p.id.rsplit("-", 1)[0] for p in yaml_blocks()}
    assert {"README.md", "config.md"} <= names


def test_the_example_s_comments_are_keys_that_exist() -> None:
    text = (ROOT / "extract_jobs" / "cli" / "example_config.yml").read_text()
    shown = re.sub(r"^  # (?=public\.events|  |open_invoices)", "  ", text, flags=re.MULTILINE)
    shown = re.sub(r"^(    )url: .*\n.*password_env: .*\n", "", shown, flags=re.MULTILINE)
    shown = shown.replace("# secret_id", "secret_id").replace("# job_type", "job_type")
    config = load_config(shown, "example")
    assert list(config.tables) == [
        "public.customers",
        "public.orders",
        "public.events",
        "open_invoices",
    ]
    assert config.source.connection.secret_id == "lake/sales"


MINIMAL: dict[str, Any] = {
    "version": 1,
    "source": {"name": "s", "type": "postgres", "connection": {"host": "db"}},
    "defaults": {"target": {"uri": "s3://b/{table}"}},
    "tables": {"t": None},
}


@pytest.mark.parametrize(
    "table",
    [
        None,
        {},
        {"where": None, "columns": None, "target": {"compression": None}},
        {"lossy_types": None, "columns": {"mask": {"a": None}}},
        {"split": {"target_bytes": "64MiB"}, "watermark": {"lag": "1h"}},
        {"target": {"catalog": {"database": "x"}}},
    ],
)
def test_the_schema_takes_what_a_table_may_leave_to_the_defaults(table: Any) -> None:
    jsonschema.validate({**MINIMAL, "tables": {"t": table}}, json_schema())


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 2},
        {"extra": 1},
        {"tables": {"t": {"mdoe": "full"}}},
        {"tables": {"t": {"mode": "fulll"}}},
        {"defaults": {"target": {"uri": 3}}},
        {"source": {"name": "s", "type": "postgres"}},
        {"source": None},
    ],
)
def test_the_schema_refuses_what_the_models_refuse(wrong: dict[str, Any]) -> None:
    data = {**MINIMAL, **wrong}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json_schema())
    with pytest.raises(ConfigError, match=r"^x:"):
        load_config(json.dumps(data), "x")


def documented() -> dict[str, str]:
    page = (ROOT / "docs" / "config.md").read_text()
    return dict(re.findall(r"^\| `([a-z_.]+)` \| ?(.*?) ?\|", page, re.MULTILINE))


def test_the_page_has_every_key_once_and_no_other() -> None:
    page = (ROOT / "docs" / "config.md").read_text()
    keys = re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE)
    assert len(keys) == len(set(keys))
    frame = {k for k in key_paths(ConfigModel) if not k.startswith("defaults.")}
    assert set(keys) == frame | set(key_paths(TableConfig))


@pytest.mark.parametrize("key", sorted(documented()))
def test_the_page_gives_the_defaults_that_hold(key: str) -> None:
    root = TableConfig if key.split(".", maxsplit=1)[0] in TableConfig.model_fields else ConfigModel
    path = tuple(key.split("."))
    model = model_at(root, path[:-1])
    assert model is not None
    field = model.model_fields[path[-1]]
    if field.is_required() or (model_at(root, path) and field.default is not None):
        assert documented()[key] == "", "required, or a section with defaults of its own"
    else:
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        if isinstance(default, timedelta):
            assert parse_duration(json.loads(documented()[key].strip("`"))) == default
            return
        assert documented()[key] == f"`{json.dumps(default)}`"
