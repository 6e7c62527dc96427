"""Which tables earlier runs have taken by a pattern, to say what is new and what is gone.

Nothing depends on it but messages: without it, a run says nothing about new tables.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from extract_jobs.config import SourceConfig
from extract_jobs.config.locations import table_parts
from extract_jobs.errors import ConfigError
from extract_jobs.spec.listed_table import ListedTable
from extract_jobs.storage import Storage, join

logger = logging.getLogger(__name__)

_MOST_NAMED = 10


@dataclass(frozen=True)
class KnownTables:
    """The tables of a source that runs took by a pattern.

    Attributes:
        tables: Those that were there when they were last selected, and when a run first took each.
        gone: Those that the source has no more, and when that was noticed, as ISO 8601.
    """

    tables: Mapping[str, datetime] = field(default_factory=dict)
    gone: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the stored form."""
        taken = {name: _text(at) for name, at in sorted(self.tables.items())}
        data = {"version": 1, "tables": taken, "gone": dict(self.gone)}
        return json.dumps(data, ensure_ascii=False).encode()

    @classmethod
    def read(cls, storage: Storage, uri: str) -> KnownTables | None:
        """Read what an earlier run stored; None without it, or if it is damaged."""
        raw = storage.read(uri)
        try:
            data = None if raw is None else json.loads(raw)
            if data is None or data["version"] != 1:
                return None
            return cls(
                {n: datetime.fromisoformat(at).astimezone(UTC) for n, at in data["tables"].items()},
                {str(name): str(at) for name, at in data["gone"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            logger.warning("%s is damaged and is written anew; it only says which tables are new",
                           uri)  # fmt: skip
            return None


@dataclass(frozen=True)
class News:
    """What has changed in a source since the tables of its patterns were last taken.

    Attributes:
        added: Selected tables that no earlier run has taken.
        gone: Tables that earlier runs have taken, and that the source has no more.
        known: What to store for the next run.
    """

    added: tuple[str, ...]
    gone: tuple[str, ...]
    known: KnownTables

    def text(self) -> str:
        """Return it as one sentence each; empty without news."""
        parts = []
        if self.added:
            parts.append(f"{_counted(self.added)} new in the source: {_some(self.added)}")
        if self.gone:
            parts.append(
                f"{_counted(self.gone)} gone from the source, with files and state kept: "
                f"{_some(self.gone)}"
            )
        return ". ".join(parts)


def news(
    config: SourceConfig, known: KnownTables | None, selected: Iterable[str], now: datetime
) -> News:
    """Compare the tables of a config's patterns with those of earlier runs.

    Args:
        config: Its tables are listed.
        known: What the last run stored; None before the first.
        selected: Names of the tables that this run extracts.
        now: The present, UTC.
    """
    taken = config.taken
    chosen = taken & set(selected)
    before = known or KnownTables()
    missing = {
        name
        for name in (*before.tables, *before.gone)
        if name not in config.tables and name not in config.listed and _belongs(config, name)
    }
    gone = {name: before.gone.get(name, _text(now)) for name in missing}
    kept = (before.tables.keys() & taken) | chosen
    return News(
        tuple(sorted(chosen - before.tables.keys())) if known else (),
        tuple(sorted(missing - before.gone.keys())),
        KnownTables({name: before.tables.get(name, now) for name in kept}, gone),
    )


def known_tables_uri(work_uri: str, source_name: str) -> str:
    """Return where a deployment keeps what executions know of a source."""
    return join(work_uri, source_name, "known_tables.json")


def listed_json(listed: Sequence[ListedTable]) -> bytes:
    """Return the stored form of a source's tables."""
    rows = [
        {"name": t.name, "schema": t.schema, "table": t.table, "bare": t.bare, "view": t.is_view}
        for t in listed
    ]
    return json.dumps({"version": 1, "tables": rows}, ensure_ascii=False).encode()


def listed_from(raw: bytes, where: str) -> list[ListedTable]:
    """Read what `listed_json` wrote.

    Raises:
        ConfigError: It is damaged.
    """
    try:
        return [
            ListedTable(
                row["name"],
                is_view=row["view"],
                bare=row["bare"],
                schema=row["schema"],
                table=row["table"],
            )
            for row in json.loads(raw)["tables"]
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{where} is damaged; start a new execution") from error


def as_listed(names: Iterable[str]) -> list[ListedTable]:
    """Return known tables as the source listed them once."""
    found = []
    for name in names:
        schema, table = table_parts(name)
        has_schema = name not in (table, f'"{table}"')
        found.append(ListedTable(name, schema=schema if has_schema else None, table=table))
    return found


def _belongs(config: SourceConfig, name: str) -> bool:
    """Return whether a pattern would still take a table of that name."""
    [table] = as_listed([name])
    return any(one.matches(table) and not one.excludes(table) for one in config.patterns)


def _text(at: datetime) -> str:
    return at.isoformat(timespec="seconds")


def _counted(names: tuple[str, ...]) -> str:
    return "1 table is" if len(names) == 1 else f"{len(names)} tables are"


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
