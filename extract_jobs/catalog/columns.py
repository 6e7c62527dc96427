"""Athena's names of columns and types."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_ATHENA_TYPES = {
    "bool": "boolean", "int8": "tinyint", "int16": "smallint", "int32": "int", "int64": "bigint",
    "float": "float", "double": "double", "string": "string", "large_string": "string",
    "binary": "binary", "large_binary": "binary", "date32[day]": "date",
}  # fmt: skip


def athena_type(arrow_type: str) -> str:
    """Return Athena's name of an Arrow type, given as pyarrow prints it.

    Source: https://docs.aws.amazon.com/athena/latest/ug/data-types.html

    Raises:
        ValueError: Athena has none.
    """
    if arrow_type in _ATHENA_TYPES:
        return _ATHENA_TYPES[arrow_type]
    if arrow_type.startswith("timestamp["):
        return "timestamp"
    match = re.fullmatch(r"decimal\d+\((\d+), (\d+)\)", arrow_type)
    if match and 0 < int(match[1]) <= 38 and int(match[2]) <= int(match[1]):
        return f"decimal({match[1]},{match[2]})"
    if arrow_type.startswith(("list<", "large_list<", "map<", "struct<")):
        return _nested(arrow_type)
    raise ValueError(f"Athena has no type for {arrow_type}")


def _nested(arrow_type: str) -> str:
    import pyarrow as pa

    from extract_jobs.transform.types import printed_type

    found = printed_type(arrow_type)
    if found is None:
        raise ValueError(f"Athena has no type for {arrow_type}")
    if pa.types.is_struct(found):
        fields = {_column(field.name): athena_type(str(field.type)) for field in found}
        if len(fields) < found.num_fields:
            raise ValueError(f"two fields of {arrow_type} would have the same name in the catalog")
        return f"struct<{','.join(f'{name}:{kind}' for name, kind in fields.items())}>"
    if pa.types.is_map(found):
        return f"map<{athena_type(str(found.key_type))},{athena_type(str(found.item_type))}>"
    return f"array<{athena_type(str(found.value_type))}>"


def table_columns(
    columns_of_files: Mapping[str, str], partition_by: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Return Athena's type of every column by its name in the catalog, and the partition fields.

    Names are in lower case, which is how Athena matches columns of Parquet files.

    Args:
        columns_of_files: Arrow's type of each column that any live file has.
        partition_by: Names of the partition fields, in path order.

    Raises:
        ValueError: A column has no type in Athena or no valid name in the catalog, or two columns
            share a name. The message names all such columns.
    """
    columns: dict[str, str] = {}
    wrong: list[str] = []
    for name, arrow_type in columns_of_files.items():
        try:
            column, athena = _column(name), athena_type(arrow_type)
        except ValueError as error:
            wrong.append(f"column {name!r}: {error}")
            continue
        if column in columns:
            wrong.append(
                f"column {name!r}: another column is also named {column!r}; see columns.rename"
            )
        columns[column] = athena
    folders = []
    for name in partition_by:
        try:
            folder = _column(name)
        except ValueError as error:
            wrong.append(f"partition {name!r}: {error}")
            continue
        if folder in columns or folder in folders:
            wrong.append(f"partition {name!r}: another column is also named {folder!r}")
        folders.append(folder)
    if wrong:
        raise ValueError("; ".join(wrong))
    return columns, folders


def _column(name: str) -> str:
    import awswrangler

    found: str = awswrangler.catalog.sanitize_column_name(name)
    if found != name.lower():
        raise ValueError("the catalog accepts only letters, digits and _; see columns.rename")
    return found
