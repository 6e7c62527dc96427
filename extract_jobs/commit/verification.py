"""Compares the files below a table's target with the live files of its commit log. Read-only."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.errors import CommitConflict
from extract_jobs.iceberg.change import DATA_FOLDER
from extract_jobs.iceberg.references import referenced
from extract_jobs.spec.uris import is_inside, normal_uri
from extract_jobs.storage import ObjectInfo, Storage, WrittenFile, is_probe, join

_TRIES = 3
_CONCURRENT_FOOTERS = 16
_CONCURRENT_FILES = 4
"""Maximum files that are read in full at a time: each needs the memory of one row group."""
_BATCH_ROWS = 16 * 1024
_RUN_ID = b"extract.run_id"


@dataclass(frozen=True)
class Fault:
    """One file that differs from the log.

    Attributes:
        uri: The file's.
        problem: What is wrong with it, and what follows from that.
    """

    uri: str
    problem: str


@dataclass(frozen=True)
class Verification:
    """The result of verifying a table's files.

    Attributes:
        commit: The last published commit; None before the first.
        unfinished: A newer commit that has no outcome yet. Its own files, and those that it
            retires, may or may not exist.
        files: The live files that the log names.
        faults: What is wrong, by URI.
    """

    commit: Commit | None
    unfinished: Commit | None
    files: tuple[WrittenFile, ...]
    faults: tuple[Fault, ...]

    @property
    def rows(self) -> int:
        """Rows that the live files should have."""
        return sum(file.rows for file in self.files)

    @property
    def size(self) -> int:
        """Bytes that the live files should have."""
        return sum(file.staged.size for file in self.files)


def verify_files(log: CommitLog, target_uri: str, *, pages: bool = False) -> Verification:
    """Check that exactly the live files are below the target, each as it was committed.

    For every live file, the size, the token that its storage keeps, and the footer's rows and run
    are compared with the log. Names that begin with ``_`` or ``.`` are ignored unless they end in
    ``.parquet``, as most readers do. Of an Iceberg table, the live files are those that the current
    snapshot has too, and files of older snapshots are expected.

    Args:
        log: The table's.
        target_uri: The table's folder.
        pages: Whether to read every page too, and verify its checksum.

    Raises:
        CommitConflict: Runs kept committing to the table meanwhile.
        ConfigError: A record of the log is damaged, or access was denied.
        WriteFailed: Storage failed.
    """
    for _ in range(_TRIES):
        before = _newest(log)
        found = _compare(log, target_uri, *before, pages=pages)
        if not found.faults or _newest(log) == before:
            return found
    raise CommitConflict(
        f"{target_uri}: runs committed to the table while its files were compared, {_TRIES} times; "
        "verify it while none is running"
    )


def _newest(log: CommitLog) -> tuple[Commit | None, str | None]:
    newest = log.newest()
    return newest, log.outcome(newest) if newest else None


def _compare(
    log: CommitLog, target_uri: str, newest: Commit | None, outcome: str | None, *, pages: bool
) -> Verification:
    last, unfinished = newest, None
    if newest is not None and outcome != "published":
        last = log.read(newest.parent) if newest.parent else None
        unfinished = newest if outcome is None else None
    live, known = log.live_files(last), frozenset[str]()
    folder = target_uri
    if log.table is not None:
        named = referenced(log.table, parent=last.seq if last else 0, required=True)
        if named is not None:
            # Another tool may have put the rows of the others into other files.
            live = [f for f in live if normal_uri(f.staged.uri) in named.current]
            known = named.files
        folder = join(target_uri, DATA_FOLDER)
    by_uri = {normal_uri(file.staged.uri): file for file in live}
    listed = {normal_uri(o.uri): o for o in log.target.list(join(folder, ""))}
    going = {normal_uri(uri) for uri in unfinished.retire} if unfinished else set()
    coming = {normal_uri(f.staged.uri) for f in unfinished.files} if unfinished else set()

    def fault_of(item: tuple[str, WrittenFile]) -> Fault | None:
        uri, file = item
        return None if uri in going else _fault_of(log.target, file, listed.get(uri), pages=pages)

    with ThreadPoolExecutor(_CONCURRENT_FILES if pages else _CONCURRENT_FOOTERS) as pool:
        faults = [fault for fault in pool.map(fault_of, by_uri.items()) if fault]
    expected = by_uri.keys() | coming | known
    foreign = [o for uri, o in listed.items() if uri not in expected]
    seen = "readers of the folder see its rows too" if log.table is None else "no reader sees it"
    faults += _foreign(foreign, target_uri, log.state_uri, seen)
    faults.sort(key=lambda fault: fault.uri)
    return Verification(last, unfinished, tuple(live), tuple(faults))


def _fault_of(
    storage: Storage, file: WrittenFile, listed: ObjectInfo | None, *, pages: bool
) -> Fault | None:
    uri, staged = file.staged.uri, file.staged
    # The listing has no token.
    found = storage.head(uri) if listed else None
    if found is None:
        return Fault(uri, f"is missing, with {_rows(file.rows)}")
    if found.size != staged.size:
        return Fault(
            uri, f"has {found.size:,} bytes, but {staged.size:,} were committed: it was cut short, "
            "or replaced by another file",
        )  # fmt: skip
    if found.token is not None and found.token != staged.token:
        return Fault(uri, "was replaced by another file of the same size")
    problem = _content_problem(storage, file, pages=pages)
    return Fault(uri, problem) if problem else None


def _content_problem(storage: Storage, file: WrittenFile, *, pages: bool) -> str | None:
    uri = file.staged.uri
    stream = storage.open(uri)
    if stream is None:
        return f"is missing, with {_rows(file.rows)}"
    try:
        with stream:
            opened = pq.ParquetFile(stream, page_checksum_verification=pages)
            rows = opened.metadata.num_rows
            run_id = (opened.metadata.metadata or {}).get(_RUN_ID)
            if pages:
                rows = sum(batch.num_rows for batch in opened.iter_batches(_BATCH_ROWS))
    except (pa.ArrowException, OSError, UnicodeDecodeError):  # Arrow's message may quote a value
        part = "one of its pages" if pages else "its footer"
        return f"is damaged: {part} cannot be read as Parquet"
    if rows != file.rows:
        return f"has {_rows(rows)}, but {file.rows:,} were committed"
    name = uri.rsplit("/", 1)[-1]
    if run_id is not None and not name.startswith(f"{run_id.decode(errors='replace')}-"):
        return "was replaced by a file of another run"
    return None


def _foreign(
    found: list[ObjectInfo], target_uri: str, state_uri: str, seen: str
) -> Iterator[Fault]:
    skipped = len(join(target_uri, "")) - 1
    for one in found:
        hidden = any(name.startswith(("_", ".")) for name in one.uri[skipped:].split("/"))
        is_folder = one.uri.endswith("/")
        ignored = is_folder or (hidden and not one.uri.endswith(".parquet"))
        if not ignored and not is_probe(one) and not is_inside(one.uri, state_uri):
            yield Fault(one.uri, f"belongs to no live commit: {seen}")


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
