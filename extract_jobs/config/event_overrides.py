"""Which keys of a table the event of an execution may override.

Whoever starts an execution is trusted less than the config: with other code, networks, columns,
SQL or locations they could read what is masked, or write where nobody looks. An event may override
what the config lists (``source.event_overrides``), else what the deployment lists, else `ALLOWED`.
Keys in `NEVER` cannot be listed by anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from extract_jobs.config.model import TableConfig
from extract_jobs.config.problems import Path, Problem, dotted, key_paths, model_at, refusal
from extract_jobs.errors import ConfigError

ALLOWED = frozenset(
    {
        "mode", "watermark.lower", "watermark.upper", "split", "max_connections",
        "target.file_bytes", "target.row_group_bytes", "target.max_open_partitions",
        "reconcile", "reconcile_max_bytes", "retry",
        "glue.worker_type", "glue.number_of_workers", "glue.timeout_minutes",
        "emr.driver_memory_gb", "emr.executor_memory_gb", "emr.executor_cores", "emr.executors",
        "emr.timeout_minutes", "ecs.cpu", "ecs.memory", "ecs.timeout_minutes",
    }
)  # fmt: skip
"""Keys that events may override if neither config nor deployment lists any. A section's name
stands for all of its keys."""

NEVER = {
    "glue": "decides what code runs",
    "emr": "decides what code runs, and as whom",
    "ecs": "decides what code runs, and in which network",
    "columns": "decides which columns are read, and which are masked",
    "where": "is SQL",
    "query": "is SQL",
    "exclude": "decides which tables a pattern takes",
    "files": "decides which files are read",
    "target.uri": "is a location",
    "target.catalog": "is a location",
    "target.format": "decides how readers find the table",
    "state_uri": "is a location",
    "spill_folder": "is a location",
}
"""Keys that no event can override, nor the keys below them except those in `ALLOWED`, and why."""


def event_key_problem(key: str) -> str | None:
    """Return why a key cannot be listed as one that events may override; None if it can."""
    if key in ALLOWED:
        return None
    if key not in _KEYS:
        return f"{key} is not a key of a table"
    for never, why in NEVER.items():
        if f"{key}.".startswith(f"{never}."):
            return f"{key} {why}: no event can override it"
        if never.startswith(f"{key}."):
            return f"{key} contains {never}, which {why}: list the keys that events may override"
    return None


def check_event_overrides(
    overrides: Mapping[str, Any],
    *,
    where: str,
    by_config: Iterable[str] | None,
    by_deployment: Iterable[str] | None,
) -> None:
    """Refuse overrides that an event may not make. Unknown keys are ignored here.

    Args:
        overrides: The event's.
        where: What messages call the config.
        by_config: Keys that the config lets events override; None if it lists none.
        by_deployment: Keys that the deployment lets events override; None if it lists none.

    Raises:
        ConfigError: Names every key that may not be overridden, and who could allow it; or the
            deployment lists a key that cannot be.
    """
    wrong = [text for key in by_deployment or () if (text := event_key_problem(key))]
    if wrong:
        raise ConfigError(f"EVENT_OVERRIDES of the deployment: {'; '.join(wrong)}")
    allowed = next(keys for keys in (by_config, by_deployment, ALLOWED) if keys is not None)
    problems = [
        Problem(f"overrides.{key}", event_key_problem(key) or _NOT_ALLOWED)
        for key in map(dotted, _refused(overrides, (), frozenset(allowed)))
    ]
    if problems:
        raise refusal(where, problems)


_KEYS = frozenset(key_paths(TableConfig))
_NOT_ALLOWED = (
    "may not be overridden by the event of an execution; the config can allow it "
    "(source.event_overrides), or the deployment (its parameter EventOverrides)"
)


def _refused(values: Mapping[str, Any], above: Path, allowed: frozenset[str]) -> Iterator[Path]:
    for key, value in values.items():
        path = (*above, key)
        if dotted(path) in allowed or dotted(path) not in _KEYS:
            continue
        if isinstance(value, Mapping) and model_at(TableConfig, path):
            yield from _refused(value, path, allowed)
        else:
            yield path
