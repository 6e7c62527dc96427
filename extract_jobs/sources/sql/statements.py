"""SQL that every dialect writes alike: FROM, SELECT, and where a person's own text stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Relation:
    """A table or query as it is written in a FROM clause.

    Attributes:
        source: A quoted name, or a query in parentheses with its alias.
        kind: What it is.
        where: The spec's own condition; None reads all rows.
    """

    source: str
    kind: Literal["table", "partitioned", "view", "query"]
    where: str | None = None

    def alias(self, name: str) -> str:
        """Return a name that the SQL gives to a column or subquery, quoted where it has to be."""
        return name


def select(expressions: Sequence[str], relation: Relation, *conditions: str | None) -> str:
    """Return the SELECT of expressions, named c0, c1, …, under conditions and the spec's own.

    Names are positions, because a table's columns may be called anything: DuckDB folds case, where
    PostgreSQL has ``a`` beside ``A``.
    """
    named = (f"{text} as {relation.alias(f'c{i}')}" for i, text in enumerate(expressions))
    return (
        f"select {', '.join(named) or '1'} from {relation.source}"
        f"{where_clause(relation.where, *conditions)}"
    )


def trim_statement(text: str) -> str:
    """Strip blanks and semicolons from the end of a statement."""
    return re.sub(r"[\s;]+\Z", "", text)


def in_parentheses(text: str) -> str:
    """Put text between parentheses so that a comment at its end does not swallow the last one."""
    return f"(\n{text}\n)"


def where_clause(*conditions: str | None) -> str:
    """Return ``where (…) and (…)`` of the conditions that are not None; empty without any."""
    given = [in_parentheses(condition) for condition in conditions if condition]
    return f" where {' and '.join(given)}" if given else ""
