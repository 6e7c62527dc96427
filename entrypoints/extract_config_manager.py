"""Lambda behind the state "Extract Config Manager": turns an event and a source config into a list.

Reads ``<CONFIG_URI>/<source_name>.yml``, and writes into the execution's own folder below
``WORK_URI``:

- ``specs/<run_id>.json``: one spec per table,
- ``batches/<batch_id>.json``: the tables of a batch, which one worker runs,
- ``tables_to_extract.json``: the list that the Map reads, one item per table or batch,
- ``config.yml``: the config as it was read,
- ``listed_tables.json``: the source's tables that patterns of the config match, if it has any,
- ``event.json``: the event, for a rerun to start from.

Then it puts one PENDING item per table into the tracking table. Anything wrong raises a
`ConfigError` before any job starts. Lambda may call it again for the same execution: then the run
ids are the same, config and event are those that the first call has stored, the same files are
written, and existing items stay.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from extract_jobs.config import (
    SourceConfig,
    job_settings,
    load_config,
    map_concurrency,
    resolve_tables,
    specs_for,
    with_listed,
)
from extract_jobs.config.event_overrides import check_event_overrides
from extract_jobs.config.known_tables import (
    KnownTables,
    known_tables_uri,
    listed_from,
    listed_json,
    news,
)
from extract_jobs.errors import ConfigError, WriteFailed
from extract_jobs.planning.source_tables import list_tables as list_source
from extract_jobs.reporting.logs import in_every_line, log_json_lines
from extract_jobs.storage import OpenStorage, Storage, join, open_storage
from extract_jobs.tracking.batch import batch_json
from extract_jobs.tracking.batch_item import batch_of, batched
from extract_jobs.tracking.event import Selection, keep_selection, kept_selection, read_selection
from extract_jobs.tracking.map_item import Item, first_item, run_of
from extract_jobs.tracking.table import Tracking, client_from_environment, utc_now

logger = logging.getLogger(__name__)

_WRITE_THREADS = 32
_MOST_NAMED = 5
_BACKFILLS = {"mode", "watermark"}
"""Overrides after which the size of a table's last commit says nothing of this run's."""
MOST_LISTED = 20_000
"""Maximum tables that the patterns of a config may match, excluded ones and views included."""
LISTED_NAME = "listed_tables.json"
"""Name of the list of tables that patterns match, in an execution's work folder."""
CONFIG_NAME = "config.yml"
"""Name of the copy of the config in an execution's work folder."""


@dataclass(frozen=True)
class Settings:
    """Settings from the deployment.

    Attributes:
        config_uri: Folder of the source configs.
        work_uri: Folder that contains each execution's own folder.
        job_defaults: Values for ``glue``, ``emr``, ``ecs`` and ``retry`` that a config may leave
            out, such as the stack's own job name and subnets.
        event_overrides: Keys of a table that events may override if the config does not say; None
            uses those of `extract_jobs.config.event_overrides`.
        list_tables: Whether this function may connect to sources, to list the tables that a
            config's patterns take.
    """

    config_uri: str
    work_uri: str
    job_defaults: Mapping[str, Mapping[str, Any]]
    event_overrides: tuple[str, ...] | None = None
    list_tables: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read ``CONFIG_URI``, ``WORK_URI`` and the optional variables.

        ``JOB_DEFAULTS`` is JSON, ``{}`` by default; ``EVENT_OVERRIDES`` is a list of keys separated
        by commas, and empty means unset; ``LIST_TABLES`` is ``yes`` or ``no``, the default.

        Raises:
            ConfigError: One is missing, or is not JSON.
        """
        missing = [key for key in ("CONFIG_URI", "WORK_URI") if not environment.get(key)]
        if missing:
            raise ConfigError(f"the function's environment lacks {', '.join(missing)}")
        try:
            defaults = json.loads(environment.get("JOB_DEFAULTS") or "{}")
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"JOB_DEFAULTS of the deployment is not JSON: {error}") from error
        keys = [key.strip() for key in environment.get("EVENT_OVERRIDES", "").split(",")]
        listed = tuple(filter(None, keys)) or None
        may_list = environment.get("LIST_TABLES") == "yes"
        return cls(environment["CONFIG_URI"], environment["WORK_URI"], defaults, listed, may_list)


@dataclass(frozen=True)
class Execution:
    """The execution that is being prepared."""

    id: str
    started_at: str
    folder: str
    settings: Settings
    tracking_table: str


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Answer the state machine; see `list_tables`."""
    log_json_lines()
    in_every_line(execution_id=event["execution_id"])
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
        open_storage: Returns the storage of a URI.

    Returns:
        ``bucket`` and ``key`` of the list, ``table_count``, ``max_concurrency``,
        ``tracking_table``, ``execution_id``, and ``note``, which the summary repeats: tables that a
        rerun leaves out.

    Raises:
        ConfigError: The event, the config or their combination is invalid.
        SourceUnavailable: The source's tables cannot be listed; calling again is safe.
        WriteFailed: Storage or the tracking table failed; calling again is safe.
    """
    execution_id, started = event["execution_id"], event["execution_started_at"]
    selection = read_selection(event["input"], tracking, open_storage)
    folder = _folder(settings.work_uri, selection.source_name, execution_id, started)
    selection = kept_selection(folder, open_storage) or selection
    raw, config = _read_config(selection.source_name, folder, settings, open_storage)
    check_event_overrides(
        selection.overrides,
        where=config.where,
        by_config=config.source.event_overrides,
        by_deployment=settings.event_overrides,
    )
    config = _with_tables(config, selection, folder, settings, open_storage)
    tables, note = _tables_of(selection, config)
    execution = Execution(execution_id, started, folder, settings, tracking.table)
    items = _write_specs(execution, config, tables, selection, open_storage)
    sizes = _sizes_of_small(config, tables, selection, tracking)
    listed = _write_batches(batched(items, sizes, folder), open_storage(folder))
    _keep(selection, raw, folder, open_storage)
    where = join(folder, "tables_to_extract.json")
    open_storage(folder).put(where, _json(listed))
    # Last, so that no run is announced if something fails here.
    tracking.announce(run_of(item) for item in items)
    found = "" if selection.is_rerun else _news(config, tables, settings, tracking, open_storage)
    logger.info(
        "%d tables of %s in %d jobs: %s", len(items), selection.source_name, len(listed), where
    )
    bucket, key = _bucket_and_key(where)
    return {
        "execution_id": execution_id,
        "bucket": bucket,
        "key": key,
        "table_count": len(items),
        "max_concurrency": map_concurrency(config, tables, selection.overrides),
        "tracking_table": tracking.table,
        "note": ". ".join(filter(None, (note, found))),
    }


def run_id_of(execution_id: str, started_at: str, table: str) -> str:
    """Return the id of the run of a table in an execution: 32 hex digits, always the same."""
    text = json.dumps([execution_id, started_at, table])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.cache
def _client() -> Any:
    """One client per process, created at the first call and not at import."""
    return client_from_environment()


def _tables_of(selection: Selection, config: SourceConfig) -> tuple[list[str], str]:
    """Return the tables to extract, and a message about those that are left out."""
    if not selection.is_rerun:
        return list(resolve_tables(config, selection.extract_tables)), ""
    kept = [table for table in config.tables if table in selection.extract_tables]
    gone = [table for table in selection.extract_tables if table not in config.tables]
    if not kept:
        raise ConfigError(
            f"rerun_failed_of: none of the failed tables is in the config any more: {_some(gone)}"
        )
    if not gone:
        return kept, ""
    note = f"{len(gone)} failed tables are not in the config any more and were left out"
    logger.warning("%s: %s", note, ", ".join(gone))
    return kept, f"{note}: {_some(gone)}"


def _with_tables(
    config: SourceConfig,
    selection: Selection,
    folder: str,
    settings: Settings,
    open_storage: OpenStorage,
) -> SourceConfig:
    """Add the tables that patterns take: the same for every call and rerun of an execution."""
    if not config.patterns:
        return config
    where = join(folder, LISTED_NAME)
    before = join(selection.tables_of, LISTED_NAME) if selection.tables_of else where
    raw = open_storage(where).read(where) or open_storage(before).read(before)
    if raw is None:
        if not settings.list_tables:
            names = ", ".join(pattern.name for pattern in config.patterns)
            raise ConfigError(
                f"{config.where}: {names}: the config manager may not connect to sources here, so "
                "it cannot list their tables: deploy with ListTables=yes, or name the tables "
                "(extract-jobs init --update)"
            )
        matching = (t for t in list_source(config) if any(p.matches(t) for p in config.patterns))
        found = list(islice(matching, MOST_LISTED + 1))
        if len(found) > MOST_LISTED:
            raise ConfigError(
                f"{config.where}: its patterns match more than {MOST_LISTED:,} tables; split it "
                "into several sources"
            )
        raw = listed_json(found)
    complete = with_listed(config, listed_from(raw, where))  # refuses before it is kept
    if open_storage(where).put_if_absent(where, raw) != raw:
        raise WriteFailed(
            f"{folder}: the config manager was called twice at once, and the source's tables "
            "changed between the calls; the next call uses what the faster one stored"
        )
    return complete


def _news(
    config: SourceConfig,
    tables: Sequence[str],
    settings: Settings,
    tracking: Tracking,
    open_storage: OpenStorage,
) -> str:
    """Return which tables of patterns are new or have gone since the last execution, as text."""
    if not config.patterns:
        return ""
    uri = known_tables_uri(settings.work_uri, config.source.name)
    storage = open_storage(uri)
    found = news(config, KnownTables.read(storage, uri), tables, tracking.clock())
    storage.put(uri, found.known.to_bytes())
    return found.text()


def _some(tables: Sequence[str]) -> str:
    names = ", ".join(tables[:_MOST_NAMED])
    return names + (f" and {len(tables) - _MOST_NAMED} more" if len(tables) > _MOST_NAMED else "")


def _read_config(
    name: str, folder: str, settings: Settings, open_storage: OpenStorage
) -> tuple[bytes, SourceConfig]:
    """Read a config: the one that an earlier call of this execution stored, else the newest."""
    uri, kept = join(settings.config_uri, f"{name}.yml"), join(folder, CONFIG_NAME)
    raw = open_storage(kept).read(kept)
    if raw is None:
        raw = open_storage(uri).read(uri)
    if raw is None:
        raise ConfigError(f"{uri}: there is no such config; put it there, or correct source_name")
    config = load_config(raw, uri)
    if config.source.name != name:
        raise ConfigError(
            f"{uri} is the config of source {config.source.name!r}, not of {name!r}: the file's "
            "name and source.name must be the same"
        )
    return raw, config


def _keep(selection: Selection, raw: bytes, folder: str, open_storage: OpenStorage) -> None:
    """Store what this call's decisions are based on, so that another call decides the same.

    Only once nothing can be wrong with it: a redrive may come with a corrected config.

    Raises:
        WriteFailed: Another call was faster with other input; calling again is safe.
    """
    where = join(folder, CONFIG_NAME)
    held = open_storage(where).put_if_absent(where, raw)
    if held != raw or keep_selection(selection, folder, open_storage) != selection:
        raise WriteFailed(
            f"{folder}: the config manager was called twice at once, and the config or the runs "
            "changed between the calls; the next call uses what the faster one stored"
        )


def _folder(work_uri: str, source_name: str, execution_id: str, started_at: str) -> str:
    """Return the execution's own folder: readable, and never shared with another."""
    moment = re.sub(r"[^0-9TZ]", "", started_at.split(".", maxsplit=1)[0])
    return join(work_uri, source_name, f"{moment}-{run_id_of(execution_id, started_at, '')[:12]}")


def _write_specs(
    execution: Execution,
    config: SourceConfig,
    tables: Sequence[str],
    selection: Selection,
    open_storage: OpenStorage,
) -> list[Item]:
    """Write every table's spec, many at a time, and return the Map's items."""
    specs = specs_for(
        config,
        tables,
        run_id_for=lambda table: run_id_of(execution.id, execution.started_at, table),
        overrides=selection.overrides,
        report_base=join(execution.folder, "reports"),
        tracking_table=execution.tracking_table,
    )
    jobs = job_settings(config, tables, selection.overrides)
    reruns = selection.reruns
    specs = [
        spec.model_copy(update={"reruns": tuple(reruns.get(spec.extract_table, ()))})
        for spec in specs
    ]
    storage = open_storage(execution.folder)
    items = []
    with ThreadPoolExecutor(_WRITE_THREADS) as pool:
        writes = []
        for spec, settings in zip(specs, jobs, strict=True):
            where = join(execution.folder, "specs", f"{spec.run_id}.json")
            writes.append(pool.submit(storage.put, where, spec.model_dump_json().encode()))
            items.append(
                first_item(
                    spec,
                    settings,
                    spec_uri=where,
                    execution_id=execution.id,
                    generation=selection.generations.get(spec.extract_table, 1),
                    job_defaults=execution.settings.job_defaults,
                )
            )
        for write in writes:
            write.result()
    return items


def _sizes_of_small(
    config: SourceConfig, tables: Sequence[str], selection: Selection, tracking: Tracking
) -> dict[str, int]:
    """Return the bytes of the last commit of each table that may share a worker.

    A table without a commit is left out, for nobody knows its size; so are all tables of a
    backfill, which extracts more than the last run did.
    """
    if _BACKFILLS & selection.overrides.keys():
        return {}
    settings = job_settings(config, tables, selection.overrides)
    ids = {
        f"{selection.source_name}/{table}": table
        for table, one in zip(tables, settings, strict=True)
        if one.batch == "small"
    }
    return {ids[found]: size for found, size in tracking.last_bytes(list(ids)).items()}


def _write_batches(items: list[Item], storage: Storage) -> list[Item]:
    """Write the file of each batch, and return the items."""
    for item in items:
        if item["batch"]:
            storage.put(item["spec_uri"], batch_json(batch_of(item)))
    return items


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _bucket_and_key(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/key``; other URIs, which only tests use, have no bucket."""
    bucket, slash, key = uri.removeprefix("s3://").partition("/")
    return (bucket, key) if uri.startswith("s3://") and slash else ("", uri)
