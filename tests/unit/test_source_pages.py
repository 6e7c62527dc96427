"""The pages on sources and types are what the code says."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from extract_jobs.schema import TypeRule
from extract_jobs.spec.parts import SplitSpec
from extract_jobs.spec.source_types import BUILT_IN
from extract_jobs.transform.types import parse_type
from infra.source_pages import (
    PAGES,
    Documented,
    documented,
    pages,
    sources_page,
    types_page,
)

SOURCES = documented()
_BY_THE_SOURCE = (
    "-", "list", "list of T", "as the type below it", "the same", "the type declared",
)  # fmt: skip
"""What arrives as a type that depends on the source's own."""
RULES = [
    pytest.param(rule, id=f"{title}-{rule.source_type}")
    for one in SOURCES
    for title, rules in one.rules.items()
    for rule in rules
]


@pytest.mark.parametrize("name", ["sources.md", "types.md"])
def test_a_page_is_what_the_code_says(name: str) -> None:
    """If not: ``python -m infra.source_pages``."""
    assert (PAGES / name).read_text(encoding="utf-8") == pages()[name]


def test_every_type_of_source_is_documented_once() -> None:
    assert sorted(name for one in SOURCES for name in one.types) == sorted(BUILT_IN)


@pytest.mark.parametrize("one", SOURCES, ids=lambda one: one.types[0])
def test_features_are_in_the_words_of_the_config(one: Documented) -> None:
    words = get_args(SplitSpec.model_fields["strategy"].annotation)
    assert set(one.features.strategies) <= set(words)
    assert {"auto", "none"} <= set(one.features.strategies)
    assert one.features.reads_by
    assert one.features.run_live


def test_every_strategy_is_some_sources() -> None:
    words = get_args(SplitSpec.model_fields["strategy"].annotation)
    assert {name for one in SOURCES for name in one.features.strategies} == set(words)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_in_the_words_of_the_config(rule: TypeRule) -> None:
    assert rule.reason
    assert "\n" not in f"{rule.source_type}{rule.reason}"
    assert (rule.arrives_as == "-") == (rule.fidelity == "refused")
    if rule.fidelity == "as_text":
        assert rule.arrives_as in ("string", "list of string")
    known = re.sub(r"decimal\((p|\d+),(s|\d+)\)", "decimal(10,2)", rule.arrives_as)
    alternatives = known.removeprefix("list of ").split(", ")
    named = all(parse_type(name) is not None for name in alternatives)
    assert named or known in _BY_THE_SOURCE


def test_no_table_names_a_type_twice() -> None:
    assert SOURCES
    for one in SOURCES:
        assert one.rules
        for rules in one.rules.values():
            names = [rule.source_type for rule in rules]
            assert len(set(names)) == len(names)


def test_pages_are_tables_that_markdown_reads() -> None:
    for text in (sources_page(SOURCES), types_page(SOURCES)):
        tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
        assert tables
        for table in tables:
            rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
            assert len({len(row) for row in rows}) == 1
