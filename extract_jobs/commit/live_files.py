"""A table's live files: written by a published commit and not retired by a later one.

They are read from the commits, back to the last overwrite. Every `LIVE_EVERY` commits
``live/<20-digit seq>.json`` records them, so that few commits are read however long the history is.
Of these records the last two stay: a run that does not know of the last one builds on the other.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from extract_jobs.commit.record import Commit, LiveFiles
from extract_jobs.errors import ExtractError
from extract_jobs.storage import Storage, WrittenFile, join

logger = logging.getLogger(__name__)

LIVE_EVERY = 64
"""Number of commits between two records of the live files: the maximum that is read."""


@dataclass(frozen=True)
class LiveFilesLog:
    """The live files of one table.

    Attributes:
        state: Storage of ``state_uri``.
        state_uri: The table's state folder.
        target_uri: The table's folder, if the caller knows it.
        commit: Returns the commit with a sequence number; raises ConfigError if it is gone.
    """

    state: Storage
    state_uri: str
    target_uri: str | None
    commit: Callable[[int], Commit]

    def at(self, commit: Commit | None) -> list[LiveFiles]:
        """Return the files live when a commit is the last published one, newest commits first.

        Reads back to the last overwrite or the last record of live files, whichever is nearer.
        """
        found: list[LiveFiles] = []
        retired: set[str] = set()
        while commit is not None:
            files = self._absolute_files(commit.files, commit.target_uri)
            found.append(_without(LiveFiles(commit.seq, commit.interval, files), retired))
            retired.update(self._absolute(uri, commit.target_uri) for uri in commit.retire)
            if commit.seq == commit.live_since or commit.parent == 0:
                break
            recorded = self._recorded(commit)
            if recorded is not None:
                for live in recorded:
                    files = self._absolute_files(live.files, commit.target_uri)
                    found.append(_without(replace(live, files=files), retired))
                break
            commit = self.commit(commit.parent)
        return [live for live in found if live.files]

    def _absolute_files(self, files: Sequence[WrittenFile], folder: str) -> tuple[WrittenFile, ...]:
        uris = [self._absolute(file.staged.uri, folder) for file in files]
        return tuple(
            file if file.staged.uri == uri else replace(file, staged=replace(file.staged, uri=uri))
            for file, uri in zip(files, uris, strict=True)
        )

    def _absolute(self, uri: str, folder: str) -> str:
        """Return a file's URI in a form that does not depend on the working folder.

        Records of older versions may have relative paths of files and their target.
        """
        if self.target_uri is None or "://" in uri or uri.startswith("/"):
            return uri
        below = uri.removeprefix(folder.rstrip("/") + "/")
        return join(self.target_uri, below) if below != uri else str(Path(uri).absolute())

    def record(self, commit: Commit) -> None:
        """Write the live files at a published commit if their turn has come, and drop old records.

        Every process writes the same. A failure is logged only: the record just saves time.
        """
        if commit.seq % LIVE_EVERY:
            return
        try:
            record = [live.to_json() for live in self.at(commit)]
            self.state.put_if_absent(self._uri(commit.seq), json.dumps(record).encode())
            kept = self._uri(commit.seq - LIVE_EVERY)
            listed = self.state.list(join(self.state_uri, "live") + "/")
            self.state.delete_all(one.uri for one in listed if one.uri < kept)
        except (ExtractError, MemoryError) as error:
            logger.warning(
                "the live files were not recorded, which saves time only: %s",
                error if isinstance(error, ExtractError) else "memory ran out",
            )

    def _recorded(self, commit: Commit) -> list[LiveFiles] | None:
        """Return the files live at a commit's parent, if they were recorded."""
        seq = commit.parent
        raw = self.state.read(self._uri(seq)) if seq % LIVE_EVERY == 0 else None
        try:
            return None if raw is None else LiveFiles.from_bytes(raw, commit)
        except ValueError as error:
            # It only saves time: the commits before it hold the same.
            logger.warning("%s is not used: %s", self._uri(seq), error)
            return None

    def _uri(self, seq: int) -> str:
        return join(self.state_uri, "live", f"{seq:020d}.json")


def _without(live: LiveFiles, retired: set[str]) -> LiveFiles:
    return replace(live, files=tuple(f for f in live.files if f.staged.uri not in retired))
