"""Casts from the config and to the types of older files; none silently loses anything.

`cast` refuses what `exact_cast` refuses. A cast to a floating-point type is itself the permission
to round to its nearest value; only a finite value that would become infinite is refused. Naive
timestamps count as UTC when cast to ``timestamptz``, and ``timestamptz`` is converted to UTC when
cast to ``timestamp``.

`keep` is stricter than `cast`, because nobody requested it: casting its result back must give
exactly the same value.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.transform.exact_cast import exact_cast
from extract_jobs.transform.nested import Path, json_texts, rebuilt
from extract_jobs.transform.types import kind

_FROM = {
    "string": {
        "string", "boolean", "integer", "float", "decimal", "date", "timestamp", "timestamptz",
        "binary",
    },
    "boolean": {"string", "boolean", "integer"},
    "integer": {"string", "boolean", "integer", "float", "decimal"},
    "float": {"string", "integer", "float", "decimal"},
    "decimal": {"string", "integer", "float", "decimal"},
    "date": {"string", "date", "timestamp", "timestamptz"},
    "timestamp": {"string", "date", "timestamp", "timestamptz"},
    "timestamptz": {"string", "date", "timestamp", "timestamptz"},
    "binary": {"string", "binary"},
}  # fmt: skip
_KEPT = {
    "integer": {"integer", "decimal", "float"},
    "decimal": {"integer", "decimal"},
    "float": {"integer", "float"},
    "date": {"timestamp"},
    "timestamp": {"date"},
    "string": {"integer", "decimal", "boolean", "date"},
}
"""Kinds that `keep` takes, by kind of the target. Text to numbers is missing because the spelling
would be lost, and timestamps with a zone to timestamps without because they mean something else."""


def can_cast(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether some values of ``source`` have a faithful form in ``target``."""
    return source == target or kind(source) in _FROM.get(kind(target), ())


def can_keep(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether `keep` may cast values of ``source`` to ``target``, if they fit."""
    return source == target or kind(source) in _KEPT.get(kind(target), ())


def is_wider(data_type: pa.DataType, than: pa.DataType) -> bool:
    """Whether a type holds every value of another type of the same kind."""
    pair = kind(data_type), kind(than)
    if pair == ("timestamp", "date"):
        return True
    if pair == ("float", "float"):
        return bool(data_type.bit_width > than.bit_width)
    if pair == ("float", "integer"):
        # Every integer below 2^53, or 2^24, has a floating-point number of its own.
        return bool(than.bit_width < (53 if data_type.bit_width == 64 else 24))
    if pair == ("integer", "integer"):
        signed = pa.types.is_signed_integer(data_type) or pa.types.is_unsigned_integer(than)
        return bool(signed and data_type.bit_width > than.bit_width)
    if pair == ("decimal", "integer"):
        return bool(data_type.precision - data_type.scale >= _digits(than))
    if pair == ("integer", "decimal"):
        return bool(than.scale <= 0 and _digits(data_type) > than.precision - than.scale)
    if pair == ("decimal", "decimal"):
        whole = data_type.precision - data_type.scale >= than.precision - than.scale
        return bool(whole and data_type.scale >= than.scale and data_type != than)
    return False


def is_promotion(data_type: pa.DataType, than: pa.DataType) -> bool:
    """Whether readers that are given a type also read files of another, narrower one.

    Wider integers, wider floats, and decimals with more digits at the same scale: what table
    formats call type promotion.
    """
    pair = kind(data_type), kind(than)
    if pair == ("decimal", "decimal") and data_type.scale != than.scale:
        return False
    return pair[0] == pair[1] and is_wider(data_type, than)


def _digits(integer: pa.DataType) -> int:
    """Return the digits of an integer type's greatest value."""
    bits = integer.bit_width - pa.types.is_signed_integer(integer)
    return len(str(2**bits - 1))


def cast(array: pa.Array, target: pa.DataType, column: str) -> pa.Array:
    """Cast every value, or none.

    Args:
        array: Values of a type that `can_cast` to ``target``; lists, maps and structs become text
            as their JSON.
        target: The type wanted.
        column: Its name, for the message.

    Returns:
        An array of ``target``, as long, with the same NULLs.

    Raises:
        TypeNotRepresentable: Some value has no faithful form in ``target``. The message names
            column and types, never the value.
    """
    return _cast(
        array,
        target,
        f"column {column!r}: a value of type {array.type} cannot be cast to {target} without loss; "
        "fix columns.cast, or leave the column as it is",
    )


def keep(array: pa.Array, target: pa.DataType, column: str) -> pa.Array:
    """Cast every value to the type that older files have, or none.

    Args:
        array: Values of a type that `can_keep` at ``target``, at each of its leaves.
        target: The older files' type. Fields of its structs that the values lack are NULL, and
            those that it lacks are left out.
        column: Its name, for the message.

    Returns:
        An array of ``target``, as long, with the same NULLs, whose leaves, cast back, are those of
        ``array`` again.

    Raises:
        TypeNotRepresentable: Some value does not fit. The message never holds it.
    """

    def kept(values: pa.Array, wanted: pa.DataType, path: Path) -> pa.Array:
        return _keep_leaf(values, wanted, ".".join((column, *path)))

    return array if array.type == target else rebuilt(array, target, kept)


def _keep_leaf(array: pa.Array, target: pa.DataType, column: str) -> pa.Array:
    wider = (
        "let new files have the wider type with on_schema_change.widened: new_files, "
        if is_promotion(array.type, target)
        else ""
    )
    text = (
        f"column {column!r} is {array.type} now and {target} in the files that exist, and a value "
        f"does not fit: {wider}replace the table with mode full, write_mode overwrite and "
        "on_schema_change: evolve, or start over with another state_uri and target"
    )
    kept = _cast(array, target, text)
    if kept is not array and kind(target) != "string":
        try:
            same = pc.equal(exact_cast(kept, array.type), array)
        except pa.ArrowInvalid:
            raise TypeNotRepresentable(text) from None
        if kind(array.type) == "float":
            same = pc.or_(same, pc.is_nan(array))
        if pc.all(same).as_py() is False:
            raise TypeNotRepresentable(text)
    return kept


def _cast(array: pa.Array, target: pa.DataType, refused: str) -> pa.Array:
    try:
        if pa.types.is_nested(array.type) and pa.types.is_string(target):
            return json_texts(array)
        return exact_cast(array, target)
    except pa.ArrowInvalid:
        # Arrow's message quotes the value, and a traceback would print it.
        raise TypeNotRepresentable(refused) from None
