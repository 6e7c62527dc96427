"""Each type of MySQL and MariaDB is read from the real servers, and a page says from which."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from extract_jobs.schema import TypeRule
from extract_jobs.sources.mysql.types import TYPE_RULES
from tests.support.mysql_torture import COLUMNS, COLUMNS_OF_RULES, MYSQL_ALONE, coverage

PAGE = Path(__file__).parents[2] / "docs" / "verified.md"


def test_each_type_that_is_not_refused_has_columns() -> None:
    taken = [rule.source_type for rule in TYPE_RULES if rule.fidelity != "refused"]
    assert list(COLUMNS_OF_RULES) == taken


def test_each_column_stands_for_one_type() -> None:
    listed = Counter(name for names in COLUMNS_OF_RULES.values() for name in names)
    assert listed == dict.fromkeys(COLUMNS | MYSQL_ALONE, 1)


@pytest.mark.parametrize("rule", [r for r in TYPE_RULES if r.source_type in COLUMNS_OF_RULES])
def test_columns_have_the_type_of_their_rule(rule: TypeRule) -> None:
    columns = COLUMNS | MYSQL_ALONE
    bases = [name.split("(")[0].split()[0] for name in rule.source_type.split(", ")]
    assert COLUMNS_OF_RULES[rule.source_type]
    for name in COLUMNS_OF_RULES[rule.source_type]:
        declared = columns[name].type.replace("boolean", "tinyint")
        assert declared.split("(")[0].split()[0] in bases
        assert ("unsigned" in declared) == ("unsigned" in rule.source_type) or name in {"miu", "du"}


def test_the_page_has_the_table() -> None:
    assert "\n".join(coverage()) in PAGE.read_text()
