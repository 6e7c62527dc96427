"""What an earlier run has found in objects that are still there, so that nobody looks again.

Types depend on all objects of a table. What one of them has shown cannot be taken back, so if an
object is gone or replaced that showed anything new at the time, everything is inspected again.
Without any other object, the rest show exactly as much.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from extract_jobs.errors import ConfigError
from extract_jobs.sources import ObjectsBefore
from extract_jobs.sources.files.inspection import Columns
from extract_jobs.sources.files.objects import DAMAGE, Listed, ObjectList
from extract_jobs.storage import ObjectInfo


@dataclass(frozen=True)
class Inspected:
    """What is known of objects that need not be inspected.

    Attributes:
        objects: What was found in each object, by URI.
        columns: What all of them have shown.
    """

    objects: dict[str, Listed] = field(default_factory=dict)
    columns: Columns = field(default_factory=Columns)

    @classmethod
    def of(cls, before: ObjectsBefore | None, listed: Iterable[ObjectInfo], by: str) -> Inspected:
        """Return what an earlier run has found in objects as they are listed now.

        Args:
            before: Its list of objects. One that is damaged is of no use.
            listed: The objects that are there.
            by: Digest of all that inspection depends on besides the objects.
        """
        try:
            last = ObjectList.from_bytes(before.last) if before else None
            if last is None or last.adds_to is not None:
                return cls()
            noted = last.about.get("inspected")
            if not isinstance(noted, dict) or noted.get("by") != by:
                return cls()
            known = Columns.from_json(last.about)
            witnesses = tuple(map(str, noted["witnesses"]))
            untyped = tuple(map(str, noted["untyped"]))
        except (ConfigError, *DAMAGE):
            return cls()
        read = {one.info.uri: one for one in last.to_read()}
        same = {
            info.uri: read[info.uri]
            for info in listed
            if info.uri in read and info.etag and is_same(info, read[info.uri].info)
        }
        if not all(uri in same for uri in witnesses):
            return cls()
        known = replace(known, witnesses=witnesses, untyped=untyped)
        return cls(same, known.without_guesses())


def is_same(one: ObjectInfo, other: ObjectInfo) -> bool:
    """Return whether two listings show the same content of an object."""
    return (one.etag, one.size) == (other.etag, other.size)


def noted(columns: Columns, by: str) -> dict[str, Any]:
    """Return what `Inspected.of` needs besides the columns, as the list of objects has it."""
    return {"by": by, "witnesses": list(columns.witnesses), "untyped": list(columns.untyped)}
