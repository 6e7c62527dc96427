"""Checks that a person's query or condition is a single statement or expression."""

from __future__ import annotations

import psycopg
from psycopg import pq

from extract_jobs.errors import ConfigError
from extract_jobs.sources.postgres.errors import primary, statement_error
from extract_jobs.sources.postgres.session import Connection
from extract_jobs.sources.sql.statements import Relation, in_parentheses, trim_statement
from extract_jobs.spec.predicates import check_where


def check_statement(opened: Connection, text: str, what: str) -> list[tuple[str, int, int]]:
    """Let the server parse one statement, over the protocol that refuses several.

    The statement is not run.

    Returns:
        Name, type identifier and type modifier of each column of its result.

    Raises:
        ConfigError: The server refuses it.
    """
    for result in (
        opened.pgconn.prepare(b"", text.encode()),
        described := opened.pgconn.describe_prepared(b""),
    ):
        if result.status != pq.ExecStatus.COMMAND_OK:
            error = psycopg.errors.error_from_result(result)
            if error.sqlstate == "42501":
                raise statement_error(error, f"preparing the {what}") from error
            raise ConfigError(f"the server refuses the {what}: {primary(error)}") from error
    return [
        ((described.fname(i) or b"").decode(), described.ftype(i), described.fmod(i))
        for i in range(described.nfields)
    ]


def check_texts(opened: Connection, relation: Relation, query: str | None) -> None:
    """Check that a person's query and condition are each one statement or expression.

    The condition is parsed here first (`check_where`). Then each must parse on the server both
    inside parentheses and alone, so none can close a parenthesis that it did not open.

    Raises:
        ConfigError: One is not.
    """
    if query is not None:
        for form in (f"select * from {relation.source}", query):
            check_statement(opened, form, "query")
    if relation.where is not None:
        check_where(relation.where, "postgres")
        for form in (in_parentheses(relation.where), relation.where):
            text = f"select 1 from {relation.source} where {form}"
            check_statement(opened, text, "where")


def query_relation(query: str, where: str | None) -> Relation:
    """Return a query as a relation for a FROM clause."""
    text = in_parentheses(trim_statement(query))
    return Relation(f"{text} as extracted", "query", where)
