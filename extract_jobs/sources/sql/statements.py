"""SQL that is the same in every dialect: FROM, SELECT, and the user's own text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Relation:
    """A table or query as written in a FROM clause.

    Attributes:
        source: A quoted name, or a query in parentheses with its alias.
        kind: Table, view or query.
        where: The spec's condition; None reads all rows.
    """

    source: str
    kind: Literal["table", "partitioned", "view", "query"]
    where: str | None = None

    def alias(self, name: str) -> str:
        """Return an alias for a column or subquery, quoted if necessary."""
        return name


def select(expressions: Sequence[str], relation: Relation, *conditions: str | None) -> str:
    """Return a SELECT of expressions, named c0, c1, …, with these and the spec's conditions.

    Names are positions, because columns may have any name: DuckDB ignores case, while PostgreSQL
    distinguishes ``a`` and ``A``.
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
