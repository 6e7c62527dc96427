"""Values of Arrow types, nested to any depth, for Hypothesis."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

LEAVES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.string(): st.text(max_size=5),
    pa.bool_(): st.booleans(),
    pa.float64(): st.floats(allow_nan=False),
    pa.decimal128(9, 2): st.integers(-(10**9) + 1, 10**9 - 1).map(lambda n: Decimal(n) / 100),
    pa.binary(): st.binary(max_size=5),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(),
}
"""Types that are not nested, with the values of each."""


def values_of(kind: pa.DataType, *, nulls: bool = True) -> st.SearchStrategy[Any]:
    """Return values of a type of `LEAVES`, or nested ones of these; None for NULL."""
    if kind in LEAVES:
        found = LEAVES[kind]
    elif pa.types.is_struct(kind):
        found = st.fixed_dictionaries({f.name: values_of(f.type) for f in kind})
    elif pa.types.is_map(kind):
        pair = st.tuples(values_of(kind.key_type, nulls=False), values_of(kind.item_type))
        found = st.lists(pair, max_size=3, unique_by=lambda one: repr(one[0]))
    else:
        found = st.lists(values_of(kind.value_type), max_size=3)
    return st.none() | found if nulls else found
