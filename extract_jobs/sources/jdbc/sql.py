"""The SQL that the JDBC source sends: relations, conditions, literals. Text in, text out.

The user's own text (``query``, ``where``) is only put between parentheses, after a check that it
cannot reach beyond them (`extract_jobs.spec.predicates`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from extract_jobs.errors import ConfigError
from extract_jobs.sources.jdbc.dialects import Dialect
from extract_jobs.sources.jdbc.types import Typed, quote_name
from extract_jobs.sources.sql import statements
from extract_jobs.sources.sql.statements import in_parentheses, trim_statement
from extract_jobs.spec.predicates.scanner import problem_of


@dataclass(frozen=True, kw_only=True)
class Relation(statements.Relation):
    """A table or query as written in a FROM clause.

    Attributes:
        dialect: The database's dialect.
    """

    dialect: Dialect

    def alias(self, name: str) -> str:
        """Return a name in quotes: without them Oracle would fold its case."""
        return quote_name(name, self.dialect)


def check_query(query: str, dialect: str) -> None:
    """Refuse a query that may reach beyond the parentheses around it. Offline.

    Args:
        query: One SELECT.
        dialect: Its name in `extract_jobs.spec.predicates`.

    Raises:
        ConfigError: It may do so, or holds a comment, which hides text from one reader but not
            another.
    """
    problem = problem_of(trim_statement(query), dialect)
    if problem is not None:
        raise ConfigError(f"query: {problem}")


def query_relation(query: str, where: str | None, dialect: Dialect) -> Relation:
    """Return a query as a relation for a FROM clause."""
    # Without `as`, which Oracle does not accept here.
    return Relation(
        f"{in_parentheses(trim_statement(query))} {quote_name('extracted', dialect)}",
        "query",
        where,
        dialect=dialect,
    )


def text_of(expression: str, found: Typed, dialect: Dialect) -> str:
    """Return SQL that converts values of a column's type to text, as when the column is read."""
    template = found.rule.expression
    if template is None or found.kind == "decimal":
        kind = "wide decimal" if found.kind == "decimal" else found.kind
        template = dialect.text.get(kind, "{}")
    return template.replace("{}", expression)


def literal(text: str, found: Typed, dialect: Dialect) -> str:
    """Return a literal that compares with a column, from a watermark's text."""
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
        ConfigError: The text holds a NUL, or a backslash that may or may not escape.
    """
    if "\0" in text:
        raise ConfigError("SQL cannot contain text with a NUL character")
    if dialect.backslashes == "escape" and "\\" in text:
        # As bytes, which do not depend on sql_mode.
        return f"convert(x'{text.encode().hex()}' using utf8mb4)"
    if dialect.backslashes == "unknown" and "\\" in text:
        raise ConfigError(
            "a text with a backslash is unsafe in the SQL of an unknown database; "
            "split by another column, or order by another watermark"
        )
    return dialect.quoted_text.replace("{text}", text.replace("'", "''"))
