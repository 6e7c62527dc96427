"""`ExtractSpec`: everything that one extract of one table needs, validated.

A spec holds names of secrets, never a secret. It is frozen, refuses unknown keys, and reports all
its problems at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from pydantic import ValidationError, model_validator

from extract_jobs.errors import ConfigError
from extract_jobs.spec.parts import LossyTypes, SpecFields, TargetSpec
from extract_jobs.spec.rules import broken_rules, default_write_mode


class ExtractSpec(SpecFields):
    """Everything that a worker needs for one extract of one table.

    Frozen and validated: a spec that would destroy or duplicate data cannot be created.

    Example:
        >>> spec = ExtractSpec(
        ...     run_id="2026-01-31", source_name="shop", source_type="sqlite",
        ...     connection={"path": "shop.db"}, extract_table="orders",
        ...     target={"uri": "lake/orders"}, state_uri="state", report_uri="state/report.json",
        ... )
        >>> spec.mode, spec.target.write_mode
        ('full', 'overwrite')
        >>> ExtractSpec.model_validate_json(spec.model_dump_json()) == spec
        True
    """

    @model_validator(mode="before")
    @classmethod
    def _default_write_mode(cls, data: Any) -> Any:
        """Set the default: running a full extract twice must not store the table twice.

        With partitions from the run it is a series of snapshots, and earlier ones stay. Of an
        Iceberg table, to merge all rows of the source is to replace the table.
        """
        if not isinstance(data, dict) or not isinstance(data.get("target"), dict | TargetSpec):
            return data
        target = data["target"]
        if isinstance(target, TargetSpec):
            target = target.model_dump(exclude_unset=True)
        if target.get("write_mode") is None:
            chosen = default_write_mode(data.get("mode", "full"), target.get("partition_by") or ())
            target = {**target, "write_mode": chosen}
        merges = (target.get("write_mode"), target.get("format")) == ("merge", "iceberg")
        if merges and data.get("mode", "full") == "full":
            target = {**target, "write_mode": "overwrite"}
        return {**data, "target": target}

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> Self:
        problems = list(broken_rules(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def lossy_type(self, column: str) -> LossyTypes:
        """Return what becomes of a column's values that have no faithful form."""
        given = self.lossy_types
        return given if isinstance(given, str) else given.get(column, "refuse")

    def made_null(self, columns: Iterable[str]) -> frozenset[str]:
        """Return the columns whose values become NULL if they have no faithful form."""
        return frozenset(name for name in columns if self.lossy_type(name) == "null")

    @property
    def table_id(self) -> str:
        """``<source_name>/<extract_table>``, the tracking table's key."""
        return f"{self.source_name}/{self.extract_table}"


def parse_spec(text: str | bytes, where: str = "spec") -> ExtractSpec:
    """Validate a spec given as JSON.

    Args:
        text: One JSON object.
        where: How error messages refer to the input, such as by its URI.

    Returns:
        The validated spec.

    Raises:
        ConfigError: Not JSON, or any field wrong; the message names every problem at once.
    """
    try:
        return ExtractSpec.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(problems(error))}") from error


def problems(error: ValidationError) -> list[str]:
    """Return every problem of a validation as ``path: what is wrong``, input values left out."""
    return [
        ": ".join(filter(None, (_path(e["loc"]), e["msg"].removeprefix("Value error, "))))
        for e in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))
