"""The commit log of one table, and the protocol that makes a crash at any instruction harmless.

State lives under the table's ``state_uri``, outside the target:

- ``plans/<run_id>/<base_seq>.json``: what a run decided to extract, and onto which commit;
- ``objects/<run_id>/<base_seq>-<number>.parquet``: which objects, if the source has them;
- ``commits/<20-digit seq>.json``: every staged file of a commit, and every file it retires;
- ``claims/<run_id>/<number>.json``: whether a run's commit stands, or the run was given up on;
- ``outcomes/<20-digit seq>.json``: ``published`` or ``voided``;
- ``live/segments/<first>-<last>.parquet``: the live files of 64 commits, or of 64 segments;
- ``kept/<20-digit seq>/``: files that a commit retired, kept for `extract-jobs rollback`;
- ``reads/<20-digit seq>-<commit_id>.json``: what a full extract has read, for the next one;
- ``staged/<run_id>/<base_seq>/``: ranges that are staged, for a later attempt of the run;
- ``expired/<random>.json``: files that are being deleted with their snapshots of an Iceberg table;
- ``hint.json``: a sequence number from which the newest commit is found;
- ``catalog.json``: the old location of the catalog's table, until it is moved here.

All but the last six are written once with put-if-absent and never change; segments are deleted
when longer ones replace them. The order is: stage all files, *prepare* (write the commit record:
the commit point), claim that it stands, complete every staged file, copy what is retired if it is
to be kept, delete it (in an Iceberg table: make the snapshot), write the outcome. Any process may
take over after any step, and any number may do the same step at once. A commit is prepared only
when the one before it has its outcome, so at most the newest commit is ever unfinished.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from extract_jobs.commit.at_once import each
from extract_jobs.commit.claims import Claims
from extract_jobs.commit.kept_files import KeptFiles
from extract_jobs.commit.plans import Plans
from extract_jobs.commit.reads import ReadsLog
from extract_jobs.commit.record import Base, Commit, LiveFiles
from extract_jobs.commit.record_check import json_object, number_in
from extract_jobs.commit.staged_ranges import StagedRanges
from extract_jobs.errors import ConfigError, ExtractError
from extract_jobs.iceberg.change import Layout, TableCommit
from extract_jobs.iceberg.references import sweep
from extract_jobs.iceberg.table import IcebergTable
from extract_jobs.spec.uris import normal_uri
from extract_jobs.storage import (
    PROBE,
    AbandonedUpload,
    Storage,
    WrittenFile,
    join,
)
from extract_jobs.watermark import Interval

if TYPE_CHECKING:
    from extract_jobs.commit.live_files import LiveFilesLog

logger = logging.getLogger(__name__)

Outcome = Literal["published", "voided"]
ABANDON_AFTER = timedelta(hours=48)
_GONE = (
    "staged files were gone before they could be published (deleted, or expired by a lifecycle "
    "rule below 14 days)"
)
Replaces = Callable[[WrittenFile], bool] | None


@dataclass(frozen=True)
class CommitLog:
    """The log of one table.

    Attributes:
        state: Storage of ``state_uri``.
        state_uri: The table's state folder.
        target: Storage of the table's files.
        target_uri: The table's folder, if the caller knows it. A commit to another folder is then
            neither published nor discarded.
        table: The target's Iceberg table; None if it is a folder of Parquet files.
    """

    state: Storage
    state_uri: str
    target: Storage
    target_uri: str | None = None
    table: IcebergTable | None = None

    # --- reading ---------------------------------------------------------------------------

    def read(self, seq: int) -> Commit | None:
        """Return the commit of that sequence number, or None."""
        uri = self._uri("commits", seq)
        raw = self.state.read(uri)
        return None if raw is None else Commit.from_bytes(raw, uri, seq)

    def outcome(self, commit: Commit) -> Outcome | None:
        """Return how a commit ended, or None while it has no outcome.

        Raises:
            ConfigError: The record there is damaged, or another commit's.
        """
        uri = self._uri("outcomes", commit.seq)
        raw = self.state.read(uri)
        return None if raw is None else _outcome_of(raw, uri, commit)

    def newest(self) -> Commit | None:
        """Return the newest commit, whatever its outcome, or None for an empty log.

        Lists from a hint on, so the cost does not grow with history.
        """
        last, hint = 0, self._hint()
        for seq in self._sequences(hint):
            last = seq
        # A hint is written after its commit: if that is not listed, it was deleted.
        return self._known(max(last, hint)) if last or hint else None

    def history(self, limit: int) -> Iterator[tuple[Commit, Outcome | None]]:
        """Yield the newest commits and their outcomes, newest first, at most ``limit``."""
        commit = self.newest()
        while commit is not None and limit > 0:
            yield commit, self.outcome(commit)
            limit -= 1
            commit = self.read(commit.seq - 1) if commit.seq > 1 else None

    def live_files(self, commit: Commit | None) -> list[WrittenFile]:
        """Return every file that a reader should see when ``commit`` is the last published one."""
        return [file for live in self.live(commit) for file in live.files]

    def live(
        self, commit: Commit | None, within: Sequence[Interval] | None = None
    ) -> Iterator[LiveFiles]:
        """Yield the live files by the commits that wrote them, newest first.

        As `LiveFilesLog.at`: with ``within``, at least those of commits that may hold rows in some
        intervals.
        """
        return self._live_log().at(commit, within)

    def _live_log(self) -> LiveFilesLog:
        # Not at the top: Lambda functions have no pyarrow.
        from extract_jobs.commit.live_files import LiveFilesLog

        return LiveFilesLog(self.state, self.state_uri, self.target_uri, self._known)

    @property
    def kept(self) -> KeptFiles:
        """The retired files that are kept for a while."""
        return KeptFiles(self.state, self.state_uri)

    @property
    def reads(self) -> ReadsLog:
        """What full extracts have read."""
        return ReadsLog(self.state, self.state_uri)

    @property
    def staged(self) -> StagedRanges:
        """What attempts have staged, range by range."""
        return StagedRanges(self.state, self.state_uri, self.target)

    @property
    def plans(self) -> Plans:
        """What runs have pinned for a base."""
        return Plans(self.state, self.state_uri)

    def find_run(self, run_id: str) -> Commit | None:
        """Return the published commit of a run, or None.

        A run can only commit onto a base that it has planned for, so its plans say where to look.
        """
        for base_seq in self.plans.bases(run_id):
            commit = self.read(base_seq + 1)
            if commit and commit.run_id == run_id and self.outcome(commit) == "published":
                return commit
        return None

    # --- giving up on a run -----------------------------------------------------------------

    def fence(self, run_id: str, *, by: str) -> Commit | None:
        """Give up on a run: unless its commit stands already, nothing of it is ever published.

        Args:
            run_id: The run.
            by: Who gives up on it, for the worker's error message.

        Returns:
            The run's commit, if one stands, published or about to be. None: the run will never have
            one.
        """
        claim = self._claims().fence(run_id, by)
        if claim.seq is None:
            return self.find_run(run_id)  # published by a version that wrote no claims
        return self._known(claim.seq)

    def fenced_by(self, run_id: str) -> str:
        """Return who gave up on a run, empty if nobody did."""
        return self._claims().fenced_by(run_id)

    def _claims(self) -> Claims:
        return Claims(
            self.state, self.state_uri, lambda seq: self.outcome(self._known(seq)) == "voided"
        )

    # --- writing ---------------------------------------------------------------------------

    def prepare(self, commit: Commit) -> Commit:
        """Write a commit record: the commit point.

        The commit before it must have its outcome.

        Returns:
            The record that now has this sequence number: ``commit`` if it won, else another
            writer's. If this raises, it is unknown whether it won, and nothing that it names may
            be aborted.
        """
        commit.check()
        uri, raw = self._uri("commits", commit.seq), commit.to_bytes()
        held = self.state.put_if_absent(uri, raw)
        # It is not parsed again: a commit of many files would be there twice.
        return commit if held == raw else Commit.from_bytes(held, uri, commit.seq)

    def publish(self, commit: Commit, staged: Sequence[WrittenFile] = ()) -> Outcome:
        """Publish or void a prepared commit. Any number of processes may do so at once.

        Args:
            commit: The commit.
            staged: Its files as this process has staged them, if it has: with their footers.

        Returns:
            ``published``: every file was seen in place, by this process or another one.
            ``voided``: the run was given up on before, a staged file is gone for good, or another
            tool altered the Iceberg table so that the files do not fit. None of the commit's files
            is visible, and the table is as it was. One exception: if a person deleted one of its
            files between a first publisher's check and this one's, files that this commit retires
            may be gone too. The next run writes them again.
        """
        outcome = self.outcome(commit)
        self.check_target(commit)
        if outcome is None:
            self._check_layout(commit)
            why = self._obstacle(commit, staged)
            if why and self._has_snapshot(commit):
                why = ""
            wanted: Outcome = "voided" if why else "published"
            record = {"outcome": wanted, "commit_id": commit.commit_id}
            record |= {"why": why} if why else {}
            uri = self._uri("outcomes", commit.seq)
            outcome = _outcome_of(
                self.state.put_if_absent(uri, json.dumps(record).encode()), uri, commit
            )
        if outcome == "voided":
            self._discard_files(commit)
        else:
            self._record_live(commit)
        self._leave_hint(commit)
        return outcome

    def _record_live(self, commit: Commit) -> None:
        try:
            log = self._live_log()
        except ImportError:
            return  # a Lambda function, which has no pyarrow; it only saves later runs time
        log.record(commit)

    def _leave_hint(self, commit: Commit) -> None:
        """Say where the newest commit is. A failure is logged: the hint just saves time."""
        try:
            record = json.dumps({"seq": commit.seq}).encode()
            self.state.put(join(self.state_uri, "hint.json"), record)
        except (ExtractError, MemoryError) as error:
            what = error if isinstance(error, ExtractError) else type(error).__name__
            logger.warning("hint.json was not written, which costs later runs time only: %s", what)

    def why_voided(self, commit: Commit) -> str:
        """Return why a voided commit was not published, as the end of a sentence."""
        uri = self._uri("outcomes", commit.seq)
        raw = self.state.read(uri)
        found = json_object(raw, uri).get("why") if raw is not None else None
        return found if isinstance(found, str) and found else _GONE

    def _obstacle(self, commit: Commit, staged: Sequence[WrittenFile]) -> str:
        """Make readers see a commit; return why that is impossible for good, or nothing."""
        if not self._claims().stands(commit):
            return "its run was given up on"
        if not all(each(self.target.complete, [f.staged for f in commit.files])):
            return _GONE
        return self._switch(commit, staged)

    def _switch(self, commit: Commit, staged: Sequence[WrittenFile] = ()) -> str:
        """Make readers see a commit whose files are in place, instead of what it retires.

        Returns:
            Why an Iceberg table cannot take the files; empty if it has them.
        """
        if self.table is None:
            if commit.keeps_retired:
                self.kept.keep(self.target, commit)
            self.target.delete_all(commit.retire)
            return ""
        assert commit.iceberg is not None
        footers = {file.staged.token: file.footer for file in staged}
        # Retired files belong to older snapshots.
        return self.table.publish(
            TableCommit(
                seq=commit.seq,
                commit_id=commit.commit_id,
                parent=commit.parent,
                overwrite=commit.overwrites,
                files=tuple(
                    replace(file, footer=footers.get(file.staged.token)) for file in commit.files
                ),
                replaces=commit.replaces,
                layout=Layout.from_json(commit.iceberg),
                removes=commit.retire if commit.merges or commit.keeps else (),
                stands_on=self._before(commit) if commit.keeps else None,
                summary={
                    "extract-jobs.run-id": commit.run_id,
                    "extract-jobs.source": commit.table_id,
                    "extract-jobs.watermark": (commit.watermark or {}).get("text", ""),
                },
            )
        )

    def _before(self, commit: Commit) -> tuple[str, ...]:
        """Return the files that are live before a commit."""
        return tuple(file.staged.uri for file in self.live_files(self.read(commit.parent)))

    def _check_layout(self, commit: Commit) -> None:
        """Refuse a record whose columns or partitions no Iceberg table can have.

        Raises:
            ConfigError: It is damaged.
        """
        if self.table is None or commit.iceberg is None:
            return
        from extract_jobs.iceberg.partitions import check_layout

        partitions = [*(file.partition for file in commit.files), *commit.replaces]
        try:
            check_layout(Layout.from_json(commit.iceberg), partitions)
        except ValueError as error:
            raise ConfigError(
                f"{self._uri('commits', commit.seq)} was damaged: {error}. Nothing was touched; "
                "restore it from the bucket's or folder's earlier versions"
            ) from error

    def _has_snapshot(self, commit: Commit) -> bool:
        """Return whether readers of an Iceberg table see a commit already.

        Files may have been deleted since; voiding the commit would delete the others too.
        """
        return self.table is not None and self.table.has(commit.seq, commit.commit_id)

    def finish_last(self) -> Base:
        """Publish or void the newest commit if it has no outcome, and return the base to build on.

        Aborts no other run's uploads.
        """
        newest = self.newest()
        if newest is None:
            return Base(0, None)
        outcome, finished = self.outcome(newest), None
        if outcome is None:
            logger.info("commit %d of run %s had no outcome: finishing it", newest.seq,
                        newest.run_id)  # fmt: skip
            outcome, finished = self.publish(newest), newest
        elif outcome == "voided":
            # The process that voided it may have died before it discarded every file.
            self._discard_files(newest)
        if outcome == "published":
            return Base(newest.seq, newest, finished)
        return Base(newest.seq, self._known(newest.parent) if newest.parent else None, finished)

    def recover(
        self, target_uri: str, *, abandon_after: timedelta, now: datetime, dry_run: bool = False
    ) -> list[AbandonedUpload]:
        """Finish the newest commit, then abort staged files that nobody can publish any more.

        After finishing, no staged file belongs to a commit. Files younger than ``abandon_after``
        may belong to a running extract and are left alone. A run that takes longer than that has
        its commit voided, and the next run extracts its rows again. Records of staged ranges, and
        what was being written to a local folder, are deleted at the same age.

        Args:
            target_uri: The table's folder.
            abandon_after: Age from which a staged file counts as abandoned.
            now: The present, UTC.
            dry_run: Finish and abort nothing; only report.

        Returns:
            The uploads that were (or would be) aborted.
        """
        newest, parent = self.newest(), None
        if not dry_run:
            parent = self.finish_last().published
        pending = {f.staged.uri for f in newest.files} if newest and dry_run else set()
        found = [
            upload
            for upload in self.target.abandoned(target_uri)
            if now.astimezone(UTC) - upload.started_at >= abandon_after
            and upload.uri not in pending
        ]
        if not dry_run:
            each(lambda upload: self.target.abort(target_uri, upload), found)
            probes = self.target.list(join(target_uri, PROBE))
            self.target.delete_all(probe.uri for probe in probes)
            self.staged.forget(now - abandon_after)
            self.target.delete_drafts(target_uri, now - abandon_after)
            self.state.delete_drafts(self.state_uri, now - abandon_after)
            if self.table is not None:
                sweep(self.table, now - abandon_after, parent=parent.seq if parent else 0)
        return found

    def _discard_files(self, commit: Commit) -> None:
        """Make sure that no file of a voided commit is or becomes visible."""
        self.check_target(commit)

        # In this order: once the uploads are gone, nobody can complete them.
        each(lambda file: self.target.abort(commit.target_uri, file.staged), commit.files)
        self.target.delete_all(file.staged.uri for file in commit.files)

    def check_target(self, commit: Commit) -> None:
        """Refuse to touch files in another table's folder, or of another format.

        Raises:
            ConfigError: The commit went to another target.
        """
        if (commit.iceberg is None) != (self.table is None):
            now, then = ("iceberg", "parquet") if self.table else ("parquet", "iceberg")
            raise ConfigError(
                f"{self._uri('commits', commit.seq)} is a commit of format {then}, and "
                f"target.format is {now}. Nothing was touched. Put it back, or start over with "
                "another state_uri and target"
            )
        if self.target_uri is None or normal_uri(commit.target_uri) == normal_uri(self.target_uri):
            return
        raise ConfigError(
            f"{self._uri('commits', commit.seq)}: its files went to {commit.target_uri}, but "
            f"target.uri is {self.target_uri}. Nothing was touched. Move the target back, or start "
            "over with another state_uri"
        )

    def _known(self, seq: int) -> Commit:
        """Return a commit that must be there.

        Raises:
            ConfigError: It is gone: the live files are no longer known.
        """
        commit = self.read(seq)
        if commit is None:
            raise ConfigError(
                f"{self._uri('commits', seq)} is gone, and without it the live files are unknown: "
                "restore it (noncurrent versions of the bucket hold it), or start the table over "
                "with another state_uri and target"
            )
        return commit

    # --- names -----------------------------------------------------------------------------

    def _uri(self, kind: str, seq: int) -> str:
        return join(self.state_uri, kind, f"{seq:020d}.json")

    def _hint(self) -> int:
        raw = self.state.read(join(self.state_uri, "hint.json"))
        try:
            return int(json.loads(raw)["seq"]) if raw else 0
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return 0  # without the hint the whole folder is listed

    def _sequences(self, hint: int) -> Iterator[int]:
        folder = join(self.state_uri, "commits") + "/"
        start_after = self._uri("commits", hint - 1) if hint > 1 else None
        for info in self.state.list(folder, start_after):
            seq = number_in(info.uri)
            if seq is not None:
                yield seq


def next_commit(
    base: Base,
    *,
    replaces: Replaces,
    overwrite: bool,
    log: CommitLog,
    within: Sequence[Interval] | None = None,
    removes: Sequence[str] = (),
    **fields: Any,
) -> Commit:
    """Return a commit on top of ``base``; what it retires comes from the log, never from a listing.

    Args:
        base: The base that it is built on.
        replaces: Returns whether the commit replaces a live file; None replaces none.
        overwrite: Whether it replaces every live file, whatever ``replaces`` says.
        log: Where the live files are read from.
        within: If given, only files whose commits may hold rows in these intervals are replaced.
        removes: Files of the table that it replaces besides, whoever wrote them.
        **fields: The remaining fields of `Commit`.
    """
    seq = base.seq + 1
    parent = base.published
    commit = Commit(
        seq=seq,
        parent=parent.seq if parent else 0,
        live_since=seq if overwrite or parent is None else parent.live_since,
        retire=tuple(removes),
        **fields,
    )
    if parent and (overwrite or replaces):
        live = (file for one in log.live(parent, within) for file in one.files)
        goes = [f for f in live if overwrite or (replaces is not None and replaces(f))]
        commit = replace(commit, retire=tuple(f.staged.uri for f in goes))
        if commit.iceberg is not None and not overwrite and not commit.keeps:
            # By partition, not by file: another tool may have put the rows into other files.
            comes = commit.files if replaces else ()
            partitions = {tuple(f.partition.items()): f.partition for f in (*goes, *comes)}
            commit = replace(commit, replaces=tuple(partitions.values()))
    return commit


def _outcome_of(raw: bytes, uri: str, commit: Commit) -> Outcome:
    record = json_object(raw, uri)
    found = record.get("outcome")
    if found in {"published", "voided"} and record.get("commit_id") == commit.commit_id:
        return "published" if found == "published" else "voided"
    raise ConfigError(
        f"{uri} is not the outcome of commit {commit.commit_id}: a record was deleted or damaged; "
        "restore the state folder, or start the table over with another state_uri and target"
    )
