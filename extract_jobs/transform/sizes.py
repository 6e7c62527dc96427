"""How many bytes values take."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.transform.nested import listed

Sizes = np.ndarray[tuple[int], np.dtype[np.int64]]


def value_sizes(values: pa.Array) -> Sizes:
    """Return the bytes of each value, decoded if it is in a dictionary; 0 for a text that is NULL.

    Args:
        values: Of any type; a list is one value.
    """
    types, kind = pa.types, values.type
    if types.is_dictionary(kind):
        return _taken(value_sizes(values.dictionary), values.indices)
    if isinstance(kind, pa.BaseExtensionType):
        return value_sizes(values.storage)
    if types.is_struct(kind):
        return sum(map(value_sizes, values.flatten()), np.zeros(len(values), np.int64))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        values = listed(values)
        lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
        ends = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        inner = np.concatenate(([0], np.cumsum(value_sizes(values.flatten()))))
        sizes: Sizes = np.diff(inner[ends])
        return sizes
    texts = types.is_string(kind) or types.is_large_string(kind)
    if texts or types.is_binary(kind) or types.is_large_binary(kind):
        lengths = pc.binary_length(values).fill_null(0)
        found: Sizes = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
        return found
    return np.full(len(values), fixed_bytes(kind), np.int64)


def fixed_bytes(data_type: pa.DataType) -> int:
    """Return the bytes of a value of a type, whatever it is; 8 if that depends on the value."""
    try:
        return (int(data_type.bit_width) + 7) // 8
    except ValueError:
        return 8


def _taken(sizes: Sizes, indices: pa.Array) -> Sizes:
    there = indices.is_valid().to_numpy(zero_copy_only=False)
    places = indices.fill_null(0).to_numpy(zero_copy_only=False)
    return np.where(there, sizes[places], 0) if len(sizes) else np.zeros(len(indices), np.int64)
