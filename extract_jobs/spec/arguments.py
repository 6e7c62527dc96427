"""A worker's arguments: ``--key value`` pairs, the same for Glue, EMR and ECS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from extract_jobs.errors import ConfigError


@dataclass(frozen=True)
class JobArguments:
    """A worker's arguments; missing ones are empty.

    Attributes:
        spec_uri: Where the spec is, or the spec itself as JSON, for starting a worker by hand.
        run_id: Overrides the spec's.
        attempt: Overrides the spec's: the spec is written once, attempts come later.
        generation: Of the run; with ``attempt`` the fence in the tracking table. Default 1.
        execution_id: ARN of the execution.
        source_name: The source, for logs; the spec's value applies.
        source_type: For logs; the spec's value applies.
        extract_table: For logs; the spec's value applies.
        job_type: For logs; the spec's value applies.
        report_uri: Overrides the spec's: each attempt has a report of its own.
        tracking_table: Overrides the spec's. If neither is given, nothing is tracked.
    """

    spec_uri: str = ""
    run_id: str = ""
    attempt: int | None = None
    generation: int = 1
    execution_id: str = ""
    source_name: str = ""
    source_type: str = ""
    extract_table: str = ""
    job_type: str = ""
    report_uri: str = ""
    tracking_table: str = ""


_NUMBERS = frozenset({"attempt", "generation"})
NAMES = frozenset(field.name for field in fields(JobArguments))


def parse_arguments(argv: Sequence[str]) -> JobArguments:
    """Read a worker's command line.

    ``--key value`` and ``--key=value`` mean the same; if a key is repeated, the last one counts, as
    in Glue. Arguments that are not a key of `JobArguments` are ignored with their values, because
    Glue and EMR add arguments of their own. A known key takes what follows as its value even if
    that begins with dashes.

    Args:
        argv: The arguments, without the program's name.

    Raises:
        ConfigError: A key has no value, a number is invalid, or ``--spec_uri`` is missing.
    """
    given: dict[str, str] = {}
    position = 0
    while position < len(argv):
        key, separator, value = argv[position].partition("=")
        position += 1
        name = key.removeprefix("--")
        if not key.startswith("--") or name not in NAMES:
            continue
        if not separator:
            if position == len(argv):
                raise ConfigError(f"--{name} has no value: give --{name} VALUE or --{name}=VALUE")
            value = argv[position]
            position += 1
        given[name] = value
    if not given.get("spec_uri"):
        expected = "--spec_uri s3://…, a path, or the spec itself as JSON"
        raise ConfigError(f"--spec_uri is missing: give {expected}")
    numbers = {name: _number(name, given.pop(name)) for name in _NUMBERS & given.keys()}
    return JobArguments(**given, **numbers)  # type: ignore[arg-type]


def _number(name: str, value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise ConfigError(f"--{name} is {value!r}: expected a whole number from 1 on")
    return number
