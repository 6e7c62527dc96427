"""``status``: how every table is doing, those in trouble first."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from extract_jobs.cli.each_table import each_table
from extract_jobs.cli.selection import selected_config, specs_of
from extract_jobs.cli.table_status import table_status
from extract_jobs.config import SourceConfig
from extract_jobs.errors import EXIT_DONE, ExtractError, StopRequested, error_line, printable
from extract_jobs.reporting.figures import aligned, count_text, counted, rough_age, spark_line
from extract_jobs.reporting.table_state import TROUBLE, TableStatus
from extract_jobs.spec.extract_spec import ExtractSpec

if TYPE_CHECKING:
    from extract_jobs.tracking.table import Tracking

_AT_ONCE = 32
"""Tables that are queried at a time: each waits for storage a dozen times."""
_WIDTH = 80
_HEADER = ["table", "state", "success", "rows", "trend", "watermark"]
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def command(arguments: argparse.Namespace, wait: Callable[[float], None] = time.sleep) -> int:
    """Print how the tables are doing, once, or with ``--watch`` until a signal, which is no error.

    Args:
        arguments: The command line's.
        wait: Waits some seconds, with ``--watch``.
    """
    config = selected_config(arguments)
    specs = specs_of(config, arguments, "none")
    ask = status_asker(arguments, config)
    try:
        _show(specs, ask, arguments, wait)
    except StopRequested:
        if arguments.watch is None:
            raise
    return EXIT_DONE


def _show(
    specs: Sequence[ExtractSpec],
    ask: Callable[..., TableStatus],
    arguments: argparse.Namespace,
    wait: Callable[[float], None],
) -> None:
    """Print how the tables are doing; with ``--watch`` it ends only when it is stopped."""
    while True:
        now = datetime.now(UTC)
        found = _statuses(specs, partial(ask, now=now))
        if arguments.json:
            text = "\n".join(json.dumps(one.to_json(), ensure_ascii=False) for one in found)
        else:
            text = status_text(found, now)
        clear = arguments.watch is not None and sys.stdout.isatty()
        print(f"{_CLEAR if clear else ''}{text}", flush=True)
        if arguments.watch is None:
            return
        wait(arguments.watch)


def _statuses(
    specs: Sequence[ExtractSpec], ask: Callable[[ExtractSpec], TableStatus]
) -> list[TableStatus]:
    found = [
        TableStatus(spec.extract_table, "damaged", error_line(answer))
        if isinstance(answer, ExtractError)
        else answer
        for spec, answer in each_table(specs, ask, at_once=_AT_ONCE)
    ]
    return sorted(found, key=lambda one: TROUBLE.index(one.state))


def status_asker(arguments: argparse.Namespace, config: SourceConfig) -> Callable[..., TableStatus]:
    """Return a function of a spec and ``now``, which uses the tracking table if one is named."""
    from extract_jobs.cli.pattern_tables import gone_tables

    ask, gone = _asker(arguments), gone_tables(config)

    def with_gone(spec: ExtractSpec, now: datetime) -> TableStatus:
        found, since = ask(spec, now), gone.get(spec.extract_table)
        if since is None:
            return found
        reason = f"not in the source any more, noticed {since[:16]}; its files are kept"
        return replace(found, state="gone", reason=reason)

    return with_gone


def _asker(arguments: argparse.Namespace) -> Callable[..., TableStatus]:
    tracking, late = named_tracking(arguments), arguments.overdue
    if tracking is None:
        return lambda spec, now: table_status(spec, now, overdue=late)
    return lambda spec, now: table_status(
        spec, now, overdue=late, runs=list(tracking.by_table(spec.table_id))
    )


def named_tracking(arguments: argparse.Namespace) -> Tracking | None:
    """Return the tracking table that the command line or ``TRACKING_TABLE`` names, if any."""
    name = arguments.tracking_table or os.environ.get("TRACKING_TABLE")
    if not name:
        return None
    from extract_jobs.tracking.table import Tracking, client_from_environment, utc_now

    return Tracking(client_from_environment(), name, utc_now)


def status_text(found: Sequence[TableStatus], now: datetime) -> str:
    """Return a line for each table, with its reason below, and the number of tables per state.

    Args:
        found: The tables.
        now: The present, UTC, from which ages count.
    """
    rows = [
        [
            one.table,
            one.state,
            rough_age(now - one.succeeded_at) if one.succeeded_at else "-",
            count_text(one.rows[-1]) if one.rows else "-",
            spark_line(one.rows) or "-",
            _watermark_text(one, now),
        ]
        for one in found
    ]
    head, *lines = aligned([_HEADER, *rows])
    shown = [head]
    for one, line in zip(found, lines, strict=True):
        shown.append(line)
        if one.reason:
            reason = printable(" ".join(one.reason.split()))
            shown += textwrap.wrap(
                reason, _WIDTH, initial_indent="  ", subsequent_indent="  ",
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
    states = Counter(one.state for one in found)
    counts = ", ".join(f"{states[state]} {state}" for state in TROUBLE if states[state])
    return "\n".join([*shown, f"{counted(len(found), 'table')}: {counts}"])


def _watermark_text(one: TableStatus, now: datetime) -> str:
    if one.watermark is None:
        return "-"
    if one.watermark_at is None:
        return one.watermark
    return f"{one.watermark[:16]} ({rough_age(now - one.watermark_at)})"
