"""Shows running extracts: a live line on a terminal, plain lines with the time elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column

from extract_jobs.cli.foreign_lines import STDERR, ForeignLines
from extract_jobs.errors import printable
from extract_jobs.reporting.figures import counted, size_text
from extract_jobs.reporting.progress import ENDS, Progress

SECONDS_BETWEEN_LINES = 30.0
"""Between two plain lines of one table that is being read."""
SECONDS_BETWEEN_VERBOSE_LINES = 5.0
_WIDTH_WITH_BARS = 100
"""Columns of a terminal from which there is room for a bar beside the figures."""


class Meter(Progress):
    """Adds up what an extract reports about its splits. Safe to call from any thread.

    Attributes:
        table: The table's name, control characters escaped.
        current: The current phase.
        splits: How many splits the plan has, 0 before it is known.
        estimated_rows: The source's estimate, None when unknown.
    """

    def __init__(self, table: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.table = printable(table)
        self.current = "start"
        self.splits = 0
        self.estimated_rows: int | None = None
        self._clock = clock
        self._started = clock()
        self._read_since = self._started
        self._lock = threading.RLock()
        self._latest: dict[int, tuple[int, int]] = {}
        self._done: set[int] = set()

    def phase(self, name: str) -> None:
        """Note a phase."""
        with self._lock:
            self.current = name
            if name == "extract":
                self._read_since = self._clock()
            self.changed(phase=True)

    def planned(self, splits: int, rows: int | None, size: int | None) -> None:  # noqa: ARG002
        """Record the plan; rows read under an earlier plan no longer count."""
        with self._lock:
            self.splits, self.estimated_rows = splits, rows
            self._latest.clear()
            self._done.clear()
            self.changed(phase=False)

    def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
        """Record a split's progress."""
        with self._lock:
            self._latest[index] = rows, size
            if done:
                self._done.add(index)
            self.changed(phase=False)

    def changed(self, *, phase: bool) -> None:
        """Called, under the lock, after every change; ``phase`` is whether it was a phase."""

    @property
    def rows(self) -> int:
        """Rows read so far."""
        return sum(rows for rows, _ in self._latest.values())

    @property
    def bytes(self) -> int:
        """Bytes of Parquet written so far."""
        return sum(size for _, size in self._latest.values())

    @property
    def splits_done(self) -> int:
        """Splits that are complete."""
        return len(self._done)

    @property
    def seconds(self) -> float:
        """Seconds since the table was started."""
        return self._clock() - self._started

    @property
    def fraction(self) -> float:
        """The fraction read, 0 to 1: by rows if the source gave an estimate, else by splits."""
        if self.splits and self.splits_done == self.splits:
            return 1.0
        if self.estimated_rows:
            return min(0.99, self.rows / self.estimated_rows)
        return self.splits_done / self.splits if self.splits else 0.0

    def figures(self) -> str:
        """Return rows, bytes and rate once some are written, and splits, in one line."""
        spent = self._clock() - self._read_since
        parts = [counted(self.rows, "row")]
        if self.bytes:
            parts.append(size_text(self.bytes))
        if self.bytes and spent > 0:
            parts.append(f"{size_text(self.bytes / spent)}/s")
        plural = "" if self.splits == 1 else "s"
        return ", ".join([*parts, f"{self.splits_done}/{self.splits} split{plural}"])


class LineMeter(Meter):
    """Writes a line with figures now and then, and one at every phase if that is wanted."""

    def __init__(
        self,
        table: str,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        verbose: bool = False,
    ) -> None:
        super().__init__(table, clock)
        self._write = write
        self._verbose = verbose
        self._every = SECONDS_BETWEEN_VERBOSE_LINES if verbose else SECONDS_BETWEEN_LINES
        self._last = self._started

    def changed(self, *, phase: bool) -> None:
        """Write a line if one is due."""
        now = self._clock()
        if phase and (self.current in ENDS or not self._verbose):
            return  # the caller reports how it ended
        if phase:
            self._write(f"{self.table}: {self.current}")
        elif now - self._last < self._every:
            return
        else:
            self._write(f"{self.table}: {self.current}: {self.figures()}, {self.seconds:.0f} s")
        self._last = now


class _BarMeter(Meter):
    """Updates one bar of a live display."""

    def __init__(self, table: str, bars: Bars) -> None:
        super().__init__(table)
        self._bars = bars
        self.bar: TaskID = bars.add_task(table, total=1.0, phase="start", figures="")

    def changed(self, *, phase: bool) -> None:
        """Pass the figures to the display, which draws at its own pace."""
        del phase
        figures = self.figures() if self.splits else ""
        self._bars.update(self.bar, completed=self.fraction, phase=self.current, figures=figures)


class Display(Protocol):
    """Shows tables while it is entered, several at a time. Safe to call from any thread."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the terminal."""

    def table(self, name: str) -> Progress:
        """Start a table and return the progress for its extract."""

    def finished(self, table: Progress, line: str, *, failed: bool) -> None:
        """End a table, with one line that stays.

        Args:
            table: What `table` returned.
            line: Names the table.
            failed: Whether the line stands out.
        """


def _utc_now() -> datetime:
    return datetime.now(UTC)


class LineDisplay:
    """Plain lines that begin with the time, UTC, for logs and pipes: one a table, if all is quick.

    Attributes:
        verbose: Whether every phase has a line.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        verbose: bool = False,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._stream, self._now, self.verbose = stream, now, verbose

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to restore."""

    def table(self, name: str) -> Progress:
        """Begin a table."""
        return LineMeter(name, self._write, verbose=self.verbose)

    def finished(self, table: Progress, line: str, *, failed: bool) -> None:  # noqa: ARG002
        """Write a line at once."""
        self._write(line)

    def _write(self, line: str) -> None:
        at = f"{self._now():%Y-%m-%dT%H:%M:%SZ}"
        self._stream.write(f"{at} {line}\n")  # in one piece: other threads write lines too
        self._stream.flush()


class QuietDisplay(LineDisplay):
    """Only the lines of tables that failed."""

    def table(self, name: str) -> Progress:
        """Begin a table, without a word."""
        return Meter(name)

    def finished(self, table: Progress, line: str, *, failed: bool) -> None:
        """Write the line of a failure."""
        if failed:
            super().finished(table, line, failed=failed)


class LiveDisplay:
    """A line per table that changes in place; everything else that is written scrolls above it.

    A line is never wider than the terminal. If that is narrow there is no bar, and a long name is
    cut while its table runs; the line that stays has all of it.
    """

    def __init__(self, console: Console, foreign: ForeignLines | None = None) -> None:
        """Prepare to draw.

        Args:
            console: Where to.
            foreign: Catches what other programs write to the terminal meanwhile.
        """
        # Names come from a database and are not markup.
        name = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        whole = partial(Column, no_wrap=True)
        columns: list[ProgressColumn] = [
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False, table_column=name),
            TextColumn("{task.fields[phase]}", markup=False, table_column=whole(min_width=9)),
            TextColumn("{task.fields[figures]}", markup=False, table_column=whole()),
            TimeElapsedColumn(table_column=whole()),
        ]
        if console.width >= _WIDTH_WITH_BARS:
            columns.insert(3, BarColumn(bar_width=20))
        self._bars = Bars(*columns, console=console, transient=True, expand=True)
        self._foreign = foreign

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._bars.start()
        if self._foreign:
            self._foreign.catch(self._print)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing; the terminal is as it was."""
        if self._foreign:
            self._foreign.release()
        self._bars.stop()

    def table(self, name: str) -> Progress:
        """Begin a table's line."""
        return _BarMeter(name, self._bars)

    def finished(self, table: Progress, line: str, *, failed: bool) -> None:
        """Replace the table's line with one that stays, red if it failed."""
        if isinstance(table, _BarMeter):
            self._bars.remove_task(table.bar)
        self._print(line, style="bold red" if failed else None)

    def _print(self, line: str, style: str | None = None) -> None:
        self._bars.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def display(*, verbose: bool, quiet: bool = False) -> Display:
    """Return the display for standard error: live on a terminal, lines elsewhere.

    Args:
        verbose: Whether there is a line for every phase; a live display shows them anyway.
        quiet: Whether only failures are shown.
    """
    if quiet:
        return QuietDisplay(sys.stderr)
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        return LineDisplay(sys.stderr, verbose=verbose)
    foreign = ForeignLines(STDERR)
    return LiveDisplay(Console(file=foreign.terminal, force_terminal=True), foreign)
