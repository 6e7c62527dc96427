"""Reconciles what the source held with what was written."""

from __future__ import annotations

from extract_jobs.errors import ReconcileFailed
from extract_jobs.spec.parts import EmptySource


def reconcile(
    table: str,
    read: int,
    written: int,
    counted: int | None,
    around: tuple[int | None, int | None] = (None, None),
) -> None:
    """Compare row counts of one attempt.

    Args:
        table: For the message.
        read: Rows that the splits yielded.
        written: Rows in the footers of the staged files.
        counted: The source's own count in the same snapshot and under the same predicate; None if
            it was not requested, or not possible in that snapshot.
        around: The source's counts before and after the read, without a shared snapshot.

    Raises:
        ReconcileFailed: They differ, or the source had more rows both before and after.
    """
    if read != written:
        raise ReconcileFailed(
            f"{table}: {read} rows were read but the Parquet footers hold {written}; nothing was "
            "committed. Run again; if it repeats, report it"
        )
    if counted is not None and counted != read:
        raise ReconcileFailed(
            f"{table}: the source counts {counted} rows in the snapshot but {read} were read; "
            "nothing was committed. A view or function that reads the clock, or random(), returns "
            "different rows each time: leave it out of the extract. Otherwise run again with "
            "split.strategy: none to see whether splitting or the source is at fault (a damaged "
            "index has the same effect)"
        )
    before, after = around
    if before is not None and after is not None and read < min(before, after):
        raise ReconcileFailed(
            f"{table}: the source counted {before} rows before and {after} after, but {read} were "
            "read; nothing was committed. Possible causes are rows that moved between splits "
            "during the read and a server's limit on SELECT. Run again; if it repeats, set "
            "split.strategy: none, or reconcile: false for a table whose rows are constantly "
            "deleted and added"
        )


def refuse_fewer(table: str, read: int, counted: int | None) -> None:
    """Refuse an increment with fewer rows than the source counts at any time.

    The watermark would move past the missing rows, and no later run would read them.

    Args:
        table: For the message.
        read: Rows that the splits yielded.
        counted: The source's own count of the interval; None if it was not requested.

    Raises:
        ReconcileFailed: Fewer rows were read.
    """
    if counted is not None and read < counted:
        raise ReconcileFailed(
            f"{table}: the source counts {counted} rows in the interval but {read} were read; "
            "nothing was committed, because the watermark would move past the missing ones. The "
            "count and the rows may come from different nodes, or rows were added below the upper "
            "bound meanwhile (watermark.delay leaves those to the next run); run again"
        )


def refuse_emptying(table: str, policy: EmptySource, before: int) -> None:
    """Refuse to leave a table without rows because its source has none.

    A source that is being loaded again, or a condition that matches nothing, looks the same as one
    whose rows were all deleted.

    Args:
        table: For the message.
        policy: Whether that is wanted.
        before: Rows that the table has.

    Raises:
        ReconcileFailed: The table has rows, and the policy refuses.
    """
    if before and policy == "refuse":
        raise ReconcileFailed(
            f"{table}: the source has no row, and the table has {before:,}, all of which would go; "
            "nothing was committed. Run again once the source has rows. If it is meant to be "
            "empty, allow it once, with extract-jobs run --set empty_source=accept, or always, "
            "with empty_source: accept in the config"
        )
