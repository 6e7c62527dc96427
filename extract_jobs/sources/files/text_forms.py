"""Numbers, dates and booleans that a file writes in its own format: ``1.234,56``, ``31.12.2024``.

They are converted to the usual text of their type, which `exact_cast` then reads, so there is one
grammar for values. Text that does not match the declared format is not a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.spec.source import FilesSpec, TextTypeSpec
from extract_jobs.transform.types import kind

_NUMBERS = ("integer", "float", "decimal")
_TIMES = ("date", "timestamp", "timestamptz")
_FOR = {
    "decimal": _NUMBERS, "thousands": _NUMBERS, "format": _TIMES,
    "true_values": ("boolean",), "false_values": ("boolean",),
}  # fmt: skip
_DIRECTIVES = {
    "Y": r"\d{4}", "y": r"\d{2}", "m": r"\d{1,2}", "b": "[A-Za-z]{3}", "d": r"\d{1,2}",
    "H": r"\d{1,2}", "I": r"0?[1-9]|1[0-2]", "p": "(?i:am|pm)", "M": r"\d{2}", "S": r"\d{2}",
    "f": r"\d{1,6}", "z": r"Z|[+-]\d{2}:?\d{2}",
}  # fmt: skip
_TIME = set("HIpMSfz")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_FIRST_YEAR = 69
"""Two-digit years are 1969 to 2068, as in POSIX and Python."""

Forms = Mapping[str, TextTypeSpec]
"""Formats of columns that have their own, by name."""


def type_name(given: str | TextTypeSpec) -> str:
    """Return the name of a declared type."""
    return given if isinstance(given, str) else given.type


def forms_of(files: FilesSpec) -> dict[str, TextTypeSpec]:
    """Return the columns that are declared with their own format."""
    declared = (files.types or {}).items()
    return {n: given for n, given in declared if isinstance(given, TextTypeSpec) and given.written}


def form_problems(given: TextTypeSpec, target: pa.DataType, *, as_json: bool) -> Iterator[str]:
    """Yield what is wrong with the declared format of a type.

    Args:
        given: The declaration.
        target: Its type.
        as_json: Whether files are JSON, in which a value may already be a number.
    """
    of = kind(target)
    for name in given.written:
        if of not in _FOR[name]:
            yield f"{name} is for columns of type {' or '.join(_FOR[name])}, not {given.type}"
    if as_json and (given.decimal or given.thousands):
        yield "decimal and thousands are for CSV: JSON has numbers of its own"
    marks = [given.decimal or ".", *([given.thousands] if given.thousands is not None else [])]
    wrong = any(len(m) != 1 or m.isalnum() or m in "+-" for m in marks)
    if wrong or len(set(marks)) < len(marks):
        yield (
            "decimal (without it: a point) and thousands must be two different characters, "
            "neither letter, digit nor sign"
        )
    if (given.true_values is None) != (given.false_values is None):
        yield "true_values and false_values belong together"
    elif set(given.true_values or ()) & set(given.false_values or ()):
        yield "true_values and false_values share a text"
    if given.format is not None and of in _TIMES:
        yield from _format_problems(given.format, of)


def _format_problems(text: str, of: str) -> Iterator[str]:
    found = re.findall(r"%(.?)", text, re.DOTALL)
    names = [name for name in found if name != "%"]
    strange = [f"%{name}" for name in names if name not in _DIRECTIVES]
    if strange:
        known = ", ".join(f"%{name}" for name in _DIRECTIVES)
        yield f"format has {', '.join(strange)}; it may have {known} and %%"
        return
    sets = [set("Yy"), set("mb"), set("d"), set("HI"), set("p"), set("M"), set("S"), set("f")]
    if any(sum(name in one for name in names) > 1 for one in [*sets, set("z")]):
        yield "format says one thing twice"
    if not all(any(name in one for name in names) for one in sets[:3]):
        yield "format needs a year (%Y or %y), a month (%m or %b) and a day (%d)"
    if ("I" in names) != ("p" in names):
        yield "%I and %p of a format belong together"
    needs = {"M": "HI", "S": "M", "f": "S"}
    if any(name in names and not set(names) & set(before) for name, before in needs.items()):
        yield "format has a part of a time without the larger one"
    if of == "date" and _TIME & set(names):
        yield "format of a date has a time; declare a timestamp"
    if (of == "timestamptz") != ("z" in names) and of != "date":
        yield "%z of a format is the zone of a timestamptz, which needs it"


def usual_text(values: pa.Array, given: TextTypeSpec) -> pa.Array:
    """Return texts in the usual form of their type.

    Args:
        values: Strings.
        given: How they are written.

    Raises:
        ArrowInvalid: One of them does not have that format.
    """
    if given.format is not None:
        found = _usual_times(values, given.format)
    elif given.true_values is not None:
        says = [pc.is_in(values, pa.array(t)) for t in (given.true_values, given.false_values)]
        none = pa.scalar(None, pa.string())
        found = pc.if_else(says[0], "true", pc.if_else(says[1], "false", none))
    else:
        found = _usual_numbers(values, given.decimal or ".", given.thousands)
    if found.null_count > values.null_count:
        raise pa.ArrowInvalid("a value is not written as files.types says")
    return found


def _usual_numbers(values: pa.Array, decimal: str, thousands: str | None) -> pa.Array:
    point = re.escape(decimal)
    number = rf"(?:\d+(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?"
    if thousands is not None:
        # Neither 0.500 nor 1.234e5 has groups: in such a value the character is a decimal point.
        grouped = rf"[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+(?:{point}\d*)?"
        number = f"(?:{grouped}|{number})"
    fits = pc.match_substring_regex(values, rf"^[+-]?(?:{number}|(?i:nan|inf|infinity))$")
    found = pc.if_else(fits, values, pa.scalar(None, pa.string()))
    if thousands is not None:
        found = pc.replace_substring(found, thousands, "")
    return pc.replace_substring(found, decimal, ".")


@lru_cache
def _pattern(text: str) -> tuple[str, frozenset[str]]:
    """Return the regular expression of a format, one group per directive, and their names."""
    pieces = [piece for piece in re.split(r"(%.)", text, flags=re.DOTALL) if piece]
    parts, names = [], set()
    for i, piece in enumerate(pieces):
        name = piece[1:]
        if not piece.startswith("%") or name == "%":
            parts.append(re.escape("%" if name == "%" else piece))
            continue
        beside = [p for p in (*pieces[max(0, i - 1) : i], *pieces[i + 1 : i + 2]) if p != "%%"]
        digits = _DIRECTIVES[name]
        if any(other.startswith("%") for other in beside):
            # Nothing separates them, so one or two digits would be ambiguous.
            digits = {r"\d{1,2}": r"\d{2}", "0?[1-9]|1[0-2]": "0[1-9]|1[0-2]"}.get(digits, digits)
        parts.append(f"(?P<{name}>{digits})")
        names.add(name)
    return f"^{''.join(parts)}$", frozenset(names)


def _usual_times(values: pa.Array, text: str) -> pa.Array:
    """Return times in ISO form; NULL if one does not match the format."""
    pattern, names = _pattern(text)
    matched = pc.extract_regex(values, pattern)
    found = {name: pc.struct_field(matched, name) for name in names}
    two = {n: pc.utf8_lpad(found[n], 2, "0") for n in "mdHMS" if n in found}
    year = found.get("Y")
    if year is None:
        later = pc.less(found["y"].cast(pa.int32()), _FIRST_YEAR)
        year = _joined(pc.if_else(later, "20", "19"), found["y"])
    month = two.get("m")
    if month is None:
        number = pc.index_in(pc.utf8_lower(found["b"]), pa.array(_MONTHS))
        month = pc.utf8_lpad(pc.add(number, 1).cast(pa.string()), 2, "0")
    parts = [year, "-", month, "-", two["d"]]
    if "I" in found:
        hour = pc.if_else(pc.equal(found["I"].cast(pa.int32()), 12), 0, found["I"].cast(pa.int32()))
        later = pc.starts_with(found["p"], "p", ignore_case=True)
        hour = pc.add(hour, pc.if_else(later, 12, 0))
        two["H"] = pc.utf8_lpad(hour.cast(pa.string()), 2, "0")
    if "H" in two:
        parts += ["T", two["H"], ":", two.get("M", "00"), ":", two.get("S", "00")]
    elif "z" in found:
        parts.append("T00:00:00")
    if "f" in found:
        parts += [".", found["f"]]
    if "z" in found:
        parts.append(found["z"])
    return _joined(*parts)


def _joined(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "", null_handling="emit_null")
