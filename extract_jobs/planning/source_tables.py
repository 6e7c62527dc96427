"""Lists a source's tables and adds to a config those that its patterns take."""

from __future__ import annotations

from extract_jobs.config import SourceConfig, with_listed
from extract_jobs.spec.listed_table import ListedTable
from extract_jobs.spec.source_types import registration


def list_tables(config: SourceConfig) -> list[ListedTable]:
    """Return all tables and views of a config's source that its user may read.

    Raises:
        ConfigError: Credentials are missing or wrong.
        SourceUnavailable: Unreachable within the connection's timeout.
    """
    found: list[ListedTable] = registration(config.source.type).lister()(config.source.connection)
    return found


def with_source_tables(config: SourceConfig) -> SourceConfig:
    """Return a config with the tables that its patterns take now. Connects if it has patterns.

    Raises:
        ConfigError: As `list_tables` and `with_listed`.
        SourceUnavailable: Unreachable within the connection's timeout.
    """
    return with_listed(config, list_tables(config)) if config.patterns else config
