"""``report``: a page of HTML about the newest runs of tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from extract_jobs.cli.each_table import each_table
from extract_jobs.cli.selection import selected_config, specs_of
from extract_jobs.cli.status import named_tracking, status_asker
from extract_jobs.cli.table_status import newest_report
from extract_jobs.errors import EXIT_DONE, ConfigError, ExtractError, error_line
from extract_jobs.reporting.page import TableRun, page_summary, report_page
from extract_jobs.reporting.table_state import TableStatus
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import open_storage
from extract_jobs.tracking.execution_page import newest_run, with_units
from extract_jobs.tracking.listed_items import ListedItems

_AT_ONCE = 32


def command(arguments: argparse.Namespace) -> int:
    """Write the page and say where it is.

    Raises:
        ConfigError: The file cannot be written, or Jinja2 is not installed.
    """
    config = selected_config(arguments)
    specs = specs_of(config, arguments, "none")
    now = datetime.now(UTC)
    ask = partial(status_asker(arguments, config), now=now)
    tracking, items = named_tracking(arguments), ListedItems(open_storage)

    def run_of(spec: ExtractSpec) -> TableRun:
        tracked = list(tracking.by_table(spec.table_id)) if tracking else []
        last = max(tracked, key=lambda one: one.updated_at, default=None)
        left = newest_report(spec)
        # Runs from a command line leave a report, but are not tracked.
        if last is None or (left and left[1] > datetime.fromisoformat(last.updated_at)):
            return TableRun(ask(spec), *(left or ()))
        run = newest_run(tracked, lambda uri: open_storage(uri).read(uri))
        return with_units(replace(run, status=ask(spec)), last, items)

    runs = [
        TableRun(TableStatus(spec.extract_table, "damaged", error_line(answer)))
        if isinstance(answer, ExtractError)
        else answer
        for spec, answer in each_table(specs, run_of, at_once=_AT_ONCE)
    ]
    write_page(Path(arguments.html), config.source.name, runs, now)
    print(f"{arguments.html} written: {page_summary(runs)}")
    return EXIT_DONE


def write_page(path: Path, title: str, runs: Sequence[TableRun], now: datetime) -> None:
    """Write a page to a file.

    Raises:
        ConfigError: It cannot be written, or Jinja2 is not installed.
    """
    text = report_page(title, runs, now)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
