"""Files that a commit retired and that are kept for a while, so that it can be rolled back.

They are in the state folder, ``kept/<20-digit seq>/<name>``, where no reader of the target sees
them. The publisher copies each before it deletes it. Names of files are unique, so any number of
publishers may do so, and one that comes late finds no source and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from extract_jobs.commit.at_once import each
from extract_jobs.commit.record import Commit
from extract_jobs.commit.record_check import number_in
from extract_jobs.storage import ObjectInfo, Storage, join

_SEQ_DIGITS = 20


@dataclass(frozen=True)
class KeptFiles:
    """The kept files of one table.

    Attributes:
        state: Storage of ``state_uri``.
        state_uri: The table's state folder.
    """

    state: Storage
    state_uri: str

    def keep(self, target: Storage, commit: Commit) -> None:
        """Copy all files that a commit retires, as far as they still exist."""
        each(lambda uri: target.copy(uri, self._uri(commit.seq, uri)), commit.retire)

    def by_commit(self) -> dict[int, list[ObjectInfo]]:
        """Return the kept files by the commit that retired them, oldest first."""
        folder = join(self.state_uri, "kept") + "/"
        found: dict[int, list[ObjectInfo]] = {}
        for one in self.state.list(folder):
            seq = one.uri[len(folder) :].partition("/")[0]
            if len(seq) == _SEQ_DIGITS and seq.isdecimal():
                found.setdefault(int(seq), []).append(one)
        return found

    def by_name(self) -> Mapping[str, ObjectInfo]:
        """Return the kept files by name."""
        return {name_of(one.uri): one for files in self.by_commit().values() for one in files}

    def drop(self, older_than: timedelta, now: datetime, *, dry_run: bool = False) -> list[str]:
        """Delete what was retired longer ago than a period.

        Args:
            older_than: The period; zero deletes everything that is kept.
            now: The present, UTC.
            dry_run: Delete nothing; only report.

        Returns:
            The URIs that were (or would be) deleted.
        """
        kept = self.by_commit()
        if not kept:
            return []
        retired_at = self._outcome_times(min(kept))
        found = [
            one.uri
            for seq, files in kept.items()
            if (at := retired_at.get(seq)) and now.astimezone(UTC) - at >= older_than
            for one in files
        ]
        if not dry_run:
            self.state.delete_all(found)
        return found

    def _outcome_times(self, first: int) -> dict[int, datetime]:
        """Return when each commit from one on ended; one that has not may still be copying.

        Lists no older ones, so that the cost does not grow with history.
        """
        folder = join(self.state_uri, "outcomes") + "/"
        listed = self.state.list(folder, f"{folder}{first - 1:0{_SEQ_DIGITS}d}.json")
        return {
            seq: one.modified_at
            for one in listed
            if (seq := number_in(one.uri)) is not None and one.modified_at
        }

    def _uri(self, seq: int, file: str) -> str:
        return join(self.state_uri, "kept", f"{seq:0{_SEQ_DIGITS}d}", name_of(file))


def name_of(uri: str) -> str:
    """Return a file's name, which is unique in its table."""
    return uri.rpartition("/")[2]
