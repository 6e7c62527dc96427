"""Which paths of the state machine there are, and which an execution's history shows taken.

A path is a state and an outcome: ``succeeded``, ``retried after X``, ``caught X``, or ``→ state``
of a Choice.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str, str]


def required(definition: Mapping[str, Any]) -> set[Path]:
    """Return every path of a definition: states, Choice branches, Retry errors, Catches."""
    paths: set[Path] = set()
    for name, state in all_states(definition):
        errors = [error for retry in state.get("Retry", ()) for error in retry["ErrorEquals"]]
        paths |= {(name, f"retried after {error}") for error in errors}
        if state["Type"] == "Choice":
            paths |= {(name, f"→ {choice['Next']}") for choice in state["Choices"]}
            paths.add((name, f"→ {state['Default']}"))
            continue
        paths |= {(name, "caught") for _ in state.get("Catch", ())}
        paths.add((name, "entered" if state["Type"] in {"Succeed", "Fail"} else "succeeded"))
    return paths


def all_states(definition: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and state of every state, those inside a Map included."""
    for name, state in definition["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from all_states(state["ItemProcessor"])


def taken(events: Sequence[Mapping[str, Any]]) -> set[Path]:
    """Return the paths that one history shows."""
    paths: set[Path] = set()
    name, kind, errors, choice = "", "", [], ""
    for event in events:
        what = event["type"]
        if what.endswith("StateEntered"):
            if choice:
                paths.add((choice, f"→ {event['stateEnteredEventDetails']['name']}"))
            name, kind = (
                event["stateEnteredEventDetails"]["name"],
                what.removesuffix("StateEntered"),
            )
            errors, choice = [], ""
            if kind in {"Succeed", "Fail"}:
                paths.add((name, "entered"))
        elif what == "TaskScheduled" and errors:
            paths.add((name, f"retried after {errors[-1]}"))
        elif what == "TaskFailed":
            errors.append(event["taskFailedEventDetails"]["error"])
        elif what == "TaskSucceeded":
            errors = []
        elif what.endswith("StateExited"):
            if kind == "Choice":
                choice = name
            elif kind == "Map":
                output = json.loads(event["stateExitedEventDetails"]["output"])
                caught = output.get("map_error", {}).get("Error")
                paths.add((name, "caught" if caught else "succeeded"))
            elif kind not in {"Succeed", "Fail"}:
                paths.add((name, "caught" if errors else "succeeded"))
    return paths


def table(needed: Iterable[Path], seen: Mapping[Path, int]) -> str:
    """Return states × outcomes with how many executions took each, for people."""
    by_state: dict[str, list[str]] = defaultdict(list)
    for state, outcome in sorted({*needed, *seen}):
        by_state[state].append(f"{seen.get((state, outcome), 0):>6}  {outcome}")
    return "\n".join(
        line for state, outcomes in by_state.items() for line in (state, *outcomes)
    )  # fmt: skip
