"""Which parts a table has: partitions, and children that inherit from it.

The lock that keeps a table from being altered does not keep a partition from being attached, or a
child from being added. A statement planned after that reads the new part too, whatever the
snapshot. So splits of one attempt may read different sets of parts; the sets at its beginning and
end are compared.
"""

from __future__ import annotations

from collections.abc import Collection

from extract_jobs.sources.postgres.session import Connection, execute
from extract_jobs.sources.postgres.sql import EQUALS

Parts = frozenset[tuple[int, int, str]]
"""Parent and child by identifier, and the transaction that made the child a part."""


def children(opened: Connection, parents: Collection[int]) -> Parts:
    """Return the parts directly below some tables, as the connection's snapshot sees them."""
    rows = execute(
        opened,
        "select inhparent::pg_catalog.int8, inhrelid::pg_catalog.int8, xmin::pg_catalog.text"
        f" from pg_catalog.pg_inherits where inhparent {EQUALS}"
        " any (%s::pg_catalog.int8[]::pg_catalog.oid[])",
        sorted(parents),
    )
    return frozenset((parent, child, since) for parent, child, since in rows)
