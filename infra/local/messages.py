"""Messages about executions: why one failed, in one line, and what an event requests."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from extract_jobs import errors
from extract_jobs.errors import EXIT_FAILED, ConfigError
from extract_jobs.tracking.table import TrackedRun

DEFAULT_DIRECTORY = Path(".local")
_MOST_LINE = 300
_ENVIRONMENT_KEYS = ("password_env", "url_env")


def read_event(argument: str) -> dict[str, Any]:
    """Return the event from the command line: JSON, or the path of a JSON file.

    Raises:
        ConfigError: There is no such file, or its content is not a JSON object.
    """
    text, place = argument, "the event"
    if not argument.lstrip().startswith("{"):
        place = argument
        try:
            text = Path(argument).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"{argument}: {why}; give the event as JSON, "
                """'{"source_name": "…", "extract_tables": "*"}', or the path of a file of it"""
            ) from error
    try:
        event = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{place} is not JSON: {error}") from error
    if not isinstance(event, dict):
        raise ConfigError(f"{place} is a JSON {type(event).__name__}; expected an object")
    return event


def reason(error: str, cause: str) -> str:
    """Return why an execution failed as one line: ``<Class>: <message>``.

    A Lambda's failure arrives as JSON with a stack trace; only its class and message are kept. If
    an execution started nothing, its own cause contains the name and the cause of that failure.
    """
    found = _object(cause)
    if isinstance(found, dict) and isinstance(found.get("Cause"), str):
        cause = found["Cause"]
        found = _object(cause)
    if isinstance(found, dict) and "errorMessage" in found:
        error, cause = str(found.get("errorType") or error), str(found["errorMessage"])
    return ": ".join(x for x in (error, " ".join(cause.split())) if x)


def _object(text: str) -> object:
    """Return the value of a text in JSON; None if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def exit_code(error: str) -> int:
    """Return the exit code for an execution that failed with an error: 78 for configuration."""
    known = getattr(errors, error, None)
    if isinstance(known, type) and issubclass(known, ConfigError):
        return ConfigError.exit_code
    return EXIT_FAILED


def why_failed(error: str, cause: str, runs: Iterable[TrackedRun]) -> str:
    """Return one line on a failed execution: its first failed table's reason, else its own."""
    failed = [run for run in runs if run.status == "FAILED"]
    if not failed:
        return shortened(reason(error, cause))
    first = failed[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    found = reason(first.error_class, first.error_message)
    return f"{first.extract_table}{more}: {shortened(found)}"


def shortened(text: str, most: int = _MOST_LINE) -> str:
    """Return at most ``most`` characters of a text, cut between words if it is longer."""
    if len(text) <= most:
        return text
    kept = text[: most - 2]
    head, _, _ = kept.rpartition(" ")
    return f"{head if len(head) > most // 2 else kept} …"


def rerun_command(arn: str, directory: Path) -> str:
    """Return the command that runs the failed tables of an execution again."""
    return run_command(json.dumps({"rerun_failed_of": arn}), directory)


def run_command(event: str, directory: Path) -> str:
    """Return the command that starts an execution with an event."""
    return f"python -m infra.local run '{event}'{directory_option(directory)}"


def directory_option(directory: Path) -> str:
    """Return `` --dir …`` for a stack that is not in the default folder."""
    if directory.resolve() == DEFAULT_DIRECTORY.resolve():
        return ""
    return f" --dir {shlex.quote(str(directory))}"


def missing_variables(
    configs: Sequence[Path], passed: Iterable[str]
) -> list[tuple[Path, str, str]]:
    """Return the variables that source configs name and jobs will not get.

    Args:
        configs: Source configs; one that is not a YAML mapping names nothing.
        passed: Variables that the jobs get.

    Returns:
        Config, key (``password_env`` or ``url_env``) and variable of each.
    """
    known, found = set(passed), []
    for path in configs:
        connection = _source(path).get("connection")
        for key in _ENVIRONMENT_KEYS:
            name = connection.get(key) if isinstance(connection, dict) else None
            if isinstance(name, str) and name not in known:
                found.append((path, key, name))
    return found


def source_name(path: Path) -> str:
    """Return the name of a config's source; the file's name if it has none."""
    return str(_source(path).get("name") or path.stem)


def _source(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):
        return {}
    found = data.get("source") if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}
