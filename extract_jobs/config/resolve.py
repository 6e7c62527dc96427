"""Merges the layers of a table's values and makes a table and its spec of them.

Mappings merge key by key, everything else replaces, and ``null`` removes a value, which restores
the built-in default.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from extract_jobs.config.locations import TableLocation, location_of
from extract_jobs.config.model import SourceSettings, TableConfig
from extract_jobs.config.problems import DataProblem, Path, exists, model_at, problems_in
from extract_jobs.config.spellings import misspelled
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.predicates import where_problem
from extract_jobs.spec.source_types import registration
from extract_jobs.spec.uris import absolute
from extract_jobs.storage import join

_SPLITS: Path = ("split", "max_connections")
_OTHERS_DEPEND_ON: Container[Path] = (
    (), ("mode",), ("watermark",), ("watermark", "column"), ("watermark", "snapshot"),
    ("watermark", "duplicates"),
)  # fmt: skip
"""Values without which it is not known what else a table needs."""
_SHORTHAND: Path = ("max_connections",)
_NO_PATTERN = (
    'only an entry whose name is a pattern, such as "public.*", can have exclude; remove it'
)
_DRAFT = "draft"
"""The run_id of a spec that is only made to be validated."""


@dataclass(frozen=True)
class ResolvedTable:
    """One table with everything filled in.

    Attributes:
        name: Its key in the config, which is its ``extract_table``.
        config: Its values, merged and validated.
        location: Where its data and state go.
        values: The same values as plain data, on which overrides are merged. Never changed.
        line: Its line in the file, from 1.
    """

    name: str
    config: TableConfig
    location: TableLocation
    values: Mapping[str, Any]
    line: int


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge one layer of table values over another, changing neither.

    Mappings merge key by key; anything else replaces; None removes the value. None is kept only
    where ``null`` is a value of its own (``lossy_types``, the values of ``columns.mask``).
    """
    return _merge(below, above, ())


def overlaid(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge layers of overrides into one, later ones on top; None stays, to remove a value."""
    found: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            under = found.get(key)
            if isinstance(value, Mapping) and isinstance(under, Mapping):
                value = overlaid([under, value])  # noqa: PLW2901 - it stands for both now
            found[key] = value
    return found


def _merge(below: Mapping[str, Any], above: Mapping[str, Any], path: Path) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        here = (*path, key)
        if isinstance(value, Mapping):
            under = merged.get(key)
            merged[key] = _merge(under if isinstance(under, Mapping) else {}, value, here)
        elif value is not None:
            merged[key] = value
        elif here[0] == "lossy_types" or here[:-1] == ("columns", "mask"):
            merged[key] = "null"
        elif _is_known(here):
            merged.pop(key, None)
        else:
            merged[key] = None  # an unknown key is refused even without a value
    return merged


def _is_known(path: Path) -> bool:
    model = model_at(TableConfig, path[:-1])
    return model is None or path[-1] in model.model_fields


def normal(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Expand a layer's shorthand: ``max_connections`` is ``split.max_connections``.

    Within one layer the long form wins.
    """
    split = values.get("split")
    if "max_connections" not in values or not (split is None or isinstance(split, Mapping)):
        return values
    rest = {k: v for k, v in values.items() if k != "max_connections"}
    return {**rest, "split": {"max_connections": values["max_connections"], **(split or {})}}


def as_written(layer: Mapping[str, Any], path: Path) -> Path:
    """Return ``path`` in the spelling that a layer uses."""
    return _SHORTHAND if path == _SPLITS and not exists(layer, path) else path


def resolve_table(
    source: SourceSettings | None,
    name: str,
    values: Mapping[str, Any],
    line: int,
    folder: str | None = None,
) -> tuple[ResolvedTable | None, list[DataProblem]]:
    """Validate merged values as a table, and as the spec that will be made of it.

    Values that are wrong by themselves do not keep the others from being checked: every problem
    that does not depend on them is found too.
    """
    found: list[DataProblem] = []
    try:
        config = TableConfig.model_validate(values)
    except ValidationError as error:
        found = problems_in(error, values, TableConfig)
        if source is not None and any(one.path == ("split",) for one in found):
            found += _strategy_problems(source, values["split"])
        return None, [*found, *_other_problems(source, name, values, folder, found)]
    if config.exclude:
        found.append(DataProblem(("exclude",), _NO_PATTERN))
    found += misspelled(config)
    if source is None:
        return None, [*found, *location_of(_ANY_SOURCE, name, config, folder)[1]]
    most = source.max_connections - 1
    wanted = config.split.max_connections
    if wanted > most and exists(values, _SPLITS):
        text = (
            f"{wanted} splits at a time use {wanted + 1} connections, but "
            f"source.max_connections is {source.max_connections}; give {most} or less"
        )
        found.append(DataProblem(_SPLITS, text))
    split = config.split.model_copy(update={"max_connections": min(wanted, most)})
    config = config.model_copy(update={"split": split})
    dialect = registration(source.type).where
    found += _strategy_problems(source, {"strategy": config.split.strategy})
    if config.where is not None and dialect is not None:
        problem = where_problem(config.where, dialect)
        found += [DataProblem(("where",), problem)] if problem else []
    if config.spill_folder is not None:
        spill = absolute(config.spill_folder, folder)
        config = config.model_copy(update={"spill_folder": spill})
    location, misplaced = location_of(source, name, config, folder)
    found += misplaced
    if location is None:
        elsewhere = {"target": config.target.model_copy(update=_ELSEWHERE), "state_uri": None}
        location, wrong = location_of(source, name, config.model_copy(update=elsewhere), folder)
        found += [one for one in wrong if one not in found]
    if location is None:
        return None, found
    table = ResolvedTable(name, config, location, values, line)
    try:
        report = join(location.state_uri, "reports", _DRAFT)
        spec_of(source, table, run_id=_DRAFT, attempt=1, report_uri=report, tracking_table=None)
    except ValidationError as error:
        found += problems_in(error, values, ExtractSpec)
    return (None if found else table), found


_ANY_SOURCE = SourceSettings.model_validate(
    {"name": "source", "type": "sqlite", "connection": {"path": "x"}}
)
"""In place of a source that is itself wrong, to check placeholders."""
_ELSEWHERE = {"uri": "s3://bucket/table", "catalog": None}
"""In place of a location that is wrong, to check everything else."""


def _strategy_problems(source: SourceSettings, split: Any) -> Iterator[DataProblem]:
    known = registration(source.type).strategies
    strategy = split.get("strategy", "auto") if isinstance(split, Mapping) else "auto"
    if known is not None and strategy not in known:
        text = f"{strategy!r}: a source of type {source.type} has {', '.join(known)}"
        yield DataProblem(("split", "strategy"), text)


def _other_problems(
    source: SourceSettings | None,
    name: str,
    values: Mapping[str, Any],
    folder: str | None,
    known: Sequence[DataProblem],
) -> Iterator[DataProblem]:
    """Yield what is wrong with a table beside the values that are known to be wrong.

    A key that does not exist may be meant for any other, so nothing is said then about values that
    are missing or conflict; the same holds for `_OTHERS_DEPEND_ON`.
    """
    rest = _without(values, (one.path for one in known))
    try:
        TableConfig.model_validate(rest)
    except ValidationError:
        return
    _, found = resolve_table(source, name, rest, 0, folder)
    unsure = any(one.path in _OTHERS_DEPEND_ON or not _is_known(one.path) for one in known)
    yield from (one for one in found if not (unsure and one.partial))


def _without(data: Mapping[str, Any], paths: Iterable[Path]) -> dict[str, Any]:
    """Return data without the values at some paths, as far as they are there."""
    below: dict[Any, list[Path]] = {}
    for path in paths:
        if path:
            below.setdefault(path[0], []).append(path[1:])
    kept: dict[str, Any] = {}
    for key, value in data.items():
        if key not in below:
            kept[key] = value
        elif isinstance(value, Mapping) and all(below[key]):
            kept[key] = _without(value, below[key])
    return kept


def located(source: SourceSettings, folder: str) -> SourceSettings:
    """Return a source whose paths mean the same in any working folder."""
    given = source.connection
    paths = {
        name: absolute(path, folder)
        for name in ("path", "uri", "sslrootcert", "sslcert", "sslkey")
        if (path := getattr(given, name)) not in (None, "rds", "system")
    }
    jars = tuple(absolute(jar, folder) for jar in given.jars)
    connection = given.model_copy(update={**paths, "jars": jars})
    return source.model_copy(update={"connection": connection})


_OF_SOURCE = ("row_security", "max_lag", "statement_timeout", "on_waiting_ddl")
"""Keys that a table may have and its source too, whose value is the default."""
_SPEC_FIELDS = [
    name
    for name in TableConfig.model_fields
    if name in ExtractSpec.model_fields and name not in ("target", "state_uri", *_OF_SOURCE)
]


def spec_of(
    source: SourceSettings,
    table: ResolvedTable,
    *,
    run_id: str,
    attempt: int,
    report_uri: str,
    tracking_table: str | None,
    limit: int | None = None,
) -> ExtractSpec:
    """Return the spec of one table.

    Raises:
        ValidationError: Values of the table conflict.
    """
    fields: dict[str, Any] = {name: getattr(table.config, name) for name in _SPEC_FIELDS}
    return ExtractSpec(
        run_id=run_id,
        attempt=attempt,
        source_name=source.name,
        source_type=source.type,
        connection=source.connection,
        extract_table=table.name,
        target=table.location.target,
        state_uri=table.location.state_uri,
        report_uri=report_uri,
        tracking_table=tracking_table,
        limit=limit,
        **{name: getattr(table.config, name) or getattr(source, name) for name in _OF_SOURCE},
        **fields,
    )
