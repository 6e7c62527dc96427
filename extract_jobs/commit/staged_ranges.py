"""Ranges that an attempt has read and staged, so that a later attempt of its run takes them over.

``staged/<run_id>/<base_seq>/<random>.json`` below the state folder, one for each
range, is written when the range's files are staged. Nothing depends on it: a record whose uploads
are gone, or whose rows have changed since, is passed over.
"""

from __future__ import annotations

import functools
import logging
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from extract_jobs.commit.at_once import each
from extract_jobs.commit.reads import MOMENT, RangeRead
from extract_jobs.commit.record_check import check_files
from extract_jobs.commit.sealed import check_seal, seal
from extract_jobs.errors import ExtractError
from extract_jobs.spec.attempt_names import is_of_attempt, is_of_run
from extract_jobs.spec.uris import normal_uri
from extract_jobs.storage import AbandonedUpload, StagedFile, Storage, WrittenFile, join

logger = logging.getLogger(__name__)

VERSION = 2
_MOST = 50_000
_PAGES = 2**32
"""No table has more."""


@dataclass(frozen=True)
class StagedRange:
    """A range whose files are staged.

    Attributes:
        version: Of this record.
        moment: As `Reads.moment`, with its own part only.
        writing: As `Reads.writing`.
        range: The range.
        files: Its files, in the order of `RangeRead.files`.
    """

    version: int
    moment: dict[str, dict[str, Any]]
    writing: dict[str, str]
    range: RangeRead
    files: tuple[WrittenFile, ...]

    def to_bytes(self) -> bytes:
        """Return the record as it is stored."""
        data = {
            **self.__dict__,
            "range": self.range.__dict__,
            "files": [file.to_json() for file in self.files],
        }
        return seal(data)

    @classmethod
    def from_bytes(cls, raw: bytes, target_uri: str) -> StagedRange:
        """Read a stored record.

        Raises:
            ValueError: It is damaged, names files outside the target, or is of another version.
        """
        check_seal(raw, needed=True)
        found = _ranges().validate_json(raw, strict=True)
        check_files(found.files, target_uri)
        one = found.range
        if (
            found.version != VERSION
            or found.moment.keys() != MOMENT
            or not 0 <= one.start < one.end <= _PAGES
            or one.files != tuple(file.staged.uri for file in found.files)
            or one.rows != sum(file.rows for file in found.files)
        ):
            raise ValueError("no attempt wrote it")
        return found


@functools.cache
def _ranges() -> TypeAdapter[StagedRange]:
    return TypeAdapter(StagedRange)


@dataclass(frozen=True)
class StagedRanges:
    """The records of one table.

    Attributes:
        state: Storage of ``state_uri``.
        state_uri: The table's state folder.
        target: Storage of the table's files.
    """

    state: Storage
    state_uri: str
    target: Storage

    def note(self, run_id: str, base_seq: int, staged: StagedRange) -> None:
        """Write a record."""
        name = f"{uuid.uuid4().hex}.json"
        self.state.put(join(self._folder(run_id) + str(base_seq), name), staged.to_bytes())

    def of(self, run_id: str, base_seq: int, target_uri: str) -> list[StagedRange]:
        """Return what attempts of a run have staged for a base and is still there.

        A record that names a file of another run, or under another name than it was staged with,
        is passed over.
        """
        folder = f"{self._folder(run_id)}{base_seq}/"
        uris = [found.uri for found in self.state.list(folder)][:_MOST]
        there = self._there(run_id, target_uri) if uris else set()
        if not there:
            return []
        found = []
        for raw in each(self.state.read, uris):
            try:
                one = StagedRange.from_bytes(raw or b"", target_uri)
            except (ValidationError, ValueError, RecursionError):
                continue
            if all(_identity(file.staged) in there for file in one.files):
                found.append(one)
        return found

    def files_of_attempt(self, run_id: str, attempt: int, target_uri: str) -> set[str]:
        """Return the URIs of an attempt's files that a later attempt could take over."""
        return {
            file.staged.uri
            for base_seq in _bases(one.uri for one in self.state.list(self._folder(run_id)))
            for one in self.of(run_id, base_seq, target_uri)
            for file in one.files
            if is_of_attempt(file.staged.uri.rsplit("/", 1)[-1], run_id, attempt)
        }

    def drop(self, run_id: str, target_uri: str, *, keep: Iterable[StagedFile]) -> None:
        """Abort what attempts of a run have staged, except some files, and delete the records.

        A failure is logged: `recover` aborts what is left.
        """
        kept = {_identity(staged) for staged in keep}
        try:
            found = [one.uri for one in self.state.list(self._folder(run_id))]
            staged = [
                file.staged
                for base_seq in _bases(found)
                for one in self.of(run_id, base_seq, target_uri)
                for file in one.files
                if _identity(file.staged) not in kept
            ]
            each(lambda one: self.target.abort(target_uri, one), staged)
            self.state.delete_all(found)
        except ExtractError as error:
            logger.info("%s; staged files were left for `extract-jobs recover`", error)

    def forget(self, before: datetime) -> None:
        """Delete the records of any run that were written before a moment (UTC)."""
        listed = self.state.list(join(self.state_uri, "staged") + "/")
        self.state.delete_all(
            [one.uri for one in listed if one.modified_at and one.modified_at <= before]
        )

    def _there(self, run_id: str, target_uri: str) -> set[tuple[str, str]]:
        """Return the identities of all files that attempts of a run have staged."""
        return {
            _identity(one)
            for one in self.target.abandoned(join(target_uri, ""))
            if is_of_run(one.uri.rsplit("/", 1)[-1], run_id)
        }

    def _folder(self, run_id: str) -> str:
        return join(self.state_uri, "staged", run_id) + "/"


def _bases(uris: Iterable[str]) -> set[int]:
    folders = {uri.rsplit("/", 2)[1] for uri in uris}
    return {int(name) for name in folders if re.fullmatch("[0-9]{1,20}", name)}


def _identity(staged: AbandonedUpload | StagedFile) -> tuple[str, str]:
    """Return what identifies a staged file in its storage: listings know no more."""
    upload = staged.upload
    return normal_uri(staged.uri), str(upload.get("upload_id") or upload.get("path"))
