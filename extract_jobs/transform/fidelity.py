"""How faithfully a column's values reach the files, for people: after its cast and its masks."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from extract_jobs.schema import Column
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.casts import is_wider
from extract_jobs.transform.columns import inner_masks
from extract_jobs.transform.types import JSON, parse_type, stored_type


def arrival(column: Column, spec: ExtractSpec) -> tuple[str, str]:
    """Return the fidelity of a column in the files, and the rule that explains it.

    A source describes how it reads a column; ``columns.cast`` and ``columns.mask`` may change what
    the files then hold.

    Args:
        column: As the source describes it.
        spec: Has casts and masks, by the source's names.

    Returns:
        One of ``lossless``, ``as_text``, ``by_permission``, ``masked`` and ``masked inside``, and
        one sentence.
    """
    fidelity, rule = _cast(column, spec)
    if column.nulls_odd_values and fidelity == "lossless":
        fidelity = "by_permission"
    if mask := spec.columns.mask.get(column.name):
        return "masked", f"{rule}, masked: {mask}"
    if inner := inner_masks(column, spec):
        masks = ", ".join(f"{'.'.join(path)}: {mask}" for path, mask in inner.items())
        return "masked inside", f"{rule}, masked inside: {masks}"
    return fidelity, rule


def fidelity(columns: Sequence[Column], spec: ExtractSpec) -> dict[str, str]:
    """Return how faithfully each column's type is preserved, for the report."""
    found = {}
    for column in columns:
        how, rule = arrival(column, spec)
        found[column.name] = f"{column.source_type}: {how}; {rule}"
    return found


def _cast(column: Column, spec: ExtractSpec) -> tuple[str, str]:
    """Return fidelity and rule after the column's cast, if the source has not done it itself."""
    wanted = spec.columns.cast.get(column.name)
    target = pa.string() if wanted == JSON else parse_type(wanted) if wanted else None
    read = stored_type(column.arrow_type)
    if target is None or target == read:
        return column.fidelity, column.rule
    rule = f"{column.rule}; cast to {wanted}"
    if pa.types.is_string(target):
        return "as_text", f"{rule}, the text of its values"
    if not pa.types.is_floating(target) or is_wider(target, read):
        return column.fidelity, f"{rule}, which fails the run if a value does not fit"
    return "by_permission", f"{rule}, which rounds to the nearest value"
