"""``verify``: compares a table's files with its commit log; with ``--deep`` with its source too."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress

from extract_jobs.cli.each_table import each_table, error_of_all
from extract_jobs.cli.selection import selected_specs
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.commit.rollback import commits_to_return_to
from extract_jobs.commit.table_log import commit_log
from extract_jobs.commit.verification import Verification, verify_files
from extract_jobs.engine.pandas_free import skip_pandas
from extract_jobs.errors import EXIT_DONE, ExtractError, FilesDamaged, error_line, printable
from extract_jobs.planning.interval import covered_by
from extract_jobs.planning.plan import check_identity, read_request
from extract_jobs.reporting.figures import counted, size_text
from extract_jobs.sources import known_at, open_source
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.columns import choose_columns
from extract_jobs.watermark import Interval, WatermarkValue

_AT_ONCE = 4
_MOST_COMMITS = 10
"""Maximum commits named to roll back to."""


def command(arguments: argparse.Namespace) -> int:
    """Print what is wrong with the files of each table.

    Raises:
        ExtractError: A table could not be verified.
        FilesDamaged: Something is wrong with the files of a table.
    """
    skip_pandas()
    specs = selected_specs(arguments)

    def ask(spec: ExtractSpec) -> tuple[Verification, _Recount | None, str]:
        log = commit_log(spec)
        found = verify_files(log, spec.target.uri, pages=arguments.deep)
        recount = _recount(spec, found) if arguments.deep and found.commit else None
        return found, recount, _kept_text(log, found.commit)

    failures: list[ExtractError] = []
    for spec, answer in each_table(specs, ask, at_once=1 if arguments.deep else _AT_ONCE):
        if isinstance(answer, ExtractError):
            if len(specs) > 1:
                print(f"{printable(spec.extract_table)}: {error_line(answer)}", file=sys.stderr)
            failures.append(answer)
            continue
        found, recount, kept = answer
        for line in _lines(spec, found, recount, kept):
            print(line, flush=True)
        if found.faults or (recount and recount.is_short):
            what = (
                "files differ from the commits" if found.faults
                else "rows of the source are in no file"
            )  # fmt: skip
            failures.append(FilesDamaged(f"{spec.extract_table}: {what}"))
    if failures:
        raise error_of_all(failures, len(specs))
    return EXIT_DONE


class _Recount:
    """The source's rows compared with those of the files.

    Attributes:
        text: Both, as readable text.
        is_short: Whether rows of the source are certainly missing from the files.
    """

    def __init__(self, text: str, *, is_short: bool = False) -> None:
        self.text, self.is_short = text, is_short


def _recount(spec: ExtractSpec, found: Verification) -> _Recount:
    """Count the source's rows up to the watermark, or all of them, and compare.

    Raises:
        ExtractError: The source cannot be read, or is not the one that the commits came from.
    """
    last = found.commit
    assert last is not None
    source = open_source(spec)
    description = source.describe()
    check_identity(spec, last, description)
    columns = choose_columns(description, spec)
    pieces = _pieces(spec, last)
    total = 0
    for piece in pieces:
        request = read_request(spec, columns, piece, last)
        with known_at(source, last.position).snapshot(request) as snapshot:
            count = snapshot.count()
        if count is None:
            return _Recount("not recounted: this source has no count of its own")
        total += count
    if pieces != [None]:
        text = f"the source has {counted(total, 'row')} up to the watermark"
        if total > found.rows:
            return _Recount(
                f"{text}, {total - found.rows:,} more than the files: they arrived late, below the "
                "watermark (watermark.lag reads such rows again), or were lost",
                is_short=True,
            )
        changed = ", and the files keep those that changed or were deleted"
        return _Recount(text + (changed if total < found.rows else ", as the files"))
    same = "as" if last.rows == total else f"{last.rows:,} in"
    return _Recount(f"the source has {counted(total, 'row')} now, {same} the last commit")


def _pieces(spec: ExtractSpec, last: Commit) -> list[Interval | None]:
    """Return the intervals whose rows the files hold; ``[None]`` if they hold one extract."""
    watermark = spec.watermark
    upper = WatermarkValue.from_json(last.watermark)
    if watermark is None or watermark.snapshot or last.watermark_column is None or upper is None:
        return [None]
    return [Interval(piece.lower, piece.upper or upper) for piece in covered_by(last)]


def _lines(
    spec: ExtractSpec, found: Verification, recount: _Recount | None, kept: str
) -> list[str]:
    table = printable(spec.extract_table)
    if found.commit is None:
        head = f"{table}: nothing is committed yet"
    else:
        head = (
            f"{table}: commit {found.commit.seq}, {counted(len(found.files), 'file')}, "
            f"{counted(found.rows, 'row')}, {size_text(found.size)}"
        )
    if found.faults:
        head += f": {counted(len(found.faults), 'fault')}"
    elif found.commit is not None:
        head += ": as committed"
    lines = [head, *(f"  {printable(f.uri)} {f.problem}" for f in found.faults)]
    if found.unfinished:
        lines.append(
            f"  commit {found.unfinished.seq} has no outcome yet: a run is publishing it, or died; "
            "the next run or `extract-jobs recover` finishes it"
        )
    if kept:
        lines.append(f"  {kept}")
    return lines + ([f"  {recount.text}"] if recount else [])


def _kept_text(log: CommitLog, last: Commit | None) -> str:
    """Return how many retired files are kept and what for; empty if none is."""
    kept = log.kept.by_commit()
    files = [one for of_commit in kept.values() for one in of_commit]
    if not files:
        return ""
    size = size_text(sum(one.size for one in files))
    text = f"{counted(len(files), 'retired file')} kept, {size}"
    commits: list[int] = []
    with suppress(ExtractError):  # of older commits; what was verified stands
        commits = commits_to_return_to(log, last, kept, _MOST_COMMITS) if last else []
    return f"{text}: rollback --to {' or '.join(map(str, commits))}" if commits else text
