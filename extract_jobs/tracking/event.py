"""An execution's input: tables of a source, or the failed tables of an earlier run.

The work folder of an execution holds its ``event.json``, from which a rerun takes the overrides,
and a second call of the config manager takes the first one's decisions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from extract_jobs.errors import ConfigError
from extract_jobs.storage import OpenStorage, join
from extract_jobs.tracking.finished_attempt import resolve_run
from extract_jobs.tracking.listed_items import ListedItems
from extract_jobs.tracking.table import TrackedRun, Tracking

SOURCE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
"""Valid names of a source: the name is part of a URI before any config is read."""

EVENT_NAME = "event.json"
"""Name of an execution's event in its work folder."""
_RESOLVE_THREADS = 16
_PUBLISHED_AFTER_ALL = ": the failed ones have published their rows, and count as succeeded now"
_START_KEYS = {"source_name", "extract_tables", "overrides"}
_RERUN_KEYS = {"rerun_failed_of", "include_unfinished"}


@dataclass(frozen=True)
class Selection:
    """A parsed event.

    Attributes:
        source_name: The source.
        extract_tables: ``"*"``, or names and globs.
        overrides: Table keys that override those of every table.
        generations: Generations of the rerun tables; the others start with 1.
        reruns: The failed runs that the new runs of rerun tables replace, oldest first.
        tables_of: Of a rerun, the work folder of the execution that it repeats, which has the list
            of the source's tables, if that was needed.
    """

    source_name: str
    extract_tables: Any
    overrides: Mapping[str, Any]
    generations: Mapping[str, int] = field(default_factory=dict)
    reruns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tables_of: str = ""

    @property
    def is_rerun(self) -> bool:
        """Whether it names the failed tables of an earlier execution."""
        return bool(self.generations)


def read_selection(given: Any, tracking: Tracking, open_storage: OpenStorage) -> Selection:
    """Read an execution's input.

    Args:
        given: ``{"source_name", "extract_tables", "overrides"}``; or ``{"rerun_failed_of"}`` with
            the ARN of an earlier execution and, if that was stopped before all its tables had
            ended, ``"include_unfinished": true``, which gives up on those first.
        tracking: The tracking table, read for a rerun. Runs marked as failed although they are
            published are corrected.
        open_storage: Gives the storage of a URI.

    Raises:
        ConfigError: The input is neither, or there is nothing to rerun.
        WriteFailed: Storage or the tracking table failed; calling again is safe.
    """
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
    name, overrides = given["source_name"], given.get("overrides")
    overrides = {} if overrides is None else overrides
    if not isinstance(name, str) or not SOURCE_NAME.match(name):
        raise ConfigError(
            f"source_name is {name!r}; expected the name of a config file without .yml: letters, "
            "digits, dots, hyphens and underscores"
        )
    if not isinstance(overrides, dict):
        raise ConfigError(f"overrides is a {type(overrides).__name__}; expected a JSON object")
    return Selection(name, given["extract_tables"], overrides)


def _rerun(given: dict[str, Any], tracking: Tracking, open_storage: OpenStorage) -> Selection:
    """Select the failed tables of an earlier execution, with that execution's overrides."""
    earlier = given["rerun_failed_of"]
    if not isinstance(earlier, str) or not earlier:
        raise ConfigError(f"rerun_failed_of is {earlier!r}; expected the ARN of an execution")
    runs = list(tracking.by_execution(earlier))
    if not runs:
        raise ConfigError(
            f"rerun_failed_of: the tracking table {tracking.table} has no table of {earlier}; "
            "give the whole ARN of an execution of this state machine. If that one failed before "
            "it listed its tables, start it again with its own input"
        )
    unfinished = [run for run in runs if not run.ended]
    if unfinished and given.get("include_unfinished") is not True:
        raise ConfigError(
            f"rerun_failed_of: {len(unfinished)} of {len(runs)} tables of {earlier} have not ended "
            f"({_some(unfinished)}): wait for it; if it was stopped and its jobs with it, add "
            '"include_unfinished": true'
        )
    failed = _still_failed(runs, tracking, open_storage)
    if not failed:
        raise ConfigError(
            f"rerun_failed_of: none of the {len(runs)} tables of {earlier} failed"
            + ("" if all(run.status == "SUCCEEDED" for run in runs) else _PUBLISHED_AFTER_ALL)
        )
    folder = failed[0].spec_uri.rsplit("/specs/", 1)[0]
    kept_at = join(folder, EVENT_NAME)
    raw = open_storage(kept_at).read(kept_at)
    if raw is None:
        raise ConfigError(
            f"rerun_failed_of: {kept_at} is gone, so the overrides of {earlier} are not known; "
            f"start with source_name and extract_tables instead: {_some(failed)}"
        )
    kept = _kept_event(raw, kept_at)
    if not isinstance(kept.get("overrides"), dict):
        raise ConfigError(f"rerun_failed_of: {kept_at} is damaged: it has no overrides")
    before = kept.get("reruns", {})
    return Selection(
        failed[0].source_name,
        [run.extract_table for run in failed],
        kept["overrides"],
        {run.extract_table: run.generation + 1 for run in failed},
        {run.extract_table: [*before.get(run.extract_table, ()), run.run_id] for run in failed},
        folder,
    )


def kept_selection(folder: str, open_storage: OpenStorage) -> Selection | None:
    """Return the selection that an earlier call for the same execution stored, or None.

    None too if the event was stored by an older version without the tables: the event itself is
    then read again.

    Raises:
        ConfigError: The stored selection is damaged.
    """
    uri = join(folder, EVENT_NAME)
    raw = open_storage(uri).read(uri)
    return None if raw is None else _selection_in(raw, uri)


def keep_selection(selection: Selection, folder: str, open_storage: OpenStorage) -> Selection:
    """Store a selection in an execution's work folder, and return the one stored first.

    Raises:
        ConfigError: The selection stored first is damaged.
    """
    uri = join(folder, EVENT_NAME)
    data = json.dumps(asdict(selection), ensure_ascii=False).encode()
    return _selection_in(open_storage(uri).put_if_absent(uri, data), uri) or selection


def _selection_in(raw: bytes, uri: str) -> Selection | None:
    """Read a stored selection; None if it names no tables."""
    kept = _kept_event(raw, uri)
    known = {f.name for f in fields(Selection)}
    given = {name: value for name, value in kept.items() if name in known}
    return Selection(**given) if given.keys() >= _START_KEYS else None


def _kept_event(raw: bytes, uri: str) -> dict[str, Any]:
    try:
        kept = json.loads(raw)
    except (ValueError, RecursionError):
        kept = None
    if not isinstance(kept, dict):
        raise ConfigError(f"{uri} is damaged: expected a JSON object; start a new execution")
    return kept


def _still_failed(
    runs: Sequence[TrackedRun], tracking: Tracking, open_storage: OpenStorage
) -> list[TrackedRun]:
    """Return the failed runs, after correcting those that are published after all.

    Runs without an outcome are decided too, and a worker that is still alive is fenced off.
    """
    items = ListedItems(open_storage)

    def resolved(run: TrackedRun) -> TrackedRun:
        now = resolve_run(
            run,
            items.of(run),
            name="NeverReported",
            cause=f"given up on by a rerun, still {run.status}",
            tracking=tracking,
            open_storage=open_storage,
        )
        return now or tracking.read(run.table_id, run.run_id) or run

    with ThreadPoolExecutor(_RESOLVE_THREADS) as pool:
        now = pool.map(resolved, [run for run in runs if run.status != "SUCCEEDED"])
        return [run for run in now if run.status != "SUCCEEDED"]


def _some(runs: Sequence[TrackedRun], most: int = 5) -> str:
    names = ", ".join(run.extract_table for run in runs[:most])
    return names + (f" and {len(runs) - most} more" if len(runs) > most else "")
