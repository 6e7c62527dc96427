"""What a config's patterns mean to commands: tables of the source, and what earlier runs saw."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime

from extract_jobs.config import SourceConfig, with_listed, with_table
from extract_jobs.config.known_tables import KnownTables, News, as_listed, news
from extract_jobs.errors import SourceUnavailable
from extract_jobs.planning.source_tables import list_tables, with_source_tables
from extract_jobs.storage import join, open_storage

logger = logging.getLogger(__name__)

_NAME = "known_tables.json"


def complete(config: SourceConfig) -> SourceConfig:
    """Return a config with the tables that its patterns take now.

    Raises:
        ConfigError: Credentials are wrong, a pattern matches nothing, or tables collide.
        SourceUnavailable: The source cannot be reached.
    """
    return with_source_tables(config)


def complete_with_past(config: SourceConfig) -> SourceConfig:
    """Return a config with the tables that its patterns take or took, for a look at what was done.

    If the source cannot be reached, those of the last run are taken.

    Raises:
        ConfigError: As `complete`.
        SourceUnavailable: The source cannot be reached, and no run has left its tables.
    """
    if not config.patterns:
        return config
    known = _known(config)
    try:
        listed = list_tables(config)
    except SourceUnavailable as error:
        if known is None:
            raise
        logger.warning("%s; these are the tables of the last run", error)
        listed = as_listed(known.tables)
    present = {table.name for table in listed}
    past = as_listed(name for name in gone_tables(config) if name not in present)
    return with_listed(config, [*listed, *past])


def gone_tables(config: SourceConfig) -> dict[str, str]:
    """Return the tables that runs have taken and found gone later, and when, as ISO 8601."""
    known = _known(config) if config.patterns else None
    return dict(known.gone) if known else {}


def run_news(config: SourceConfig, selected: Iterable[str], now: datetime) -> News:
    """Return what is new since the last run; `remember` stores it."""
    return news(config, _known(config), selected, now)


def remember(config: SourceConfig, found: News) -> None:
    """Store what a run has seen, for the next one."""
    uri = _uri(config)
    open_storage(uri).put(uri, found.known.to_bytes())


def _known(config: SourceConfig) -> KnownTables | None:
    uri = _uri(config)
    return KnownTables.read(open_storage(uri), uri)


def _uri(config: SourceConfig) -> str:
    """Return where a source's tables are kept: in a state folder named like its first pattern."""
    first = config.patterns[0]
    alone = with_table(config, first.name, first.values)
    [table] = alone.tables.values()
    return join(table.location.state_uri, _NAME)
