"""How columns of files arrive: the table in the docs, and the columns themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import pyarrow as pa

from extract_jobs.errors import ConfigError
from extract_jobs.schema import Column, Fidelity, TypeRule
from extract_jobs.sources.files.inspection import Columns
from extract_jobs.sources.files.listing import Format
from extract_jobs.sources.files.parquet_types import VARIANT, arrives_as, is_geometry, spelled
from extract_jobs.sources.files.text_forms import form_problems, forms_of, type_name
from extract_jobs.sources.files.type_inference import NUMBERS, TEXT, TypeProfile
from extract_jobs.spec.source import FilesSpec
from extract_jobs.transform.types import parse_type

TYPE_RULES: tuple[TypeRule, ...] = (
    TypeRule("csv, json: integers", "int64", "lossless", "every value is the text of one"),
    TypeRule(
        "csv, json: integers beyond 64 bits",
        "decimal(38,0)",
        "lossless",
        "up to 38 digits; more arrive as string",
    ),
    TypeRule(
        "csv, json: numbers with a fraction or an exponent",
        "float64",
        "lossless",
        "every number is what the nearest double prints; its value is kept, 1.10 and 1.1 are one",
    ),
    TypeRule(
        "csv: numbers with more digits than a double holds",
        "decimal(38,s)",
        "lossless",
        "s is the longest fraction; beyond 38 digits, or with an exponent, they arrive as string",
    ),
    TypeRule(
        "json: numbers with more digits than a double holds",
        "string",
        "lossless",
        "JSON readers treat them as doubles; their digits are kept if declared as a decimal too",
    ),
    TypeRule(
        "csv, json: true, false", "boolean", "lossless", "in CSV also True and TRUE; not 0, 1"
    ),
    TypeRule("csv: YYYY-MM-DD", "date", "lossless", "every value is a day of the years 1 to 9999"),
    TypeRule(
        "csv: YYYY-MM-DD hh:mm[:ss[.ffffff]]",
        "timestamp",
        "lossless",
        "with a blank or a T between; more than six digits arrive as string",
    ),
    TypeRule(
        "csv: YYYY-MM-DD hh:mm[:ss[.ffffff]] with Z or ±hh[:mm]",
        "timestamptz",
        "lossless",
        "the instant, in UTC; beside times without a zone the column arrives as string",
    ),
    TypeRule(
        "csv: any other text, mixed values",
        "string",
        "lossless",
        "including 007, +1, blanks around a number; also a column without any value",
    ),
    TypeRule("json: strings", "string", "lossless", "never read as times or numbers"),
    TypeRule("json: objects, mixed values", "string", "as_text", "as JSON without blanks"),
    TypeRule(
        "json: arrays of scalars", "list", "lossless", "of the narrowest type; others are JSON text"
    ),
    TypeRule(
        "key=value in the name of a folder",
        "string",
        "as_text",
        "percent-decoded; __HIVE_DEFAULT_PARTITION__ is NULL; files.types or columns.cast makes it "
        "another type",
    ),
    TypeRule(
        "csv, json: declared in files.types",
        "the type declared",
        "by_permission",
        "a value that does not parse makes its row a bad row: files.bad_rows decides",
    ),
    TypeRule("parquet: int8 to int64", "the same", "lossless", "files that differ: the wider one"),
    TypeRule("parquet: uint8, uint16, uint32", "int16, int32, int64", "lossless", "the next wider"),
    TypeRule("parquet: uint64", "decimal(20,0)", "lossless", "holds every value"),
    TypeRule("parquet: float16, float32, float64", "float32, float64", "lossless", "as stored"),
    TypeRule(
        "parquet: decimal(p,s)", "decimal(p,s)", "lossless", "beyond 38 digits it arrives as string"
    ),
    TypeRule("parquet: boolean, string, binary", "the same", "lossless", "dictionaries decoded"),
    TypeRule("parquet: fixed-length binary", "binary", "lossless", "as stored"),
    TypeRule("parquet: uuid", "string", "lossless", "36 characters, lower case"),
    TypeRule("parquet: json", "string", "lossless", "unchanged"),
    TypeRule("parquet: date", "date", "lossless", "as stored; years 1 to 9999, others are refused"),
    TypeRule(
        "parquet: timestamp",
        "timestamp, timestamptz",
        "lossless",
        "microseconds; a value outside years 1 to 9999 fails the read, and so does one with digits "
        "below microseconds, unless columns.cast or files.nanoseconds says what becomes of them",
    ),
    TypeRule("parquet: time", "string", "lossless", "as text: Athena has no time type"),
    TypeRule(
        "parquet: duration",
        "int64",
        "lossless",
        "its number of units, as the file stores it; the report names the unit, the files do not",
    ),
    TypeRule(
        "parquet: lists of any of these",
        "list",
        "lossless",
        "nested to any depth, each value by its own rule; columns.cast to json makes it text",
    ),
    TypeRule(
        "parquet: structs and maps of any of these",
        "the same",
        "lossless",
        "like lists; if files differ, a struct has the fields of all",
    ),
    TypeRule(
        "parquet: geometry, geography",
        "binary",
        "lossless",
        "as WKB; the files say neither that it is one nor its reference system, the report does; "
        "several systems in one column are refused",
    ),
    TypeRule(
        "parquet: variant",
        "string",
        "by_permission",
        "as JSON, if columns.cast to json asks for it; otherwise refused, and so are those inside "
        "of other columns",
    ),
    TypeRule(
        "parquet: interval, geometries inside of others",
        "-",
        "refused",
        "leave such columns out",
    ),
)


FOLDER_NAME = "folder name"
"""Source type of columns that folders name."""
_UNIT = re.compile(r"duration\[(\w+)\]")
_TIMES_AS = {
    "string": (pa.string(), "as text with every digit, as columns.cast asks"),
    "int64": (pa.int64(), "nanoseconds since 1970-01-01, as columns.cast asks"),
}


def declared_columns(files: FilesSpec, form: Format) -> tuple[Column, ...]:
    """Return the columns that the spec declares for a table's files, without those of folders.

    Raises:
        ConfigError: A type is unknown, or files of this format have types of their own.
    """
    declared = files.types or {}
    if form == "parquet":
        raise ConfigError("files.types: Parquet files have types of their own; use columns.cast")
    names = {name: type_name(given) for name, given in declared.items()}
    types = {name: parse_type(given) for name, given in names.items()}
    wrong = [f"{name}: {names[name]}" for name, found in types.items() if found is None]
    if wrong:
        raise ConfigError(f"files.types: no such type: {', '.join(wrong)}; see columns.cast")
    forms = forms_of(files)
    wrong = [
        f"files.types.{name}: {problem}"
        for name, given in forms.items()
        for problem in form_problems(given, types[name], as_json=form in ("jsonl", "json"))
    ]
    if wrong:
        raise ConfigError("; ".join(wrong))
    rules = {name: f"declared, written as {given.written}" for name, given in forms.items()}
    return tuple(
        _column(
            name, f"{form} as {names[name]}", found, "by_permission", rules.get(name, "declared")
        )
        for name, found in types.items()
        if found is not None
    )


def found_columns(known: Columns, form: Format, cast: Mapping[str, str]) -> tuple[Column, ...]:
    """Return the columns that files were found to have, without those of folders.

    Args:
        known: What was found.
        form: Of the files.
        cast: ``columns.cast``.
    """
    if form == "parquet":
        return tuple(
            _parquet_column(name, found, uri, cast.get(name))
            for name, (found, uri) in known.types.items()
        )
    return tuple(_text_column(name, found, form) for name, found in known.profiles.items())


def folder_columns(names: Iterable[str]) -> tuple[Column, ...]:
    """Return the columns that folders name, as text."""
    rule = "the name of the folder, key=value; columns.cast makes it another type"
    return tuple(_column(name, FOLDER_NAME, pa.string(), "as_text", rule) for name in names)


def _parquet_column(name: str, found: pa.DataType, uri: str, cast: str | None) -> Column:
    target = arrives_as(found) or pa.string()
    rule = f"as in {uri.rsplit('/', 1)[-1]}"
    if pa.types.is_timestamp(target) and cast in _TIMES_AS:
        target, rule = _TIMES_AS[cast]
        return _column(name, f"parquet {spelled(found)}", target, "by_permission", rule)
    if found == VARIANT:
        rule += ", as JSON: columns.cast"
        return _column(name, f"parquet {spelled(found)}", target, "by_permission", rule)
    if is_geometry(found):
        rule += ", as WKB; the files say neither that it is a geometry nor its reference system"
    if units := sorted(set(_UNIT.findall(str(found)))):
        rule += f", durations as their number of {' and '.join(units)}"
    return _column(name, f"parquet {spelled(found)}", target, "lossless", rule)


def _text_column(name: str, found: TypeProfile, form: Format) -> Column:
    kinds = " and ".join(sorted(found.kinds)) or "nothing but NULL"
    target = found.arrow_type()
    # Text of JSON is the strings themselves, or digits; all other text is JSON.
    own = found.kinds <= {TEXT} or found.kinds <= NUMBERS
    as_json = form in ("jsonl", "json") and target == pa.string() and not own
    fidelity: Fidelity = "as_text" if as_json else "lossless"
    rule = f"the narrowest type of all values in all files: {kinds}"
    return _column(name, f"{form} {kinds}", target, fidelity, rule)


def _column(
    name: str, source_type: str, found: pa.DataType, fidelity: Fidelity, rule: str
) -> Column:
    return Column(name, source_type, found, True, fidelity, rule, name)
