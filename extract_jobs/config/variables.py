"""``${NAME}`` and ``${NAME:-default}`` in a config's values: variables of the environment.

A spec holds what a config says, and specs are stored and printed. So variables that hold secrets
are refused here; ``password_env`` and its like name them instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from extract_jobs.config.file import YamlFile
from extract_jobs.config.problems import DataProblem, Path, Problem, depth_reached, dotted

_PLACE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_SECRET = re.compile(
    r"passw|passphrase|(^|_)pass(_|$)|pwd|secret|token|credential|(api|access|private)_?key",
    re.IGNORECASE,
)
_NAMING = frozenset({"password_env", "url_env", "env"})
"""Keys whose value is the name of a variable with a secret."""


class Unfilled(str):
    """A value with a variable that cannot be filled in: what it will be is not known."""

    __slots__ = ()


def may_vanish(found: DataProblem, data: Any, below: Any = None) -> bool:
    """Return whether a problem may be gone once the variables that are not set are set.

    It may be if it is about an `Unfilled` value: at its path or above, or deeper under a key that
    its text names.

    Args:
        found: The problem.
        data: What was validated.
        below: A layer under it, which a mapping in ``data`` may have replaced; what it lacks may
            be missing only because it is `Unfilled`.
    """
    if found.of_key:
        return False
    here, rest = _followed(data, found.path)
    if isinstance(here, Unfilled):
        return True
    if rest:
        return isinstance(_followed(below, found.path)[0], Unfilled)
    names = {re.escape(key) for key, value in _keyed(here) if isinstance(value, Unfilled)}
    return bool(names) and re.search(rf"(?<!\w)(?:{'|'.join(names)})(?!\w)", found.text) is not None


def _followed(data: Any, path: Path) -> tuple[Any, Path]:
    """Return the deepest value on the way to a path, and the part of the path that is not there."""
    depth = depth_reached(data, path)
    for part in path[:depth]:
        data = data[part]
    return data, path[depth:]


def fill_in(file: YamlFile, environment: Mapping[str, str]) -> tuple[Any, list[Problem]]:
    """Return a file's data with its variables filled in, and what is wrong with them.

    Only values are filled in, and each stays text. ``$${`` is a literal ``${``. A value with a
    variable that is wrong stays as it is written, as `Unfilled`, so that everything else can be
    checked: a problem of such a value says nothing.

    Args:
        file: The config; its data is not changed.
        environment: The variables.

    Returns:
        The data and the problems; none of them repeats a variable's value.
    """
    filling = _Filling(file, environment)
    return filling.value(file.data, ()), filling.problems


class _Filling:
    def __init__(self, file: YamlFile, environment: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._file, self._environment = file, environment
        self._secrets = set(_named(file.data))
        self._done: dict[int, Any] = {}

    def value(self, data: Any, path: Path) -> Any:
        """Return a value filled in; what aliases share is filled in once."""
        if isinstance(data, str):
            return self._text(data, path) if "${" in data else data
        if not isinstance(data, dict | list):
            return data
        if id(data) not in self._done:
            self._done[id(data)] = (
                {key: self.value(inner, (*path, key)) for key, inner in data.items()}
                if isinstance(data, dict)
                else [self.value(inner, (*path, i)) for i, inner in enumerate(data)]
            )
        return self._done[id(data)]

    def _text(self, text: str, path: Path) -> str:
        before = len(self.problems)

        def found(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            variable = _VARIABLE.fullmatch(match[1])
            if variable is None or not match[0].endswith("}"):
                self._problem(path, "expected ${NAME} or ${NAME:-default}; $${ is a literal ${")
                return match[0]
            name, default = variable.groups()
            if name in self._secrets or _SECRET.search(name):
                self._problem(
                    path, f"${{{name}}} looks like a secret, and what a config says is stored in "
                    "specs: name the variable in connection.password_env or url_env, or use "
                    "secret_id",
                )  # fmt: skip
                return match[0]
            value: str | None = self._environment.get(name, default)
            if value is None:
                self._problem(
                    path, f"the variable {name} is not set; set it, or write a default: "
                    f"${{{name}:-…}}",
                )  # fmt: skip
                return match[0]
            return value

        filled = _PLACE.sub(found, text)
        return filled if len(self.problems) == before else Unfilled(text)

    def _problem(self, path: Path, text: str) -> None:
        self.problems.append(Problem(dotted(path), text, self._file.line(path)))


def _named(data: Any) -> list[str]:
    """Return the variables that a config names as those of its secrets."""
    return [
        value
        for part in _within(data)
        if isinstance(part, Mapping)
        for key, value in part.items()
        if key in _NAMING and isinstance(value, str)
    ]


def _within(data: Any) -> Iterator[Any]:
    """Yield data and everything in it; what aliases share at least once."""
    yield from (value for _, value in _keyed(data))


def _keyed(data: Any) -> Iterator[tuple[str, Any]]:
    """Yield data and everything in it, each with its key, which items of a list share.

    What aliases share is yielded once for each key.
    """
    rest: list[tuple[str, Any]] = [("", data)]
    seen = set[tuple[str, int]]()
    while rest:
        key, part = rest.pop()
        if (key, id(part)) in seen:
            continue
        seen.add((key, id(part)))
        yield key, part
        if isinstance(part, Mapping):
            rest += ((str(name), value) for name, value in part.items())
        elif isinstance(part, list):
            rest += ((key, value) for value in part)
