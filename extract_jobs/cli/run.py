"""``run``: extracts tables of one config or of several; one that fails stops no other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial

from extract_jobs.cli.one_table import Ended, one_by_one, reports_only, worst
from extract_jobs.cli.process import new_run_id, stop_requested, stop_text
from extract_jobs.cli.progress import Display, display
from extract_jobs.cli.selection import specs_by_config
from extract_jobs.cli.side_by_side import side_by_side, tables_at_once
from extract_jobs.cli.views import result_line, summary
from extract_jobs.config import SourceConfig, tables_at_a_time
from extract_jobs.engine.imports import import_early
from extract_jobs.engine.pandas_free import skip_pandas
from extract_jobs.engine.placement import worker_modules
from extract_jobs.errors import EXIT_DONE, ExtractError, Interrupted, printable
from extract_jobs.reporting.report import Report
from extract_jobs.spec.extract_spec import ExtractSpec

Selected = Sequence[tuple[SourceConfig, Sequence[ExtractSpec]]]


def command(arguments: argparse.Namespace) -> int:
    """Run tables, some of a source at a time, one source after the other.

    Raises:
        ConfigError: Nothing has run: a config or the selection is wrong.
        Interrupted: The command was stopped.
    """
    skip_pandas()
    run_id = arguments.run_id or new_run_id()
    selected = specs_by_config(arguments, run_id)
    several = len(selected) > 1
    specs = [spec for _, of_config in selected for spec in of_config]
    import_early(worker_modules(specs))
    outcomes: list[tuple[Report, int]] = []
    with (
        reports_only(arguments.json) as stdout,
        display(verbose=arguments.verbose, quiet=arguments.quiet) as shown,
        closing(_runs(selected, arguments, shown)) as runs,
    ):
        for ended in runs:
            report, error = _named(ended.report, several=several), ended.report.error
            outcomes.append((report, ended.code))
            stopped = error is not None and error.class_name == Interrupted.__name__
            error_follows = stopped if stop_requested() else len(specs) == 1
            line = result_line(report, error_follows=error_follows)
            shown.finished(ended.progress, line, failed=error is not None)
            if arguments.json:
                print(ended.report.to_json(), file=stdout, flush=True)
    order = [_name(spec, several=several) for spec in specs]
    outcomes.sort(key=lambda outcome: order.index(outcome[0].extract_table))
    text = summary([report for report, _ in outcomes])
    # A scratch run is none that the next one follows.
    news = [] if arguments.target is not None else list(_news(selected))
    if not arguments.quiet:
        out = sys.stderr if arguments.json else sys.stdout
        for line in (text, *map(printable, news)):
            print(line, file=out, flush=True)
    failed = [(report, code) for report, code in outcomes if code != EXIT_DONE]
    if stop_requested():
        raise _interrupted(len(specs) - len(outcomes))
    if failed:
        last_line, code = worst(failed, len(specs), run_id)
        print(printable(last_line), file=sys.stderr, flush=True)
        return code
    return EXIT_DONE


def _news(selected: Selected) -> Generator[str]:
    """Yield what has changed in the sources of patterns since the last run, and remember it."""
    for config, specs in selected:
        if not config.patterns or not config.is_complete:
            continue
        from extract_jobs.cli.pattern_tables import remember, run_news

        found = run_news(config, [spec.extract_table for spec in specs], datetime.now(UTC))
        if text := found.text():
            yield f"{config.source.name}: {text}"
        remember(config, found)


def _runs(
    selected: Selected, arguments: argparse.Namespace, shown: Display
) -> Generator[Ended, None, None]:
    """Yield each table when it has ended; after a signal no other is begun."""
    several = len(selected) > 1
    for config, specs in selected:
        at_most = tables_at_a_time(config, [spec.split.max_connections for spec in specs])
        jobs = tables_at_once(arguments.jobs, specs, at_most)
        run = one_by_one if jobs == 1 else partial(side_by_side, jobs=jobs)
        runs = run(
            specs,
            lambda spec: shown.table(_name(spec, several=several)),
            trace=arguments.traceback,
        )
        with closing(runs):
            yield from runs
        if stop_requested():
            return


def _name(spec: ExtractSpec, *, several: bool) -> str:
    """Return what a table is called: with its source, where there are several."""
    return spec.table_id if several else spec.extract_table


def _named(report: Report, *, several: bool) -> Report:
    if not several:
        return report
    name = f"{report.source_name}/{report.extract_table}"
    return report.model_copy(update={"extract_table": name})


def _interrupted(not_begun: int) -> ExtractError:
    left = f"; {not_begun} table{'' if not_begun == 1 else 's'} not begun" if not_begun else ""
    return Interrupted(f"{stop_text()}{left}")
