"""What a person sees while an extract runs."""

from __future__ import annotations

import io
import re
import threading

import pytest
from rich.console import Console

from extract_jobs.cli.figures import count_text, size_text
from extract_jobs.cli.progress import LineDisplay, LineMeter, LiveDisplay, Meter


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
    meter = LineMeter("public.t", lines.append, clock, seconds=5)
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


def test_any_thread_may_tell() -> None:
    lines: list[str] = []
    meter = LineMeter("t", lines.append, Clock(), seconds=0)
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


def test_plain_lines_off_a_terminal() -> None:
    stream = io.StringIO()
    with LineDisplay(stream) as shown:
        progress = shown.table("a [b]")
        progress.phase("plan")
        shown.finished(progress, "a [b]: done")
    assert stream.getvalue() == "a [b]: plan\na [b]: done\n"


def test_a_live_line_on_a_terminal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    with LiveDisplay(console) as shown:
        progress = shown.table("public.[red]odd[/red]")
        progress.phase("extract")
        progress.planned(4, 1000, None)
        progress.split(0, 250, 2500, done=True)
        shown._bars.refresh()
        shown.finished(progress, "public.[red]odd[/red]: succeeded")
        shown.table("next").phase("recover")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert re.search(
        r"public\.\[red]odd\[/red] extract .* 250 rows, 2\.5 kB, .*/s, 1/4 splits", text
    )
    assert "public.[red]odd[/red]: succeeded\n" in text
    assert re.search(r"next recover", text)
