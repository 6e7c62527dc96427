"""What a person sees while an extract runs."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from extract_jobs.cli.foreign_lines import ForeignLines
from extract_jobs.cli.progress import LineDisplay, LineMeter, LiveDisplay, Meter
from extract_jobs.reporting.figures import count_text, size_text


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (4_160_000, "4.2 MB"), (100_000_000, "100 MB"),
     (999_999_999, "1.0 GB"), (7.2e18, "7200 PB"), (None, "?")],
)  # fmt: skip
def test_sizes(size: float | None, text: str) -> None:
    assert size_text(size) == text


def test_counts() -> None:
    assert (count_text(1234567), count_text(0), count_text(None)) == ("1,234,567", "0", "?")


def test_lines_come_at_every_phase_and_every_few_seconds() -> None:
    lines: list[str] = []
    clock = Clock()
    meter = LineMeter("public.t", lines.append, clock, verbose=True)
    meter.phase("plan")
    clock.now += 2
    meter.phase("extract")
    meter.planned(3, 100, 10_000)
    for second in range(1, 12):
        clock.now += 1
        written = second * 1000 if second > 5 else 0
        meter.split(0, second * 10, written, done=False)
    meter.split(1, 7, 700, done=True)
    clock.now += 5
    meter.split(2, 3, 300, done=True)
    meter.phase("done")
    assert lines == [
        "public.t: plan",
        "public.t: extract",
        "public.t: extract: 50 rows, 0/3 splits, 7 s",
        "public.t: extract: 100 rows, 10.0 kB, 1.0 kB/s, 0/3 splits, 12 s",
        "public.t: extract: 120 rows, 12.0 kB, 750 B/s, 2/3 splits, 18 s",
    ]


def test_a_split_that_is_read_again_counts_once() -> None:
    meter = Meter("t", Clock())
    meter.planned(2, None, None)
    meter.split(0, 500, 5000, done=False)
    meter.split(0, 100, 1000, done=False)
    meter.split(0, 800, 8000, done=True)
    assert (meter.rows, meter.bytes, meter.splits_done, meter.fraction) == (800, 8000, 1, 0.5)
    meter.planned(1, None, None)
    assert (meter.rows, meter.splits_done) == (0, 0)


def test_the_fraction_follows_rows_and_ends_only_with_the_splits() -> None:
    meter = Meter("t", Clock())
    assert meter.fraction == 0
    meter.planned(2, 100, None)
    meter.split(0, 25, 1, done=False)
    assert meter.fraction == 0.25
    meter.split(0, 400, 1, done=True)
    assert meter.fraction == 0.99
    meter.split(1, 1, 1, done=True)
    assert meter.fraction == 1


def test_any_thread_may_report_progress() -> None:
    lines: list[str] = []
    meter = LineMeter("t", lines.append, Clock())
    meter._every = 0
    meter.planned(8, None, None)
    threads = [
        threading.Thread(
            target=lambda i=i: [meter.split(i, r, r * 10, done=r == 200) for r in range(201)]
        )
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (meter.rows, meter.bytes, meter.splits_done) == (1600, 16000, 8)
    assert lines[-1].startswith("t: start: 1,600 rows, 16.0 kB")


@pytest.mark.parametrize(
    ("verbose", "told"), [(False, ["a [b]: done"]), (True, ["a [b]: plan", "a [b]: done"])]
)
def test_plain_lines_off_a_terminal(verbose: bool, told: list[str]) -> None:
    stream = io.StringIO()
    now = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    with LineDisplay(stream, verbose=verbose, now=lambda: now) as shown:
        progress = shown.table("a [b]")
        progress.phase("plan")
        shown.finished(progress, "a [b]: done", failed=False)
    assert stream.getvalue().splitlines() == [f"2026-03-01T12:30:00Z {line}" for line in told]


def test_a_long_table_is_heard_of_every_half_minute() -> None:
    lines: list[str] = []
    clock = Clock()
    meter = LineMeter("t", lines.append, clock)
    meter.phase("extract")
    meter.planned(1, None, None)
    for second in range(1, 71):
        clock.now += 1
        meter.split(0, second, second * 10, done=False)
    assert [line.split(",")[0] for line in lines] == ["t: extract: 30 rows", "t: extract: 60 rows"]


def test_a_live_line_on_a_terminal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    with LiveDisplay(console) as shown:
        progress = shown.table("public.[red]odd[/red]")
        progress.phase("extract")
        progress.planned(4, 1000, None)
        progress.split(0, 250, 2500, done=True)
        shown._bars.refresh()
        shown.finished(progress, "public.[red]odd[/red]: succeeded", failed=False)
        shown.table("next").phase("recover")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert re.search(
        r"public\.\[red]odd\[/red] +extract .* 250 rows, 2\.5 kB, .*/s, 1/4 splits", text
    )
    assert "public.[red]odd[/red]: succeeded\n" in text
    assert re.search(r"next +recover", text)


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_live_lines_are_as_wide_as_the_terminal_at_most(width: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    with LiveDisplay(console) as shown:
        progress = shown.table("a_schema_with_a_long_name." + "long" * 20)
        progress.phase("reconcile")
        progress.planned(400, None, None)
        progress.split(0, 1_234_567_890, 98_765_432_100, done=True)
        shown._bars.refresh()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).replace("\r", "\n").split("\n")
    assert max(map(len, lines)) <= width
    assert any("a_sch" in line for line in lines) or width == 40
    if width >= 80:
        assert any("1/400 splits" in line for line in lines)


def shown_in(stream: io.StringIO, *, failed: bool, **colors: Any) -> str:
    console = Console(file=stream, force_terminal=True, width=80, **colors)
    with LiveDisplay(console) as shown:
        shown.finished(shown.table("t"), "t: failed" if failed else "t: succeeded", failed=failed)
    return stream.getvalue()


def test_a_failure_is_red_and_says_so_without_colours_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[1;31mt: failed" in shown_in(io.StringIO(), failed=True)
    assert "31m" not in shown_in(io.StringIO(), failed=False)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = shown_in(io.StringIO(), failed=True)
    assert "t: failed" in plain
    assert "31m" not in plain


def test_what_other_programs_write_scrolls_above_the_live_lines(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    with (tmp_path / "terminal").open("w+b", buffering=0) as terminal:
        foreign = ForeignLines(terminal.fileno())
        with LiveDisplay(console, foreign) as shown:
            shown.table("t").phase("plan")
            for part in (b"WARN Native", b"CodeLoader: [red]\n\xff\n"):
                os.write(terminal.fileno(), part)
            deadline = time.monotonic() + 10
            while "\\xff\n" not in stream.getvalue() and time.monotonic() < deadline:
                time.sleep(0.01)
        os.write(terminal.fileno(), b"afterwards\n")
        foreign.terminal.close()
        terminal.seek(0)
        assert terminal.read() == b"afterwards\n"
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).replace("\r", "\n").split("\n")
    assert "WARN NativeCodeLoader: [red]" in lines
    assert "\\xff" in lines
