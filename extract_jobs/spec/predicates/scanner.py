"""Checks that text stays inside the parentheses around it, whatever the server's settings.

Where a quotation ends can depend on settings that are not ours: backslashes escape in MySQL unless
``NO_BACKSLASH_ESCAPES`` is on, in PostgreSQL if ``standard_conforming_strings`` is off, and in
other databases it is unknown. So text is read in every way that a server of the dialect may read
it, and is refused if a quotation ends in different places. Comments, dollar quotes and Oracle's
``q'[…]'``, which hide text from one reader but not from another, are not allowed in a condition.

https://dev.mysql.com/doc/refman/8.4/en/string-literals.html
https://www.postgresql.org/docs/current/sql-syntax-lexical.html
https://docs.oracle.com/en/database/oracle/oracle-database/23/sqlrf/Literals.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class _Quoting:
    """How a dialect quotes.

    Attributes:
        names: What opens a quoted name, besides ``"``.
        backslash: Quotes between which a backslash may, or may not, escape.
        escapes: Whether ``E'…'`` is a string in which it does.
        refused: Characters that are refused outside quotes.
        ambiguous: Characters of ``names`` that may, or may not, quote.
    """

    names: str = ""
    backslash: str = ""
    escapes: bool = False
    refused: str = "\\;{}"
    ambiguous: str = ""


_DIALECTS = {
    "postgres": _Quoting(backslash="'", escapes=True, refused="\\;{}`"),
    "redshift": _Quoting(backslash="'", escapes=True, refused="\\;{}`"),
    "mysql": _Quoting(names="`", backslash="'\"", refused="\\;{}#"),
    "sqlite": _Quoting(names="`["),
    "tsql": _Quoting(names="[", refused="\\;{}`"),
    "oracle": _Quoting(refused="\\;{}`[]"),
    "generic": _Quoting(names="`", backslash="'\"", ambiguous="`", refused="\\;{}#[]"),
}
_ENDS = {"[": "]"}
_DOUBLE_TO_ESCAPE = {"sqlite": "'\"`"}
"""Only in SQLite ``]]`` is not an escaped ``]`` in a name."""
_COMMENTS = ("--", "/*", "*/")
_WORD = re.compile(r"[A-Za-z0-9_$\x80-\U0010ffff]")
_UNSAFE_WHERE_AMBIGUOUS = re.compile(r"""['"`();\\]|--|/\*|\*/""")


class _Refused(Exception):
    """Why, and where in the text."""

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(reason)
        self.reason, self.at = reason, at


def place(text: str, at: int) -> str:
    """Return a position as ``line 1, column 5``; both count from 1."""
    return f"line {text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)}"


def problem_of(text: str, dialect: str) -> str | None:
    """Return why text may reach beyond the parentheses around it; None if it cannot.

    Args:
        text: A condition.
        dialect: A key of the dialects known here.
    """
    quoting = _DIALECTS[dialect]
    try:
        if "\\" in text and quoting.backslash:
            _check_backslashes(text, dialect)
        _check_between(text, _spans(text, dialect, escaping=False), quoting)
    except _Refused as refused:
        return f"{refused.reason} (at {place(text, refused.at)})"
    return None


def quotations(text: str, dialect: str) -> list[tuple[int, int, str]]:
    """Return start, end and opening quote of everything quoted in text that `problem_of` passes."""
    return _spans(text, dialect, escaping=False)


def _spans(text: str, dialect: str, *, escaping: bool) -> list[tuple[int, int, str]]:
    """Return start, end and opening quote of everything quoted.

    Raises:
        _Refused: A quotation does not end, or is of a kind that is refused.
    """
    quoting, at = _DIALECTS[dialect], 0
    found: list[tuple[int, int, str]] = []
    while at < len(text):
        sign = text[at]
        if text.startswith(_COMMENTS, at):
            raise _Refused("holds a comment; leave it out of the text", at)
        if sign not in "'\"" and sign not in quoting.names:
            at += 1
            continue
        prefix = _word_before(text, at) if sign == "'" else ""
        if prefix in ("q", "nq") and dialect in ("oracle", "generic"):
            raise _Refused("holds a string in the form q'…'; write it as '…'", at)
        escapes = (escaping and sign in quoting.backslash) or (prefix == "e" and quoting.escapes)
        end = _end(text, at, dialect, escapes=escapes)
        if sign in quoting.ambiguous and _UNSAFE_WHERE_AMBIGUOUS.search(text, at + 1, end - 1):
            raise _Refused(f"holds quotes or parentheses between {sign}{sign}", at)
        if sign == "'" and found and found[-1][2] == "'" and not text[found[-1][1] : at].strip():
            # PostgreSQL joins them and reads the second like the first, also after E'…'.
            raise _Refused("holds two strings in a row; write them as one", at)
        found.append((at, end, sign))
        at = end
    return found


def _check_backslashes(text: str, dialect: str) -> None:
    """Check that quotations end at the same places whether a backslash escapes or not."""
    readings: list[list[tuple[int, int, str]] | None] = []
    for escaping in (False, True):
        try:
            readings.append(_spans(text, dialect, escaping=escaping))
        except _Refused:
            readings.append(None)
    if readings[0] != readings[1]:
        raise _Refused(
            "holds a string that ends elsewhere if a backslash escapes, which depends on the "
            "server's settings; write it without",
            text.index("\\"),
        )


def _word_before(text: str, end: int) -> str:
    start = end
    while start and _WORD.match(text, start - 1):
        start -= 1
    return text[start:end].lower()


def _end(text: str, start: int, dialect: str, *, escapes: bool) -> int:
    """Return the position after a quotation's end."""
    close = _ENDS.get(text[start], text[start])
    doubled = close in _DOUBLE_TO_ESCAPE.get(dialect, close)
    at = start + 1
    while at < len(text):
        if escapes and text[at] == "\\":
            at += 2
        elif text[at] != close:
            at += 1
        elif doubled and text.startswith(close, at + 1):
            at += 2
        else:
            return at + 1
    raise _Refused("holds a quote that is not closed", start)


def _check_between(text: str, spans: list[tuple[int, int, str]], quoting: _Quoting) -> None:
    """Check parentheses and single characters outside quotes, and control characters anywhere."""
    if "\0" in text:
        raise _Refused("holds the character NUL", text.index("\0"))
    quoted = iter([*spans, (len(text), len(text), "")])
    start, end, _ = next(quoted)
    opened: list[int] = []
    at = 0
    while at < len(text):
        if at == start:
            at = end
            start, end, _ = next(quoted)
            continue
        sign = text[at]
        if sign == "(":
            opened.append(at)
        elif sign == ")":
            if not opened:
                raise _Refused("closes a parenthesis that it did not open", at)
            opened.pop()
        elif sign in quoting.refused:
            what = (
                "a semicolon; write one expression, not statements" if sign == ";" else f"a {sign}"
            )
            raise _Refused(f"holds {what}", at)
        elif sign == "$" and not _WORD.match(text[at - 1 : at]):
            raise _Refused("holds a parameter or a dollar quote; write its value as '…'", at)
        elif not sign.isprintable() and sign not in "\t\n\r":
            raise _Refused(f"holds the character U+{ord(sign):04X}", at)
        at += 1
    if opened:
        raise _Refused("opens a parenthesis that it does not close", opened[-1])
