"""Checks ``where``: only one boolean expression of the source's dialect is accepted.

The text is sent unchanged, between parentheses, so it is checked twice. `scanner` makes sure that
no server, whatever its settings, can read the text as leaving those parentheses. Then sqlglot
parses it, and anything that is not a condition on one row, or that may return something different
each time, is refused with the reason.

https://github.com/tobymao/sqlglot
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from extract_jobs.errors import ConfigError
from extract_jobs.spec.predicates.functions import clock_in, effect_in
from extract_jobs.spec.predicates.parser_gaps import (
    without_arguments,
    without_odd_literals,
    without_types,
)
from extract_jobs.spec.predicates.scanner import problem_of, quotations

if TYPE_CHECKING:
    from sqlglot import exp
    from sqlglot.dialects import Dialect
    from sqlglot.errors import ParseError

_WAY_OUT = "if the source accepts this form, use a query instead"
_CACHED_TEXTS = 20_000
"""Enough for a large config, in which many tables share a condition."""
_UNPARSED_CALLS = 4
"""Function calls of one condition whose arguments are left to the server."""
_TYPES_OF_LITERALS = 16
"""Names of types, unknown to sqlglot, that the literals of one condition may have."""


def check_where(text: str, dialect: str, *, where: str = "where") -> None:
    """Refuse anything but one boolean expression. Offline.

    No server of the dialect can read accepted text as reaching beyond parentheses around it.
    Messages never contain the text.

    Args:
        text: The condition, in the source's dialect.
        dialect: As a `SourceRegistration` names it; ``generic`` is standard SQL.
        where: How messages refer to it, such as by its path in a config.

    Raises:
        ConfigError: The text is refused; the message has the reason, and its line and column.
    """
    problem = where_problem(text, dialect)
    if problem is not None:
        raise ConfigError(f"{where}: {problem}")


@lru_cache(_CACHED_TEXTS)
def where_problem(text: str, dialect: str) -> str | None:
    """Return why `check_where` refuses a text; None if it does not."""
    problem = problem_of(text, dialect)
    if problem is not None:
        return problem
    if not text.strip():
        return "is empty; leave it out to take all rows"

    from sqlglot.errors import ParseError, SqlglotError

    try:
        effect = effect_in(_reader(text, dialect).tokenize(text), dialect)
        if effect is not None:
            return effect
        tree = _tree(text, dialect)
        if tree is None:
            raise ParseError("nothing but operators")
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        at = f", at line {first['line']}, column {first['col']}" if first.get("line") else ""
        return f"is not one expression in the {dialect} dialect{at}; {_WAY_OUT}"
    except SqlglotError:
        return f"cannot be parsed as {dialect}; {_WAY_OUT}"
    except RecursionError:
        return "is nested too deeply; write long chains of OR as IN, or use a query"
    return _tree_problem(tree, dialect)


@lru_cache(_CACHED_TEXTS)
def reads_clock(text: str, dialect: str) -> bool:
    """Return whether a condition or query may return something different when it is run again.

    This is decided by the names in it: those of the clock and of functions that `check_where`
    refuses. A column that happens to have such a name makes it True too.

    Args:
        text: SQL. If it cannot be parsed, the result is True.
        dialect: As a `SourceRegistration` names it; ``generic`` is standard SQL.
    """
    from sqlglot.errors import SqlglotError

    try:
        tokens = _reader(text, dialect).tokenize(text)
    except SqlglotError:
        return True
    return clock_in(tokens) or effect_in(tokens, dialect) is not None


@lru_cache(_CACHED_TEXTS)
def reads_other_rows(text: str, dialect: str) -> bool:
    """Return whether a condition may depend on rows other than the one it is evaluated for.

    Args:
        text: A condition that `check_where` lets pass. A function that is unknown, or whose
            arguments cannot be parsed, makes it True: it may be defined on the server.
        dialect: As a `SourceRegistration` names it.
    """
    from sqlglot import exp
    from sqlglot.errors import ParseError

    try:
        return _tree(text, dialect, unparsed_calls=0).find(exp.Query, exp.Anonymous) is not None
    except ParseError:
        return True


def _reader(text: str, dialect: str) -> Dialect:
    """Return sqlglot's dialect; for generic SQL with MySQL's quotes, MySQL's."""
    from sqlglot.dialects import Dialect

    generic = "mysql" if "`" in text else ""
    return Dialect.get_or_raise(generic if dialect == "generic" else dialect)


def _tree(text: str, dialect: str, *, unparsed_calls: int = _UNPARSED_CALLS) -> exp.Expr:
    """Parse a condition that `problem_of` lets pass.

    What sqlglot lacks is replaced first.

    Args:
        text: The condition.
        dialect: Its dialect.
        unparsed_calls: Functions whose arguments sqlglot need not parse. They are left to the
            server, and missing in the tree.

    Raises:
        ParseError: The text is not one expression.
        SqlglotError: It has no tokens of the dialect.
    """
    from sqlglot import exp
    from sqlglot.errors import ParseError

    reader, spans = _reader(text, dialect), quotations(text, dialect)
    parsed = without_odd_literals(text, dialect, spans)
    first: ParseError | None = None
    for _ in range(_TYPES_OF_LITERALS + unparsed_calls + 1):
        try:
            tokens = reader.tokenize(parsed)
            tree: exp.Expr = reader.parser().parse_into(exp.Condition, tokens, parsed)[0]
        except ParseError as error:
            first = first or error
            at = _position(parsed, error)
            shorter = without_types(parsed, at, dialect, spans)
            if shorter is None and unparsed_calls > 0:
                unparsed_calls -= 1
                shorter = without_arguments(parsed, at, dialect, spans)
            if shorter is None:
                raise first from None
            parsed = shorter
        else:
            return tree
    assert first is not None
    raise first


def _position(text: str, error: ParseError) -> int:
    """Return where parsing failed; -1 if the error does not say."""
    first = error.errors[0] if error.errors else {}
    if not first.get("line"):
        return -1
    lines = text.split("\n")[: first["line"] - 1]
    return sum(len(line) + 1 for line in lines) + int(first["col"]) - 1


def _tree_problem(tree: exp.Expr, dialect: str) -> str | None:
    from sqlglot import exp

    for node in tree.walk():
        if isinstance(node, exp.DML | exp.DDL | exp.Command | exp.Into | exp.Lock):
            return "contains a subquery that writes or locks; only SELECT is allowed in it"
        if isinstance(node, exp.Placeholder | exp.Parameter | exp.SessionParameter):
            return "contains a parameter or variable; write its value instead"
    for node in _outside_subqueries(tree):
        if isinstance(node, exp.Window):
            return "uses a window function, which sees more than one row; use a query"
        if isinstance(node, exp.AggFunc):
            return "uses an aggregate, which sees more than one row; use a query or a subquery"
        if isinstance(node, exp.Values) and isinstance(node.parent, exp.In):
            continue
        if isinstance(node, exp.UDTF | exp.Unnest | exp.ExplodingGenerateSeries):
            return "uses a function that returns several rows; use it in a subquery"
        if isinstance(node, exp.Alias | exp.Aliases):
            return "names a result (AS), which a condition cannot have"
    for operand in _operands(tree):
        if _is_no_condition(operand, dialect):
            what = "is" if operand is tree.unnest() else "contains, beside AND, OR or NOT,"
            return f"{what} a value that is not boolean; compare it with something"
    return None


def _outside_subqueries(tree: exp.Expr) -> Iterator[exp.Expr]:
    from sqlglot import exp

    yield from tree.walk(prune=lambda node: isinstance(node, exp.Query))


def _operands(tree: exp.Expr) -> Iterator[exp.Expr]:
    """Yield the nodes that must be boolean: the tree, or the operands of AND, OR and NOT."""
    from sqlglot import exp

    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, exp.Connector):
            todo += [node.right, node.left]
        elif isinstance(node, exp.Not | exp.Paren):
            todo.append(node.this)
        else:
            yield node


def _is_no_condition(node: exp.Expr, dialect: str) -> bool:
    """Return whether a node's value is certainly not a boolean."""
    from sqlglot import exp

    if isinstance(node, exp.Literal | exp.Null | exp.Star | exp.Tuple | exp.Interval | exp.Neg):
        return True
    if isinstance(node, exp.Column):
        return isinstance(node.this, exp.Star)
    if isinstance(node, exp.CurrentTimestamp | exp.CurrentDate | exp.Concat | exp.DPipe):
        return True
    if dialect in ("mysql", "sqlite", "generic"):
        return False  # any number may stand for true or false, as in ``flags & 4``
    if isinstance(node, exp.Cast):
        kind = node.to.this
        return isinstance(kind, exp.DataType.Type) and kind in exp.DataType.NUMERIC_TYPES.union(
            exp.DataType.TEXT_TYPES, exp.DataType.TEMPORAL_TYPES
        )
    arithmetic = exp.Add | exp.Sub | exp.Mul | exp.Div | exp.IntDiv | exp.Mod
    return isinstance(node, arithmetic | exp.Upper | exp.Lower | exp.Length)
