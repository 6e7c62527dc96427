"""What a full extract has read, kept so that the next one need not read it again.

``reads/<20-digit seq>-<commit_id>.json`` below the state folder: the snapshot, everything that the
files depend on besides the rows, and which files hold which range of pages. It is written before
the commit that it belongs to, and without that commit it means nothing. ``reads/mistrusted.json``
is written when kept rows were found to differ from the source's: from then on nothing is kept.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from extract_jobs.commit.record import Commit
from extract_jobs.commit.sealed import check_seal, seal
from extract_jobs.errors import ExtractError
from extract_jobs.storage import Storage, WrittenFile, join

logger = logging.getLogger(__name__)

VERSION = 2
MOMENT = {"key", "parts", "snapshot"}
"""What a stored `Moment` has."""


@dataclass(frozen=True)
class RangeRead:
    """A range of pages that was read.

    Attributes:
        part: The table's part that has the pages.
        start: First page.
        end: The page after the last. The last range of a part may reach beyond its end.
        rows: Rows that it had.
        files: URIs of the files that hold them, in the order of the rows.
        nulled: Values that became NULL, by column.
        truncated: Timestamps that lost digits, by column.
    """

    part: str
    start: int
    end: int
    rows: int
    files: tuple[str, ...] = ()
    nulled: dict[str, int] = field(default_factory=dict)
    truncated: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Reads:
    """What one full extract has read, or kept of an earlier one.

    Attributes:
        version: Of this record.
        moment: JSON of the source's `Moment`: its key, those of the parts, and its snapshot.
        writing: What the files depend on besides the source, by what it is about.
        ranges: The ranges. Those of a part follow each other from page 0, all of one size.
    """

    version: int
    moment: dict[str, dict[str, Any]]
    writing: dict[str, str]
    ranges: tuple[RangeRead, ...]

    def to_bytes(self) -> bytes:
        """Return the record as it is stored."""
        data = {**self.__dict__, "ranges": [one.__dict__ for one in self.ranges]}
        return seal(data)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Reads:
        """Read a stored record.

        Raises:
            ValueError: It is damaged, or another version wrote it.
        """
        check_seal(raw, needed=True)
        found = _reads().validate_json(raw, strict=True)
        ends: dict[str, int] = {}
        for one in found.ranges:
            if (
                one.start != ends.get(one.part, 0)
                or one.end <= one.start
                or one.rows < 0
                or bool(one.rows) != bool(one.files)
            ):
                raise ValueError("its ranges do not follow each other")
            ends[one.part] = one.end
        if found.version != VERSION or found.moment.keys() != MOMENT:
            raise ValueError("another version wrote it")
        return found


@functools.cache
def _reads() -> TypeAdapter[Reads]:
    return TypeAdapter(Reads)


@dataclass(frozen=True)
class ReadsLog:
    """The records of one table.

    Attributes:
        state: Storage of ``state_uri``.
        state_uri: The table's state folder.
    """

    state: Storage
    state_uri: str

    def of(self, commit: Commit, live: Sequence[WrittenFile]) -> Reads | str:
        """Return what a commit has read, or why that is not known.

        Args:
            commit: The last published commit.
            live: Its live files. Each of them must belong to one range.
        """
        mistrusted = self.state.read(self.mistrusted)
        if mistrusted is not None:
            return f"kept rows have differed from the source's before ({self.mistrusted})"
        raw = self.state.read(self._uri(commit))
        if raw is None:
            return "the last commit has no record of what it read"
        try:
            found = Reads.from_bytes(raw)
        except (ValidationError, ValueError, RecursionError):
            return "the record of what the last commit has read is damaged, or of another version"
        rows = {file.staged.uri: file.rows for file in live if file.rows}
        named = [uri for one in found.ranges for uri in one.files]
        if len(set(named)) != len(named) or set(named) != rows.keys():
            return "the live files are not those that the last commit has read"
        if any(one.rows != sum(rows[uri] for uri in one.files) for one in found.ranges):
            return "the live files do not have the rows that the last commit has read"
        return found

    def write(self, commit: Commit, reads: Reads) -> None:
        """Write what a commit has read, before the commit is prepared."""
        self.state.put(self._uri(commit), reads.to_bytes())

    def drop_before(self, commit: Commit) -> None:
        """Delete the records of earlier commits. A failure is logged: they only take space."""
        try:
            own = self._uri(commit)
            listed = self.state.list(join(self.state_uri, "reads") + "/")
            self.state.delete_all([o.uri for o in listed if o.uri < own])
        except ExtractError as error:
            logger.info("%s; the next run drops old records of what was read", error)

    def mistrust(self, found: Mapping[str, Any]) -> None:
        """Keep nothing from now on, until a person deletes the record."""
        self.state.put(self.mistrusted, json.dumps(found).encode())

    @property
    def mistrusted(self) -> str:
        """Where it says that nothing is kept any more."""
        return join(self.state_uri, "reads", "mistrusted.json")

    def _uri(self, commit: Commit) -> str:
        return join(self.state_uri, "reads", f"{commit.seq:020d}-{commit.commit_id}.json")
