"""Map items of batches, which have the same keys as a table's item.

``batch`` lists each table's own values; everything else belongs to the job. In an item for one
table, ``batch`` is empty.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from extract_jobs.spec.attempt_names import report_name
from extract_jobs.storage import join
from extract_jobs.tracking.batch import BatchedTable
from extract_jobs.tracking.map_item import Item, next_item, rendered
from extract_jobs.tracking.retry_policy import Decision

SMALL_BYTES = 64 * 2**20
"""A table is small if its last commit wrote no more Parquet than this."""
MOST_TABLES = 25
"""Maximum tables of a batch: a lost worker costs the others a start each, and items stay small."""

_OWN = ("run_id", "generation", "failures", "waited", "extract_table", "spec_uri", "report_uri",
        "state_uri", "retry", "catalog")  # fmt: skip
"""Keys whose values differ between the tables of a batch."""


def batched(items: Iterable[Item], sizes: Mapping[str, int], folder: str) -> list[Item]:
    """Group small tables whose jobs run in the same place, on workers of the same size.

    Args:
        items: One for each table.
        sizes: Bytes of the last commit of those that may share a worker, by ``extract_table``.
        folder: The execution's folder.

    Returns:
        The Map's items. A table that would be alone in its batch keeps its own item.
    """
    single: list[Item] = []
    groups: dict[str, list[list[Item]]] = {}
    for item in items:
        size = sizes.get(item["extract_table"])
        if size is None or size > SMALL_BYTES:
            single.append(item)
            continue
        job = json.dumps([item[k] for k in ("job_type", "glue", "emr", "ecs")], sort_keys=True)
        batches = groups.setdefault(job, [[]])
        if len(batches[-1]) == MOST_TABLES:
            batches.append([])
        batches[-1].append(item)
    shared = [batch for batches in groups.values() for batch in batches]
    single += [item for batch in shared if len(batch) == 1 for item in batch]
    return single + [_item_of(batch, folder) for batch in shared if len(batch) > 1]


def tables_of(item: Item) -> list[Item]:
    """Return an item for each table of an item, with the batch's job in ``job_run_id``."""
    if not item.get("batch"):  # items of executions that began under an older version lack it
        return [item]
    job = {"batch": [], "job_run_id": item["run_id"]}
    return [{**item, **own, **job} for own in item["batch"]]


def batch_of(item: Item) -> list[BatchedTable]:
    """Return the tables of a batch's item, for the file that its worker reads."""
    names = BatchedTable.__dataclass_fields__
    return [BatchedTable(**{k: v for k, v in own.items() if k in names}) for own in item["batch"]]


def next_batch(item: Item, retried: Sequence[tuple[Item, Decision]]) -> Item:
    """Return the item of a batch's next attempt, which has only the tables to be retried.

    Those with the fewest failures come first, so that one that kills its worker does not delay
    others.

    Args:
        item: The batch's attempt that ended.
        retried: Those tables, as returned by `tables_of`, at least one, each with its decision.
    """
    following = [
        {**next_item(table, counted=decision.counted, bigger=False),
         "waited": int(table["waited"]) + decision.waited}
        for table, decision in retried
    ]  # fmt: skip
    following.sort(key=lambda table: int(table["failures"]))
    bigger = any(decision.bigger for _, decision in retried)
    return next_item({**item, **_tables(following)}, counted=False, bigger=bigger)


def _item_of(tables: Sequence[Item], folder: str) -> Item:
    run_ids = json.dumps([table["run_id"] for table in tables])
    batch_id = hashlib.sha256(run_ids.encode()).hexdigest()[:32]
    return rendered(
        {
            **tables[0],
            **_tables(tables),
            "run_id": batch_id,
            "generation": 1,
            "spec_uri": join(folder, "batches", f"{batch_id}.json"),
            "report_uri": join(folder, "reports", "batches", batch_id, report_name(1)),
        }
    )


def _tables(tables: Sequence[Item]) -> Item:
    return {
        "extract_table": f"a batch of {len(tables)} tables",
        # Items of executions that began under an older version lack some.
        "batch": [{name: table[name] for name in _OWN if name in table} for table in tables],
    }
