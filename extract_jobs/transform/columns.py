"""Which columns of a table are extracted, and under which names.

Every problem of names, casts and partitions is found before a row is read, and all are reported at
once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

import pyarrow as pa

from extract_jobs.errors import ConfigError
from extract_jobs.schema import Column, TableDescription
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.globs import bracket_hint, is_glob, matches
from extract_jobs.spec.parts import Mask
from extract_jobs.spec.rules import RUN_PARTITIONS
from extract_jobs.transform.casts import can_cast
from extract_jobs.transform.nested import Path, type_at, with_type_at
from extract_jobs.transform.partitions import PartitionField, parse_partitions, partition_problem
from extract_jobs.transform.types import (
    JSON,
    TYPE_NAMES,
    iceberg_type,
    parse_type,
    stored_type,
)

RUN_ID_COLUMN = "_run_id"
EXTRACTED_AT_COLUMN = "_extracted_at"
AUDIT_FIELDS = (
    pa.field(RUN_ID_COLUMN, pa.string()),
    pa.field(EXTRACTED_AT_COLUMN, pa.timestamp("us", "UTC")),
)
"""Added to every file: the run, and when its attempt started to extract, UTC."""
EXTRACT_DATE_FIELD = pa.field("extract_date", pa.date32())
"""Added to the files of an Iceberg table that is partitioned by it: the run's date, UTC."""

_WITH_GLOBS = ("columns.include", "columns.exclude")

NEAR = 0.7
"""How similar a name must be to be suggested for a wrong one: `difflib`'s ratio, 0 to 1."""


def choose_columns(description: TableDescription, spec: ExtractSpec) -> tuple[Column, ...]:
    """Return the columns to extract (`is_chosen`), in the source's order.

    A glob may match nothing, a name may not; a glob with a bracket may not either, since it may be
    meant as a set of characters.

    Args:
        description: The table as the source describes it.
        spec: Names columns in ``columns``, ``target.partition_by`` and ``watermark``.

    Returns:
        At least one column, fit for `Transform.build`.

    Raises:
        ConfigError: The table lacks a named column (the message has the nearest name), names
            collide in the files, or a cast or partition is not possible. The message names all
            problems.
    """
    names = [c.name for c in description.columns]
    chosen = tuple(c for c in description.columns if is_chosen(c.name, spec, names))
    found = list(_unknown(spec, description.columns))
    if not chosen:
        found.append(f"columns: no column is left of {', '.join(map(repr, names)) or 'no column'}")
    refuse(spec, [*found, *problems(chosen, spec, names)])
    return chosen


def audit_fields(spec: ExtractSpec) -> tuple[pa.Field, ...]:
    """Return the fields that are added to every file of a spec's target."""
    by_date = spec.target.is_iceberg and EXTRACT_DATE_FIELD.name in spec.target.partition_by
    return (*AUDIT_FIELDS, EXTRACT_DATE_FIELD) if by_date else AUDIT_FIELDS


def columns_in_path(spec: ExtractSpec) -> frozenset[str]:
    """Return the source's columns that are in no file, but in the names of their folders.

    Files of an Iceberg table hold every column.
    """
    if spec.target.is_iceberg:
        return frozenset()
    return frozenset(f.column for f in partition_fields(spec) if f.column and not f.function)


def cast_type(column: Column, spec: ExtractSpec) -> pa.DataType | None:
    """Return the type that a column is cast to; None if its cast does not name a type."""
    wanted = spec.columns.cast.get(column.name)
    if wanted == JSON:
        return pa.string()
    return parse_type(wanted) if wanted else masked_type(column, spec)


def inner_masks(column: Column, spec: ExtractSpec) -> dict[Path, Mask]:
    """Return the masks of fields inside of a column, by path: ``address.street`` is one."""
    if not spec.columns.mask or not pa.types.is_nested(column.arrow_type):
        return {}
    prefix = f"{column.name}."
    return {
        tuple(name.removeprefix(prefix).split(".")): mask
        for name, mask in spec.columns.mask.items()
        if name.startswith(prefix)
    }


def masked_type(column: Column, spec: ExtractSpec) -> pa.DataType:
    """Return a column's type in the files, once fields inside of it are masked."""
    found = stored_type(column.arrow_type)
    for path, mask in inner_masks(column, spec).items():
        if mask == "hash" and type_at(found, path) is not None:
            found = with_type_at(found, path, pa.string())
    return found


def file_type(column: Column, spec: ExtractSpec) -> pa.DataType | None:
    """Return a column's type in the files; None if its cast does not name a type."""
    if spec.columns.mask.get(column.name) == "hash":
        return pa.string()
    found = cast_type(column, spec)
    return iceberg_type(found) if found is not None and spec.target.is_iceberg else found


def partition_fields(spec: ExtractSpec) -> Iterator[PartitionField]:
    """Yield partition fields under their final names: a renamed column renames its folder."""
    for field in parse_partitions(spec.target.partition_by):
        new = spec.columns.rename.get(field.column or "")
        if new is None:
            yield field
        else:
            name = f"{new}_{field.function}" if field.function else new
            yield PartitionField(name, field.column, field.function)


def is_chosen(name: str, spec: ExtractSpec, names: Sequence[str]) -> bool:
    """Whether a column is extracted.

    ``include`` and ``exclude`` are names or globs, case-sensitive; ``exclude`` wins.

    Args:
        name: The column.
        spec: Its ``columns`` decide.
        names: All columns of the table: a pattern equal to one of them is not a glob.
    """
    include, exclude = spec.columns.include, spec.columns.exclude
    wanted = include is None or _matches(name, include, names)
    return wanted and not _matches(name, exclude, names)


def refuse_doubled(names: Sequence[str]) -> None:
    """Refuse a query with two columns of the same name.

    Raises:
        ConfigError: Names are repeated; the message has every such name.
    """
    doubled = sorted(name for name, count in Counter(names).items() if count > 1)
    if doubled:
        raise ConfigError(f"query gives several columns named {', '.join(doubled)}: alias them")


def _matches(name: str, patterns: Iterable[str], names: Sequence[str]) -> bool:
    """Whether a pattern is that name, or a matching glob that is not itself a column's name."""
    return any(p == name or (p not in names and matches(name, p)) for p in patterns)


def _unknown(spec: ExtractSpec, of_table: Sequence[Column]) -> Iterator[str]:
    """Yield one problem for each name that is not a column of the table."""
    columns, names = spec.columns, [column.name for column in of_table]
    inner = {
        f"{column.name}.{'.'.join(path)}": type_at(column.arrow_type, path)
        for column in of_table
        for path in inner_masks(column, spec)
    }
    for name, found in inner.items():
        if found is None and name not in names:
            yield f"columns.mask: no field {name!r}; the values of a map are its field 'value'"
        if outer := next((one for one in inner if name.startswith(f"{one}.")), None):
            yield f"columns.mask: {name!r} lies within {outer!r}, which is masked as a whole"
    fields = [f for f in parse_partitions(spec.target.partition_by) if f.column]
    partition = [f.column for f in fields if f.column]
    plain = {f.column for f in fields if not f.function}
    watermark = [spec.watermark.column] if spec.watermark and spec.watermark.column else []
    asked: dict[str, Iterable[str]] = {
        "columns.include": columns.include or (),
        "columns.exclude": columns.exclude,
        "columns.rename": columns.rename,
        "columns.cast": columns.cast,
        "columns.mask": columns.mask,
        "columns.key": columns.key,
        "lossy_types": spec.lossy_types if isinstance(spec.lossy_types, dict) else (),
        "target.partition_by": partition,
        "watermark.column": watermark,
    }
    for where, wanted in asked.items():
        for name in wanted:
            is_field = where == "columns.mask" and name in inner
            if name in names or is_field:
                continue
            if where in _WITH_GLOBS and is_glob(name):
                hint = bracket_hint(name)
                if hint and not any(matches(one, name) for one in names):
                    yield f"{where}: no column matches {name!r}{hint}"
                continue
            own = RUN_PARTITIONS if where == "target.partition_by" and name in plain else ()
            hint = bracket_hint(name) if where in _WITH_GLOBS else ""
            yield f"{where}: no column {name!r}{_nearest(name, names, own)}{hint}"


def _nearest(name: str, names: Sequence[str], own: Iterable[str]) -> str:
    folded = {n.casefold(): n for n in (*own, *names)}
    near = get_close_matches(name.casefold(), folded, n=3, cutoff=NEAR)
    if near:
        return f" (nearest: {', '.join(folded[n] for n in near)})"
    more = ", …" if len(names) > 10 else ""
    beside = f", beside {' and '.join(sorted(own))}" if own else ""
    return f" (columns: {', '.join(names[:10])}{more}{beside}; no close match)"


def problems(columns: Sequence[Column], spec: ExtractSpec, names: Sequence[str]) -> Iterator[str]:
    """Yield every problem with writing these columns under the spec.

    Args:
        columns: The chosen ones.
        spec: The spec.
        names: All columns of the table; problems of names outside are reported by `_unknown`.
    """
    yield from _cast_problems(columns, spec)
    yield from _partition_problems(columns, spec, names)
    yield from _collisions(columns, spec)
    chosen = {c.name for c in columns}
    watermark = spec.watermark.column if spec.watermark else None
    if watermark in names and watermark not in chosen:
        yield (
            f"watermark.column: {watermark!r} is left out by columns.include or exclude; it must "
            "be extracted, as its NULLs are counted"
        )
    for name in spec.columns.key:
        if name in names and name not in chosen:
            yield f"columns.key: {name!r} is left out by columns.include or exclude"


_IS_JSON = "parquet VARIANT"
"""What its source already returns as JSON."""


def _cast_problems(columns: Sequence[Column], spec: ExtractSpec) -> Iterator[str]:
    for column in columns:
        wanted = spec.columns.cast.get(column.name)
        target = parse_type(wanted) if wanted else column.arrow_type
        nested = pa.types.is_nested(column.arrow_type)
        if wanted == JSON:
            if not nested and column.source_type != _IS_JSON:
                yield (
                    f"columns.cast: {column.name!r} to json: it is read as {column.arrow_type}, "
                    "and json is the text of lists, maps and structs"
                )
        elif target is None:
            yield (
                f"columns.cast: {column.name!r} to {wanted!r}: no such type; the types are "
                f"{', '.join(TYPE_NAMES)}"
            )
        elif wanted and not can_cast(column.arrow_type, target):
            yield (
                f"columns.cast: {column.name!r} is {column.source_type} in the source, read as "
                f"{column.arrow_type}, which has no cast to {wanted}"
                + ("; cast it to json" if nested else "")
            )


def _partition_problems(
    columns: Sequence[Column], spec: ExtractSpec, names: Sequence[str]
) -> Iterator[str]:
    chosen = {c.name: c for c in columns}
    for field in parse_partitions(spec.target.partition_by):
        if field.column is None:
            continue
        if field.column not in chosen:
            if field.column in names:
                yield (
                    f"target.partition_by: {field.column!r} is left out by columns.include or "
                    "exclude"
                )
            continue
        if spec.columns.mask.get(field.column, "hash") != "hash":
            yield (
                f"target.partition_by: {field.column!r} is masked, so all its rows would be in one "
                "folder; only mask hash keeps values apart"
            )
        data_type = file_type(chosen[field.column], spec)
        problem = None if data_type is None else partition_problem(field, data_type)
        if problem:
            lossy = spec.lossy_type(field.column)
            by_policy = lossy == "string" and field.column not in spec.columns.cast
            made_text = by_policy and chosen[field.column].fidelity == "by_permission"
            yield problem + (
                "; lossy_types: string made it text: cast it back in columns.cast, or set another "
                "lossy_types for this table"
                if made_text
                else ""
            )


def _collisions(columns: Sequence[Column], spec: ExtractSpec) -> Iterator[str]:
    """Yield names that would collide in the files, or in a catalog that ignores case."""
    folders = columns_in_path(spec)
    # A column's own value as a partition of an Iceberg table has the column's name.
    apart = [f for f in partition_fields(spec) if f.function or not spec.target.is_iceberg]
    if spec.target.is_iceberg:
        apart += [f for f in partition_fields(spec) if f.name == "run_id" and not f.column]
    taken = [
        (spec.columns.rename.get(c.name, c.name), _origin(c, spec))
        for c in columns
        if c.name not in folders
    ]
    taken += [(f.name, f"the audit column {f.name!r}") for f in audit_fields(spec)]
    taken += [(f.name, f"the partition {f.name!r}") for f in apart]
    seen: dict[str, str] = {}
    for name, origin in taken:
        other = seen.get(name.casefold())
        if other is None:
            seen[name.casefold()] = origin
        else:
            yield f"{other} and {origin} would have the same name; use columns.rename or exclude"


def _origin(column: Column, spec: ExtractSpec) -> str:
    new = spec.columns.rename.get(column.name)
    return f"column {column.name!r}" + (f" (renamed to {new!r})" if new else "")


def clashes(names: Sequence[str]) -> list[str]:
    """Describe each column that differs from an earlier one only in its case."""
    seen: dict[str, str] = {}
    found = []
    for name in dict.fromkeys(names):
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            found.append(f"column {name} differs from {other} of older files only in its case")
    return found


def refuse(spec: ExtractSpec, found: Sequence[str]) -> None:
    """Raise ConfigError with all problems, if there are any."""
    if found:
        raise ConfigError(f"{spec.table_id}: {'; '.join(found)}")
