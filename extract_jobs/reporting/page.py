"""A page of HTML about runs: self-contained, without scripts, for screens and for paper."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract_jobs.errors import ConfigError, printable
from extract_jobs.reporting.figures import count_text, counted, rough_age, size_text
from extract_jobs.reporting.report import Report
from extract_jobs.reporting.table_state import TROUBLE, TableStatus

if TYPE_CHECKING:
    from jinja2 import Template

PHASES = ("recover", "plan", "extract", "reconcile", "commit", "publish", "catalog")
_TEMPLATE = Path(__file__).with_name("page.html")
_SHOWN_SPAN = timedelta(hours=24)
"""Runs are in the timeline if they ended no longer than this before the newest one."""
_TICKS = 4


@dataclass(frozen=True)
class TableRun:
    """One table and its newest run.

    Attributes:
        status: How the table is doing.
        report: Its newest run's report; None if it left none.
        ended_at: When that report was left, UTC.
        units: An estimate of what the run used of what AWS charges for, by the unit's name.
    """

    status: TableStatus
    report: Report | None = None
    ended_at: datetime | None = None
    units: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long the run's phases took, all together."""
        return sum(self.report.timings.values()) if self.report else 0.0

    @property
    def started_at(self) -> datetime | None:
        """When the run began, according to its report."""
        return self.ended_at - timedelta(seconds=self.seconds) if self.ended_at else None


def report_page(
    title: str, runs: Sequence[TableRun], now: datetime, left_out: Sequence[TableRun] = ()
) -> str:
    """Return the page as HTML.

    Args:
        title: Its heading, such as the source's name.
        runs: The tables, in any order.
        now: The present, UTC, from which ages count.
        left_out: Tables that only the summary counts.

    Raises:
        ConfigError: Jinja2 is not installed.
    """
    template = _template()
    ordered = sorted(runs, key=lambda run: TROUBLE.index(run.status.state))
    return template.render(
        title=title,
        written=f"{now:%Y-%m-%d %H:%M} UTC",
        tiles=_tiles([*runs, *left_out]),
        left_out=counted(len(left_out), "table") if left_out else "",
        troubles=[_trouble(run) for run in ordered if run.status.state not in ("ok", "never run")],
        timeline=_timeline(runs),
        phases=PHASES,
        has_units=any(run.units for run in runs),
        tables=[_table(run, now) for run in ordered],
        changes=[
            {"table": run.status.table, "what": change.difference, "effect": change.effect}
            for run in ordered
            if run.report
            for change in run.report.schema_changes
        ],
        watermarks=_watermarks(runs, now),
    )


@functools.cache
def _template() -> Template:
    """Return the compiled page; compiling takes twenty times as long as filling in a small one.

    Raises:
        ConfigError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment
        from markupsafe import Markup, escape
    except ImportError as error:
        raise ConfigError(
            "a page needs Jinja2: pip install 'extract-jobs[report]', or [laptop]"
        ) from error
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    # A narrow screen may break a name after a dot or underscore.
    environment.filters["breakable"] = lambda name: Markup(  # noqa: S704 - it is escaped
        re.sub(r"([._])(?=.)", r"\1<wbr>", str(escape(printable(name))))
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def _tiles(runs: Sequence[TableRun]) -> list[tuple[str, str]]:
    """Return the summary: a name and a figure each."""
    good = [run for run in runs if run.report and run.report.error is None]
    reports = [run.report for run in good if run.report]
    begun = [run.started_at for run in _recent(runs) if run.started_at]
    ended = [run.ended_at for run in _recent(runs) if run.ended_at]
    span = rough_age(max(ended) - min(begun)) if ended and begun else "-"
    states = [run.status.state for run in runs]
    return [
        ("tables", str(len(runs))),
        *((state, str(states.count(state))) for state in TROUBLE if state in states),
        ("rows", count_text(sum(report.table_rows for report in reports))),
        ("Parquet", size_text(sum(report.bytes for report in reports))),
        ("from first to last", span),
        *((f"{name}, estimate", _units_text(used)) for name, used in _used(runs).items()),
    ]


def _used(runs: Iterable[TableRun]) -> dict[str, float]:
    """Return the sum of all runs' units, by name."""
    total: Counter[str] = Counter()
    for run in runs:
        total.update(run.units)
    return dict(sorted(total.items()))


def _units_text(used: float) -> str:
    """Return an estimate without digits that it cannot have: ``1,234``, ``12.3``, ``0.0042``."""
    return f"{used:,.0f}" if used >= 100 else f"{used:.3g}"


def _trouble(run: TableRun) -> dict[str, Any]:
    error = run.report.error if run.report else None
    phase = max(run.report.timings, default="", key=_order) if run.report and error else ""
    return {
        "table": run.status.table,
        "state": run.status.state,
        "reason": run.status.reason or (f"{error.class_name}: {error.message}" if error else ""),
        "phase": phase,
        "retry": bool(error and error.retryable),
    }


def _order(phase: str) -> int:
    return PHASES.index(phase) if phase in PHASES else -1


def _recent(runs: Iterable[TableRun]) -> list[TableRun]:
    """Return the runs that ended within `_SHOWN_SPAN` of the last one, in the order of starts."""
    ended = [run for run in runs if run.ended_at is not None and run.seconds]
    last = max((run.ended_at for run in ended if run.ended_at), default=None)
    shown = [r for r in ended if last and r.ended_at and last - r.ended_at <= _SHOWN_SPAN]
    return sorted(shown, key=lambda run: (run.started_at, run.status.table))


def _timeline(runs: Sequence[TableRun]) -> dict[str, Any] | None:
    """Return bars and ticks, in thousandths of the whole span; None without any run."""
    shown = _recent(runs)
    if not shown:
        return None
    first = min(run.started_at for run in shown if run.started_at)
    span = max((run.ended_at - first).total_seconds() for run in shown if run.ended_at)
    rows = []
    for run in shown:
        assert run.report is not None
        assert run.started_at is not None
        at, bars = (run.started_at - first).total_seconds(), []
        for phase in sorted(run.report.timings, key=_order):
            seconds = run.report.timings[phase]
            width = max(1.0, 1000 * seconds / span)
            bars.append({"phase": phase, "x": f"{1000 * at / span:.1f}", "width": f"{width:.1f}",
                         "text": f"{phase}: {seconds:.1f} s"})  # fmt: skip
            at += seconds
        rows.append({"table": run.status.table, "bars": bars, "seconds": f"{run.seconds:.1f} s",
                     "failed": run.report.error is not None})  # fmt: skip
    ticks = [
        {
            "at": f"{100 * n / _TICKS:.0f}",
            "text": f"{span * n / _TICKS:.{0 if span > 20 else 1}f} s",
        }
        for n in range(_TICKS + 1)
    ]
    return {"rows": rows, "ticks": ticks, "begins": f"{first:%Y-%m-%d %H:%M:%S} UTC"}


def _table(run: TableRun, now: datetime) -> dict[str, Any]:
    report, status = run.report, run.status
    timings = report.timings if report else {}
    slowest = max(timings, key=lambda phase: timings[phase], default=None)
    read = timings.get("extract", 0.0)
    good = report is not None and report.error is None
    return {
        "name": status.table,
        "state": status.state,
        "rows": count_text(report.table_rows) if report and good else "-",
        "size": size_text(report.bytes) if report and good else "-",
        "rate": f"{size_text(report.bytes / read)}/s" if report and good and read else "-",
        "seconds": f"{run.seconds:.1f} s" if report else "-",
        "slowest": f"{slowest} {timings[slowest]:.1f} s" if slowest else "-",
        "units": "\n".join(f"{_units_text(used)} {name}" for name, used in run.units.items()),
        "success": rough_age(now - status.succeeded_at) if status.succeeded_at else "-",
        "trend": _bars(status.rows),
        "trend_text": ", ".join(map(count_text, status.rows)),
    }


def _bars(values: Sequence[int]) -> list[dict[str, int]]:
    """Return a bar for each value in a picture 20 high: 8 wide and 2 apart."""
    top = max(values, default=0)
    heights = [max(1, round(20 * value / top)) if top else 1 for value in values]
    return [{"x": 10 * i, "y": 20 - height, "height": height} for i, height in enumerate(heights)]


def _watermarks(runs: Sequence[TableRun], now: datetime) -> list[dict[str, str]]:
    """Return the watermarks, the oldest time first, those that are not times last."""
    known = [run.status for run in runs if run.status.watermark is not None]
    known.sort(key=lambda one: (one.watermark_at is None, one.watermark_at or now, one.table))
    return [
        {
            "table": one.table,
            "text": one.watermark or "",
            "age": rough_age(now - one.watermark_at) if one.watermark_at else "-",
        }
        for one in known
    ]


def page_summary(runs: Sequence[TableRun]) -> str:
    """Return in a few words what is on a page: ``7 tables, 1 failed``."""
    failed = sum(run.status.state == "failed" for run in runs)
    return counted(len(runs), "table") + (f", {failed} failed" if failed else "")
