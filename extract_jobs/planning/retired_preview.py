"""Which live files a run would retire, as far as that is known before it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from extract_jobs.commit.log import CommitLog
from extract_jobs.planning.interval import watermark_column
from extract_jobs.planning.overwrite_partitions import (
    replaced_by_interval,
    replaced_by_snapshot,
    run_partition,
)
from extract_jobs.planning.plan import Plan
from extract_jobs.schema import TableDescription
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import WrittenFile


@dataclass(frozen=True)
class Amount:
    """The number and size of some files.

    Attributes:
        files: How many.
        partitions: Number of their distinct partitions; 0 for a table without partitions.
        size: Bytes.
    """

    files: int
    partitions: int
    size: int

    @classmethod
    def of(cls, files: Iterable[WrittenFile]) -> Amount:
        """Count files."""
        return cls.split(files, lambda _: True)[0]

    @classmethod
    def split(
        cls, files: Iterable[WrittenFile], belongs: Callable[[WrittenFile], bool]
    ) -> tuple[Amount, Amount]:
        """Count the files that something holds for, and the others; keeps none of them."""
        counts = {True: [0, 0], False: [0, 0]}
        partitions: dict[bool, set[tuple[tuple[str, str | None], ...]]] = {
            True: set(),
            False: set(),
        }
        for file in files:
            which = belongs(file)
            counts[which][0] += 1
            counts[which][1] += file.staged.size
            if file.partition:
                partitions[which].add(tuple(sorted(file.partition.items())))
        goes, stays = (
            cls(counts[which][0], len(partitions[which]), counts[which][1])
            for which in (True, False)
        )
        return goes, stays


@dataclass(frozen=True)
class Retired:
    """What a run would do to the live files.

    Attributes:
        goes: What it would retire. If ``depends`` is true this is an upper bound: the run retires
            the partitions that its rows fall into.
        stays: What it would leave. If ``depends`` is true, nothing is certain to stay.
        depends: Whether it depends on the rows themselves.
    """

    goes: Amount
    stays: Amount
    depends: bool = False


def retired_by(
    spec: ExtractSpec,
    log: CommitLog,
    plan: Plan,
    description: TableDescription,
    *,
    kept: Sequence[WrittenFile] = (),
) -> Retired:
    """Return what a run of this plan would retire. Reads the commit log only.

    Args:
        spec: The run's.
        log: The table's.
        plan: The run's.
        description: The table.
        kept: Live files that an overwrite keeps, because their rows have not changed.
    """
    live = (file for one in log.live(plan.base.published) for file in one.files)
    if kept:
        uris = {file.staged.uri for file in kept}
        goes, _ = Amount.split(live, lambda file: file.staged.uri not in uris)
        return Retired(goes, Amount.of(kept))
    replaces = _replaces(spec, plan, description)
    if replaces is None:
        everything = Amount.of(live)
        return Retired(everything, Amount.of(()), depends=bool(everything.files))
    return Retired(*Amount.split(live, replaces))


def _replaces(
    spec: ExtractSpec, plan: Plan, description: TableDescription
) -> Callable[[WrittenFile], bool] | None:
    """Return a test for live files that are retired; None if it depends on the rows."""
    if spec.target.merges and not plan.is_first:
        return None if spec.deletes == "detect" or not plan.is_empty else lambda _: False
    if plan.is_empty or spec.target.write_mode in ("append", "merge"):
        return lambda _: False
    if spec.target.write_mode == "overwrite":
        return lambda _: True
    if plan.interval is not None:
        column = watermark_column(spec, description)
        assert column.watermark is not None
        return replaced_by_interval(spec, plan.interval, column.watermark)
    if run_partition(spec, plan.extract_date):
        return replaced_by_snapshot(spec, plan.extract_date, ())
    return None
