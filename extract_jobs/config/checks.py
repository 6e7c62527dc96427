"""What is wrong with a source config as a file: its top level, its defaults, and lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from extract_jobs.config.event_overrides import event_key_problem
from extract_jobs.config.file import YamlFile
from extract_jobs.config.model import ConfigModel, SourceSettings, TableConfig
from extract_jobs.config.problems import DataProblem, Problem, dotted, exists, problems_in
from extract_jobs.config.resolve import as_written, merge, normal
from extract_jobs.config.variables import Unfilled, may_vanish


def check_frame(file: YamlFile) -> tuple[SourceSettings | None, list[Problem]]:
    """Validate everything but defaults and tables."""
    data = {k: v for k, v in file.data.items() if k != "defaults"}
    problems = []
    tables = data.get("tables")
    if isinstance(tables, dict):
        data["tables"] = {}
        if "" in tables:
            problems.append(Problem("tables", "a table with no name", file.line(("tables", ""))))
    if "tables" in data and not tables:
        problems.append(Problem("tables", "lists no tables", file.line(("tables",))))
        data["tables"] = {}
    if not isinstance(file.data.get("defaults", {}), dict | Unfilled | None):
        problems.append(Problem("defaults", "expected a mapping", file.line(("defaults",))))
    source = None
    try:
        source = ConfigModel.model_validate(data).source
    except ValidationError as error:
        for one in problems_in(error, data, ConfigModel):
            if may_vanish(one, data):
                continue
            text = one.text
            if one.path == ("version",) and not one.partial:
                text = f"{text}, the only version that this extract-jobs reads"
            problems.append(Problem(dotted(one.path), text, file.line(one.path)))
    return source, problems


def event_key_problems(file: YamlFile, source: SourceSettings | None) -> list[Problem]:
    """Return the keys that the config lists in ``event_overrides`` and may not."""
    problems = []
    for number, key in enumerate((source and source.event_overrides) or ()):
        text = None if isinstance(key, Unfilled) else event_key_problem(key)
        if text:
            path = ("source", "event_overrides", number)
            problems.append(Problem(dotted(path), text, file.line(path)))
    return problems


def check_defaults(file: YamlFile, defaults: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the defaults, whatever the tables say."""
    values = merge({}, normal(defaults))
    problems = []
    if "query" in values:
        text = "a query belongs to one table; move it there"
        problems.append(Problem("defaults.query", text, file.line(("defaults", "query"))))
    if "exclude" in values:
        text = "exclude belongs to an entry whose name is a pattern; move it there"
        problems.append(Problem("defaults.exclude", text, file.line(("defaults", "exclude"))))
    try:
        TableConfig.model_validate(values)
    except ValidationError as error:
        for one in problems_in(error, values, TableConfig):
            if not one.partial and not may_vanish(one, values):
                path = as_written(defaults, one.path)
                full = ("defaults", *path)
                problems.append(Problem(dotted(full), one.text, file.line(full)))
    return problems


def trace(file: YamlFile, name: str, found: DataProblem) -> Problem:
    """Find where a merged value came from: the table's own part, or the defaults."""
    own = file.data["tables"][name] or {}
    defaults = file.data.get("defaults") or {}
    for prefix, layer in ((("tables", name), own), (("defaults",), defaults)):
        path = as_written(layer, found.path)
        if path and exists(layer, path):
            full = (*prefix, *path)
            return Problem(dotted(full), found.text, file.line(full))
    full = ("tables", name, *found.path)
    return Problem(dotted(full), found.text, file.line(full))
