"""Lambda behind the state "Extract Config Manager": from an event and a source config to a list.

Reads ``<CONFIG_URI>/<source_name>.yml``, and writes into a folder of the execution's own, below
``WORK_URI``:

- ``specs/<run_id>.json``: one spec a table,
- ``tables_to_extract.json``: the list that the Map reads, one item a table,
- ``event.json``: the event, for a rerun to start from.

Then it puts a PENDING item a table into the tracking table. Whatever is wrong is a `ConfigError`
before any job starts. Lambda may call it again for the same execution: the run ids are the same,
the same files are written, and items that are there already stay.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from extract_jobs.config import (
    SourceConfig,
    job_settings,
    load_config,
    map_concurrency,
    resolve_tables,
    specs_for,
)
from extract_jobs.errors import ConfigError
from extract_jobs.items import Item, first_item
from extract_jobs.storage import OpenStorage, join, open_storage
from extract_jobs.tracking import TrackedRun, Tracking, client_from_environment, utc_now

SOURCE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
"""What a source may be called: its name is part of a URI before any config was read."""

_START_KEYS = {"source_name", "extract_tables", "overrides"}
_RERUN_KEYS = {"rerun_failed_of", "include_unfinished"}
_WRITE_THREADS = 32


@dataclass(frozen=True)
class Settings:
    """What the deployment says.

    Attributes:
        config_uri: Folder of the source configs.
        work_uri: Folder below which each execution has one of its own.
        job_defaults: Values for ``glue``, ``emr``, ``ecs`` and ``retry`` that a config may leave
            out, such as the stack's own job name and subnets.
    """

    config_uri: str
    work_uri: str
    job_defaults: Mapping[str, Mapping[str, Any]]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read ``CONFIG_URI``, ``WORK_URI`` and ``JOB_DEFAULTS`` (JSON; default ``{}``).

        Raises:
            ConfigError: One is missing, or is not JSON.
        """
        missing = [key for key in ("CONFIG_URI", "WORK_URI") if not environment.get(key)]
        if missing:
            raise ConfigError(f"the function's environment lacks {', '.join(missing)}")
        try:
            defaults = json.loads(environment.get("JOB_DEFAULTS") or "{}")
        except ValueError as error:
            raise ConfigError(f"JOB_DEFAULTS of the deployment is not JSON: {error}") from error
        return cls(environment["CONFIG_URI"], environment["WORK_URI"], defaults)


@dataclass(frozen=True)
class Selection:
    """What an event asks for.

    Attributes:
        source_name: The source.
        extract_tables: ``"*"``, or names and globs.
        overrides: Table keys that go over every table's own.
        generations: Of the tables that are rerun; the others begin with 1.
    """

    source_name: str
    extract_tables: Any
    overrides: Mapping[str, Any]
    generations: Mapping[str, int]


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Answer the state machine; see `list_tables`."""
    tracking_table = os.environ.get("TRACKING_TABLE")
    if not tracking_table:
        raise ConfigError("the function's environment lacks TRACKING_TABLE")
    return list_tables(
        event,
        settings=Settings.from_environment(os.environ),
        tracking=Tracking(_client(), tracking_table, utc_now),
        open_storage=open_storage,
    )


def list_tables(
    event: Mapping[str, Any], *, settings: Settings, tracking: Tracking, open_storage: OpenStorage
) -> dict[str, Any]:
    """Write specs and list of an execution, and announce its runs.

    Args:
        event: ``input`` (what a person started the execution with), ``execution_id`` (its ARN) and
            ``execution_started_at``: a name can be used again after 90 days, a start time cannot.
        settings: Of the deployment.
        tracking: The tracking table.
        open_storage: Gives the storage of a URI.

    Returns:
        ``bucket`` and ``key`` of the list, ``results_prefix`` for the Map's results,
        ``table_count``, ``max_concurrency``, ``tracking_table`` and ``execution_id``.

    Raises:
        ConfigError: The event, the config or what they ask for is wrong.
        WriteFailed: Storage or the tracking table failed; calling again is safe.
    """
    execution_id, started = event["execution_id"], event["execution_started_at"]
    selection = _selection(event["input"], tracking, open_storage)
    config = _read_config(selection.source_name, settings, open_storage)
    tables = resolve_tables(config, selection.extract_tables)
    folder = _folder(settings.work_uri, selection.source_name, execution_id, started)
    items = _write_specs(
        config, tables, selection, folder, execution_id, started, settings, tracking.table,
        open_storage,
    )  # fmt: skip
    storage = open_storage(folder)
    kept = {"source_name": selection.source_name, "overrides": selection.overrides}
    storage.put(join(folder, "event.json"), _json(kept))
    where = join(folder, "tables_to_extract.json")
    storage.put(where, _json(items))
    # Last, so that no run is announced of an execution that fails here.
    tracking.announce(_pending(item) for item in items)
    bucket, key = _bucket_and_key(where)
    return {
        "execution_id": execution_id,
        "bucket": bucket,
        "key": key,
        "results_prefix": _bucket_and_key(join(folder, "results"))[1],
        "table_count": len(items),
        "max_concurrency": map_concurrency(config, tables, selection.overrides),
        "tracking_table": tracking.table,
    }


def run_id_of(execution_id: str, started_at: str, table: str) -> str:
    """Return the id of the run of a table in an execution: 32 hex digits, always the same."""
    text = json.dumps([execution_id, started_at, table])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.cache
def _client() -> Any:
    """One client a process, made at the first call and not at import."""
    return client_from_environment()


def _selection(given: Any, tracking: Tracking, open_storage: OpenStorage) -> Selection:
    """Read the execution's input."""
    forms = (
        'expected {"source_name": …, "extract_tables": "*" or a list of names, "overrides": {…}} '
        'or {"rerun_failed_of": "<execution arn>"}'
    )
    if not isinstance(given, dict):
        raise ConfigError(f"the execution's input is a {type(given).__name__}; {forms}")
    allowed = _RERUN_KEYS if "rerun_failed_of" in given else _START_KEYS
    unknown = sorted(map(str, given.keys() - allowed))
    if unknown:
        raise ConfigError(f"the execution's input has the unknown keys {unknown}; {forms}")
    if "rerun_failed_of" in given:
        return _rerun(given, tracking, open_storage)
    missing = [key for key in ("source_name", "extract_tables") if key not in given]
    if missing:
        raise ConfigError(f"the execution's input lacks {', '.join(missing)}; {forms}")
    name, overrides = given["source_name"], given.get("overrides") or {}
    if not isinstance(name, str) or not SOURCE_NAME.match(name):
        raise ConfigError(
            f"source_name is {name!r}; expected the name of a config file without .yml: letters, "
            "digits, dots, hyphens and underscores"
        )
    if not isinstance(overrides, dict):
        raise ConfigError(f"overrides is a {type(overrides).__name__}; expected a JSON object")
    return Selection(name, given["extract_tables"], overrides, {})


def _rerun(given: dict[str, Any], tracking: Tracking, open_storage: OpenStorage) -> Selection:
    """Select the failed tables of an earlier execution, with that execution's overrides."""
    earlier = given["rerun_failed_of"]
    if not isinstance(earlier, str) or not earlier:
        raise ConfigError(f"rerun_failed_of is {earlier!r}; expected the ARN of an execution")
    runs = list(tracking.by_execution(earlier))
    if not runs:
        raise ConfigError(
            f"rerun_failed_of: the tracking table {tracking.table} has no table of {earlier}; "
            "give the whole ARN of an execution of this state machine"
        )
    unfinished = [run for run in runs if not run.ended]
    if unfinished and given.get("include_unfinished") is not True:
        raise ConfigError(
            f"rerun_failed_of: {len(unfinished)} of {len(runs)} tables of {earlier} have not ended "
            f"({_some(unfinished)}): wait for it; if it was stopped and its jobs with it, add "
            '"include_unfinished": true'
        )
    for run in unfinished:
        # Fences off whatever worker may still be about to start.
        tracking.end(replace(run, status="FAILED", error_class="NeverReported",
                             error_message=f"given up on by a rerun, still {run.status}"))  # fmt: skip
    failed = [run for run in runs if run.status != "SUCCEEDED"]
    if not failed:
        raise ConfigError(f"rerun_failed_of: none of the {len(runs)} tables of {earlier} failed")
    kept_at = join(failed[0].spec_uri.rsplit("/specs/", 1)[0], "event.json")
    raw = open_storage(kept_at).read(kept_at)
    if raw is None:
        raise ConfigError(
            f"rerun_failed_of: {kept_at} is gone, so the overrides of {earlier} are not known; "
            f"start with source_name and extract_tables instead: {_some(failed)}"
        )
    return Selection(
        failed[0].source_name,
        [run.extract_table for run in failed],
        json.loads(raw)["overrides"],
        {run.extract_table: run.generation + 1 for run in failed},
    )


def _some(runs: Sequence[TrackedRun], most: int = 5) -> str:
    names = ", ".join(run.extract_table for run in runs[:most])
    return names + (f" and {len(runs) - most} more" if len(runs) > most else "")


def _read_config(name: str, settings: Settings, open_storage: OpenStorage) -> SourceConfig:
    uri = join(settings.config_uri, f"{name}.yml")
    raw = open_storage(uri).read(uri)
    if raw is None:
        raise ConfigError(f"{uri}: there is no such config; put it there, or correct source_name")
    config = load_config(raw, uri)
    if config.source.name != name:
        raise ConfigError(
            f"{uri} is the config of source {config.source.name!r}, not of {name!r}: the file's "
            "name and source.name must be the same"
        )
    return config


def _folder(work_uri: str, source_name: str, execution_id: str, started_at: str) -> str:
    """Return the execution's own folder: readable, and never another's."""
    moment = re.sub(r"[^0-9TZ]", "", started_at.split(".")[0])
    return join(work_uri, source_name, f"{moment}-{run_id_of(execution_id, started_at, '')[:12]}")


def _write_specs(
    config: SourceConfig,
    tables: Sequence[str],
    selection: Selection,
    folder: str,
    execution_id: str,
    started_at: str,
    settings: Settings,
    tracking_table: str,
    open_storage: OpenStorage,
) -> list[Item]:
    """Write every table's spec, many at a time, and return the Map's items."""
    specs = specs_for(
        config,
        tables,
        run_id_for=lambda table: run_id_of(execution_id, started_at, table),
        overrides=selection.overrides,
        report_base=join(folder, "reports"),
        tracking_table=tracking_table,
    )
    storage = open_storage(folder)
    items = []
    with ThreadPoolExecutor(_WRITE_THREADS) as pool:
        writes = []
        for table, spec in zip(tables, specs, strict=True):
            where = join(folder, "specs", f"{spec.run_id}.json")
            writes.append(pool.submit(storage.put, where, spec.model_dump_json().encode()))
            items.append(
                first_item(
                    spec,
                    job_settings(config, table, selection.overrides),
                    spec_uri=where,
                    execution_id=execution_id,
                    generation=selection.generations.get(table, 1),
                    job_defaults=settings.job_defaults,
                )
            )
        for write in writes:
            write.result()
    return items


def _pending(item: Item) -> TrackedRun:
    return TrackedRun(
        table_id=f"{item['source_name']}/{item['extract_table']}",
        run_id=item["run_id"],
        generation=item["generation"],
        attempt=item["attempt"],
        execution_id=item["execution_id"],
        source_name=item["source_name"],
        extract_table=item["extract_table"],
        job_type=item["job_type"],
        spec_uri=item["spec_uri"],
        report_uri=item["report_uri"],
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _bucket_and_key(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/key``; other URIs, which only tests use, have no bucket."""
    bucket, slash, key = uri.removeprefix("s3://").partition("/")
    return (bucket, key) if uri.startswith("s3://") and slash else ("", uri)
