"""Rolls a table back: a new commit that holds what an earlier one held.

It is a commit like any other, with the protocol of any other. Its files are copies of those that
were live at the earlier commit, staged under new names: a publisher of an older commit that wakes
up late cannot delete them. Until it is published, the table is as it was.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from extract_jobs.commit.at_once import each
from extract_jobs.commit.kept_files import name_of
from extract_jobs.commit.log import CommitLog, next_commit
from extract_jobs.commit.record import Base, Commit, LiveFiles
from extract_jobs.errors import CommitConflict, ConfigError, ExtractError, WriteFailed
from extract_jobs.iceberg.change import Layout
from extract_jobs.storage import ObjectInfo, Storage, WrittenFile

_CHUNK_BYTES = 8 * 2**20
_RUN_ID = "rollback-to-"


def run_id_of_rollback(seq: int) -> str:
    """Return a run_id for rolling back to a commit, used once."""
    return f"{_RUN_ID}{seq}-{uuid.uuid4().hex[:8]}"


def is_rollback(commit: Commit) -> bool:
    """Return whether a commit is a rollback: it holds rows of an earlier commit, and no run's."""
    return commit.run_id.startswith(_RUN_ID)


def rolled_back_to(commit: Commit) -> str:
    """Return the number of the commit that a rollback returned to."""
    return commit.run_id.removeprefix(_RUN_ID).partition("-")[0]


def roll_back(log: CommitLog, seq: int, *, run_id: str, keep: bool) -> Commit:
    """Publish a commit whose files, columns and watermark are those of an earlier commit.

    A newest commit without an outcome is brought to it first. If the table is not rolled back then,
    the error says so.

    Args:
        log: The table's.
        seq: The earlier commit, published.
        run_id: Of the new commit; used once.
        keep: Whether the files that it replaces are kept.

    Returns:
        The new commit, published.

    Raises:
        ConfigError: There is nothing to go back to: no such commit, its files are gone, or it adds
            to files of other intervals; or the target is another one now. Nothing else has changed.
        CommitConflict: A run committed meanwhile. Nothing else has changed.
        WriteFailed: Storage failed. If the commit was prepared, the next run finishes it.
    """
    base = log.finish_last()
    try:
        return _rolled_back(log, base, seq, run_id=run_id, keep=keep)
    except ExtractError as error:
        if base.finished is None:
            raise
        outcome = "published" if base.finished is base.published else "voided"
        raise type(error)(
            f"{error}. Before that, commit {base.finished.seq} of run {base.finished.run_id}, "
            f"which had no outcome, was {outcome}"
        ) from error


def commits_to_return_to(
    log: CommitLog, last: Commit, kept: Mapping[int, Sequence[ObjectInfo]], most: int
) -> list[int]:
    """Return earlier commits all of whose files are live or kept, newest first. Read-only.

    Args:
        log: The table's.
        last: The last published commit.
        kept: The kept files, as `KeptFiles.by_commit` returns them.
        most: Maximum commits to look at.

    Raises:
        ConfigError: A record is damaged, or access was denied.
        WriteFailed: Storage failed.
    """
    there = {name_of(one.uri) for files in kept.values() for one in files}
    there |= {name_of(file.staged.uri) for file in log.live_files(last)}
    found = []
    for seq in sorted(kept, reverse=True)[:most]:
        replaced_by = log.read(seq)
        before = log.read(replaced_by.parent) if replaced_by and replaced_by.parent else None
        if (
            before
            and before.seq != last.seq
            and {name_of(file.staged.uri) for file in log.live_files(before)} <= there
        ):
            found.append(before.seq)
    return found


def _rolled_back(log: CommitLog, base: Base, seq: int, *, run_id: str, keep: bool) -> Commit:
    wanted = _wanted(log, seq, base.published)
    log.check_target(wanted)
    live = list(log.live(wanted))
    if not _merges(log, wanted, base.published):
        for at, files in ((wanted, live), (base.published, list(log.live(base.published)))):
            if _adds_up(at, files) or (at and at.merges):
                raise ConfigError(
                    f"the files of commit {at.seq if at else 0} hold several increments: only a "
                    "table whose runs replace it, its partitions, or its rows by a key, can be "
                    "rolled back. To read rows again, start the table over, or run a backfill"
                )
    layout = _layout(log, base.published, wanted, live)
    staged = _staged(log, base.published, live, wanted)
    commit = next_commit(
        base,
        replaces=None,
        overwrite=True,
        log=log,
        commit_id=str(uuid.uuid4()),
        run_id=run_id,
        attempt=1,
        files=tuple(staged),
        keeps_retired=keep,
        iceberg=layout and layout.to_json(),
        report={**wanted.report, **_KEPT_NOTHING, "run_id": run_id, "attempt": 1},
        interval=_interval(live, wanted),
        **{name: getattr(wanted, name) for name in _TAKEN},
    )
    if log.prepare(commit).commit_id != commit.commit_id:
        _abort(log, staged, wanted.target_uri)
        raise CommitConflict(
            f"another run committed {commit.seq} meanwhile; nothing was changed: run it again"
        )
    if log.publish(commit) != "published":
        why = log.why_voided(commit)
        raise WriteFailed(f"commit {commit.seq} was voided, because {why}; run again")
    return commit


def _adds_up(commit: Commit | None, live: Sequence[LiveFiles]) -> bool:
    """Return whether a table has rows of several increments: intervals, or new source files.

    Rows of a later one may be gone from the source.
    """
    of_files = commit is not None and commit.objects is not None and commit.holds_increments
    return len({one.seq if of_files else str(one.interval) for one in live}) > 1


def _merges(log: CommitLog, wanted: Commit, last: Commit | None) -> bool:
    """Return whether a table has every row once, by the same key, at both commits.

    Then a run that merges from the earlier watermark on replaces what it reads again.
    """
    return (
        log.table is not None and bool(wanted.key) and last is not None and (last.key == wanted.key)
    )


def _interval(live: Sequence[LiveFiles], wanted: Commit) -> dict[str, Any] | None:
    """Return the interval of the rows: the earlier commit may only have emptied partitions."""
    found = [one.interval for one in live]
    if not found:
        return wanted.interval
    return found[0] if all(one == found[0] for one in found) else None  # any rows


_TAKEN = (
    "table_id", "target_uri", "fingerprint", "watermark", "schema", "watermark_column", "covered",
    "increments", "partition_by", "columns", "objects", "source_columns", "position", "key",
)  # fmt: skip
"""What the new commit takes from the earlier one."""
_KEPT_NOTHING = dict.fromkeys(
    (
        "kept_rows",
        "kept_bytes",
        "kept_files",
        "kept_ranges",
        "rewritten_rows",
        "rewritten_bytes",
        "rewritten_files",
    ),
    0,
)
"""Every file of the new commit is its own, also those that the earlier one kept as unchanged."""


def _wanted(log: CommitLog, seq: int, last: Commit | None) -> Commit:
    """Return the commit to go back to."""
    found = log.read(seq) if seq > 0 else None
    if last is None or found is None:
        raise ConfigError(f"the table has no commit {seq}; extract-jobs history shows its commits")
    if found.seq == last.seq:
        raise ConfigError(f"commit {seq} is the latest one: there is nothing to roll back")
    if log.outcome(found) != "published":
        raise ConfigError(f"commit {seq} was voided: none of its rows was ever published")
    return found


def _layout(
    log: CommitLog, last: Commit | None, wanted: Commit, live: Sequence[LiveFiles]
) -> Layout | None:
    """Return columns and partitions of an Iceberg table once it is rolled back."""
    if log.table is None:
        return None
    assert wanted.iceberg is not None
    assert last is not None
    return log.table.restored(
        wanted.commit_id,
        Layout.from_json(wanted.iceberg),
        [file for one in live for file in one.files],
        parent=last.seq,
        known=last.columns,
        is_in_log=lambda seq: log.read(seq) is not None,
    )


def _staged(
    log: CommitLog, last: Commit | None, live: Sequence[LiveFiles], wanted: Commit
) -> list[WrittenFile]:
    """Stage a copy of every file; after a failure none is left staged."""
    now = {file.staged.uri for file in log.live_files(last)}
    kept = log.kept.by_name()
    files = [file for one in live for file in one.files]
    sources = {
        file.staged.uri: (log.target, file.staged.uri)
        # Files of a snapshot of an Iceberg table stay where they are.
        if file.staged.uri in now or log.table is not None
        else (log.state, kept[name].uri)
        for file in files
        if file.staged.uri in now
        or log.table is not None
        or (name := name_of(file.staged.uri)) in kept
    }
    missing = [file for file in files if file.staged.uri not in sources]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(files)} files of commit {wanted.seq} are not kept any more: "
            "keep_retired says for how long they are, from the next commit on"
        )
    staged: list[WrittenFile] = []

    def stage(file: WrittenFile) -> None:
        staged.append(_copy(log, file, *sources[file.staged.uri], root=wanted.target_uri))

    try:
        each(stage, files)
    except BaseException:
        with suppress(ExtractError):  # what is left, `recover` drops
            _abort(log, staged, wanted.target_uri)
        raise
    return sorted(staged, key=lambda file: file.staged.uri)


def _copy(
    log: CommitLog, file: WrittenFile, storage: Storage, uri: str, *, root: str
) -> WrittenFile:
    """Stage the bytes of a file under a new name in its own folder.

    Raises:
        WriteFailed: It is gone, or not the file that was committed.
    """
    token = uuid.uuid4().hex
    folder, _, name = file.staged.uri.rpartition("/")
    # The name begins as before: with the run that wrote the rows, which is in the file too.
    target = f"{folder}/{name.removesuffix('.parquet')}-{token[:8]}.parquet"
    found = storage.head(uri)
    same = found is not None and found.token in (None, file.staged.token)
    stream = storage.open(uri) if same else None
    if found is None or stream is None or found.size != file.staged.size:
        raise WriteFailed(f"{uri} is not the file of {file.staged.size:,} bytes that was committed")
    with stream:
        writer = log.target.stage(target, root, token)
        try:
            while chunk := stream.read(_CHUNK_BYTES):
                writer.write(chunk)
            return replace(file, staged=writer.close())
        except BaseException:
            writer.abort()
            raise


def _abort(log: CommitLog, staged: Sequence[WrittenFile], root: str) -> None:
    each(lambda file: log.target.abort(root, file.staged), staged)
