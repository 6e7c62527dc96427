"""The SQL that the JDBC source sends: relations, conditions, literals. Text in, text out.

A person's own text (``query``, ``where``) is only ever put between parentheses that it was checked
not to reach beyond (`extract_jobs.spec.predicates`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from extract_jobs.errors import ConfigError
from extract_jobs.sources import ReadRequest
from extract_jobs.sources.jdbc.dialects import Dialect
from extract_jobs.sources.jdbc.types import Typed, quote_name
from extract_jobs.sources.sql.statements import (
    bounds_condition,
    in_parentheses,
    trim_statement,
    watermark_changed,
    where_clause,
)
from extract_jobs.spec.predicates.scanner import problem_of
from extract_jobs.watermark import WatermarkValue


@dataclass(frozen=True)
class Relation:
    """What is read, as it stands in a FROM clause.

    Attributes:
        source: A quoted name, or a query in parentheses with its alias.
        kind: What it is.
        dialect: That it is written in.
        where: The spec's own condition; None reads all rows.
    """

    source: str
    kind: Literal["table", "view", "query"]
    dialect: Dialect
    where: str | None = None


def check_query(query: str, dialect: str) -> None:
    """Refuse a query that may reach beyond parentheses around it. Offline.

    Args:
        query: One SELECT.
        dialect: As `extract_jobs.spec.predicates` calls it.

    Raises:
        ConfigError: It may, or holds a comment, which hides text from one reader and not another.
    """
    problem = problem_of(trim_statement(query), dialect)
    if problem is not None:
        raise ConfigError(f"query: {problem}")


def query_relation(query: str, where: str | None, dialect: Dialect) -> Relation:
    """Return how a query stands in a FROM clause."""
    # Without `as`, which Oracle does not have there.
    return Relation(
        f"{in_parentheses(trim_statement(query))} {quote_name('extracted', dialect)}",
        "query",
        dialect,
        where,
    )


def select(expressions: Sequence[str], relation: Relation, *conditions: str | None) -> str:
    """Return the SELECT of expressions, named c0, c1, …, under conditions and the spec's own."""
    listed = ", ".join(
        f"{expression} as {quote_name(f'c{i}', relation.dialect)}"
        for i, expression in enumerate(expressions)
    )
    return f"select {listed} from {relation.source}{where_clause(relation.where, *conditions)}"


def text_of(expression: str, found: Typed, dialect: Dialect) -> str:
    """Return SQL that gives values of a column's type as text, as the column itself is read."""
    template = found.rule.expression
    if template is None or found.kind == "decimal":
        kind = "wide decimal" if found.kind == "decimal" else found.kind
        template = dialect.text.get(kind, "{}")
    return template.replace("{}", expression)


def literal(text: str, found: Typed, dialect: Dialect) -> str:
    """Return a literal that compares with a column, of text as watermarks have it."""
    if found.kind == "string":
        return quote_text(text, dialect)
    if found.watermark in ("integer", "decimal"):
        template = found.rule.literal or "{text}"
    else:
        text = re.sub(r"(\+00(:00)?|Z)$", "", text.replace("T", " "))
        template = found.rule.literal or dialect.literals[found.kind]
    return template.replace("{text}", text).replace("{seconds}", text[:19])


def quote_text(text: str, dialect: Dialect) -> str:
    """Quote a string literal.

    Raises:
        ConfigError: The text holds a NUL, or a backslash where that may, or may not, escape.
    """
    if "\0" in text:
        raise ConfigError("a text with a NUL character cannot stand in SQL")
    if dialect.backslashes == "escape" and "\\" in text:
        # By its bytes, which no sql_mode reads otherwise.
        return f"convert(x'{text.encode().hex()}' using utf8mb4)"
    if dialect.backslashes == "unknown" and "\\" in text:
        raise ConfigError(
            "a text with a backslash cannot stand in the SQL of a database that is not known here; "
            "split by another column, or order by another watermark"
        )
    return dialect.quoted_text.replace("{text}", text.replace("'", "''"))


def interval_condition(request: ReadRequest, found: Typed | None, dialect: Dialect) -> str | None:
    """Return ``column > lower and column <= upper`` for a request; None if all rows belong.

    Raises:
        ConfigError: The bounds are of another kind than the column.
    """
    name = request.watermark_column or ""
    column = quote_name(name, dialect)

    def compare(sign: str, bound: WatermarkValue) -> str:
        return f"{column} {sign} {literal(bound.text, _checked(bound, name, found), dialect)}"

    return bounds_condition(
        request,
        compare,
        is_null=f"{column} is null",
        not_null=f"{column} is not null",
        nothing="1 = 0",
    )


def _checked(bound: WatermarkValue, name: str, found: Typed | None) -> Typed:
    if found is None or found.watermark != bound.type:
        raise watermark_changed(name, found.described.printed if found else None, bound)
    return found
