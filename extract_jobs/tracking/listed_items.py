"""Finds the Map item of a run after its state machine has moved on or ended."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field

from extract_jobs.errors import ConfigError
from extract_jobs.storage import OpenStorage, join
from extract_jobs.tracking.batch_item import tables_of
from extract_jobs.tracking.item import TrackedRun
from extract_jobs.tracking.map_item import Item


@dataclass(frozen=True)
class ListedItems:
    """The config manager's lists, each read once. Safe to share between threads."""

    open_storage: OpenStorage
    lists: dict[str, dict[str, Item]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, run: TrackedRun) -> Item | None:
        """Return the item of a run's current attempt; None if the list is gone.

        Raises:
            ConfigError: The list is damaged, or may not be read.
            WriteFailed: Storage failed; calling again is safe.
        """
        folder, found, _ = run.spec_uri.rpartition("/specs/")
        if not found:
            return None
        with self.lock:
            if folder not in self.lists:
                uri = join(folder, "tables_to_extract.json")
                self.lists[folder] = _listed(self.open_storage(uri).read(uri), uri)
            item = self.lists[folder].get(run.run_id)
        if item is None:
            return None
        now = {"attempt": run.attempt, "failures": run.failures, "report_uri": run.report_uri}
        return {**item, **now}


def _listed(raw: bytes | None, uri: str) -> dict[str, Item]:
    """Return the items of a list by run, those of batches one by one."""
    try:
        listed = json.loads(raw or "[]")
        if not isinstance(listed, list):
            raise TypeError("it is no list")
        return {one["run_id"]: one for item in listed for one in tables_of(item)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{uri} is damaged: it should list the items of an execution; restore it from the "
            "bucket's earlier versions, or start a new execution"
        ) from error
