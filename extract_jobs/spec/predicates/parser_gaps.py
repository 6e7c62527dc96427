"""Valid SQL that sqlglot does not parse, replaced by something that it does.

Only the copy that is parsed changes, letter for letter, so that positions stay; the source gets the
text as it was written and has the last word on it.

https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-CONSTANTS-NUMERIC
https://sqlite.org/lang_expr.html#literal_values_constants_
https://docs.oracle.com/en/database/oracle/oracle-database/23/sqlrf/Literals.html
https://learn.microsoft.com/en-us/sql/t-sql/language-elements/comparison-operators-transact-sql
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial

_DIGITS = r"\d(?:_?\d)*"
_DECIMAL = rf"(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?"
_BEFORE, _AFTER = r"(?<![\w$.])", r"(?![\w$.])"

_Replaced = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]


def _as_zeros(found: re.Match[str]) -> str:
    return "0" * len(found[0])


_UNDERSCORES = (re.compile(rf"{_BEFORE}{_DECIMAL}{_AFTER}"), lambda m: m[0].replace("_", "0"))
_OTHER_BASES = (
    re.compile(rf"{_BEFORE}0(?:[xX](?:_?[0-9a-fA-F])+|[oO](?:_?[0-7])+|[bB](?:_?[01])+){_AFTER}"),
    _as_zeros,
)
_HEXADECIMAL = (re.compile(rf"{_BEFORE}0[xX](?:_?[0-9a-fA-F])+{_AFTER}"), _as_zeros)
_FLOATS = (re.compile(rf"{_BEFORE}{_DECIMAL}[fFdD]{_AFTER}"), lambda m: f"{m[0][:-1]}0")
_NOT_ABOVE = (re.compile(r"!(?=[<>])"), lambda _: " ")

_NORMAL_FORM = (
    re.compile(r"\bnfk?[cd](?=\s+normalized\b)", re.IGNORECASE), lambda m: " " * len(m[0]),
)  # fmt: skip

_GAPS: dict[str, tuple[_Replaced, ...]] = {
    "postgres": (_OTHER_BASES, _UNDERSCORES, _NORMAL_FORM),
    "sqlite": (_HEXADECIMAL, _UNDERSCORES),
    "oracle": (_FLOATS,),
    "tsql": (_NOT_ABOVE,),
}

ASKED = frozenset({"postgres", "mysql", "sqlite"})
"""Dialects whose sources let the server parse a condition before anything is read."""

_OPERATOR = re.compile(r"[-+*/<>=~!@#%^&|?]+")
_PARSED_OPERATORS = frozenset({
    "+", "-", "*", "/", "<", ">", "=", "<=", ">=", "<>", "!=", "%", "^", "&", "|", "#", "<<", ">>",
    "||", "&&", "->", "->>", "#>", "#>>", "#-", "@>", "<@", "?", "?|", "?&", "@?", "@@", "<->",
    "-|-", "&<", "&>", "^@", "~", "~*", "!~", "!~*", "~~", "~~*", "!~~", "!~~*",
})  # fmt: skip
_PARSED_PREFIXES = frozenset({"+", "-", "*", "~", "%", "?", "|/", "||/"})
_ENDING_IN_A_SIGN = re.compile(r"[~!@#%^&|?]")
_BEFORE_AN_OPERAND = frozenset({
    "and", "between", "case", "else", "escape", "from", "having", "ilike", "in", "is", "like",
    "not", "on", "or", "select", "symmetric", "then", "to", "when", "where",
})  # fmt: skip
_SIGNS_BEFORE_AN_OPERAND = "(,[+-*/<>=~!@#%^&|?"
_LAST_WORD = re.compile(r"(?<![\w$.])\w+$")
_LONGER_THAN_THEY_ARE = 16

_TYPE_NAME = r'(?:\w+|"(?:[^"]|"")+")'
_TYPE_BEFORE = re.compile(rf"(?<![\w$.\"])(?:{_TYPE_NAME}\s*\.\s*)?({_TYPE_NAME})\s*$")
_NO_TYPES = _BEFORE_AN_OPERAND | {
    "all", "any", "as", "by", "collate", "default", "distinct", "end", "except", "false", "fetch",
    "for", "intersect", "into", "limit", "null", "offset", "only", "operator", "over", "returning",
    "set", "similar", "some", "true", "union", "using", "values", "with", "zone",
}  # fmt: skip

_OTHER_THAN_ARGUMENTS = re.compile(
    r"\b(?:select|values|table|with|insert|update|delete|merge|into|lock|call|exec|execute)\b|[@?:;]"
    r"(?!:)",
    re.IGNORECASE,
)
_NO_FUNCTIONS = frozenset({
    "all", "and", "any", "between", "case", "else", "exists", "from", "ilike", "in", "is", "like",
    "not", "or", "row", "select", "some", "then", "when", "where", "xor",
})  # fmt: skip
_NAME_BEFORE = re.compile(r"([\w$\"`\]]+)\s*$")


def without_odd_literals(text: str, dialect: str, spans: Iterable[tuple[int, int, str]]) -> str:
    """Return text of the same length, in which literals and operators are ones that sqlglot has.

    ``1_000`` and ``0o17`` in PostgreSQL 16 and later, its operators such as ``@ n`` and ``a ~= b``,
    ``1.5f`` in Oracle, ``!>`` in SQL Server.

    Args:
        text: A condition.
        dialect: Its dialect.
        spans: Start, end and opening quote of everything quoted in it.
    """
    found, at = [], 0
    for start, end, _ in [*spans, (len(text), len(text), "")]:
        between = text[at:start]
        for pattern, replacement in _GAPS.get(dialect, ()):
            between = pattern.sub(replacement, between)
        if dialect == "postgres":
            between = _OPERATOR.sub(partial(_as_parsed, is_operand=at > 0), between)
        found += [between, text[start:end]]
        at = end
    return "".join(found)


def _as_parsed(found: re.Match[str], *, is_operand: bool) -> str:
    """Return PostgreSQL's operators as ones that sqlglot has, in as many letters.

    Extensions and people add operators, so all that may be one is left to the server.

    Args:
        found: A run of the characters of operators.
        is_operand: Whether something quoted ends where the searched text begins.
    """
    run, start = found[0], found.start()
    operator = run
    while len(operator) > 1 and operator[-1] in "+-" and not _ENDING_IN_A_SIGN.search(operator):
        operator = operator[:-1]  # the sign of what follows, as PostgreSQL reads it
    while start and found.string[start - 1].isspace():
        start -= 1
    ahead = found.string[max(0, start - _LONGER_THAN_THEY_ARE) : start]
    word = _LAST_WORD.search(ahead)
    if word is not None:
        is_prefix = word[0].lower() in _BEFORE_AN_OPERAND
    else:
        is_prefix = ahead[-1] in _SIGNS_BEFORE_AN_OPERAND if ahead else not is_operand
    known = _PARSED_PREFIXES if is_prefix else _PARSED_OPERATORS
    parsed = operator if operator in known else ("" if is_prefix else "~").ljust(len(operator))
    return parsed + run[len(operator) :]


def without_types(
    text: str, at: int, dialect: str, spans: Iterable[tuple[int, int, str]]
) -> str | None:
    """Return text with blanks for the name of a type before a string: ``box '(0,0)'``.

    Extensions and people add types to PostgreSQL, so any name may be one.

    Args:
        text: A condition that sqlglot cannot parse.
        at: Where it failed.
        dialect: Its dialect.
        spans: Start, end and opening quote of everything quoted in the text.

    Returns:
        Text of the same length, without that name before all its strings; None if the failure is at
        no such string.
    """
    if dialect != "postgres":
        return None
    named: list[tuple[re.Match[str], int]] = []
    for start, end, quote in spans:
        found = _TYPE_BEFORE.search(text, 0, start) if quote == "'" else None
        if found is not None and found[1].lower() not in _NO_TYPES:
            named.append((found, end))
    failed = next((found[0] for found, end in named if found.start() <= at < end), None)
    if failed is None:
        return None
    for found, _ in named:
        if found[0] == failed:
            text = f"{text[: found.start()]}{' ' * len(failed)}{text[found.end() :]}"
    return text


def without_arguments(
    text: str, at: int, dialect: str, spans: Iterable[tuple[int, int, str]]
) -> str | None:
    """Return text with 0 for the arguments of the function call around a position.

    Functions such as ``substring(a similar b escape c)`` have a syntax of their own. Whether it is
    valid only the server knows, and only if it is asked.

    Args:
        text: A condition that sqlglot cannot parse.
        at: Where it failed.
        dialect: Its dialect.
        spans: Start, end and opening quote of everything quoted in the text.

    Returns:
        Text of the same length; None if there is no such call, if its arguments contain anything
        that the server must not be left to judge alone, or if the server is not asked.
    """
    if dialect not in ASKED:
        return None
    plain = list(text)
    for start, end, _ in spans:
        plain[start:end] = "'" * (end - start)
    opened: list[int] = []
    for position, sign in enumerate(plain):
        if sign == "(":
            opened.append(position)
        elif sign == ")":
            start = opened.pop()
            if not start < at <= position:
                continue
            name = _NAME_BEFORE.search(text, 0, start)
            inside = "".join(plain[start + 1 : position])
            is_call = name is not None and name[1].lower() not in _NO_FUNCTIONS
            if not is_call or inside.strip() == "0" or _OTHER_THAN_ARGUMENTS.search(inside):
                return None
            return f"{text[: start + 1]}{'0'.ljust(len(inside))}{text[position:]}"
    return None
