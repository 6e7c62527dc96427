"""The specs and job settings of selected tables, with an event's overrides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from extract_jobs.config.locations import segment
from extract_jobs.config.model import JobSettings
from extract_jobs.config.problems import DataProblem, Problem, dotted, exists, nearest, refusal
from extract_jobs.config.resolve import (
    ResolvedTable,
    as_written,
    merge,
    normal,
    resolve_table,
    spec_of,
)
from extract_jobs.config.source_config import SourceConfig
from extract_jobs.config.tables import place_of
from extract_jobs.config.trials import replaced_by_less, shared_rows
from extract_jobs.errors import ConfigError
from extract_jobs.spec.attempt_names import report_name
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.extract_spec import problems as spec_problems
from extract_jobs.storage import join


def specs_for(
    config: SourceConfig,
    tables: Sequence[str],
    *,
    run_id_for: Callable[[str], str],
    attempt: int = 1,
    overrides: Mapping[str, Any] | None = None,
    limit: int | None = None,
    confirmed: bool = False,
    report_base: str | None = None,
    tracking_table: str | None = None,
) -> list[ExtractSpec]:
    """Make the specs of some tables.

    Args:
        config: The config.
        tables: Names that the config has, without globs.
        run_id_for: Returns a table's ``run_id``.
        attempt: From 1.
        overrides: Table keys that override those of every table.
        limit: Maximum rows of each table, for a sample; None takes all.
        confirmed: Whether overrides that narrow or alter what is read may write to a table's own
            target.
        report_base: Folder for reports, as ``<source_name>/<table>/<run_id>/attempt-<n>.json``;
            the default is the table's state folder, as ``reports/<run_id>/attempt-<n>.json``.
        tracking_table: Name of the tracking table, if there is one.

    Returns:
        One spec per table, in the order of ``tables``.

    Raises:
        ConfigError: The config has no such table, or the overrides, or a table with them, are
            wrong; lists every problem.

    Example:
        >>> config = load_config('''
        ... version: 1
        ... source: {name: shop, type: postgres, connection: {url: "postgresql://me@db/shop"}}
        ... defaults: {target: {uri: "s3://lake/raw/{source_name}/{table}"}}
        ... tables: {public.orders: {}}
        ... ''', "shop.yml")
        >>> [spec] = specs_for(config, ["public.orders"], run_id_for=lambda table: "run-1")
        >>> spec.target.uri
        's3://lake/raw/shop/orders'
    """
    specs = []
    tables = [tables] if isinstance(tables, str) else tables
    if unknown := [name for name in tables if name not in config.tables]:
        raise refusal(
            config.where,
            [Problem("tables", f"there is no {name!r}{nearest(name, config.tables)}")
             for name in unknown],
        )  # fmt: skip
    resolved = _overridden(config, tables, overrides)
    if not confirmed:
        replaced = [p for t in resolved for p in replaced_by_less(config.tables[t.name], t)]
        if replaced:
            raise refusal(config.where, replaced)
    for table in resolved:
        run_id = run_id_for(table.name)
        if report_base:
            name = segment(config.source.name), segment(table.name)
            report = join(report_base, *name, run_id, report_name(attempt))
        else:
            report = join(table.location.state_uri, "reports", run_id, report_name(attempt))
        try:
            spec = spec_of(
                config.source,
                table,
                run_id=run_id,
                attempt=attempt,
                report_uri=report,
                tracking_table=tracking_table,
                limit=limit,
            )
        except ValidationError as error:  # only the run_id and the attempt are new here
            raise ConfigError(f"{table.name}: {'; '.join(spec_problems(error))}") from error
        specs.append(spec)
    return specs


def job_settings(
    config: SourceConfig, tables: Sequence[str], overrides: Mapping[str, Any] | None = None
) -> list[JobSettings]:
    """Return where and how each table's job runs, in the order of ``tables``.

    Fields that neither the config nor the overrides set are missing from each section's
    ``model_fields_set``, so that a deployment's own defaults can fill them.

    Raises:
        ConfigError: The overrides are wrong.
    """
    return [
        JobSettings(
            job_type=table.config.job_type,
            glue=table.config.glue,
            emr=table.config.emr,
            ecs=table.config.ecs,
            retry=table.config.retry,
            batch=table.config.batch,
        )
        for table in _overridden(config, tables, overrides)
    ]


def map_concurrency(
    config: SourceConfig, tables: Sequence[str], overrides: Mapping[str, Any] | None = None
) -> int:
    """Return how many of ``tables`` may run at a time within the source's connections, at least 1.

    A table uses one connection more than it reads splits at a time, to hold the snapshot.
    """
    chosen = _overridden(config, tables, overrides)
    return tables_at_a_time(config, [t.config.split.max_connections for t in chosen])


def tables_at_a_time(config: SourceConfig, connections: Sequence[int]) -> int:
    """Return how many tables of a source may run at a time, at least 1.

    Args:
        config: Has the budget of all of them.
        connections: Each table's ``split.max_connections``.
    """
    return max(1, config.source.max_connections // (max(connections, default=0) + 1))


def _overridden(
    config: SourceConfig, tables: Sequence[str], overrides: Mapping[str, Any] | None
) -> list[ResolvedTable]:
    """Apply overrides to tables and validate again; report every problem at once."""
    config.tables.check(tables)
    chosen = [config.tables[name] for name in tables]
    if not overrides:
        return chosen
    if not isinstance(overrides, Mapping):
        raise ConfigError(f"overrides: expected a mapping of table keys, found {overrides!r}")
    above = normal(overrides)
    problems = list(shared_rows(overrides, tables))
    resolved: dict[str, ResolvedTable] = {}
    for old in chosen:
        new, found = resolve_table(
            config.source, old.name, merge(old.values, above), old.line, config.folder
        )
        if new:
            resolved[old.name] = new
        problems += _overridden_problems(overrides, old, found)
    places = {name: place_of(table) for name, table in resolved.items()}
    problems += [
        Problem("", f"with the overrides, {one.name} {one.text}")
        for one in config.tables.clashes(places)
    ]
    if problems:
        raise refusal(config.where, problems)
    return [resolved[name] for name in tables]


def _overridden_problems(
    overrides: Mapping[str, Any], table: ResolvedTable, found: list[DataProblem]
) -> Iterator[Problem]:
    for one in found:
        path = as_written(overrides, one.path)
        if path and not one.partial and exists(overrides, path):
            yield Problem(dotted(("overrides", *path)), one.text)
        else:
            full = ("tables", table.name, *one.path)
            yield Problem(dotted(full), f"with the overrides, {one.text}", table.line)
