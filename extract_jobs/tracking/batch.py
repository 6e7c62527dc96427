"""A batch: small tables that one worker runs one after the other, each as a separate run.

The config manager writes a batch's file beside the specs, and ``--spec_uri`` of the batch's job
names it. It lists every table of the batch; the tracking table shows which of them an attempt still
has to run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from extract_jobs.errors import ConfigError

_KEY = "batch"


@dataclass(frozen=True)
class BatchedTable:
    """One table of a batch.

    Attributes:
        extract_table: The table.
        run_id: Its run.
        generation: The run's.
        spec_uri: Its spec.
        report_uri: The report of the run's first attempt; those of later ones are beside it.
    """

    extract_table: str
    run_id: str
    generation: int
    spec_uri: str
    report_uri: str


_NAMES = frozenset(field.name for field in fields(BatchedTable))


def batch_json(tables: Sequence[BatchedTable]) -> bytes:
    """Return the file of a batch."""
    return json.dumps({_KEY: [asdict(table) for table in tables]}, ensure_ascii=False).encode()


def parse_batch(text: str | bytes, where: str) -> tuple[BatchedTable, ...] | None:
    """Return the tables of a batch's file; None if the text is something else, such as a spec.

    Raises:
        ConfigError: It is a batch's file, and damaged.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or _KEY not in found:
        return None
    try:
        return tuple(
            BatchedTable(**{k: v for k, v in table.items() if k in _NAMES}) for table in found[_KEY]
        )
    except (TypeError, AttributeError) as error:
        raise ConfigError(
            f"{where} is damaged: it should list the tables of a batch; start a new execution"
        ) from error
